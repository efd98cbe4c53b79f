"""What a contract test of the VMM drivers needs from outside the contract (being the guest, killing the VMM,
restarting the process that controls it): a `Bench`, one per driver."""

from __future__ import annotations

import asyncio
import os
import shutil
import signal
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any, Protocol

import pytest

from cuboid.vmm.base import Boot, Disk, Driver, Vm, VmSpec
from cuboid.vmm.fake import FakeDriver, FakeHost, StopAgent
from cuboid.vmm.qemu.vm import QemuVm
from tests.harness.firecracker.bench import FirecrackerBench
from tests.harness.firecracker.needs import needs_protocol
from tests.harness.firecracker.real import RealBench, needs_firecracker
from tests.harness.vms import Guest, Vms, needs_vms

SLOTS = (Disk("image", None, True), Disk("data", None, False))  # of the templates
DRIVERS = [
    "fake", pytest.param("qemu", marks=[pytest.mark.vm, needs_vms, pytest.mark.timeout(180)]),
    pytest.param("firecracker-protocol", marks=[needs_protocol]),
    pytest.param("firecracker", marks=[pytest.mark.vm, needs_firecracker]),
]  # fmt: skip


class Bench(Protocol):
    driver: Driver

    def spec(self, **changes: Any) -> VmSpec: ...

    async def running(self, **changes: Any) -> Vm:
        """A VM whose guest runs and answers on its channel."""
        ...

    def met(self, vm: Vm) -> None:
        """A VM that was restored: its guest is running once it is resumed."""
        ...

    async def echo(self, vm: Vm, text: str) -> str:
        """What the guest answers over a new connection to the channel."""
        ...

    async def power_off(self, vm: Vm) -> None: ...

    async def panic(self, vm: Vm) -> None: ...

    async def kill_vmm(self, vm: Vm) -> None: ...

    async def restart(self) -> None:
        """The controlling process ends and another takes its place: `driver` is a new one."""
        ...


class FakeBench:
    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._host = FakeHost()
        self._fake = FakeDriver(folder, agent=_echo_agent, host=self._host)
        self.driver: Driver = self._fake
        for name in ("kernel", "initramfs"):
            (folder / name).write_bytes(b"x")

    def spec(self, **changes: Any) -> VmSpec:
        values: dict[str, Any] = {
            "id": "vm-1", "boot": Boot(self._folder / "kernel", self._folder / "initramfs"),
            "vcpus": 1, "memory_mib": 128,
        }  # fmt: skip
        return VmSpec(**(values | changes))

    async def running(self, **changes: Any) -> Vm:
        vm = await self.driver.create(self.spec(**changes))
        await vm.start()
        return vm

    def met(self, vm: Vm) -> None:
        """Its agent serves already."""

    async def echo(self, vm: Vm, text: str) -> str:
        reader, writer = await asyncio.open_unix_connection(str(vm.channel_path))
        writer.write(text.encode() + b"\n")
        answer = (await reader.readline()).decode().strip()
        writer.close()
        await writer.wait_closed()
        return answer

    async def power_off(self, vm: Vm) -> None:
        await self._fake.guest_power_off(vm.id)

    async def panic(self, vm: Vm) -> None:
        await self._fake.guest_panic(vm.id)

    async def kill_vmm(self, vm: Vm) -> None:
        await self._fake.vmm_die(vm.id)

    async def restart(self) -> None:
        await self.driver.close()
        self.driver = self._fake = FakeDriver(self._folder, agent=_echo_agent, host=self._host)

    async def close(self) -> None:
        for vm_id in await self.driver.leftovers(set()):
            await self.driver.clean(vm_id)


async def _echo_agent(path: Path) -> StopAgent:
    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        while line := await reader.readline():
            writer.write(line)
        writer.close()

    server = await asyncio.start_unix_server(serve, str(path))

    async def stop() -> None:
        server.close()
        await server.wait_closed()

    return stop


class QemuBench:
    def __init__(self) -> None:
        self._vms = Vms("vmm-contract")
        self._guests: dict[str, Guest] = {}
        self.driver: Driver = self._vms.driver

    def spec(self, **changes: Any) -> VmSpec:
        vm_id = changes.pop("id", "vm-1")
        return self._vms.spec(vm_id, **changes) if vm_id else VmSpec("", self._vms.spec().boot, 1, 128)

    async def running(self, **changes: Any) -> Vm:
        guest = await self._vms.boot(self.spec(**changes))
        self._guests[guest.vm.id] = guest
        return guest.vm

    def met(self, vm: Vm) -> None:
        assert isinstance(vm, QemuVm)
        self._vms.own(vm)

    async def echo(self, vm: Vm, text: str) -> str:
        assert isinstance(vm, QemuVm)
        if (old := self._guests.pop(vm.id, None)) is not None:
            await old.disconnect()
        guest = self._guests[vm.id] = await self._vms.guest(vm)
        return await guest.ask(text)

    async def power_off(self, vm: Vm) -> None:
        await self._guests[vm.id].send("poweroff")

    async def panic(self, vm: Vm) -> None:
        await self._guests[vm.id].send("panic")

    async def kill_vmm(self, vm: Vm) -> None:
        os.kill(int(vm.handle()["pid"]), signal.SIGKILL)

    async def restart(self) -> None:
        await self.driver.close()
        self._vms.driver = self._vms.new_driver()
        self.driver = self._vms.driver

    async def close(self) -> None:
        await self._vms.__aexit__(None, None, None)


@asynccontextmanager
async def opened(driver: str, folder: Path) -> AsyncIterator[Bench]:
    made: FakeBench | QemuBench | FirecrackerBench
    match driver:
        case "fake":
            made = FakeBench(folder)
        case "qemu":
            made = QemuBench()
        case "firecracker":
            made = RealBench()
        case _:
            made = FirecrackerBench()
    try:
        if isinstance(made, RealBench):
            await made.usable()
        yield made
    finally:
        await made.close()


async def template(bench: Bench, folder: Path) -> Path:
    """The snapshot of a template with SLOTS in `folder`, made once."""
    found = folder / bench.driver.name
    if not found.exists():
        vm = await bench.running(id="template", template=True, disks=SLOTS)
        await vm.pause()
        await vm.snapshot(found)
        await vm.kill()
    return found


@asynccontextmanager
async def sparse_copy(source: Path, target: Path) -> AsyncIterator[Path]:
    """A snapshot to be spoilt."""
    copying = await asyncio.create_subprocess_exec("cp", "-a", "--sparse=always", source, target)
    assert await asyncio.wait_for(copying.wait(), 20) == 0
    try:
        yield target
    finally:
        shutil.rmtree(target)
