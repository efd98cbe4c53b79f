"""What a pod asks of its node, and what a node has: plain integers by resource name.

CPU counts in thousandths of a core, everything else in its own unit (bytes, devices). Source of the rules:
kubernetes/component-helpers/resource, "PodRequests".
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from cuboid.kube import quantity

Raw = Mapping[str, Any]
Amounts = dict[str, int]


def amount(name: str, text: str | int) -> int:
    return quantity.to_millis(text) if name == "cpu" else quantity.to_int(text)


def amounts(given: Mapping[str, Any]) -> Amounts:
    return {name: amount(name, text) for name, text in given.items()}


def add(total: Amounts, more: Mapping[str, int]) -> None:
    for name, count in more.items():
        total[name] = total.get(name, 0) + count


def subtract(total: Amounts, less: Mapping[str, int]) -> None:
    for name, count in less.items():
        total[name] = total.get(name, 0) - count


def requested(pod: Raw) -> Amounts:
    """Init containers count by their greatest, sidecars always; requests of the whole pod replace those of its parts;
    the overhead of its machine comes on top."""
    spec = pod["spec"]
    total = _containers(spec)
    add_whole = spec.get("resources", {}).get("requests", {})
    total.update(amounts(add_whole))
    add(total, amounts(spec.get("overhead", {})))
    return {name: count for name, count in total.items() if count}


def _containers(spec: Raw) -> Amounts:
    total: Amounts = {}
    for container in spec.get("containers", []):
        add(total, _of(container))
    sidecars: Amounts = {}
    peak: Amounts = {}
    for container in spec.get("initContainers", []):
        wanted = _of(container)
        if container.get("restartPolicy") == "Always":
            add(sidecars, wanted)
            wanted = {}
        now = dict(sidecars)
        add(now, wanted)
        _raise(peak, now)
    add(total, sidecars)
    _raise(total, peak)
    return total


def _of(container: Raw) -> Amounts:
    return amounts(container.get("resources", {}).get("requests", {}))


def _raise(total: Amounts, floor: Mapping[str, int]) -> None:
    for name, count in floor.items():
        total[name] = max(total.get(name, 0), count)
