"""The node agent's edges over a real agent in a real VM: exec, logs without loss over a lost host, a forwarded port."""

from __future__ import annotations

import asyncio
import json
import struct
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from pathlib import Path

import pytest

from cuboid.guest import agent_pb2 as pb
from cuboid.guest.client import AgentClient
from cuboid.node.kubelet.app import kubelet_app
from cuboid.node.kubelet.serve import Keys, serve_kubelet
from cuboid.node.logfiles import Limits
from cuboid.node.logs import LogOptions, LogPump, read_logs
from cuboid.server.tls import Authority, client_context
from cuboid.storage.fake import FakeDisks
from tests.harness.guest_rig import real_guest
from tests.harness.kubelet_rig import Access, Execs, Images, KubeletRig, View, hear, make_pod, say
from tests.harness.vms import needs_vms

pytestmark = [pytest.mark.vm, pytest.mark.timeout(240), needs_vms]
LINES = 20_000
WRITER = f"seq {LINES}; sleep 1000"


class RealView(View):
    """`main` runs for as long as the VM does."""

    def running(self, container: str) -> bool:
        return container == "main"


@pytest.fixture
async def guest(tmp_path: Path) -> AsyncIterator[tuple[AgentClient, str]]:
    async with AsyncExitStack() as stack:
        rig = await real_guest(tmp_path, stack)
        client = AgentClient(rig.path)
        stack.push_async_callback(client.close)
        ack = await client.connect(timeout=rig.boot_seconds)
        await client.setup(rig.setup)
        call = pb.StartContainer(name="main", image="image", args=["sh", "-c", WRITER], env=["PATH=/bin"])
        await client.start_container(call)
        yield client, ack.boot_id


async def text_of(folder: Path) -> bytes:
    return b"".join([piece async for piece in read_logs(folder, LogOptions())])


async def pumped(client: AgentClient, boot: str, folder: Path, seconds: float) -> None:
    """A node agent that lives for a while and is then killed."""
    pump = LogPump(client, "main", folder, Limits(1 << 20, 100), boot=boot)
    task = asyncio.get_running_loop().create_task(pump.run())
    await asyncio.sleep(seconds)
    task.cancel()
    await asyncio.gather(task, return_exceptions=True)
    await pump.close()


async def test_everything_at_the_edges(guest: tuple[AgentClient, str], tmp_path: Path) -> None:
    client, boot = guest
    await check_logs(client, boot, tmp_path / "logs" / "main")
    async with served(client, tmp_path) as edge:
        await check_exec(edge)
        await check_stdin(edge)
        await check_terminal(edge)
        await check_refused_port(edge)
        async with edge.http() as http:
            assert (await http.get("/containerLogs/default/web/main?tailLines=1")).text == f"{LINES}\n"
            [row] = (await http.get("/cuboid/v1/stats/default")).json()["items"]
            assert row["container"] == "main" and row["memoryBytes"] > 0 and row["pids"] >= 1


async def check_logs(client: AgentClient, boot: str, folder: Path) -> None:
    """Whatever kills the node agent in between, every line is there once."""
    for seconds in (0.05, 0.2, 0.4):
        await pumped(client, boot, folder, seconds)
    expected = b"".join(b"%d\n" % n for n in range(1, LINES + 1))
    async with asyncio.timeout(60):
        while await text_of(folder) != expected:
            await pumped(client, boot, folder, 0.5)
    assert (folder / "0.log").exists()


@asynccontextmanager
async def served(client: AgentClient, tmp_path: Path) -> AsyncIterator[KubeletRig]:
    authority = Authority(tmp_path / "pki")
    authority.server("node", ["127.0.0.1"])
    tls = client_context(authority.ca_file, authority.client("kubelet-client", "api", "system:masters"))
    view = RealView(make_pod(), client, tmp_path / "logs", None)  # type: ignore[arg-type]
    access, images, disks = Access([view]), Images(), FakeDisks(tmp_path / "disks")
    app = kubelet_app(access, images, disks, node="node-1", spool=tmp_path / "spool")
    async with serve_kubelet(app, "127.0.0.1", 0, Keys.of_folder(tmp_path / "pki")) as port:
        yield KubeletRig(port, tmp_path, authority, tls, view, access, None, Execs(), images, disks)  # type: ignore[arg-type]


async def run(edge: KubeletRig, query: str) -> tuple[dict[int, bytes], str]:
    """What was said by channel, and the exit code ("" for none)."""
    said: dict[int, bytes] = {}
    async with edge.socket(f"/exec/default/web/main?stdout=1&stderr=1&{query}") as socket:
        async with asyncio.timeout(30):
            async for message in socket:
                assert isinstance(message, bytes)
                said[message[0]] = said.get(message[0], b"") + message[1:]
    causes = json.loads(said[3]).get("details", {}).get("causes", [{}])
    return said, causes[0].get("message", "")


async def check_exec(edge: KubeletRig) -> None:
    said, code = await run(edge, "command=sh&command=-c&command=echo+out;echo+err+>%262;exit+3")
    assert (said[1], said[2], code) == (b"out\n", b"err\n", "3")
    said, code = await run(edge, "command=nosuch")
    assert (said[2], code) == (b'exec: "nosuch": executable file not found in $PATH\r\n', "127")
    _, code = await run(edge, "command=/etc")
    assert code == "126"


async def check_stdin(edge: KubeletRig) -> None:
    async with edge.socket("/exec/default/web/main?stdin=1&stdout=1&command=cat") as socket:
        data = bytes(range(256)) * 4096
        sending = asyncio.get_running_loop().create_task(send_all(edge, socket, data))
        assert await hear(socket, 1, len(data)) == data
        await sending


async def send_all(edge: KubeletRig, socket: object, data: bytes) -> None:
    for start in range(0, len(data), 32_768):
        await say(socket, 0, data[start : start + 32_768])  # type: ignore[arg-type]


async def check_terminal(edge: KubeletRig) -> None:
    path = "/exec/default/web/main?stdin=1&stdout=1&tty=1&command=sh&command=-c&command=read+x;echo+got+$x;exit+5"
    async with edge.socket(path) as socket:
        await say(socket, 4, b'{"Width":100,"Height":30}')
        await say(socket, 0, b"hi\r")
        said = b""
        async with asyncio.timeout(30):
            async for message in socket:
                assert isinstance(message, bytes)
                said += message[1:]
    assert b"got hi\r\n" in said and b'"message": "5"' in said


async def check_refused_port(edge: KubeletRig) -> None:
    async with edge.socket("/portForward/default/web?ports=81", "v4.channel.k8s.io") as socket:
        assert await hear(socket, 0, 2) == struct.pack("<H", 81)
        error = b""
        async with asyncio.timeout(30):
            while b"refused" not in error:
                message = await socket.recv()
                assert isinstance(message, bytes)
                error += message[1:]
    assert b"error forwarding port 81 to pod web" in error
