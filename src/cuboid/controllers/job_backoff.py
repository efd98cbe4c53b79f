"""How long a Job waits before it replaces a pod that failed: 10 s, doubled with each failure in a row, up to 10 min.

Computed from the pods themselves, so nothing is forgotten with the controller's process.
Source: kubernetes/pkg/controller/job/backoff_utils.go.
"""

from __future__ import annotations

from collections.abc import Iterable

from cuboid.controllers.common import born, moment
from cuboid.kube import objects
from cuboid.kube.objects import Raw

FIRST = 10.0
LONGEST = 600.0
"""Seconds."""


def wait_after(failures: int, last: float, now: float) -> float:
    """Seconds left after `failures` in a row, the last of them at `last`."""
    if failures <= 0:
        return 0.0
    pause: float = min(FIRST * 2 ** min(failures - 1, 20), LONGEST)
    return max(0.0, last + pause - now)


def wait_of_job(succeeded: Iterable[Raw], failed: Iterable[Raw], now: float) -> float:
    """Seconds to wait because of the failures since the last success."""
    success = max((finished_at(pod) for pod in succeeded), default=float("-inf"))
    since = [moment for moment in map(finished_at, failed) if moment > success]
    return wait_after(len(since), max(since, default=0.0), now)


def finished_at(pod: Raw) -> float:
    """When its last container ended; else when it was no longer ready, was to be deleted, or was made. A time that is
    none, as somebody may have written it into the status, is passed over."""
    statuses = pod.get("status", {}).get("containerStatuses", [])
    ends = [moment((item.get("state", {}).get("terminated") or {}).get("finishedAt")) for item in statuses]
    known = [end for end in ends if end is not None]
    if known and len(known) == len(ends):
        return max(known)
    condition = objects.condition(pod, "Ready")
    if condition is not None and condition.get("status") == "False":
        unready = moment(condition.get("lastTransitionTime"))
        if unready is not None:
            return unready
    metadata = pod["metadata"]
    leaves = moment(metadata.get("deletionTimestamp"))
    return born(pod) if leaves is None else leaves - float(metadata.get("deletionGracePeriodSeconds", 0))
