"""Quality of service of a pod. Source: kubernetes ComputePodQOS."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from cuboid.kube import quantity

_COUNTED = ("cpu", "memory")


def qos_class(spec: Mapping[str, Any]) -> str:
    """Guaranteed, Burstable or BestEffort, from requests and limits of CPU and memory of all containers."""
    containers = [*spec.get("containers", []), *spec.get("initContainers", [])]
    if isinstance(spec.get("resources"), dict) and spec["resources"]:
        containers = [spec]
    sets = [(_amounts(c, "requests"), _amounts(c, "limits")) for c in containers]
    if not any(requests or limits for requests, limits in sets):
        return "BestEffort"
    guaranteed = all(limits.keys() == set(_COUNTED) and {**limits, **requests} == limits for requests, limits in sets)
    return "Guaranteed" if guaranteed else "Burstable"


def _amounts(container: Mapping[str, Any], key: str) -> dict[str, Any]:
    given = container.get("resources", {}).get(key, {})
    amounts = {name: quantity.parse(given[name]) for name in _COUNTED if name in given}
    return {name: amount for name, amount in amounts.items() if amount}
