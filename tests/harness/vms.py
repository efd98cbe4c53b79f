"""A factory that owns every VM a test makes, and asserts at the end that nothing of them is left on the host.

    async with Vms("recovery") as vms:
        guest = await vms.boot()
        assert await guest.ask("hello") == "hello"

When the block fails, the consoles and QEMU's own messages are saved to build/artifacts.
"""

from __future__ import annotations

import asyncio
import itertools
import os
import shutil
import tempfile
from contextlib import suppress
from pathlib import Path
from types import TracebackType

import pytest

from cuboid.lib.linux import cgroup, processes
from cuboid.vmm.base import Boot, Disk, HostLimits, Nic, VmSpec
from cuboid.vmm.qemu.driver import QemuDriver
from cuboid.vmm.qemu.vm import QemuVm
from cuboid.vmm.settings import VmmSettings
from tests.harness import guest_image

BOOT_SECONDS = 75.0  # a boot takes 3 to 5 s under software emulation, 17 s with five VMs' load on each core
ASK_SECONDS = 10.0
ARTIFACTS = guest_image.ROOT / "build/artifacts"
STATE = guest_image.ROOT / "build/test/vmm-state"  # shared, so that accelerators are probed once
ANSWERS = ("probe.json", "tsc-khz")
UIDS = 200  # users per factory

needs_vms = pytest.mark.skipif(
    bool(guest_image.missing()) or os.geteuid() != 0, reason=guest_image.missing() or "VMs need root"
)
_numbers = itertools.count()


class Guest:
    """A running VM and its end of the agent's channel (guest_init.c)."""

    def __init__(self, vm: QemuVm) -> None:
        self.vm = vm
        self._reader: asyncio.StreamReader | None = None
        self._writer: asyncio.StreamWriter | None = None

    async def connect(self) -> None:
        self._reader, self._writer = await asyncio.open_unix_connection(str(self.vm.channel_path))

    async def line(self, seconds: float = ASK_SECONDS) -> str:
        assert self._reader is not None
        data = await asyncio.wait_for(self._reader.readline(), seconds)
        return data.decode().rstrip("\n")

    async def send(self, text: str) -> None:
        assert self._writer is not None
        self._writer.write(text.encode() + b"\n")
        await self._writer.drain()

    async def ask(self, text: str, seconds: float = ASK_SECONDS) -> str:
        await self.send(text)
        return await self.line(seconds)

    async def ask_list(self, text: str) -> list[str]:
        """Lines up to the "." that ends them."""
        await self.send(text)
        lines = []
        while (line := await self.line()) != ".":
            lines.append(line)
        return lines

    async def disconnect(self) -> None:
        if self._writer is not None:
            self._writer.close()
            with suppress(ConnectionError):
                await self._writer.wait_closed()
        self._reader = self._writer = None


class Vms:
    def __init__(self, name: str, *, initramfs: Path | None = None, settings: VmmSettings | None = None) -> None:
        self.name = name
        number = next(_numbers)
        self.folder = Path(tempfile.mkdtemp(prefix="cbd-"))  # short: sockets are in it
        self.settings = settings or VmmSettings(
            cgroup_parent=f"cuboid-test-{os.getpid()}-{number}",
            uid_base=2_100_000_000 + (os.getpid() % 20_000) * 10_000 + number % 50 * UIDS, uid_count=UIDS,
        )  # fmt: skip
        self.state = _own_state(self.folder)
        self._initramfs = initramfs
        self._made: list[QemuVm] = []
        self._guests: list[Guest] = []
        self._drivers: list[QemuDriver] = []
        self.driver = self.new_driver()

    def new_driver(self) -> QemuDriver:
        """Another driver over the same host state: what a restarted node agent has."""
        kernel = guest_image.kernel()
        assert kernel is not None, guest_image.missing()
        driver = QemuDriver(self.folder, self.state, self.settings, kernel=kernel)
        self._drivers.append(driver)
        return driver

    def spec(
        self, vm_id: str = "", *, disks: tuple[Disk, ...] = (), nics: tuple[Nic, ...] = (), netns: Path | None = None,
        memory_mib: int = 128, vcpus: int = 1, boot: Boot | None = None, limits: HostLimits | None = None,
        shared_memory: bool = False, template: bool = False,
    ) -> VmSpec:  # fmt: skip
        kernel = guest_image.kernel()
        assert kernel is not None, guest_image.missing()
        return VmSpec(
            vm_id or f"vm-{next(_numbers)}", boot or Boot(kernel, self._initramfs or guest_image.test_initramfs()),
            vcpus, memory_mib, disks, nics, netns, limits or HostLimits(), shared_memory, template,
        )  # fmt: skip

    async def create(self, spec: VmSpec | None = None) -> QemuVm:
        vm = await self.driver.create(spec or self.spec())
        self.own(vm)
        return vm

    def own(self, vm: QemuVm) -> None:
        self._made.append(vm)

    async def boot(self, spec: VmSpec | None = None) -> Guest:
        """A VM whose guest has said that it is ready."""
        return await self.started(await self.create(spec))

    async def started(self, vm: QemuVm) -> Guest:
        await vm.start()
        guest = await self.guest(vm)
        assert await guest.line(BOOT_SECONDS) == "READY"
        return guest

    async def guest(self, vm: QemuVm) -> Guest:
        guest = Guest(vm)
        await guest.connect()
        self._guests.append(guest)
        return guest

    def disk(self, name: str, size: int = 1 << 20) -> Path:
        path = self.folder / name
        with path.open("wb") as file:
            file.truncate(size)
        return path

    async def __aenter__(self) -> Vms:
        return self

    async def __aexit__(self, kind: type[BaseException] | None, _: object, __: TracebackType | None) -> None:
        if kind is not None:
            self._save()
        try:
            for guest in self._guests:
                await guest.disconnect()
            for vm_id in await self.driver.leftovers(set()):
                await self.driver.clean(vm_id)
            remains = "" if kind is not None else self._remains()
        finally:
            for driver in self._drivers:
                await driver.close()
            _keep_answers(self.state)
            self._remove_groups()
            shutil.rmtree(self.folder, ignore_errors=True)
        assert not remains, f"left on the host: {remains}"

    def _save(self) -> None:
        folder = ARTIFACTS / self.name
        folder.mkdir(parents=True, exist_ok=True)
        for vm in self._made:
            (folder / f"{vm.id}.console").write_text(vm.console_tail(1 << 18))
            (folder / f"{vm.id}.qemu").write_text(vm.vmm_log)

    def _remains(self) -> str:
        """What is left of all VMs, in words."""
        found = [f"file {path}" for part in ("vmm", "vmm-users") for path in (self.folder / part).glob("*")]
        users = range(self.settings.uid_base, self.settings.uid_base + self.settings.uid_count)
        found += [f"process {pid}" for pid in processes.of_users(users)]
        found += [f"group {name}" for name in cgroup.find(self.settings.cgroup_parent).names()]
        found += [f"file {path}" for path in (self.state / "vmm/memory").glob("*")]
        mounts = Path("/proc/self/mounts").read_text().splitlines()
        found += [f"mount {line}" for line in mounts if str(self.folder) in line]
        return ", ".join(found)

    def _remove_groups(self) -> None:
        for folder in cgroup.find(self.settings.cgroup_parent).folders(".").values():
            with suppress(OSError):
                folder.rmdir()


def _own_state(folder: Path) -> Path:
    """A state folder for one factory, which knows what others found out: what is usable here, kernels unpacked."""
    state, shared = folder / "state", STATE / "vmm"
    (shared / "boot").mkdir(mode=0o755, parents=True, exist_ok=True)
    (state / "vmm").mkdir(mode=0o711, parents=True)
    (state / "vmm/boot").symlink_to(shared / "boot")
    for name in ANSWERS:
        with suppress(FileNotFoundError):
            shutil.copy(shared / name, state / "vmm" / name)
    return state


def _keep_answers(state: Path) -> None:
    for name in ANSWERS:
        if (state / "vmm" / name).exists() and not (STATE / "vmm" / name).exists():
            shutil.copy(state / "vmm" / name, STATE / "vmm" / name)
