"""LimitRanger: default requests and limits of a namespace, and the bounds that its objects keep to.

Source: kubernetes/plugin/pkg/admission/limitranger.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from typing import Any

from cuboid.kube import kinds, quantity
from cuboid.kube.admission import Request
from cuboid.kube.admit.plug import CREATE, PODS, UPDATE, Plug, refusal
from cuboid.kube.cache import Entry, Filter
from cuboid.kube.kind import Kind
from cuboid.kube.quota_usage import pod_amounts, text
from cuboid.kube.registry import Registry

Object = dict[str, Any]
Raw = Mapping[str, Any]
CLAIMS = ("", "persistentvolumeclaims")
NOTE = "kubernetes.io/limit-ranger"
_RANGE = kinds.builtin("LimitRange")
_POD_KEYS = ("requests", "limits")


class LimitRanger(Plug):
    """Pods when they are made and when they are resized, claims when they are made."""

    about = (PODS, CLAIMS)

    def __init__(self, registry: Registry) -> None:
        self._registry = registry
        self._items: dict[str, tuple[tuple[int, ...], list[Raw]]] = {}  # by namespace: versions, and what they say

    def handles(self, kind: Kind, operation: str, sub: str) -> bool:
        if kind.stored_as == PODS and operation == UPDATE:
            return sub == "resize"
        return super().handles(kind, operation, sub)

    def admit(self, request: Request) -> None:
        ranges = self._registry.of(_RANGE).select(Filter(request.namespace))
        new = request.new
        if not ranges or new is None:
            return
        items = self._read(request.namespace, ranges)
        if request.kind.stored_as == CLAIMS:
            problems = [why for item in items if item["type"] == "PersistentVolumeClaim" for why in _claim(item, new)]
        else:
            if request.operation == CREATE:
                _default(new, [item for item in items if item["type"] == "Container"])
            problems = [why for item in items for why in _pod(item, new["spec"])]
        if problems:
            raise refusal(request, problems[0] if len(problems) == 1 else f"[{', '.join(problems)}]")

    def _read(self, namespace: str, ranges: list[Entry]) -> list[Raw]:
        versions = tuple(entry.rv for entry in ranges)
        known = self._items.get(namespace)
        if known is None or known[0] != versions:
            items = [item for entry in ranges for item in entry.object().get("spec", {}).get("limits", [])]
            known = self._items[namespace] = (versions, items)
        return known[1]


# --- defaults --------------------------------------------------------------------------------------------------------


def _default(pod: Object, items: list[Raw]) -> None:
    """Where a container says nothing; what was added is told in an annotation."""
    told: list[str] = []
    for key, title in (("initContainers", "init container"), ("containers", "container")):
        for container in pod["spec"].get(key, []):
            for item in items:
                told += _default_container(container, item, title)
    if told:
        notes = pod["metadata"].setdefault("annotations", {})
        notes[NOTE] = "LimitRanger plugin set: " + "; ".join(told)


def _default_container(container: Object, item: Raw, title: str) -> Iterator[str]:
    resources = container.setdefault("resources", {})
    for field, source, word in (("limits", "default", "limit"), ("requests", "defaultRequest", "request")):
        given = item.get(source) or {}
        added = sorted(name for name in given if name not in resources.get(field, {}))
        if added:
            resources[field] = {**resources.get(field, {}), **{name: given[name] for name in added}}
            yield f"{', '.join(added)} {word} for {title} {container['name']}"


# --- bounds ----------------------------------------------------------------------------------------------------------


def _pod(item: Raw, spec: Raw) -> Iterator[str]:
    if item["type"] == "Container":
        for container in [*spec.get("containers", []), *spec.get("initContainers", [])]:
            resources = container.get("resources", {})
            yield from _bounds(item, resources.get("requests", {}), resources.get("limits", {}))
    elif item["type"] == "Pod":
        bare = {key: value for key, value in spec.items() if key != "overhead"}
        requests, limits = (
            {name: text(name, value) for name, value in pod_amounts(bare, which).items()} for which in _POD_KEYS
        )
        yield from _bounds(item, requests, limits)


def _claim(item: Raw, claim: Raw) -> Iterator[str]:
    asked = claim.get("spec", {}).get("resources", {}).get("requests", {})
    for name, bound in sorted((item.get("min") or {}).items()):
        yield from _least(item["type"], name, bound, asked, {})
    for name, bound in sorted((item.get("max") or {}).items()):
        yield from _most_requested(item["type"], name, bound, asked)


def _bounds(item: Raw, requests: Raw, limits: Raw) -> Iterator[str]:
    for field, check in _CHECKS:
        for name, bound in sorted((item.get(field) or {}).items()):
            yield from check(item["type"], name, bound, requests, limits)


def _size(value: Any) -> int:
    return quantity.to_millis(value)


def _least(kind: str, name: str, bound: Any, requests: Raw, limits: Raw) -> Iterator[str]:
    what = f"minimum {name} usage per {kind} is {bound}"
    if name not in requests:
        yield f"{what}.  No request is specified"
    elif _size(requests[name]) < _size(bound):
        yield f"{what}, but request is {requests[name]}"
    elif name in limits and _size(limits[name]) < _size(bound):
        yield f"{what}, but limit is {limits[name]}"


def _most(kind: str, name: str, bound: Any, requests: Raw, limits: Raw) -> Iterator[str]:
    what = f"maximum {name} usage per {kind} is {bound}"
    if name not in limits:
        yield f"{what}.  No limit is specified"
    elif _size(limits[name]) > _size(bound):
        yield f"{what}, but limit is {limits[name]}"
    elif name in requests and _size(requests[name]) > _size(bound):
        yield f"{what}, but request is {requests[name]}"


def _most_requested(kind: str, name: str, bound: Any, requests: Raw) -> Iterator[str]:
    what = f"maximum {name} usage per {kind} is {bound}"
    if name not in requests:
        yield f"{what}.  No request is specified"
    elif _size(requests[name]) > _size(bound):
        yield f"{what}, but request is {requests[name]}"


def _ratio(kind: str, name: str, bound: Any, requests: Raw, limits: Raw) -> Iterator[str]:
    what = f"{name} max limit to request ratio per {kind} is {bound}"
    request, limit = _size(requests.get(name, 0)), _size(limits.get(name, 0))
    if not request:
        yield f"{what}, but no request is specified or request is 0"
    elif not limit:
        yield f"{what}, but no limit is specified or limit is 0"
    elif limit * 1000 > _size(bound) * request:
        yield f"{what}, but provided ratio is {limit / request:f}"


Check = Callable[[str, str, Any, Raw, Raw], Iterator[str]]
_CHECKS: tuple[tuple[str, Check], ...] = (("min", _least), ("max", _most), ("maxLimitRequestRatio", _ratio))
