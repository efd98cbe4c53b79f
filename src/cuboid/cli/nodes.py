"""What a node has, what is asked of it, and which of its pods can go elsewhere. Pure."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

Object = dict[str, Any]
_UNITS = {
    "m": 1e-3, "k": 1e3, "M": 1e6, "G": 1e9, "T": 1e12, "P": 1e15, "E": 1e18, "Ki": 2.0**10, "Mi": 2.0**20,
    "Gi": 2.0**30, "Ti": 2.0**40, "Pi": 2.0**50, "Ei": 2.0**60, "n": 1e-9, "u": 1e-6,
}  # fmt: skip
_MIRROR = "kubernetes.io/config.mirror"


def amount(quantity: str) -> float:
    """A quantity as a number, near enough to be shown; 0 for what is none."""
    for length in (2, 1):
        if len(quantity) > length and quantity[-length:] in _UNITS:
            return _number(quantity[:-length]) * _UNITS[quantity[-length:]]
    return _number(quantity)


def _number(text: str) -> float:
    try:
        return float(text)
    except ValueError:
        return 0.0


def requests(pods: Sequence[Object]) -> dict[str, float]:
    """CPUs and bytes that pods ask for together, with what their machines take beside."""
    total = {"cpu": 0.0, "memory": 0.0}
    for pod in pods:
        rows = [row.get("resources", {}).get("requests", {}) for row in pod["spec"]["containers"]]
        for row in [*rows, pod["spec"].get("overhead", {})]:
            for name in total:
                total[name] += amount(str(row.get(name, "0")))
    return total


def has_ended(pod: Object) -> bool:
    return pod.get("status", {}).get("phase") in ("Succeeded", "Failed")


def word(node: Object) -> str:
    conditions = node.get("status", {}).get("conditions", [])
    is_ready = any(row["type"] == "Ready" and row["status"] == "True" for row in conditions)
    parts = ["Ready" if is_ready else "NotReady"]
    parts += [row["type"] for row in conditions if row["type"] != "Ready" and row["status"] == "True"]
    return ",".join([*parts, *(["cordoned"] if node["spec"].get("unschedulable") else [])])


def _owner(pod: Object) -> Object:
    rows = pod["metadata"].get("ownerReferences", [])
    return next((row for row in rows if row.get("controller")), {})


def sort_out(pods: Sequence[Object]) -> tuple[list[Object], list[Object], list[Object]]:
    """(those that are made again elsewhere or have ended, those that belong to the node, those that would be lost)."""
    movable, staying, lost = [], [], []
    for pod in pods:
        if _MIRROR in pod["metadata"].get("annotations", {}) or _owner(pod).get("kind") == "DaemonSet":
            staying.append(pod)
        elif _owner(pod) or has_ended(pod) or pod["metadata"].get("deletionTimestamp"):
            movable.append(pod)
        else:
            lost.append(pod)
    return movable, staying, lost


def covers(budget: Object, pod: Object) -> bool:
    """Whether a disruption budget is about the pod."""
    selector = budget["spec"].get("selector") or {}
    labels = pod["metadata"].get("labels", {})
    if any(labels.get(key) != value for key, value in selector.get("matchLabels", {}).items()):
        return False
    return all(_matches(row, labels) for row in selector.get("matchExpressions", []))


def _matches(row: Object, labels: dict[str, str]) -> bool:
    value, values = labels.get(row["key"]), row.get("values", [])
    answers = {
        "In": value in values, "NotIn": value not in values, "Exists": value is not None, "DoesNotExist": value is None
    }  # fmt: skip
    return answers[row["operator"]]
