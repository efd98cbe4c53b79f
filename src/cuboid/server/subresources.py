"""Sub-resources with forms of their own over HTTP; log, exec, attach and portforward go to the node."""

from __future__ import annotations

import re
from collections.abc import Awaitable, Callable

from starlette.requests import Request
from starlette.responses import Response

from cuboid.kube import kinds, status, subresource
from cuboid.kube.cache import encode
from cuboid.server import proxy
from cuboid.server.authn import token_request
from cuboid.server.context import Context, read_patch, read_written
from cuboid.server.paths import Target
from cuboid.server.render import answer

BINDINGS = re.compile(r"/api/v1/namespaces/([^/]+)/bindings/?")
"""The older way to put a pod on a node: the pod is named in the body."""


async def handle(request: Request, context: Context, target: Target) -> Response:
    if target.rest:
        raise status.method_not_allowed()
    handler = _STREAMED.get((request.method, target.sub))
    if handler is not None:
        return await handler(request, context, target)
    act = _VERBS.get(request.method)
    if act is None:
        raise status.method_not_allowed()
    return await act(request, context, target)


async def bind(request: Request, context: Context, namespace: str) -> Response:
    """POST of a Binding to a namespace."""
    if request.method != "POST":
        raise status.method_not_allowed()
    body, options = await read_written(request, context.settings)
    metadata = body.get("metadata") if isinstance(body, dict) else None
    name = metadata.get("name") if isinstance(metadata, dict) else None
    if not isinstance(name, str) or not name:
        raise status.bad_request("Binding metadata.name: Required value")
    kind = kinds.builtin("Pod")
    made = await subresource.create(context.registry, kind, namespace, name, "binding", body, options)
    return answer(encode(made), 201)


async def _get(request: Request, context: Context, target: Target) -> Response:
    found = await subresource.get(context.registry, target.kind, target.namespace, target.name, target.sub)
    return answer(encode(found))


async def _create(request: Request, context: Context, target: Target) -> Response:
    body, options = await read_written(request, context.settings)
    made = await subresource.create(
        context.registry, target.kind, target.namespace, target.name, target.sub, body, options
    )
    return answer(encode(made), 201)


async def _update(request: Request, context: Context, target: Target) -> Response:
    body, options = await read_written(request, context.settings)
    made = await subresource.update(
        context.registry, target.kind, target.namespace, target.name, target.sub, body, options
    )
    return answer(encode(made))


async def _patch(request: Request, context: Context, target: Target) -> Response:
    body, form, options = await read_patch(request, context.settings)
    made = await subresource.patch(
        context.registry, target.kind, target.namespace, target.name, target.sub, body, form, options
    )
    return answer(encode(made))


Handler = Callable[[Request, Context, Target], Awaitable[Response]]
_VERBS: dict[str, Handler] = {"GET": _get, "POST": _create, "PUT": _update, "PATCH": _patch}
_STREAMED: dict[tuple[str, str], Handler] = {
    ("GET", "log"): proxy.logs,
    ("POST", "token"): token_request.handle,
    ("GET", "exec"): proxy.refuse_upgrade,
    ("POST", "exec"): proxy.refuse_upgrade,
    ("GET", "attach"): proxy.refuse_upgrade,
    ("POST", "attach"): proxy.refuse_upgrade,
    ("GET", "portforward"): proxy.refuse_upgrade,
    ("POST", "portforward"): proxy.refuse_upgrade,
}
