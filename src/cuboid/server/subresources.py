"""Sub-resources other than status: binding, eviction, finalize; log, exec, attach and portforward go to the node."""

from __future__ import annotations

import time
from collections.abc import Awaitable, Callable
from typing import Any

from starlette.requests import Request
from starlette.responses import Response

from cuboid.kube import namespaces, schema, status
from cuboid.kube.cache import encode
from cuboid.kube.registry import DeleteOptions
from cuboid.lib.clock import rfc3339
from cuboid.server import proxy
from cuboid.server.context import Context, dry_run, read_object
from cuboid.server.paths import Target
from cuboid.server.render import answer, document_answer


async def handle(request: Request, context: Context, target: Target) -> Response:
    handler = _HANDLERS.get((request.method, target.sub))
    if handler is None or target.rest:
        raise status.method_not_allowed()
    return await handler(request, context, target)


async def _bind(request: Request, context: Context, target: Target) -> Response:
    """Put a pod on a node; ConflictError when it is on one already."""
    body = await read_object(request, context.settings)
    binding = schema.decode(schema.node("io.k8s.api.core.v1.Binding"), body, [])
    node = binding.get("target", {}).get("name", "")
    if not node:
        raise status.bad_request("Binding target.name: Required value")
    entry = context.registry.entry(target.kind, target.namespace, target.name)
    pod = entry.object()
    uid = binding.get("metadata", {}).get("uid", "")
    if uid and uid != pod["metadata"]["uid"]:
        raise status.conflict("pods/binding", "", target.name, f"Precondition failed: UID in precondition: {uid}")
    if pod["metadata"].get("deletionTimestamp"):
        raise status.conflict(
            "pods/binding", "", target.name, f"pod {target.name} is being deleted, cannot be assigned to a host"
        )
    if pod["spec"].get("nodeName"):
        why = f'pod {target.name} is already assigned to node "{pod["spec"]["nodeName"]}"'
        raise status.conflict("pods/binding", "", target.name, why)
    dry = dry_run(request.query_params.get("dryRun", ""))
    annotations = binding.get("metadata", {}).get("annotations", {})
    await context.registry.bind(target.kind, entry, node, rfc3339(time.time()), dry, annotations)
    return answer(encode({"kind": "Status", "apiVersion": "v1", "metadata": {}, "status": "Success", "code": 201}), 201)


async def _evict(request: Request, context: Context, target: Target) -> Response:
    body = await read_object(request, context.settings)
    eviction = schema.decode(schema.node("io.k8s.api.policy.v1.Eviction"), body, [])
    asked: dict[str, Any] = eviction.get("deleteOptions", {})
    options = DeleteOptions(
        grace=asked.get("gracePeriodSeconds"),
        uid=asked.get("preconditions", {}).get("uid", ""),
        dry_run=bool(asked.get("dryRun")),
    )
    await context.registry.delete(target.kind, target.namespace, target.name, options)
    return answer(encode({"kind": "Status", "apiVersion": "v1", "metadata": {}, "status": "Success", "code": 201}), 201)


async def _finalize(request: Request, context: Context, target: Target) -> Response:
    """Replace `spec.finalizers` of a namespace."""
    body = await read_object(request, context.settings)
    finalizers = body.get("spec", {}).get("finalizers", []) if isinstance(body, dict) else []
    return document_answer(await namespaces.set_finalizers(context.registry, target.name, finalizers))


_HANDLERS: dict[tuple[str, str], Callable[[Request, Context, Target], Awaitable[Response]]] = {
    ("POST", "binding"): _bind,
    ("POST", "eviction"): _evict,
    ("PUT", "finalize"): _finalize,
    ("GET", "log"): proxy.logs,
    ("GET", "exec"): proxy.refuse_upgrade,
    ("POST", "exec"): proxy.refuse_upgrade,
    ("GET", "attach"): proxy.refuse_upgrade,
    ("POST", "attach"): proxy.refuse_upgrade,
    ("GET", "portforward"): proxy.refuse_upgrade,
    ("POST", "portforward"): proxy.refuse_upgrade,
}
