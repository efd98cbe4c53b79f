"""A current kubectl against a real API server process and the node agent's real HTTPS API: only the guest is a fake."""

from __future__ import annotations

import asyncio
import contextlib
import fcntl
import os
import pty
import struct
import sys
import termios
from collections.abc import AsyncIterator
from dataclasses import dataclass
from pathlib import Path

import pytest

from cuboid.kube.client import MERGE, NODES, PODS, KubeClient
from tests.harness.kube_server import node, serving
from tests.harness.kubelet_rig import KubeletRig, kubelet

KUBECTL = Path(sys.executable).parent / "kubectl"
SECONDS = 30


@dataclass
class Cluster:
    rig: KubeletRig
    kubeconfig: Path
    client: KubeClient

    async def start(self, *args: str, tty: int | None = None) -> asyncio.subprocess.Process:
        """On the terminal `tty` if one is given, else on pipes."""
        end = asyncio.subprocess.PIPE if tty is None else tty
        environment = {"KUBECONFIG": str(self.kubeconfig), "HOME": str(self.rig.folder), "PATH": "/bin:/usr/bin"}
        return await asyncio.create_subprocess_exec(
            KUBECTL, *args, env=environment, stdin=end, stdout=end, stderr=end, start_new_session=True
        )

    async def run(self, *args: str, stdin: bytes = b"") -> tuple[int, bytes, bytes]:
        process = await self.start(*args)
        try:
            async with asyncio.timeout(SECONDS):
                out, err = await process.communicate(stdin)
        finally:
            with contextlib.suppress(ProcessLookupError):
                process.kill()
        return process.returncode or 0, out, err


@pytest.fixture
async def cluster(tmp_path: Path) -> AsyncIterator[Cluster]:
    root = tmp_path / "server"
    root.mkdir()
    with serving(root, uid="0") as server:
        async with (
            KubeClient(server.url, server.token, server.ca_file) as client,
            kubelet(tmp_path, server.folder) as rig,
        ):
            await client.create(NODES, node(port=rig.port))
            term = {"name": "term", "image": "demo:1", "tty": True, "stdin": True}
            body = {
                "apiVersion": "v1", "kind": "Pod", "metadata": {"name": "web"},
                "spec": {"nodeName": "node-1", "containers": [{"name": "main", "image": "demo:1"}, term]},
            }  # fmt: skip
            await client.create(PODS, body, "default")
            state = {"running": {"startedAt": "2026-01-01T00:00:00Z"}}
            common = {"ready": True, "restartCount": 0, "image": "demo:1", "imageID": "", "state": state}
            statuses = [{"name": name, **common} for name in ("main", "term")]
            status = {"status": {"phase": "Running", "containerStatuses": statuses}}
            await client.patch(PODS, "web", status, "default", form=MERGE, sub="status")
            yield Cluster(rig, server.kubeconfig(), client)


async def test_exec_gives_both_streams_stdin_and_the_exit_code(cluster: Cluster) -> None:
    assert await cluster.run("exec", "web", "-c", "main", "--", "both") == (
        3, b"out\n", b"err\ncommand terminated with exit code 3\n",
    )  # fmt: skip
    code, out, _ = await cluster.run("exec", "-i", "web", "-c", "main", "--", "count", stdin=b"x" * 3_000_000)
    assert (code, out) == (0, b"3000000\n")
    code, _, err = await cluster.run("exec", "web", "-c", "main", "--", "nosuch")
    assert code == 127
    assert b'exec: "nosuch": executable file not found in $PATH' in err


class Terminal:
    """Our end of a pseudo-terminal."""

    def __init__(self, rows: int, cols: int) -> None:
        self.ours, self.theirs = pty.openpty()
        self.resize(rows, cols)
        os.set_blocking(self.ours, False)
        self.seen = b""

    def resize(self, rows: int, cols: int) -> None:
        fcntl.ioctl(self.ours, termios.TIOCSWINSZ, struct.pack("HHHH", rows, cols, 0, 0))

    def type(self, keys: bytes) -> None:
        os.write(self.ours, keys)

    async def shows(self, text: bytes) -> None:
        async with asyncio.timeout(SECONDS):
            while text not in self.seen:
                try:
                    self.seen += os.read(self.ours, 65_536)
                except (BlockingIOError, OSError):
                    await asyncio.sleep(0.02)

    def close(self) -> None:
        os.close(self.ours)
        os.close(self.theirs)


async def test_exec_on_a_terminal_has_its_keys_size_and_exit_code(cluster: Cluster) -> None:
    terminal = Terminal(33, 101)
    process = await cluster.start("exec", "-it", "web", "-c", "main", "--", "menu", tty=terminal.theirs)
    try:
        await terminal.shows(b"ready")
        call = cluster.rig.execs.calls[-1]
        assert (call.tty, call.rows, call.cols) == (True, 33, 101)
        terminal.type(b"a")
        await terminal.shows(b"key a")
        terminal.type(b"q")
        assert await asyncio.wait_for(process.wait(), SECONDS) == 7
    finally:
        with contextlib.suppress(ProcessLookupError):
            process.kill()
        terminal.close()


async def test_logs_in_their_usual_forms(cluster: Cluster) -> None:
    for n in range(5):
        await cluster.rig.agent.write("main", b"line %d" % n)
    await asyncio.sleep(0.1)
    assert await cluster.run("logs", "web", "-c", "main", "--tail=2") == (0, b"line 3\nline 4\n", b"")
    code, _, err = await cluster.run("logs", "web", "-c", "main", "--previous")
    assert code == 1
    assert b'previous terminated container "main" in pod "web" not found' in err
    process = await cluster.start("logs", "-f", "web", "-c", "main", "--tail=1")
    assert process.stdout
    async with asyncio.timeout(SECONDS):
        assert await process.stdout.readline() == b"line 4\n"
        await cluster.rig.agent.write("main", b"new")
        assert await process.stdout.readline() == b"new\n"
        cluster.rig.agent.end("main")
        assert await process.wait() == 0


async def test_attach_shows_what_comes_and_takes_what_is_typed(cluster: Cluster) -> None:
    terminal = Terminal(24, 80)
    process = await cluster.start("attach", "-it", "web", "-c", "term", tty=terminal.theirs)
    try:
        async with asyncio.timeout(SECONDS):
            while not cluster.rig.agent.containers["term"].attached:
                await asyncio.sleep(0.02)
        await cluster.rig.agent.write("term", b"hello")
        await terminal.shows(b"hello")
        terminal.type(b"x")
        async with asyncio.timeout(SECONDS):
            while b"x" not in cluster.rig.agent.containers["term"].stdin:
                await asyncio.sleep(0.02)
        cluster.rig.agent.end("term")
        await asyncio.wait_for(process.wait(), SECONDS)
    finally:
        with contextlib.suppress(ProcessLookupError):
            process.kill()
        terminal.close()


async def test_port_forward_carries_many_connections_at_once(cluster: Cluster) -> None:
    process = await cluster.start("port-forward", "web", ":80")
    assert process.stdout
    try:
        line = await asyncio.wait_for(process.stdout.readline(), SECONDS)
        port = int(line.split(b":")[1].split()[0])
        data = os.urandom(1 << 20)
        echoes = await asyncio.gather(*(echo(port, data) for _ in range(5)))
        assert all(answer == data for answer in echoes)
        assert await echo(port, b"again") == b"again"
    finally:
        process.kill()
        await process.wait()


async def echo(port: int, data: bytes) -> bytes:
    async with asyncio.timeout(SECONDS):
        reader, writer = await asyncio.open_connection("127.0.0.1", port)
        writer.write(data)
        answer = await reader.readexactly(len(data))
        writer.close()
        return answer


async def test_cp_goes_both_ways(cluster: Cluster, tmp_path: Path) -> None:
    inside = tmp_path / "inside"
    inside.mkdir()
    content = os.urandom(2_000_000)
    (tmp_path / "here").write_bytes(content)
    code, _, err = await cluster.run("cp", str(tmp_path / "here"), f"web:{inside}/there", "-c", "main")
    assert code == 0, err
    assert (inside / "there").read_bytes() == content
    code, _, err = await cluster.run("cp", f"web:{inside}/there", str(tmp_path / "back"), "-c", "main")
    assert code == 0, err
    assert (tmp_path / "back").read_bytes() == content


async def test_top_and_the_node_proxy_show_what_pods_use(cluster: Cluster) -> None:
    code, out, err = await cluster.run("top", "pod", "web", "--containers")
    assert code == 0, err
    assert b"main" in out and b"1Mi" in out
    code, out, err = await cluster.run("get", "--raw", "/api/v1/nodes/node-1/proxy/cuboid/v1/stats/default")
    assert code == 0, err
    assert b'"container":"term"' in out
    code, _, err = await cluster.run("get", "--raw", "/api/v1/nodes/node-1/proxy/cuboid/v1/images/inspect?reference=no")
    assert code == 1 and b"no image 'no' is on this node" in err
