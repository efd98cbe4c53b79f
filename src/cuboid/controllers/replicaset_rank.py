"""Which pods of a ReplicaSet go first when there are too many.

Source of the order: kubernetes/pkg/controller/controller_utils.go, ActivePodsWithRanks.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Iterable, Mapping
from typing import Any

from cuboid.controllers.common import born, ready_since
from cuboid.kube import objects

Raw = Mapping[str, Any]
COST = "controller.kubernetes.io/pod-deletion-cost"
_PHASES = {"Pending": 0, "": 0, "Unknown": 1, "Running": 2}


def first_to_go(pods: Iterable[Raw], related: Iterable[Raw], now: float) -> list[Raw]:
    """The pods in the order in which they are deleted. `related` are the active pods of all ReplicaSets of the same
    owner: of two alike, the one on the fuller node goes.

    Unassigned before assigned, pending before running, unready before ready, cheap before dear, doubled up on a node
    before alone, ready for a shorter time (in powers of two) first, more restarts first, younger first.
    """
    crowd = Counter(node for pod in related if (node := _node(pod)))
    return sorted(pods, key=lambda pod: _key(pod, crowd, now))


def _key(pod: Raw, crowd: Mapping[str, int], now: float) -> tuple[bool | int | str, ...]:
    since = ready_since(pod)
    return (
        bool(_node(pod)),
        _PHASES.get(objects.phase(pod), 2),
        since is not None,
        cost(pod),
        -crowd.get(_node(pod), 0),
        0 if since is None else _magnitude(now - since),
        -_restarts(pod),
        _magnitude(now - born(pod)),
        objects.uid(pod),
    )


def _node(pod: Raw) -> str:
    return str(pod["spec"].get("nodeName", ""))


def cost(pod: Raw) -> int:
    """Of deleting it; what is no 32-bit number counts as 0."""
    try:
        value = int(objects.notes(pod).get(COST, "0"))
    except ValueError:
        return 0
    return value if -(2**31) <= value < 2**31 else 0


def _magnitude(seconds: float) -> int:
    return int(math.log2(seconds)) if seconds >= 1 else -1


def _restarts(pod: Raw) -> int:
    """The most restarts of one of its containers."""
    rows = pod.get("status", {}).get("containerStatuses") or ()
    return max((int(row.get("restartCount", 0)) for row in rows), default=0)
