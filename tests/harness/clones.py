"""Clones of a template with the real agent, each with a tap of its own, an image and a writable disk in its slots.

async with Clones("identity", image) as clones:
    first, second = await clones.clone(), await clones.clone()
    await first.set_up()
"""

from __future__ import annotations

import os
from contextlib import AsyncExitStack
from dataclasses import dataclass, field
from pathlib import Path

import pytest

from cuboid.guest import agent_pb2 as pb
from cuboid.guest.assets import guest_assets
from cuboid.guest.client import AgentClient
from cuboid.lib import proc
from cuboid.lib.errors import UnsupportedError
from cuboid.storage import ext4
from cuboid.vmm.base import Boot, Disk, Nic, VmSpec
from cuboid.vmm.qemu.vm import QemuVm
from tests.harness.vms import BOOT_SECONDS, Vms, needs_vms

SLOTS = (Disk("ro0", None, read_only=True), Disk("rw0", None, read_only=False))
DISK_BYTES = 64 << 20
ADDRESS, GATEWAY = "10.77.0.2/24", "10.77.0.1"
MTU = 1400


@dataclass
class Clone:
    """A restored VM and its agent."""

    vm: QemuVm
    client: AgentClient
    mac: str
    events: list[pb.Event] = field(default_factory=list)

    def setup(self, **more: object) -> pb.Setup:
        """What makes a pod of it; every clone has the same address, in a network of its own."""
        interface = pb.Interface(
            mac=self.mac, name="eth0", device="eth0", mtu=MTU, addresses=[ADDRESS],
            routes=[pb.IpRoute(destination="default", gateway=GATEWAY)],
        )  # fmt: skip
        call = pb.Setup(
            hostname="pod", interfaces=[interface], images=[pb.Device(name="image", serial="ro0")],
            writable=pb.Device(name="writable", serial="rw0"), entropy=os.urandom(64), pod_ip=ADDRESS.split("/")[0],
        )  # fmt: skip
        call.MergeFrom(pb.Setup(**more))  # type: ignore[arg-type]
        return call

    async def run(self, *args: str, container: str = "app") -> str:
        """The output of a command in a container; it must succeed."""
        output = b""
        async with await self.client.exec(pb.Exec(container=container, args=args)) as stream:
            async for _, data in stream.received():
                output += data
            code = (await stream.reply()).exit.code
        assert code == 0, f"{args}: {code}, {output.decode(errors='replace')}"
        return output.decode()


def start(name: str, *args: str, **more: object) -> pb.StartContainer:
    fields = {"args": args, "env": ["PATH=/bin"], "cwd": "/", **more}
    return pb.StartContainer(name=name, image="image", **fields)  # type: ignore[arg-type]


class Clones:
    """Owns the VMs, the namespaces and the files of a test; skipped in words where no VM can run."""

    def __init__(self, name: str, image: Path, *, memory_mib: int = 160, kind: str = "") -> None:
        if needs_vms.args[0]:
            pytest.skip(str(needs_vms.kwargs["reason"]))
        try:
            assets = guest_assets(kind=kind)
        except UnsupportedError as missing:
            pytest.skip(str(missing))
        self._boot = Boot(assets.kernel, assets.small)
        self._name = name
        self._image = image
        self._memory_mib = memory_mib
        self._stack = AsyncExitStack()
        self._number = 0
        self._folder: Path | None = None

    async def __aenter__(self) -> Clones:
        self.vms = await self._stack.enter_async_context(Vms(self._name))
        return self

    async def __aexit__(self, *details: object) -> None:
        await self._stack.__aexit__(*details)  # type: ignore[arg-type]

    async def _namespace(self) -> Path:
        self._number += 1
        name = f"cbt-{self._name}-{os.getpid()}-{self._number}"
        await proc.run(["ip", "netns", "add", name], timeout=5)
        self._stack.push_async_callback(proc.run, ["ip", "netns", "del", name], timeout=5)
        await proc.run(["ip", "-n", name, "tuntap", "add", "tap0", "mode", "tap", "vnet_hdr"], timeout=5)
        await proc.run(["ip", "-n", name, "address", "add", f"{GATEWAY}/24", "dev", "tap0"], timeout=5)
        await proc.run(["ip", "-n", name, "link", "set", "tap0", "mtu", str(MTU), "up"], timeout=5)
        return Path("/run/netns") / name

    async def disk(self, name: str, size: int = DISK_BYTES) -> Disk:
        """An empty ext4 file system for the writable slot."""
        path = self.vms.folder / name
        await ext4.make(path, size, ext4.ephemeral(size), deadline=30, durable=False)
        return Disk("rw0", path, read_only=False)

    @property
    def image(self) -> Disk:
        return Disk("ro0", self._image, read_only=True)

    async def template(self) -> Path:
        """Made once: a guest whose agent has answered and has been told nothing."""
        if self._folder is None:
            folder = self.vms.folder / "template"
            nics = (Nic("tap0", "02:00:00:00:00:01"),)
            vm = await self.vms.create(self._spec("template", disks=SLOTS, nics=nics, template=True))
            client = AgentClient(vm.channel_path)
            await vm.start()
            await client.connect(timeout=BOOT_SECONDS)
            await client.list()
            await vm.pause()
            await vm.snapshot(folder)
            await client.close()
            await vm.kill()
            self._folder = folder
        return self._folder

    def _spec(self, name: str, **more: object) -> VmSpec:
        return self.vms.spec(name, boot=self._boot, memory_mib=self._memory_mib, **more)  # type: ignore[arg-type]

    async def clone(self, folder: Path | None = None, *, disks: tuple[Disk, ...] | None = None) -> Clone:
        """One more, running and connected; of the template, or of another snapshot."""
        folder = folder or await self.template()
        return await self.restored(await self.prepared(disks), folder)

    async def prepared(self, disks: tuple[Disk, ...] | None = None) -> VmSpec:
        """What a clone needs before it is restored: a network namespace with its tap, and disks."""
        namespace = await self._namespace()
        if disks is None:
            disks = (self.image, await self.disk(f"disk-{self._number}"))
        nics = (Nic("tap0", f"02:00:00:00:01:{self._number:02x}", mtu=MTU),)
        return self._spec(f"clone-{self._number}", disks=disks, nics=nics, netns=namespace)

    async def restored(self, spec: VmSpec, folder: Path) -> Clone:
        vm = await self.vms.driver.restore(spec, folder)
        self.vms.own(vm)
        events: list[pb.Event] = []

        async def take(event: pb.Event) -> None:
            events.append(event)

        client = AgentClient(vm.channel_path, take)
        self._stack.push_async_callback(client.close)
        await vm.resume()
        await client.connect(timeout=BOOT_SECONDS)
        return Clone(vm, client, spec.nics[0].mac, events)
