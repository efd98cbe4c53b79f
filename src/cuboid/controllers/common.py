"""What controllers of pods have in common: pods from templates, hashes, readiness over time, writing a status."""

from __future__ import annotations

import copy
import hashlib
from collections.abc import Iterable, Mapping
from typing import Any

import msgspec

from cuboid.kube import objects
from cuboid.kube.client import Resource
from cuboid.kube.controller.instructions import Patch
from cuboid.lib.clock import parse_rfc3339, rfc3339

Object = dict[str, Any]
Raw = Mapping[str, Any]
MANY = 500
"""Most pods that one plan creates or deletes."""
_LETTERS = "bcdfghjklmnpqrstvwxz2456789"  # Kubernetes' own: no vowels, so no words


def template_hash(*parts: Any, collisions: int = 0) -> str:
    """Ten letters for a template. `collisions` makes another one of the same template."""
    text = msgspec.json.encode([*parts, collisions], order="sorted")
    number = int.from_bytes(hashlib.sha256(text).digest()[:8], "big")
    letters = ""
    for _ in range(10):
        number, index = divmod(number, len(_LETTERS))
        letters += _LETTERS[index]
    return letters


def pod_from(template: Raw, owner: Raw) -> Object:
    """A pod of a template, controlled by `owner`, with a name yet to be generated."""
    given = template.get("metadata") or {}
    metadata: Object = {"ownerReferences": [objects.owner_reference(owner)], "generateName": f"{objects.name(owner)}-"}
    for key in ("labels", "annotations", "finalizers"):
        if given.get(key):
            metadata[key] = copy.deepcopy(given[key])
    return {"apiVersion": "v1", "kind": "Pod", "metadata": metadata, "spec": copy.deepcopy(template.get("spec") or {})}


def ready_since(pod: Raw) -> float | None:
    """Seconds since the epoch; None for a pod that is not ready."""
    found = objects.condition(pod, "Ready")
    if found is None or found.get("status") != "True":
        return None
    return moment(found.get("lastTransitionTime")) or 0.0


def unavailable_for(pod: Raw, min_ready: int, now: float) -> float | None:
    """Seconds until a ready pod counts as available, 0 or less for one that does; None for one that is not ready."""
    if not min_ready:
        return 0.0 if objects.ready(pod) else None
    since = ready_since(pod)
    return None if since is None else since + min_ready - now


def available(pod: Raw, min_ready: int, now: float) -> bool:
    left = unavailable_for(pod, min_ready, now)
    return left is not None and left <= 0


def soonest(pods: Iterable[Raw], min_ready: int, now: float) -> float | None:
    """Seconds until the next of the ready pods becomes available; None when none is on its way."""
    if not min_ready:
        return None
    left = [seconds for pod in pods if (seconds := unavailable_for(pod, min_ready, now)) is not None and seconds > 0]
    return min(left, default=None)


def moment(text: str | None) -> float | None:
    """Seconds since the epoch of a time in an object."""
    try:
        return parse_rfc3339(text) if text else None
    except ValueError:
        return None


def born(document: Raw) -> float:
    return moment(document["metadata"].get("creationTimestamp")) or 0.0


def generation(document: Raw) -> int:
    return int(document["metadata"].get("generation", 0))


def spread(status: Raw) -> Object:
    """A status without its zeros, as Kubernetes leaves them out."""
    return {key: value for key, value in status.items() if value not in (0, None, "", [])}


def status_patch(resource: Resource, document: Raw, status: Raw) -> tuple[Patch, ...]:
    """What makes `status` of an object so, all of it; nothing when it is so already."""
    old: Raw = document.get("status") or {}
    changed = {key: value for key, value in status.items() if key not in old or old[key] != value}
    changed |= {key: None for key in old if key not in status}
    if not changed:
        return ()
    body = {"metadata": {"uid": objects.uid(document)}, "status": changed}
    return (Patch(resource, objects.name(document), body, objects.namespace(document), sub="status"),)


def condition(type_: str, status: str, reason: str, message: str, now: float) -> Object:
    return {
        "type": type_,
        "status": status,
        "lastTransitionTime": rfc3339(now),
        "reason": reason,
        "message": message,
    }


def with_condition(conditions: Iterable[Raw], new: Raw) -> list[Object]:
    """The conditions with `new` in the place of its type; the last transition is kept while the status is the same."""
    made, found = [], False
    for item in conditions:
        if item.get("type") != new["type"]:
            made.append(dict(item))
            continue
        found = True
        same = item.get("status") == new["status"]
        kept = {"lastTransitionTime": item["lastTransitionTime"]} if same and item.get("lastTransitionTime") else {}
        made.append({**new, **kept})
    return made if found else [*made, dict(new)]


def without_condition(conditions: Iterable[Raw], type_: str) -> list[Object]:
    return [dict(item) for item in conditions if item.get("type") != type_]


def amount(value: Any, total: int, *, up: bool) -> int:
    """An IntOrString of `total`: a percentage is rounded up or down, as asked."""
    if isinstance(value, str) and value.endswith("%"):
        product = int(value[:-1]) * total
        return -(-product // 100) if up else product // 100
    return int(value)
