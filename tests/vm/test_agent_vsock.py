"""What an agent does under a VMM like Firecracker, tried under QEMU: its channel is a vsock port, its disks have other
serials than ours, its machine ends by a reset.

QEMU has no vsock of its own where the host has no vhost; `vhost-device-vsock` (a program of the rust-vmm project) is
one for it, and greets hosts exactly as Firecracker does. Where it is not installed, the test that needs it is skipped.
"""

from __future__ import annotations

import asyncio
import shutil
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from pathlib import Path

import pytest

from cuboid.guest.assets import guest_assets
from cuboid.guest.client import AgentClient
from cuboid.guest.errors import GuestLostError
from cuboid.lib import proc
from cuboid.vmm.base import Boot, Disk
from cuboid.vmm.firecracker import command
from cuboid.vmm.firecracker.channel import open_channel
from cuboid.vmm.qemu import tsc
from tests.harness.guest_rig import SETUP, image
from tests.harness.vms import Vms, needs_vms

pytestmark = [pytest.mark.vm, needs_vms, pytest.mark.timeout(240)]

Ended = Callable[[], Awaitable[object]]

BOOT_SECONDS = 90.0
DEVICE = shutil.which("vhost-device-vsock", path=f"{proc.PATH}:{Path.home()}/.cargo/bin")
needs_device = pytest.mark.skipif(
    DEVICE is None, reason="vhost-device-vsock is not installed (cargo install vhost-device-vsock)"
)


async def test_disks_are_found_by_their_order_where_their_serials_are_not_ours() -> None:
    assets = guest_assets(kind="general")
    async with Vms("agent-disks", initramfs=assets.initramfs) as vms:
        disks = (Disk("8388608001", vms.disk("other"), False), Disk("8388608002", image(vms.folder), True))
        boot = Boot(assets.kernel, assets.initramfs, "cuboid.disks=data,image")
        vm = await vms.create(vms.spec(boot=boot, disks=disks, memory_mib=160))
        await vm.start()
        client = AgentClient(vm.channel_path)
        await client.connect(timeout=BOOT_SECONDS)
        await client.setup(SETUP, timeout=60)  # mounts the image: the other disk holds none
        assert (await client.list()).set_up
        await client.close()


@asynccontextmanager
async def vsock_machine(folder: Path, device: str) -> AsyncIterator[tuple[int, Ended]]:
    """QEMU with a vsock device served by another process; the pid of that one, and QEMU's end."""
    assets = guest_assets(kind="general")
    sockets = f"guest-cid=3,socket={folder}/vhost.sock,uds-path={folder}/v.sock"
    words = [word for word in command.GUEST_ARGS if word != "quiet"]
    args = " ".join([*words, command.SERIAL_ON, f"tsc_early_khz={tsc.khz()}", "tsc=reliable", "no_timer_check"])
    async with proc.spawn([device, "--vm", sockets]) as backend:
        async with asyncio.timeout(10):
            while not (folder / "vhost.sock").exists():
                await asyncio.sleep(0.01)
        machine = [
            "qemu-system-x86_64", "-M", "microvm,pit=off,pic=off,rtc=off,memory-backend=memory", "-accel", "tcg",
            "-cpu", "max,-la57", "-m", "256", "-nodefaults", "-no-user-config", "-nographic", "-no-reboot",
            "-object", "memory-backend-memfd,id=memory,size=256M,share=on",
            "-global", "virtio-mmio.force-legacy=false", "-chardev", f"socket,id=vsock,path={folder}/vhost.sock",
            "-device", "vhost-user-vsock-device,chardev=vsock", "-serial", f"file:{folder}/console",
            "-kernel", str(assets.kernel), "-initrd", str(assets.initramfs), "-append", args,
        ]  # fmt: skip
        async with proc.spawn(machine) as qemu:
            yield backend.pid, qemu.wait


@needs_device
async def test_an_agent_is_reached_over_vsock_again_and_again_and_ends_its_machine_in_order(tmp_path: Path) -> None:
    assert DEVICE is not None
    async with vsock_machine(tmp_path, DEVICE) as (pid, ended):
        client = AgentClient(lambda: open_channel(tmp_path / "v.sock", pid, command.CHANNEL_PORT, seconds=5))
        await client.connect(timeout=BOOT_SECONDS)
        assert (await client.list()).containers == []
        assert client._connection is not None
        client._connection.cut(GuestLostError("on purpose"))
        await client.connect(timeout=20)
        other = AgentClient(lambda: open_channel(tmp_path / "v.sock", pid, command.CHANNEL_PORT, seconds=5))
        await other.connect(timeout=20)
        assert (await other.list()).containers == []
        await other.close()
        await client.connect(timeout=20)
        await client.shutdown()
        await client.close()
        await asyncio.wait_for(ended(), 30)
        assert "reboot: Restarting system" in (tmp_path / "console").read_text(errors="replace")
