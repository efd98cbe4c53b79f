"""A driver without a VMM: in memory, scriptable, as strict as the real one. For tests of the layers above.

It refuses what no driver could do, fails on demand (`fail_next`), and lets a test be the guest: `guest_power_off`,
`guest_panic`, `vmm_die`, `host_oom`. What answers on a VM's channel is given by a hook: `agent(path)` is called when
the guest starts and must serve a Unix socket at `path`; it returns what ends it.
"""

from __future__ import annotations

import asyncio
import itertools
import socket
from collections.abc import Awaitable, Callable, Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from cuboid.lib.errors import AlreadyExistsError, ConflictError, InvalidError, NotFoundError, UnsupportedError
from cuboid.vmm import snapshots
from cuboid.vmm.base import Capabilities, Disk, EndCause, Ended, HostLimits, Probe, State, VmSpec, VmStats
from cuboid.vmm.channel import connect
from cuboid.vmm.check import check, check_id
from cuboid.vmm.snapshots import shape_of

StopAgent = Callable[[], Awaitable[None]]
Agent = Callable[[Path], Awaitable[StopAgent]]
STEPS = (
    "probe", "create", "start", "pause", "resume", "stats", "kill", "recover", "clean",
    "snapshot", "restore", "verify", "attach_disk", "detach_disk", "set_limits",
)  # fmt: skip
MEMORY = "memory"  # the file of a snapshot


@dataclass
class _Machine:
    """What a host would have: it outlives the driver object that made it, as a VMM outlives the node agent."""

    spec: VmSpec
    pid: int
    state: State = State.CREATED
    console: str = ""
    ended: Ended | None = None
    over: asyncio.Event = field(default_factory=asyncio.Event)
    stop_agent: StopAgent | None = None
    disks: dict[str, Disk] = field(default_factory=dict)  # what is in the slots
    limits: HostLimits = field(default_factory=HostLimits)
    spent: bool = False  # a template that handed its memory over


class FakeHost:
    """The host that fake VMs run on. Give one to two drivers in turn to play a restart of the node agent."""

    def __init__(self) -> None:
        self.machines: dict[str, _Machine] = {}
        self.debris: set[str] = set()  # ids of which something is left without a VM
        self.pids = itertools.count(1000)
        self.facts = {"driver": "fake", "CPU": "imaginary"}  # change it to play another host


class FakeVm:
    def __init__(self, driver: FakeDriver, machine: _Machine) -> None:
        self._driver = driver
        self._machine = machine

    @property
    def id(self) -> str:
        return self._machine.spec.id

    @property
    def spec(self) -> VmSpec:
        return self._machine.spec

    @property
    def state(self) -> State:
        return self._machine.state

    @property
    def channel_path(self) -> Path:
        return self._driver.channel_path(self.id)

    async def open_channel(self) -> socket.socket:
        return await connect(self.channel_path, "the guest's agent")

    def handle(self) -> dict[str, Any]:
        return {"driver": "fake", "id": self.id, "pid": self._machine.pid, "started": 1}

    async def start(self) -> None:
        self._driver.may_fail("start")
        if self._move({State.CREATED}, State.RUNNING):
            await self._driver.serve(self._machine)

    async def pause(self) -> None:
        self._driver.may_fail("pause")
        self._move({State.RUNNING}, State.PAUSED)

    async def resume(self) -> None:
        self._driver.may_fail("resume")
        if self._machine.spent:
            raise ConflictError(f"VM {self.id} was a template and has been snapshotted: it can only be killed")
        self._move({State.PAUSED}, State.RUNNING)

    def _move(self, allowed: set[State], to: State) -> bool:
        """Whether something changed."""
        if self._machine.state == to:
            return False
        if self._machine.state not in allowed:
            raise ConflictError(f"VM {self.id} is {self._machine.state}: it cannot become {to}")
        self._machine.state = to
        return True

    @property
    def limits(self) -> HostLimits:
        return self._machine.limits

    @property
    def attached(self) -> dict[str, Disk]:
        """What is in the slots, by serial."""
        return dict(self._machine.disks)

    async def attach_disk(self, disk: Disk) -> None:
        self._driver.may_fail("attach_disk")
        self._check_lives()
        slot = self._slot(disk.serial)
        if disk.path is None:
            raise ConflictError(f"disk {disk.serial} has no path: there is nothing to attach")
        if slot.read_only != disk.read_only:
            raise ConflictError(f"slot {disk.serial} of {self.id} and the disk are not both writable or read-only")
        if disk.serial in self._machine.disks:
            raise ConflictError(f"slot {disk.serial} of {self.id} is taken")
        self._driver.check_files([disk.path])
        self._machine.disks[disk.serial] = disk

    async def detach_disk(self, serial: str) -> None:
        self._driver.may_fail("detach_disk")
        self._check_lives()
        self._slot(serial)
        self._machine.disks.pop(serial, None)

    def _slot(self, serial: str) -> Disk:
        for disk in self.spec.disks:
            if disk.serial == serial:
                return disk
        raise NotFoundError(f"VM {self.id} has no disk slot {serial}")

    async def set_limits(self, limits: HostLimits) -> None:
        self._driver.may_fail("set_limits")
        self._check_lives()
        self._machine.limits = limits

    async def snapshot(self, folder: Path) -> None:
        self._driver.may_fail("snapshot")
        self._check_lives()
        if self.state != State.PAUSED:
            raise ConflictError(f"VM {self.id} is {self.state}: only a paused VM is snapshotted")
        if self.spec.shared_memory or self._machine.spent:
            raise UnsupportedError(f"VM {self.id} takes no snapshot")
        with snapshots.Draft(folder, self.id) as draft:
            (draft.path / MEMORY).write_text(f"memory of {self.id}")
            for disk in self._machine.disks.values():
                if disk.path is not None and not disk.read_only:
                    (draft.path / snapshots.disk_file(disk.serial)).write_bytes(disk.path.read_bytes())
            self._machine.spent = self.spec.template
            draft.finish(self._driver.snapshot_facts(), shape_of(self.spec), shared_memory=self.spec.template)

    def _check_lives(self) -> None:
        if self.state == State.ENDED:
            raise ConflictError(f"VM {self.id} has ended")

    async def stats(self) -> VmStats:
        self._driver.may_fail("stats")
        self._check_lives()
        memory = self.spec.memory_mib << 20
        return VmStats(cpu_seconds=0.1, memory_bytes=memory // 2, anonymous_bytes=memory // 4)

    async def kill(self) -> None:
        self._driver.may_fail("kill")
        await self._driver.end(self.id, Ended(EndCause.KILLED))

    async def wait(self) -> Ended:
        await self._machine.over.wait()
        assert self._machine.ended is not None
        return self._machine.ended

    def console_tail(self, limit: int = 4096) -> str:
        return self._machine.console[-limit:]


class FakeDriver:
    name = "fake"

    def __init__(self, run: Path, *, agent: Agent | None = None, host: FakeHost | None = None) -> None:
        self._run = run
        self.agent = agent
        self.host = host or FakeHost()
        self._failures: dict[str, list[Exception]] = {}

    # -- for tests: faults, and being the guest

    def fail_next(self, step: str, error: Exception, *, times: int = 1) -> None:
        """The next `times` calls of `step` (one of STEPS) raise `error`."""
        if step not in STEPS:
            raise ValueError(f"no step {step!r}; one of {', '.join(STEPS)}")
        self._failures.setdefault(step, []).extend([error] * times)

    def may_fail(self, step: str) -> None:
        if waiting := self._failures.get(step):
            raise waiting.pop(0)

    async def guest_power_off(self, vm_id: str) -> None:
        await self._guest_ends(vm_id, Ended(EndCause.POWEROFF))

    async def guest_panic(self, vm_id: str, console: str = "Kernel panic - not syncing: on request") -> None:
        self.say(vm_id, console)
        await self._guest_ends(vm_id, Ended(EndCause.PANIC, console))

    async def vmm_die(self, vm_id: str) -> None:
        self._running(vm_id)
        await self.end(vm_id, Ended(EndCause.VMM_DIED, "the VMM ended without a word"))

    async def host_oom(self, vm_id: str) -> None:
        self._running(vm_id)
        await self.end(vm_id, Ended(EndCause.HOST_OOM, "the host ended the VMM: it reached its memory limit"))

    def say(self, vm_id: str, text: str) -> None:
        """Text on a VM's console."""
        machine = self._running(vm_id)
        machine.console = (machine.console + text)[-(256 << 10) :]

    async def _guest_ends(self, vm_id: str, ended: Ended) -> None:
        if self._running(vm_id).state != State.RUNNING:
            raise ConflictError(f"the guest of {vm_id} does not run: it cannot end itself")
        await self.end(vm_id, ended)

    def _running(self, vm_id: str) -> _Machine:
        machine = self.host.machines.get(vm_id)
        if machine is None:
            raise NotFoundError(f"no VM {vm_id} runs")
        return machine

    async def end(self, vm_id: str, ended: Ended) -> None:
        """The VM is gone, with all it had. Idempotent."""
        machine = self.host.machines.pop(vm_id, None)
        if machine is None:
            return
        if machine.stop_agent is not None:
            await machine.stop_agent()
        self.channel_path(vm_id).unlink(missing_ok=True)
        machine.state, machine.ended = State.ENDED, ended
        machine.over.set()

    # -- the contract

    def channel_path(self, vm_id: str) -> Path:
        return self._run / f"{vm_id}.sock"

    async def probe(self) -> Probe:
        self.may_fail("probe")
        return Probe(True, "none", "the fake always works")

    def capabilities(self) -> Capabilities:
        return Capabilities(
            accel="none", channel="virtio-serial", overhead_mib=16, snapshot=True, late_disks=True,
            free_page_reporting=True,
        )  # fmt: skip

    async def create(self, spec: VmSpec) -> FakeVm:
        self.may_fail("create")
        return FakeVm(self, self._machine(spec))

    def _machine(self, spec: VmSpec) -> _Machine:
        check(spec, self.capabilities())
        if spec.id in self.host.machines or spec.id in self.host.debris:
            raise AlreadyExistsError(f"a VM {spec.id} exists already")
        disks = {disk.serial: disk for disk in spec.disks if disk.path is not None}
        self.check_files([spec.boot.kernel, spec.boot.initramfs, *(disk.path for disk in disks.values() if disk.path)])
        machine = _Machine(spec, next(self.host.pids), disks=disks, limits=spec.limits)
        self.host.machines[spec.id] = machine
        return machine

    def check_files(self, files: Iterable[Path]) -> None:
        for file in files:
            if not file.exists():
                raise NotFoundError(f"{file} does not exist")

    async def serve(self, machine: _Machine) -> None:
        """The guest's agent listens from now on."""
        if self.agent is not None:
            path = self.channel_path(machine.spec.id)
            path.parent.mkdir(parents=True, exist_ok=True)
            machine.stop_agent = await self.agent(path)

    def snapshot_facts(self) -> dict[str, str]:
        return dict(self.host.facts)

    async def restore(self, spec: VmSpec, folder: Path) -> FakeVm:
        self.may_fail("restore")
        if spec.template or spec.shared_memory:
            raise InvalidError("a restored VM is neither a template nor shares its memory")
        check(spec, self.capabilities())
        manifest = snapshots.load(folder)
        snapshots.check_facts(folder, manifest, self.snapshot_facts())
        snapshots.check_shape(folder, manifest, shape_of(spec))
        snapshots.check_digest(folder, manifest, MEMORY)
        machine = self._machine(spec)
        machine.state = State.PAUSED
        await self.serve(machine)
        return FakeVm(self, machine)

    async def verify(self, folder: Path) -> None:
        self.may_fail("verify")
        manifest = snapshots.load(folder)
        snapshots.check_facts(folder, manifest, self.snapshot_facts())
        for name in manifest.files:
            snapshots.check_digest(folder, manifest, name)

    async def recover(self, handle: Mapping[str, Any]) -> FakeVm | None:
        self.may_fail("recover")
        try:
            vm_id, pid = str(handle["id"]), int(handle["pid"])
        except (KeyError, TypeError, ValueError) as error:
            raise InvalidError(f"this is no handle of a VM: {handle!r:.200}") from error
        check_id(vm_id)
        machine = self.host.machines.get(vm_id)
        if machine is None or machine.pid != pid:
            await self.clean(vm_id)
            return None
        return FakeVm(self, machine)

    async def leftovers(self, known: set[str]) -> list[str]:
        return sorted((set(self.host.machines) | self.host.debris) - known)

    async def clean(self, vm_id: str) -> None:
        self.may_fail("clean")
        check_id(vm_id)
        await self.end(vm_id, Ended(EndCause.KILLED))
        self.host.debris.discard(vm_id)

    async def close(self) -> None:
        """VMs run on."""
