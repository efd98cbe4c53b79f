"""A node agent's HTTPS API over a fake guest: real TLS, real WebSockets, real files; only the VM is missing."""

from __future__ import annotations

import asyncio
import ssl
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import httpx
from websockets.asyncio.client import ClientConnection, connect

from cuboid.guest import agent_pb2 as pb
from cuboid.guest.base import Guest
from cuboid.guest.client import AgentClient
from cuboid.guest.fake import FakeAgent, Script, run_command
from cuboid.guest.fake_wire import FakeGone, FakeStream
from cuboid.images.base import Credentials, Image, ImageConfig, Phase, Progress, ProgressHook
from cuboid.kube.streaming.wire import open_socket
from cuboid.kube.types import Pod, pod
from cuboid.lib.errors import NotFoundError, UnavailableError
from cuboid.node.access import PodView
from cuboid.node.kubelet.app import kubelet_app
from cuboid.node.kubelet.serve import Keys, serve_kubelet
from cuboid.node.logs import LogPump
from cuboid.node.news import News
from cuboid.server.tls import Authority, client_context
from cuboid.storage.fake import FakeDisks
from cuboid.vmm.base import VmStats

SETUP = pb.Setup(hostname="web", images=[pb.Device(name="image", serial="i")])


@dataclass
class Execs:
    """Commands beyond the fake's own, and what became of them."""

    reset: asyncio.Event = field(default_factory=asyncio.Event)  # the host gave a command up
    written: int = 0  # bytes that `yes` could write
    stdin: bytearray = field(default_factory=bytearray)
    calls: list[pb.Exec] = field(default_factory=list)

    async def run(self, call: pb.Exec, stream: FakeStream) -> int:
        self.calls.append(call)
        try:
            match list(call.args):
                case ["yes"]:
                    while True:
                        await stream.send(b"y\n" * 8192, 1)
                        self.written += 16384
                case ["both"]:
                    await stream.send(b"out\n", 1)
                    await stream.send(b"err\n", 2)
                    return 3
                case ["deaf"]:
                    while not stream.over:
                        await asyncio.sleep(0.02)
                    raise FakeGone
                case ["tar" | "test", *_]:
                    return await host_command(list(call.args), stream)
                case ["menu"]:
                    return await menu(stream)
                case ["count"]:
                    total = 0
                    while (item := await stream.receive())[1] is not None:
                        total += len(item[1] or b"")
                    await stream.send(b"%d\n" % total, 1)
                    return 0
            return await run_command(call, stream)
        except BaseException:
            self.reset.set()
            raise


async def host_command(args: list[str], stream: FakeStream) -> int:
    """A command of the host's instead of a container's, for paths in a test's own folder."""
    process = await asyncio.create_subprocess_exec(*args, stdin=asyncio.subprocess.PIPE, stdout=asyncio.subprocess.PIPE)
    assert process.stdin and process.stdout

    async def feed(stdin: asyncio.StreamWriter) -> None:
        while (item := await stream.receive())[1] is not None:
            stdin.write(item[1] or b"")
            await stdin.drain()
        stdin.close()

    feeder = asyncio.get_running_loop().create_task(feed(process.stdin))
    while piece := await process.stdout.read(65_536):
        await stream.send(piece, 1)
    code = await process.wait()
    feeder.cancel()
    await asyncio.gather(feeder, return_exceptions=True)
    return code


async def menu(stream: FakeStream) -> int:
    """A program on a terminal: answers each key, ends at `q` with code 7."""
    await stream.send(b"ready\r\n", 1)
    while True:
        _, data = await stream.receive()
        if data is None or b"q" in data:
            return 7
        await stream.send(b"key " + data + b"\r\n", 1)


@dataclass
class View:
    """One pod on the fake node."""

    pod: Pod
    client: Guest
    folder: Path
    agent: FakeAgent
    up: bool = True
    vmm: VmStats | None = None

    @property
    def uid(self) -> str:
        return self.pod.metadata.uid

    @property
    def containers(self) -> list[str]:
        return [c.name for c in self.pod.spec.containers]

    def guest(self) -> Guest:
        if not self.up:
            raise UnavailableError("the pod's machine is not up")
        return self.client

    def running(self, container: str) -> bool:
        found = self.agent.containers.get(container)
        return self.up and found is not None and found.exit is None

    def begun(self, container: str) -> bool:
        return self.up and container in self.agent.containers

    def tty(self, container: str) -> bool:
        return any(c.name == container and c.tty for c in self.pod.spec.containers)

    async def vmm_stats(self) -> VmStats | None:
        return self.vmm

    def log_folder(self, container: str) -> Path:
        return self.folder / container


@dataclass
class Access:
    views: list[View]
    told: News = field(default_factory=News)

    def machines(self) -> list[dict[str, Any]]:
        return [{"slot": "slot", "vm": "warm-slot", "vcpus": 1, "memoryMiB": 160, "state": "waiting"}]

    async def news(self, namespace: str, name: str) -> None:
        await self.told.about(namespace, name)

    def find(self, namespace: str, name: str) -> PodView | None:
        for view in self.views:
            if (view.pod.metadata.namespace, view.pod.metadata.name) == (namespace, name):
                return view
        return None

    def pods(self) -> list[PodView]:
        return list(self.views)


class Images:
    """An image store with one image, which says what it was asked."""

    def __init__(self) -> None:
        self.image = Image(
            "sha256:" + "1" * 64, "sha256:" + "2" * 64, ("demo:1",), Path("/nowhere"), 4096, ImageConfig(), "amd64", ""
        )
        self.pulled: list[tuple[str, Credentials | None]] = []
        self.imported: list[tuple[bytes, str | None]] = []

    async def resolve(self, reference: str, *, credentials: Credentials | None = None) -> Image | None:
        return self.image if reference in self.image.names else None

    async def pull(
        self, reference: str, *, credentials: Credentials | None = None, progress: ProgressHook | None = None
    ) -> Image:
        self.pulled.append((reference, credentials))
        if progress:
            progress(Progress(Phase.DOWNLOAD, 10, 100))
        await asyncio.sleep(0.3)
        if "missing" in reference:
            raise NotFoundError(f"there is no image {reference}", hint="look at its name")
        return self.image

    async def import_archive(
        self, path: Path, *, name: str | None = None, progress: ProgressHook | None = None
    ) -> list[Image]:
        self.imported.append((path.read_bytes(), name))
        return [self.image]

    def images(self) -> list[Image]:
        return [self.image]

    async def remove(self, reference: str) -> list[str]:
        if reference not in self.image.names:
            raise NotFoundError(f"there is no image {reference}")
        return [reference]

    def hold(self, image: Image, pod_uid: str) -> None: ...

    def release(self, pod_uid: str) -> None: ...

    def holders(self) -> set[str]:
        return set()

    async def sweep(self) -> None: ...


@dataclass
class KubeletRig:
    port: int
    folder: Path
    authority: Authority
    tls: ssl.SSLContext
    view: View
    access: Access
    agent: FakeAgent
    execs: Execs
    images: Images
    disks: FakeDisks

    def http(self) -> httpx.AsyncClient:
        return httpx.AsyncClient(verify=self.tls, base_url=f"https://127.0.0.1:{self.port}", timeout=10)

    def socket(self, path: str, *protocols: str) -> connect:
        """A WebSocket to the node; without protocols the newest of remote commands."""
        offered = protocols or ("v5.channel.k8s.io", "v4.channel.k8s.io")
        url = f"wss://127.0.0.1:{self.port}{path}"
        return open_socket(url, offered, ssl=self.tls, compression=None, proxy=None, max_queue=1)


def make_pod(**spec: Any) -> Pod:
    containers = [{"name": "main", "image": "demo:1"}, {"name": "term", "image": "demo:1", "tty": True, "stdin": True}]
    return pod(
        {
            "apiVersion": "v1",
            "kind": "Pod",
            "metadata": {"name": "web", "namespace": "default", "uid": "u-1", "resourceVersion": "7"},
            "spec": {"containers": containers, **spec},
        }
    )


@asynccontextmanager
async def kubelet(folder: Path, pki: Path | None = None) -> AsyncIterator[KubeletRig]:
    """Serves the pod `default/web` with its containers `main` and `term`, both running. `pki`: another CA's folder."""
    execs = Execs()
    async with FakeAgent(folder / "agent.sock", {"main": Script(), "term": Script()}, on_exec=execs.run) as agent:
        client = AgentClient(agent.path)
        ack = await client.connect(timeout=5)
        await client.setup(SETUP)
        view = View(make_pod(), client, folder / "logs", agent)
        pumps = [LogPump(client, name, view.log_folder(name), boot=ack.boot_id) for name in view.containers]
        for pump, name in zip(pumps, view.containers, strict=True):
            await pump.attempt_started(0, 0)
            await client.start_container(pb.StartContainer(name=name, image="image", args=["x"], tty=name == "term"))
        tasks = [asyncio.get_running_loop().create_task(pump.run()) for pump in pumps]
        try:
            async with _served(folder, pki or folder / "pki", view, execs) as rig:
                yield rig
        finally:
            for task in tasks:
                task.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)
            for pump in pumps:
                await pump.close()
            await client.close()


@asynccontextmanager
async def _served(folder: Path, pki: Path, view: View, execs: Execs) -> AsyncIterator[KubeletRig]:
    authority = Authority(pki)
    authority.server("node", ["127.0.0.1", "localhost"])
    tls = client_context(authority.ca_file, authority.client("kubelet-client", "api", "system:masters"))
    access, images, disks = Access([view]), Images(), FakeDisks(folder / "disks")
    app = kubelet_app(access, images, disks, node="node-1", spool=folder / "spool")
    async with serve_kubelet(app, "127.0.0.1", 0, Keys.of_folder(pki)) as port:
        yield KubeletRig(port, folder, authority, tls, view, access, view.agent, execs, images, disks)


async def say(socket: ClientConnection, channel: int, data: bytes) -> None:
    await socket.send(bytes((channel,)) + data)


async def hear(socket: ClientConnection, channel: int, size: int) -> bytes:
    """The next `size` bytes of one channel; what other channels say meanwhile is dropped."""
    got = b""
    async with asyncio.timeout(10):
        while len(got) < size:
            message = await socket.recv()
            assert isinstance(message, bytes)
            got += message[1:] if message[0] == channel else b""
    return got
