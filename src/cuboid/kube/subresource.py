"""Sub-resources that change objects, without HTTP: which verb on which of them is done by whom."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import Any

from cuboid.kube import binding, bodies, eviction, namespaces, scale, status
from cuboid.kube.kind import Kind
from cuboid.kube.registry import Registry, WriteOptions
from cuboid.kube.subwrites import WHOLE

Object = dict[str, Any]
Handler = Callable[[Registry, Kind, str, str, Any, WriteOptions], Awaitable[None]]
_SUCCESS = {"kind": "Status", "apiVersion": "v1", "metadata": {}, "status": "Success", "code": 201}


def _check(kind: Kind, sub: str, verb: str) -> None:
    if all(known.name != sub or verb not in known.verbs for known in kind.subresources):
        raise status.method_not_allowed()


async def create(
    registry: Registry, kind: Kind, namespace: str, name: str, sub: str, body: Any, options: WriteOptions
) -> Object:
    """POST on a sub-resource. UnsupportedError where there is none of this name that is created."""
    _check(kind, sub, "create")
    handler = _CREATED.get(sub)
    if handler is None:
        raise status.method_not_allowed()
    await handler(registry, kind, namespace, name, body, options)
    return dict(_SUCCESS)


async def get(registry: Registry, kind: Kind, namespace: str, name: str, sub: str) -> Object:
    """GET of a sub-resource: the object itself where it has no form of its own."""
    _check(kind, sub, "get")
    if sub == scale.SUB:
        return scale.get(registry, kind, namespace, name)
    return kind.from_storage(registry.entry(kind, namespace, name).object())


async def patch(
    registry: Registry, kind: Kind, namespace: str, name: str, sub: str, body: Any, form: str, options: WriteOptions
) -> Object:
    """PATCH of a sub-resource; `form` is the media type."""
    _check(kind, sub, "patch")
    if sub == scale.SUB:
        return await scale.patch(registry, kind, namespace, name, body, form, options)
    if sub not in WHOLE:
        raise status.method_not_allowed()
    return (await registry.patch(kind, namespace, name, body, form, options, sub)).object


async def update(
    registry: Registry, kind: Kind, namespace: str, name: str, sub: str, body: Any, options: WriteOptions
) -> Object:
    """PUT on a sub-resource."""
    _check(kind, sub, "update")
    if sub == scale.SUB:
        return await scale.update(registry, kind, namespace, name, body, options)
    if sub == "finalize":
        asked, _ = bodies.decode(kind, body, options)
        bodies.name(asked, name)
        return await namespaces.set_finalizers(registry, name, asked.get("spec", {}).get("finalizers", []))
    if sub not in WHOLE:
        raise status.method_not_allowed()
    return (await registry.update(kind, namespace, name, body, options, sub)).object


_CREATED: dict[str, Handler] = {"binding": binding.bind, "eviction": eviction.evict}
