"""Logs, streams and metrics reach the node's agent over mutual TLS and come back unchanged."""

from __future__ import annotations

import asyncio
import socket
import ssl
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, contextmanager
from pathlib import Path
from typing import Any

import httpx
import pytest
import uvicorn
from starlette.requests import HTTPConnection, Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Route, Router, WebSocketRoute
from starlette.websockets import WebSocket, WebSocketDisconnect

from cuboid.kube.client import MERGE, NODES, PODS, KubeClient
from cuboid.kube.status import to_status
from cuboid.lib.errors import CuboidError, InvalidError, NotFoundError, UnauthorizedError
from cuboid.lib.paths import Paths
from cuboid.lib.serving import listen_here
from cuboid.server.tls import Authority, client_context
from cuboid.server.upstream import Upstream
from tests.harness.kube_server import ServerProcess, node, pod, serving

V5 = "v5.channel.k8s.io"
FORWARD = "SPDY/3.1+portforward.k8s.io"
LOG = b"2026-01-01T00:00:00Z line\n" * 20_000
SUMMARY = (
    b'{"node":{"cpu":{"usageNanoCores":250000000},"memory":{"workingSetBytes":1073741824}},'
    b'"pods":[{"podRef":{"name":"web","namespace":"default"},"containers":'
    b'[{"name":"main","cpu":{"usageNanoCores":1500000},"memory":{"workingSetBytes":2097152}}]}]}'
)


class Agent:
    """A node's endpoint: echoes what is sent, closes with 4000 on `bye`."""

    def __init__(self) -> None:
        self.paths: list[str] = []

    def app(self) -> Router:
        routes = [
            Route("/containerLogs/{rest:path}", self._logs),
            Route("/stats/summary", self._summary),
            WebSocketRoute("/{rest:path}", self._stream),
        ]
        return Router(routes)

    def _note(self, connection: HTTPConnection) -> None:
        self.paths.append(connection.url.path + (f"?{connection.url.query}" if connection.url.query else ""))

    async def _logs(self, request: Request) -> Response:
        self._note(request)
        return Response(LOG, media_type="text/plain")

    async def _summary(self, request: Request) -> Response:
        return Response(SUMMARY, media_type="application/json")

    async def _stream(self, stream: WebSocket) -> None:
        self._note(stream)
        if "refused" in stream.url.query:
            body = {"kind": "Status", "reason": "BadRequest", "code": 400, "message": "container is not running"}
            await stream.send_denial_response(JSONResponse(body, 400))
            return
        await stream.accept(subprotocol=stream.scope["subprotocols"][0])
        try:
            while (data := await stream.receive_bytes()) != b"bye":
                await stream.send_bytes(data)
            await stream.close(4000, "done")
        except WebSocketDisconnect:
            self.paths.append("closed")


class _Uvicorn(uvicorn.Server):
    @contextmanager
    def capture_signals(self) -> Iterator[None]:
        yield


@asynccontextmanager
async def listening(agent: Agent, folder: Path) -> AsyncIterator[int]:
    pair = Authority(folder).server("node", ["127.0.0.1"])
    config = uvicorn.Config(
        agent.app(),
        ws="wsproto",
        lifespan="off",
        log_config=None,
        ssl_certfile=pair.cert,
        ssl_keyfile=pair.key,
        ssl_ca_certs=str(folder / "ca.crt"),
        ssl_cert_reqs=ssl.CERT_REQUIRED,
        timeout_graceful_shutdown=1,
    )
    server = _Uvicorn(config)
    with socket.create_server(("127.0.0.1", 0)) as listener:
        serving_ = asyncio.create_task(server.serve([listener]))
        while not server.started:
            await asyncio.sleep(0.01)
        yield listener.getsockname()[1]
        server.should_exit = True
        await serving_


Rig = tuple[ServerProcess, Agent, KubeClient]


@pytest.fixture
async def rig(tmp_path: Path) -> AsyncIterator[Rig]:
    agent = Agent()
    with serving(tmp_path) as server:
        async with (
            listening(agent, server.folder) as port,
            KubeClient(server.url, server.token, server.ca_file) as client,
        ):
            await client.create(NODES, node(port=port))
            await client.create(PODS, pod("web", nodeName="node-1"), "default")
            yield server, agent, client


@asynccontextmanager
async def open_stream(server: ServerProcess, sub: str, query: str, protocol: str) -> AsyncIterator[Upstream]:
    """A client of the API server: the proxy's own, with the administrator's token as a header."""
    url = f"{server.url}/api/v1/namespaces/default/pods/{sub}?{query}"
    headers = [(b"Authorization", f"Bearer {server.token}".encode())] if server.token else []
    stream = await Upstream.open(url, client_context(server.ca_file), [protocol], 10, headers=headers)
    try:
        yield stream
    finally:
        await stream.close()


async def test_logs_are_streamed_through(rig: Rig) -> None:
    server, agent, _ = rig
    headers = {"Authorization": f"Bearer {server.token}"}
    async with httpx.AsyncClient(verify=client_context(server.ca_file), headers=headers) as http:
        url = f"{server.url}/api/v1/namespaces/default/pods/web/log"
        answer = await http.get(url, params={"tailLines": "5", "timestamps": "true"})
        assert answer.content == LOG
        assert agent.paths == ["/containerLogs/default/web/main?tailLines=5&timestamps=true"]
        wrong = await http.get(url, params={"container": "other"})
        assert wrong.status_code == 400 and wrong.json()["message"] == "container other is not valid for pod web"


async def test_exec_passes_messages_both_ways_and_the_close_code(rig: Rig) -> None:
    server, agent, _ = rig
    async with open_stream(server, "web/exec", "command=sh&command=-c&stdin=true", V5) as stream:
        assert stream.subprotocol == V5
        for size in (0, 1, 70_000, 1_000_000):
            await stream.send(b"\x00" + b"x" * size)
            assert await stream.recv() == b"\x00" + b"x" * size
        await stream.send(b"bye")
        assert await stream.recv() is None
        assert (stream.close_code, stream.close_reason) == (4000, "done")
    assert agent.paths[0] == "/exec/default/web/main?command=sh&command=-c&stdin=true"


async def test_a_node_on_this_machine_is_spoken_to_over_its_local_socket_while_it_answers_there(rig: Rig) -> None:
    server, agent, client = rig
    port = (await client.get(NODES, "node-1"))["status"]["daemonEndpoints"]["kubeletEndpoint"]["Port"]
    boot_id = Path("/proc/sys/kernel/random/boot_id").read_text().strip()
    await client.patch(NODES, "node-1", {"status": {"nodeInfo": {"bootID": boot_id}}}, form=MERGE, sub="status")
    path, here = Paths(server.root / "state", server.root / "run").node_socket(port), Agent()
    config = uvicorn.Config(here.app(), ws="wsproto", lifespan="off", log_config=None, timeout_graceful_shutdown=1)
    local = _Uvicorn(config)
    with listen_here(path, 64_100) as listener:
        serving_ = asyncio.create_task(local.serve([listener]))
        async with open_stream(server, "web/exec", "command=sh&stdin=true", V5) as stream:
            await stream.send(b"\x00hello")
            assert await stream.recv() == b"\x00hello"
        local.should_exit = True
        await serving_
    assert (len(here.paths) > 0, agent.paths) == (True, [])
    async with open_stream(server, "web/exec", "command=sh&stdin=true", V5) as stream:  # its file is still there
        await stream.send(b"\x00again")
        assert await stream.recv() == b"\x00again"
    assert agent.paths[0].startswith("/exec/default/web/main")


async def test_a_client_that_leaves_ends_the_stream_to_the_node(rig: Rig) -> None:
    server, agent, _ = rig
    async with open_stream(server, "web/portforward", "ports=80", FORWARD) as stream:
        await stream.send(b"hello")
        assert await stream.recv() == b"hello"
    async with asyncio.timeout(5):
        while "closed" not in agent.paths:
            await asyncio.sleep(0.02)
    assert agent.paths[0] == "/portForward/default/web?ports=80"


async def test_an_attachment_that_waits_goes_to_the_node_when_the_pod_is_bound(rig: Rig) -> None:
    server, agent, client = rig
    await client.create(PODS, pod("late", nodeSelector={"disk": "none"}), "default")

    async def attached() -> bytes | str | None:
        async with open_stream(server, "late/attach", "stdout=true&wait=true", V5) as stream:
            await stream.send(b"\x00hello")
            return await stream.recv()

    task = asyncio.get_running_loop().create_task(attached())
    await asyncio.sleep(0.1)
    assert not task.done() and not agent.paths
    binding = {"metadata": {"name": "late"}, "target": {"kind": "Node", "name": "node-1"}}
    await client.create(PODS, binding, "default", name="late", sub="binding")
    assert await asyncio.wait_for(task, 5) == b"\x00hello"
    assert agent.paths[0] == "/attach/default/late/main?stdout=true&wait=true"


async def test_an_attachment_that_waits_ends_with_its_pod(rig: Rig) -> None:
    server, agent, client = rig
    await client.create(PODS, pod("late", nodeSelector={"disk": "none"}), "default")

    async def attached() -> None:
        async with open_stream(server, "late/attach", "stdout=true&wait=true", V5):
            raise AssertionError("the pod is on no node")

    task = asyncio.get_running_loop().create_task(attached())
    await asyncio.sleep(0.1)
    await client.delete(PODS, "late", "default", grace=0)
    with pytest.raises(NotFoundError):
        await asyncio.wait_for(task, 5)
    assert not agent.paths


@pytest.mark.parametrize(
    ("sub", "query", "code", "message"),
    [
        ("none/exec", "command=a", 404, 'pods "none" not found'),
        ("web/exec", "command=a&container=b", 400, "container b is not valid for pod web"),
        ("web/exec", "command=refused", 400, "container is not running"),
        ("web/status", "", 405, "the server does not allow this method on the requested resource"),
    ],
)
async def test_a_stream_that_can_not_be_is_refused_with_a_status(
    rig: Rig, sub: str, query: str, code: int, message: str
) -> None:
    with pytest.raises(CuboidError) as refused:
        async with open_stream(rig[0], sub, query, V5):
            pass
    assert to_status(refused.value)[0] == code
    assert message in refused.value.message


async def test_a_stream_without_a_token_or_known_protocol_is_refused(rig: Rig) -> None:
    server, agent, _ = rig
    url = f"{server.url}/api/v1/namespaces/default/pods/web/exec?command=a"
    with pytest.raises(UnauthorizedError):
        await Upstream.open(url, client_context(server.ca_file), [V5], 10)
    with pytest.raises(InvalidError, match="sub-protocol"):
        async with open_stream(server, "web/exec", "command=a", "v9.unknown"):
            pass
    assert agent.paths == []


async def test_spdy_is_refused_with_a_sentence(rig: Rig) -> None:
    server, _, _ = rig
    headers = {"Authorization": f"Bearer {server.token}", "Upgrade": "SPDY/3.1", "Connection": "Upgrade"}
    async with httpx.AsyncClient(verify=client_context(server.ca_file), headers=headers) as http:
        answer = await http.post(f"{server.url}/api/v1/namespaces/default/pods/web/exec?command=a")
    assert answer.status_code == 400 and "needs a WebSocket" in answer.json()["message"]


@pytest.mark.parametrize(
    ("status", "message"),
    [
        ({"conditions": [{"type": "cuboid.dev/Paused", "status": "True"}]}, "pod held is paused"),
        (
            {"containerStatuses": [{"name": "main", "state": {"waiting": {"reason": "CrashLoopBackOff"}}}]},
            "container main in pod held is not running",
        ),
    ],
)
async def test_spdy_after_a_refused_websocket_is_told_the_reason_of_that(
    rig: Rig, status: dict[str, Any], message: str
) -> None:
    server, _, client = rig
    await client.create(PODS, pod("held", nodeName="node-1"), "default")
    await client.patch(PODS, "held", {"status": status}, "default", sub="status")
    headers = {"Authorization": f"Bearer {server.token}", "Upgrade": "SPDY/3.1", "Connection": "Upgrade"}
    async with httpx.AsyncClient(verify=client_context(server.ca_file), headers=headers) as http:
        answer = await http.post(f"{server.url}/api/v1/namespaces/default/pods/held/exec?command=a")
    assert answer.status_code == 409 and message in answer.json()["message"]
    await client.delete(PODS, "held", "default", grace=0)


async def test_a_node_that_is_away_is_unavailable(rig: Rig) -> None:
    server, _, client = rig
    await client.create(NODES, node("away", port=1))
    await client.create(PODS, pod("lost", nodeName="away"), "default")
    headers = {"Authorization": f"Bearer {server.token}"}
    async with httpx.AsyncClient(verify=client_context(server.ca_file), headers=headers) as http:
        answer = await http.get(f"{server.url}/api/v1/namespaces/default/pods/lost/log")
    assert answer.status_code == 503 and 'the agent of node "away" does not answer' in answer.json()["message"]


async def test_metrics_come_from_the_node(rig: Rig) -> None:
    _, _, client = rig
    pods: dict[str, Any] = await client.request("GET", "/apis/metrics.k8s.io/v1beta1/pods")
    assert pods["items"][0]["containers"] == [{"name": "main", "usage": {"cpu": "1500u", "memory": "2048Ki"}}]
    nodes = await client.request("GET", "/apis/metrics.k8s.io/v1beta1/nodes/node-1")
    assert nodes["usage"] == {"cpu": "250m", "memory": "1048576Ki"}
