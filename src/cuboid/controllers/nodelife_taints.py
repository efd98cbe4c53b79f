"""The taints that a node's condition asks for. Pure.

Source: kubernetes/pkg/controller/nodelifecycle, taintKeyToNodeConditionMap and nodeConditionToTaintKeyStatusMap.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from cuboid.kube import objects
from cuboid.lib.clock import rfc3339

Object = dict[str, Any]
Raw = Mapping[str, Any]

NOT_READY = "node.kubernetes.io/not-ready"
UNREACHABLE = "node.kubernetes.io/unreachable"
OUT_OF_SERVICE = "node.kubernetes.io/out-of-service"
UNSCHEDULABLE = "node.kubernetes.io/unschedulable"
LOST = (NOT_READY, UNREACHABLE)
_PRESSURES = {
    "MemoryPressure": "node.kubernetes.io/memory-pressure",
    "DiskPressure": "node.kubernetes.io/disk-pressure",
    "PIDPressure": "node.kubernetes.io/pid-pressure",
    "NetworkUnavailable": "node.kubernetes.io/network-unavailable",
}
OURS = {*LOST, UNSCHEDULABLE, *_PRESSURES.values()}


def readiness(node: Raw) -> str:
    """True, False, Unknown, or "" for a node that never said."""
    found = objects.condition(node, "Ready")
    return str(found.get("status", "")) if found else ""


def lost_key(node: Raw) -> str:
    """The taint of a node that is not ready, "" for one that is."""
    return {"True": "", "False": NOT_READY}.get(readiness(node), UNREACHABLE)


def no_schedule(node: Raw) -> list[str]:
    """Keys of the taints that keep new pods away."""
    keys = [lost_key(node)] if lost_key(node) else []
    keys += [key for condition, key in _PRESSURES.items() if objects.is_true(node, condition)]
    return [*keys, UNSCHEDULABLE] if node.get("spec", {}).get("unschedulable") else keys


def taints(node: Raw, evicting: str, now: float) -> list[Object]:
    """All taints of the node as they should be: those of others as they are, ours by its condition.

    `evicting` is the key that also drives pods away, "" for none.
    """
    before = list(node.get("spec", {}).get("taints") or [])
    wanted = {(key, "NoSchedule") for key in no_schedule(node)} | ({(evicting, "NoExecute")} if evicting else set())
    known = {(taint["key"], taint["effect"]): taint for taint in before if _is_ours(taint)}
    ours = [
        known.get(place) or {"key": place[0], "effect": place[1], "timeAdded": rfc3339(now)} for place in sorted(wanted)
    ]
    return [taint for taint in before if not _is_ours(taint)] + ours


def _is_ours(taint: Raw) -> bool:
    if taint["effect"] == "NoExecute":
        return taint["key"] in LOST
    return taint["effect"] == "NoSchedule" and taint["key"] in OURS


def has(node: Raw, key: str, effect: str = "") -> bool:
    given = node.get("spec", {}).get("taints") or []
    return any(taint["key"] == key and effect in ("", taint["effect"]) for taint in given)
