"""Sub-resources other than status over HTTP; log, exec, attach and portforward go to the node."""

from __future__ import annotations

from collections.abc import Awaitable, Callable

from starlette.requests import Request
from starlette.responses import Response

from cuboid.kube import status, subresource
from cuboid.kube.cache import encode
from cuboid.server import proxy
from cuboid.server.authn import token_request
from cuboid.server.context import Context, read_object, write_options
from cuboid.server.paths import Target
from cuboid.server.render import answer


async def handle(request: Request, context: Context, target: Target) -> Response:
    if target.rest:
        raise status.method_not_allowed()
    handler = _STREAMED.get((request.method, target.sub))
    if handler is not None:
        return await handler(request, context, target)
    act = {"POST": subresource.create, "PUT": subresource.update}.get(request.method)
    if act is None:
        raise status.method_not_allowed()
    body = await read_object(request, context.settings)
    options = write_options(request)
    made = await act(context.registry, target.kind, target.namespace, target.name, target.sub, body, options)
    return answer(encode(made), 201 if request.method == "POST" else 200)


_STREAMED: dict[tuple[str, str], Callable[[Request, Context, Target], Awaitable[Response]]] = {
    ("GET", "log"): proxy.logs,
    ("POST", "token"): token_request.handle,
    ("GET", "exec"): proxy.refuse_upgrade,
    ("POST", "exec"): proxy.refuse_upgrade,
    ("GET", "attach"): proxy.refuse_upgrade,
    ("POST", "attach"): proxy.refuse_upgrade,
    ("GET", "portforward"): proxy.refuse_upgrade,
    ("POST", "portforward"): proxy.refuse_upgrade,
}
