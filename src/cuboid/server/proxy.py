"""Logs and streams of pods, passed between the client and the node that runs the pod.

The server looks the node up, calls its kubelet endpoint over mutual TLS and passes bytes on. A WebSocket is opened to
the node with the sub-protocol that the client asked for; messages are pumped both ways, each side waiting for the
other (one message in flight per direction), and the close code of one side is given to the other.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from typing import Any
from urllib.parse import quote, urlencode

import httpx
from starlette.requests import HTTPConnection, Request
from starlette.responses import JSONResponse, Response, StreamingResponse
from starlette.websockets import WebSocket, WebSocketDisconnect
from wsproto.utilities import LocalProtocolError

from cuboid.kube import status
from cuboid.kube.cache import Filter
from cuboid.kube.names import PAUSED
from cuboid.kube.selectors import Requirement
from cuboid.kube.streaming.socket import DisconnectedError, while_connected
from cuboid.lib.aio import deadline
from cuboid.lib.errors import ConflictError, CuboidError, DeadlineError, HostileError, UnavailableError
from cuboid.lib.log import get_log
from cuboid.server import nodes
from cuboid.server.context import Context, flag
from cuboid.server.paths import Target, parse
from cuboid.server.render import LAST
from cuboid.server.upstream import Upstream

log = get_log(__name__)

CONNECT_SECONDS = 10.0
"""Time for the node to answer."""
BEGIN_SECONDS = 1800.0
"""Time for a container to start that somebody waits for to attach to it: its image may have to be fetched."""
PROTOCOLS = {
    "exec": ("v5.channel.k8s.io", "v4.channel.k8s.io", "v3.channel.k8s.io", "v2.channel.k8s.io", "channel.k8s.io"),
    "portforward": ("SPDY/3.1+portforward.k8s.io", "v2.portforward.k8s.io", "portforward.k8s.io"),
}
PROTOCOLS["attach"] = PROTOCOLS["exec"]


async def logs(request: Request, context: Context, target: Target) -> Response:
    """Stream the node's answer through."""
    pod = context.registry.entry(nodes.POD, target.namespace, target.name).object()
    container = nodes.container_of(pod, request.query_params.get("container", ""))
    if not pod["spec"].get("nodeName"):
        return Response(b"", media_type="text/plain")
    url = _url(context, pod, "containerLogs", container, request)
    client = httpx.AsyncClient(verify=context.kubelet or True, timeout=httpx.Timeout(CONNECT_SECONDS, read=None))
    try:
        answer = await client.send(client.build_request("GET", url), stream=True)
    except httpx.HTTPError as error:
        await client.aclose()
        raise _unreachable(pod, error) from error
    if answer.status_code >= 400:
        body = await _short(answer)
        await client.aclose()
        raise status.from_status(answer.status_code, body)
    return StreamingResponse(_through(answer, client), media_type=answer.headers.get("content-type", "text/plain"))


async def _through(answer: httpx.Response, client: httpx.AsyncClient) -> AsyncIterator[bytes]:
    try:
        async for chunk in answer.aiter_raw():
            yield chunk
    except httpx.HTTPError as error:
        log.info("a log stream ended early", error=str(error))
    finally:
        await answer.aclose()
        await client.aclose()


async def _short(answer: httpx.Response) -> dict[str, Any]:
    """A node's error, as much of it as a Status has."""
    data = b""
    async for chunk in answer.aiter_bytes():
        data += chunk
        if len(data) > 65_536:
            break
    try:
        body = httpx.Response(200, content=data).json()
    except ValueError:
        return {"message": data.decode("utf-8", "replace")[:1000]}
    return body if isinstance(body, dict) else {}


def _unreachable(pod: dict[str, Any], error: Exception) -> UnavailableError:
    return UnavailableError(
        f'the agent of node "{pod["spec"].get("nodeName", "")}" does not answer: {str(error) or type(error).__name__}',
        hint="is the node agent running?",
    )


def _url(context: Context, pod: dict[str, Any], what: str, container: str, request: HTTPConnection) -> str:
    endpoint = nodes.of_pod(context.registry, pod)
    metadata = pod["metadata"]
    parts = [what, metadata["namespace"], metadata["name"], *([container] if container else [])]
    query = [(key, value) for key, value in request.query_params.multi_items() if key != "container"]
    path = "/".join(quote(part, safe="") for part in parts)
    return f"{endpoint.base}/{path}" + (f"?{urlencode(query)}" if query else "")


async def refuse_upgrade(request: Request, context: Context, target: Target) -> Response:
    """A plain request where a WebSocket is needed: SPDY from old clients, or no upgrade at all."""
    pod = context.registry.entry(nodes.POD, target.namespace, target.name).object()
    _refuse_as_before(pod, target, request.query_params.get("container", ""))
    old = "spdy" in request.headers.get("upgrade", "").lower()
    what = "SPDY is not spoken here" if old else "Upgrade request required"
    raise status.bad_request(f"{what}: {target.sub} needs a WebSocket; use kubectl 1.31 or newer")


def _refuse_as_before(pod: dict[str, Any], target: Target, container: str) -> None:
    """What a WebSocket has just been refused for: kubectl tries SPDY then, and shows the answer to that alone."""
    found = pod.get("status", {})
    if any(row.get("type") == PAUSED and row.get("status") == "True" for row in found.get("conditions", [])):
        raise ConflictError(f"pod {target.name} is paused: its machine stands still; cuboid resume {target.name}")
    if target.sub == "portforward":
        return
    name = nodes.container_of(pod, container)
    rows = [*found.get("containerStatuses", []), *found.get("initContainerStatuses", [])]
    if any(row.get("name") == name and "running" not in row.get("state", {}) for row in rows):
        raise ConflictError(f"container {name} in pod {target.name} is not running")


# --- WebSockets ------------------------------------------------------------------------------------------------------


async def stream(socket: WebSocket, context: Context) -> None:
    """exec, attach and portforward of a pod, from the client's handshake to the last byte."""
    try:
        target = parse(socket.scope["path"], context.registry.kinds)
        if target.sub not in PROTOCOLS:
            raise status.method_not_allowed()
        upstream = await while_connected(socket, _open(socket, context, target))
    except CuboidError as error:
        code, body = status.to_status(error)
        await socket.send_denial_response(JSONResponse(body, code, LAST))
        return
    except DisconnectedError:
        return
    try:
        await socket.accept(subprotocol=upstream.subprotocol)
        await _pump(socket, upstream)
    finally:
        await upstream.close()


async def _open(socket: WebSocket, context: Context, target: Target) -> Upstream:
    pod = context.registry.entry(nodes.POD, target.namespace, target.name).object()
    offered = [name for name in socket.scope.get("subprotocols", []) if name in PROTOCOLS[target.sub]]
    if not offered:
        raise status.bad_request(
            f"none of the offered sub-protocols is known, {target.sub} speaks {', '.join(PROTOCOLS[target.sub])}"
        )
    container = "" if target.sub == "portforward" else nodes.container_of(pod, socket.query_params.get("container", ""))
    what = "portForward" if target.sub == "portforward" else target.sub
    waits = what == "attach" and flag(socket.query_params, "wait")
    if waits:
        pod = await _bound(context, target, pod)
    url = _url(context, pod, what, container, socket).replace("https://", "wss://", 1)
    local = _socket_here(context, nodes.of_pod(context.registry, pod))
    try:
        answer = BEGIN_SECONDS if waits else CONNECT_SECONDS
        return await Upstream.open(url, context.kubelet, offered, CONNECT_SECONDS, answer_seconds=answer, local=local)
    except (UnavailableError, DeadlineError, HostileError) as error:
        raise _unreachable(pod, error) from error


def _socket_here(context: Context, endpoint: nodes.Endpoint) -> str:
    """The Unix socket of a node agent on this machine; "" if the node is another one, or has none.

    A Node object cannot name a path: it says which machine it is, and only our own run folder is looked into.
    """
    if context.node_socket is None or not context.boot_id or endpoint.boot_id != context.boot_id:
        return ""
    path = context.node_socket(endpoint.port)
    return str(path) if path.is_socket() else ""


async def _bound(context: Context, target: Target, pod: dict[str, Any]) -> dict[str, Any]:
    """The pod once it is on a node. NotFoundError when it goes away before, DeadlineError."""
    cache, registry = context.registry.of(nodes.POD), context.registry
    named = Requirement("metadata.name", "=", frozenset((target.name,)))
    watcher = cache.watch(Filter(target.namespace, (), (named,)), registry.cache.revision)
    try:
        async with deadline(BEGIN_SECONDS, "the pod's way to a node"):
            while not pod["spec"].get("nodeName"):
                await watcher.take(BEGIN_SECONDS)
                pod = registry.entry(nodes.POD, target.namespace, target.name).object()
        return pod
    finally:
        cache.unwatch(watcher)


async def _pump(socket: WebSocket, upstream: Upstream) -> None:
    """Ends when either side closed; the other gets the same code."""
    to_node = asyncio.Task(_to_node(socket, upstream), name="to-node")
    to_client = asyncio.Task(_to_client(socket, upstream), name="to-client")
    try:
        await asyncio.wait((to_node, to_client), return_when=asyncio.FIRST_COMPLETED)
    finally:
        for task in (to_node, to_client):
            task.cancel()
        await asyncio.gather(to_node, to_client, return_exceptions=True)


async def _to_node(socket: WebSocket, upstream: Upstream) -> None:
    try:
        while True:
            message = await socket.receive()
            if message["type"] == "websocket.disconnect":
                await upstream.close(_sendable(message.get("code")))
                return
            data = message.get("bytes")
            await upstream.send(data if data is not None else message.get("text", ""))
    except (OSError, LocalProtocolError):
        return


async def _to_client(socket: WebSocket, upstream: Upstream) -> None:
    try:
        while (data := await upstream.recv()) is not None:
            await (socket.send_bytes(data) if isinstance(data, bytes) else socket.send_text(data))
    except WebSocketDisconnect:
        return
    except HostileError as error:
        log.warning("a node broke a stream", error=str(error))
        upstream.close_code = 1011
    try:
        await socket.close(_sendable(upstream.close_code), upstream.close_reason)
    except (RuntimeError, WebSocketDisconnect):
        return


def _sendable(code: int | None) -> int:
    """1005 and 1006 say that there was no close frame: they may not be sent in one."""
    if code is None or code == 1005:
        return 1000
    return 1011 if code in (1006, 1015) else code
