"""The HTTP edge as one ASGI application: limits and identity around the routes."""

from __future__ import annotations

import re
from collections.abc import Awaitable, Callable

from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import BaseRoute, Route, Router, WebSocketRoute
from starlette.types import ASGIApp, Receive, Scope, Send
from starlette.websockets import WebSocket

from cuboid.server import discovery, health, metrics, node_proxy, openapi, proxy, resources, reviews
from cuboid.server.audit import Audited
from cuboid.server.authn import token_request
from cuboid.server.context import Context
from cuboid.server.limits import Edge

_PLAIN = re.compile(
    "/api/v1/(?:namespaces|pods)(?:/|$)|/apis/(?:apps|batch|coordination[.]k8s[.]io|discovery[.]k8s[.]io)/v1/[^/]"
)
"""Of groups in which everything is a resource."""
Handler = Callable[[Request, Context], Awaitable[Response]]


def make_app(context: Context) -> ASGIApp:
    """The whole server for uvicorn or for a test client."""
    routes = _Direct(Router(_routes(context), redirect_slashes=False), context)
    return Audited(Edge(routes, context), context.security.audit)


class _Direct:
    """Requests for resources, which are nearly all, without the walk through the routes: it costs as much as a get."""

    def __init__(self, router: Router, context: Context) -> None:
        self._router = router
        self._context = context

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "http" and _PLAIN.match(scope["path"]):
            response = await resources.handle(Request(scope, receive, send), self._context)
            await response(scope, receive, send)
        else:
            await self._router(scope, receive, send)


def _routes(context: Context) -> list[BaseRoute]:
    def route(path: str, handler: Handler, *methods: str) -> Route:
        async def endpoint(request: Request) -> Response:
            return await handler(request, context)

        return Route(path, endpoint, methods=list(methods) or ["GET"])

    async def stream(socket: WebSocket) -> None:
        await proxy.stream(socket, context)

    every = ("GET", "POST", "PUT", "PATCH", "DELETE")
    return [
        *(route(path, health.answer) for path in health.PATHS),
        *(route(path + "/{check:path}", health.one) for path in health.PATHS),
        route("/", discovery.root),
        route("/version", discovery.version),
        route("/api", discovery.api),
        *(route(path, discovery.apis) for path in ("/apis", "/apis/")),
        route("/api/{version}", discovery.core_version),
        route("/apis/{group}", discovery.group),
        route("/apis/{group}/{version}", discovery.group_version),
        route("/openapi/v2", openapi.v2),
        route("/openapi/v3", openapi.index),
        route("/openapi/v3/{path:path}", openapi.v3),
        *(route(path, reviews.handle, "POST") for path in reviews.PATHS),
        route(token_request.DISCOVERY, token_request.discovery),
        route(token_request.KEYS, token_request.keys),
        route("/apis/metrics.k8s.io/v1beta1/{path:path}", metrics.handle),
        route(node_proxy.PATH, node_proxy.handle, *every),
        WebSocketRoute("/api/{path:path}", stream),
        route("/api/{path:path}", resources.handle, *every),
        route("/apis/{path:path}", resources.handle, *every),
    ]
