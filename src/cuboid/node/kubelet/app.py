"""The routes of the node agent's HTTPS API."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from pathlib import Path

import msgspec
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import JSONResponse, PlainTextResponse, Response
from starlette.routing import BaseRoute, Route, WebSocketRoute
from starlette.websockets import WebSocket

import cuboid
from cuboid.images.base import ImageStore
from cuboid.lib.errors import CuboidError
from cuboid.node.access import PodAccess
from cuboid.node.kubelet import files, images, logs, streams
from cuboid.node.kubelet.edge import Edge, answer_error, flag
from cuboid.node.metrics import NodeMetrics
from cuboid.node.summary import rows, summary
from cuboid.node.usage import StatsBook
from cuboid.node.vmm_usage import vmm_usage
from cuboid.storage.base import Disks

Handler = Callable[[Request, Edge], Awaitable[Response]]
_METRICS_TYPE = "text/plain; version=0.0.4; charset=utf-8"


def kubelet_app(
    access: PodAccess,
    image_store: ImageStore,
    disks: Disks,
    *,
    node: str,
    spool: Path,
    metrics: NodeMetrics | None = None,
) -> Starlette:
    """`spool`: a folder on the state disk for archives under way (see `sweep_spool`)."""
    edge = Edge(access, image_store, disks, StatsBook(access), metrics or NodeMetrics(), node, spool)
    return Starlette(routes=_routes(edge), exception_handlers={CuboidError: answer_error})


def sweep_spool(spool: Path) -> None:
    """Remove what an interrupted import left. Call at start."""
    for left in spool.glob("import-*.tar") if spool.is_dir() else ():
        left.unlink(missing_ok=True)


def _routes(edge: Edge) -> list[BaseRoute]:
    def route(path: str, handler: Handler, method: str = "GET") -> Route:
        async def endpoint(request: Request) -> Response:
            return await handler(request, edge)

        return Route(path, endpoint, methods=[method])

    def stream(path: str, serve: streams.Serve) -> WebSocketRoute:
        async def endpoint(socket: WebSocket) -> None:
            await serve(socket, edge)

        return WebSocketRoute(path, endpoint)

    container = "/{namespace}/{pod}/{container}"
    return [
        route("/healthz", _healthz),
        route("/pods", _pods),
        route("/stats/summary", _summary),
        route("/metrics", _metrics),
        route("/containerLogs" + container, logs.container_logs),
        stream("/exec" + container, streams.execute),
        stream("/attach" + container, streams.attach),
        stream("/portForward/{namespace}/{pod}", streams.port_forward),
        route("/cuboid/v1/version", _version),
        route("/cuboid/v1/stats/{namespace}", _stats),
        route("/cuboid/v1/machines", _machines),
        route("/cuboid/v1/images", images.list_images),
        route("/cuboid/v1/images", images.remove_image, "DELETE"),
        route("/cuboid/v1/images/inspect", images.inspect_image),
        route("/cuboid/v1/images/pull", images.pull_image, "POST"),
        route("/cuboid/v1/images/import", images.import_image, "POST"),
        route("/cuboid/v1/files" + container, files.copy_out),
        route("/cuboid/v1/files" + container, files.copy_in, "PUT"),
        route("/cuboid/v1/volumes", files.list_volumes),
        route("/cuboid/v1/volumes/{namespace}/{name}", files.remove_volume, "DELETE"),
    ]


async def _healthz(request: Request, edge: Edge) -> Response:
    return PlainTextResponse("ok")


async def _pods(request: Request, edge: Edge) -> Response:
    items = [view.pod for view in edge.access.pods()]
    body = {"kind": "PodList", "apiVersion": "v1", "metadata": {}, "items": items}
    return Response(msgspec.json.encode(body), media_type="application/json")


async def _summary(request: Request, edge: Edge) -> Response:
    return JSONResponse(summary(await edge.stats.usage(), edge.node, edge.started))


async def _stats(request: Request, edge: Edge) -> Response:
    namespace = request.path_params["namespace"]
    machines = await vmm_usage(edge.access, namespace) if flag(request, "machines") else None
    told = {} if machines is None else {"machines": [usage.row() for usage in machines]}
    return JSONResponse({"items": rows(await edge.stats.usage(namespace)), **told})


async def _metrics(request: Request, edge: Edge) -> Response:
    edge.metrics.pods.set(len(edge.access.pods()))
    return Response(edge.metrics.text(await edge.stats.usage()), media_type=_METRICS_TYPE)


async def _machines(request: Request, edge: Edge) -> Response:
    return JSONResponse({"items": edge.access.machines()})


async def _version(request: Request, edge: Edge) -> Response:
    return JSONResponse({"version": cuboid.__version__, "node": edge.node})
