"""The contract suite's `Bench` on the real Firecracker, where it and KVM are to be had; else the reason why not."""

from __future__ import annotations

import asyncio
import shutil
import stat
import subprocess
from pathlib import Path
from typing import Any

import pytest

from cuboid.guest.initramfs import Member, Modules, cpio
from cuboid.lib.errors import CuboidError
from cuboid.lib.proc import PATH
from cuboid.vmm.base import Boot, Vm, VmSpec
from cuboid.vmm.firecracker.vm import FirecrackerVm
from cuboid.vmm.settings import VmmSettings
from tests.harness import guest_image
from tests.harness.firecracker.bench import ANSWER_SECONDS, FirecrackerBench

SOURCE = Path(__file__).with_name("guest.c")
BOOT_SECONDS = 20.0
MODULES = ("virtio_mmio", "virtio_blk", "virtio_net", "virtio_balloon", "vmw_vsock_virtio_transport")


def missing() -> str:
    """Why nothing can be run on the real Firecracker, as far as it is seen without trying; or nothing."""
    settings = VmmSettings()
    for program in (settings.firecracker, settings.jailer):
        if shutil.which(program, path=PATH) is None:
            return f"{program} is not installed: the contract is not run on the real Firecracker"
    return guest_image.missing()


needs_firecracker = pytest.mark.skipif(bool(missing()), reason=missing())


class RealBench(FirecrackerBench):
    """Real programs, a real kernel, a guest that answers on its vsock."""

    def __init__(self) -> None:
        settings = VmmSettings()
        super().__init__(jailer=settings.jailer, firecracker=settings.firecracker)
        kernel = guest_image.kernel()
        assert kernel is not None, guest_image.missing()
        (self.folder / "vmlinux").unlink()
        (self.folder / "vmlinux").symlink_to(kernel)
        self._initramfs = initramfs(kernel, self.folder)

    async def usable(self) -> None:
        """Skips the test, with the reason, where no kernel runs."""
        probe = await self.driver.probe()
        if not probe.usable:
            pytest.skip(f"Firecracker runs no kernel here: {probe.reason}")

    def spec(self, **changes: Any) -> VmSpec:
        return super().spec(**{"boot": Boot(self.folder / "vmlinux", self._initramfs), **changes})

    async def running(self, **changes: Any) -> Vm:
        vm = await super().running(**changes)
        await self._answers(vm)
        return vm

    async def _answers(self, vm: Vm) -> None:
        assert isinstance(vm, FirecrackerVm)
        async with asyncio.timeout(BOOT_SECONDS):
            while True:
                try:
                    (await vm.open_channel()).close()
                    return
                except CuboidError:
                    await asyncio.sleep(0.02)

    async def echo(self, vm: Vm, text: str) -> str:
        return await asyncio.wait_for(super().echo(vm, text), ANSWER_SECONDS)


def initramfs(kernel: Path, folder: Path) -> Path:
    """The guest with the modules that its kernel needs, in `folder`."""
    program = folder / "guest"
    subprocess.run(["gcc", "-O2", "-Wall", "-static", "-o", program, SOURCE], check=True, timeout=60)
    modules = Modules(guest_image.ROOT / "build/kernel/modules" / kernel.name.removeprefix("vmlinuz-"))
    members = [Member(name, stat.S_IFDIR | 0o755) for name in ("dev", "sys", "modules")]
    members += [Member("init", stat.S_IFREG | 0o755, program.read_bytes())]
    for number, name in enumerate(modules.closure(MODULES, optional=True)):
        members.append(Member(f"modules/{number:02}-{name}.ko", stat.S_IFREG | 0o644, modules.content(name)))
    data = cpio(members)
    (folder / "guest.cpio").write_bytes(data + bytes(-len(data) % 4096))
    (folder / "guest.cpio").chmod(0o644)
    return folder / "guest.cpio"
