"""The pods of one node, out of many: by looking at all of them, or only at those whose bytes name the node."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from cuboid.kube import kinds
from cuboid.kube.client import PODS
from cuboid.kube.controller.view import View
from cuboid.kube.registry import Registry

Object = dict[str, Any]
PodsOn = Callable[[View, str], list[Object]]


def by_looking(view: View, node: str) -> list[Object]:
    return [pod for pod in view.select(PODS) if pod["spec"].get("nodeName") == node]


def in_cache(registry: Registry) -> PodsOn:
    """Of the server's own cache: decoding 50,000 pods would hold up everybody else for seconds."""
    cache = registry.of(kinds.builtin("Pod"))

    def found(_: View, node: str) -> list[Object]:
        wanted = f'"nodeName":"{node}"'.encode()
        pods = [entry.object() for entry in cache if wanted in entry.value]
        return [pod for pod in pods if pod["spec"].get("nodeName") == node]

    return found
