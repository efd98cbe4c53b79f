"""Sub-resources that change objects, without HTTP: binding, eviction and what else is no plain write of the object."""

from __future__ import annotations

import time
from collections.abc import Awaitable, Callable
from typing import Any

from cuboid.kube import namespaces, schema, status
from cuboid.kube.kind import Kind
from cuboid.kube.registry import DeleteOptions, Registry, WriteOptions
from cuboid.lib.clock import rfc3339

Object = dict[str, Any]
Handler = Callable[[Registry, Kind, str, str, Any, WriteOptions], Awaitable[Object]]
_SUCCESS = {"kind": "Status", "apiVersion": "v1", "metadata": {}, "status": "Success", "code": 201}


async def create(
    registry: Registry, kind: Kind, namespace: str, name: str, sub: str, body: Any, options: WriteOptions
) -> Object:
    """POST on a sub-resource. UnsupportedError where there is none of this name that is created."""
    handler = _CREATED.get(sub)
    if handler is None:
        raise status.method_not_allowed()
    return await handler(registry, kind, namespace, name, body, options)


async def get(registry: Registry, kind: Kind, namespace: str, name: str, sub: str) -> Object:
    """GET of a sub-resource: the object itself where it has no form of its own."""
    if all(known.name != sub or "get" not in known.verbs for known in kind.subresources):
        raise status.method_not_allowed()
    return kind.from_storage(registry.entry(kind, namespace, name).object())


async def patch(
    registry: Registry, kind: Kind, namespace: str, name: str, sub: str, body: Any, form: str, options: WriteOptions
) -> Object:
    """PATCH of a sub-resource; `form` is the media type."""
    raise status.method_not_allowed()


async def update(
    registry: Registry, kind: Kind, namespace: str, name: str, sub: str, body: Any, options: WriteOptions
) -> Object:
    """PUT on a sub-resource."""
    handler = _UPDATED.get(sub)
    if handler is None:
        raise status.method_not_allowed()
    return await handler(registry, kind, namespace, name, body, options)


async def _bind(registry: Registry, kind: Kind, namespace: str, name: str, body: Any, options: WriteOptions) -> Object:
    """Put a pod on a node; ConflictError when it is on one already."""
    binding = schema.decode(schema.node("io.k8s.api.core.v1.Binding"), body, [])
    node = binding.get("target", {}).get("name", "")
    if not node:
        raise status.bad_request("Binding target.name: Required value")
    entry = registry.entry(kind, namespace, name)
    pod = entry.object()
    uid = binding.get("metadata", {}).get("uid", "")
    if uid and uid != pod["metadata"]["uid"]:
        raise status.conflict("pods/binding", "", name, f"Precondition failed: UID in precondition: {uid}")
    if pod["metadata"].get("deletionTimestamp"):
        raise status.conflict("pods/binding", "", name, f"pod {name} is being deleted, cannot be assigned to a host")
    if pod["spec"].get("nodeName"):
        why = f'pod {name} is already assigned to node "{pod["spec"]["nodeName"]}"'
        raise status.conflict("pods/binding", "", name, why)
    annotations = binding.get("metadata", {}).get("annotations", {})
    await registry.bind(kind, entry, node, rfc3339(time.time()), options.dry_run, annotations)
    return dict(_SUCCESS)


async def _evict(registry: Registry, kind: Kind, namespace: str, name: str, body: Any, options: WriteOptions) -> Object:
    eviction = schema.decode(schema.node("io.k8s.api.policy.v1.Eviction"), body, [])
    asked: Object = eviction.get("deleteOptions", {})
    wanted = DeleteOptions(
        grace=asked.get("gracePeriodSeconds"),
        uid=asked.get("preconditions", {}).get("uid", ""),
        dry_run=bool(asked.get("dryRun")) or options.dry_run,
        user=options.user,
    )
    await registry.delete(kind, namespace, name, wanted)
    return dict(_SUCCESS)


async def _finalize(
    registry: Registry, kind: Kind, namespace: str, name: str, body: Any, options: WriteOptions
) -> Object:
    """Replace `spec.finalizers` of a namespace."""
    finalizers = body.get("spec", {}).get("finalizers", []) if isinstance(body, dict) else []
    return await namespaces.set_finalizers(registry, name, finalizers)


_CREATED: dict[str, Handler] = {"binding": _bind, "eviction": _evict}
_UPDATED: dict[str, Handler] = {"finalize": _finalize}
