"""A Redis that is snapshotted while clients are connected and goes on in a new process: data, connections, identity."""

from __future__ import annotations

import asyncio
import os
import secrets
import shutil
import socket
import subprocess
import time
import uuid
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass
from pathlib import Path

import pytest

from cuboid.guest import agent_pb2 as pb
from cuboid.guest.assets import guest_assets
from cuboid.guest.client import AgentClient
from cuboid.images.store import LocalImageStore
from cuboid.lib.linux import netns
from cuboid.vmm.base import Boot, Disk, Nic, VmSpec
from cuboid.vmm.qemu.vm import QemuVm
from tests.harness.images import small_settings
from tests.harness.network import configure
from tests.harness.network import missing as network_missing
from tests.harness.vms import Vms, needs_vms
from tools import debian_images

pytestmark = [
    pytest.mark.vm, pytest.mark.net, pytest.mark.slow, needs_vms, pytest.mark.timeout(300),
    pytest.mark.skipif(bool(network_missing()), reason=network_missing()),
]  # fmt: skip

MAC, GUEST_IP, HOST_IP = "02:00:00:00:00:77", "10.77.0.2", "10.77.0.1"
REDIS = (
    "redis-server",
    "--bind",
    "0.0.0.0",
    "--protected-mode",
    "no",
    "--appendonly",
    "yes",
    "--dir",
    "/tmp",
    "--save",
    "",
)


@dataclass
class Client:
    """A connection to the Redis of one namespace's guest."""

    reader: asyncio.StreamReader
    writer: asyncio.StreamWriter

    async def ask(self, *words: str) -> str:
        self.writer.write(f"*{len(words)}\r\n".encode() + b"".join(f"${len(w)}\r\n{w}\r\n".encode() for w in words))
        line = (await asyncio.wait_for(self.reader.readline(), 20)).decode().strip()
        if line.startswith("$") and line != "$-1":
            return (await asyncio.wait_for(self.reader.readline(), 20)).decode().strip()
        return line


async def connected(namespace: Path, seconds: float = 60.0) -> Client:
    until = time.monotonic() + seconds
    while True:
        try:
            link = await netns.run_in(namespace, lambda: socket.create_connection((GUEST_IP, 6379), 5))
            return Client(*await asyncio.open_connection(sock=link))
        except OSError:
            if time.monotonic() > until:
                raise
            await asyncio.sleep(0.2)


@asynccontextmanager
async def network() -> AsyncIterator[Path]:
    """A namespace with a tap for one guest: all of them have the same address there."""
    path = Path("/run/netns") / f"cuboid-redis-{os.getpid()}-{secrets.token_hex(3)}"
    await netns.create(path)
    try:
        configure(path, "tuntap add tap0 mode tap vnet_hdr", f"addr add {HOST_IP}/24 dev tap0", "link set tap0 up")
        yield path
    finally:
        netns.remove(path)


class Machines:
    """VMs with the agent, Redis' image, a writable disk and a network device; connections are closed at the end."""

    def __init__(self, vms: Vms, image: Path, stack: AsyncExitStack) -> None:
        self.vms = vms
        self._image = image
        self._stack = stack
        assets = guest_assets()
        self._boot = Boot(assets.kernel, assets.initramfs)

    def spec(self, name: str, namespace: Path, data: Path) -> VmSpec:
        disks = (Disk("image", self._image, True), Disk("rw", data, False))
        nics = (Nic("tap0", MAC),)
        return self.vms.spec(name, boot=self._boot, memory_mib=256, disks=disks, nics=nics, netns=namespace)

    async def agent(self, vm: QemuVm) -> AgentClient:
        client = AgentClient(vm.channel_path)
        await client.connect(timeout=90)
        self._stack.push_async_callback(client.close)
        return client

    async def serving(self, namespace: Path) -> QemuVm:
        """A booted one whose Redis runs."""
        data = self.vms.disk("data.img", 256 << 20)
        subprocess.run(["mkfs.ext4", "-q", "-F", data], check=True, timeout=30)
        vm = await self.vms.create(self.spec("first", namespace, data))
        await vm.start()
        agent = await self.agent(vm)
        interface = pb.Interface(mac=MAC, name="eth0", addresses=[f"{GUEST_IP}/24"])
        await agent.setup(
            pb.Setup(
                hostname="redis", images=[pb.Device(name="image", serial="image")], interfaces=[interface],
                writable=pb.Device(name="rw", serial="rw"), now_unix_ns=time.time_ns(), entropy=secrets.token_bytes(32),
                boot_id=str(uuid.uuid4()),
            ), timeout=60,
        )  # fmt: skip
        await agent.start_container(
            pb.StartContainer(name="redis", image="image", args=REDIS, env=["PATH=/usr/bin:/bin"], cwd="/"), timeout=60
        )
        await agent.close()
        return vm

    async def restored(self, name: str, namespace: Path, folder: Path) -> AgentClient:
        """One that has gone on from a snapshot, with an identity of its own."""
        data = self.vms.folder / f"{name}.img"
        shutil.copy(folder / "disk-rw", data)
        vm = await self.vms.driver.restore(self.spec(name, namespace, data), folder)
        self.vms.own(vm)
        await vm.resume()
        agent = await self.agent(vm)
        await agent.renew(
            pb.Renew(now_unix_ns=time.time_ns(), entropy=secrets.token_bytes(32), boot_id=str(uuid.uuid4()))
        )
        return agent


@pytest.fixture
async def machines(tmp_path: Path) -> AsyncIterator[Machines]:
    store = LocalImageStore(tmp_path / "images", settings=small_settings())
    (image,) = await store.import_archive(debian_images.layout("services"))
    async with Vms("redis") as vms, AsyncExitStack() as stack:
        yield Machines(vms, image.device, stack)
    shutil.rmtree(tmp_path / "images")


async def said(agent: AgentClient, *command: str) -> str:
    """What a command in the container prints."""
    output = b""
    async with await agent.exec(pb.Exec(container="redis", args=command)) as stream:
        async for _, data in stream.received():
            output += data
    return output.decode().strip()


async def test_a_redis_goes_on_in_a_new_process_with_its_connections_and_its_data(machines: Machines) -> None:
    async with network() as namespace:
        vm = await machines.serving(namespace)
        client = await connected(namespace)
        assert await client.ask("SET", "key", "kept") == "+OK"
        assert await client.ask("INCR", "counter") == ":1"
        folder = machines.vms.folder / "snapshot"
        await vm.pause()
        await vm.snapshot(folder)
        await vm.kill()
        asking = asyncio.ensure_future(client.ask("INCR", "counter"))  # while nobody is there to answer
        await asyncio.sleep(0.2)
        agent = await machines.restored("second", namespace, folder)
        assert await asking == ":2"
        assert await client.ask("GET", "key") == "kept"
        late = await connected(namespace)
        assert await late.ask("INCR", "counter") == ":3"
        assert await said(agent, "cat", "/proc/uptime") != ""
        assert abs(int(await said(agent, "date", "+%s")) - time.time()) < 30
        for link in (client, late):
            link.writer.close()


async def test_two_restores_of_one_snapshot_are_two_machines(machines: Machines) -> None:
    async with network() as first, network() as second:
        vm = await machines.serving(first)
        client = await connected(first)
        assert await client.ask("SET", "key", "common") == "+OK"
        client.writer.close()
        folder = machines.vms.folder / "snapshot"
        await vm.pause()
        await vm.snapshot(folder)
        await vm.kill()
        agents = [await machines.restored(f"r{n}", namespace, folder) for n, namespace in enumerate((first, second))]
        clients = [await connected(namespace) for namespace in (first, second)]
        assert [await link.ask("GET", "key") for link in clients] == ["common"] * 2
        assert await clients[0].ask("SET", "key", "first's") == "+OK"
        assert await clients[1].ask("GET", "key") == "common"
        random = [await said(agent, "cat", "/proc/sys/kernel/random/uuid") for agent in agents]
        boots = [await said(agent, "cat", "/proc/sys/kernel/random/boot_id") for agent in agents]
        assert len({*random}) == len({*boots}) == 2
        for link in clients:
            link.writer.close()
