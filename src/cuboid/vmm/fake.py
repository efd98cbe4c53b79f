"""A driver without a VMM: in memory, scriptable, as strict as the real one. For tests of the layers above.

It refuses what no driver could do, fails on demand (`fail_next`), and lets a test be the guest: `guest_power_off`,
`guest_panic`, `vmm_die`, `host_oom`. What answers on a VM's channel is given by a hook: `agent(path)` is called when
the guest starts and must serve a Unix socket at `path`; it returns what ends it.
"""

from __future__ import annotations

import asyncio
import itertools
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from cuboid.lib.errors import AlreadyExistsError, ConflictError, InvalidError, NotFoundError, UnsupportedError
from cuboid.vmm.base import Capabilities, Disk, EndCause, Ended, HostLimits, Probe, State, VmSpec, VmStats
from cuboid.vmm.check import check, check_id

StopAgent = Callable[[], Awaitable[None]]
Agent = Callable[[Path], Awaitable[StopAgent]]
STEPS = ("probe", "create", "start", "pause", "resume", "stats", "kill", "recover", "clean")


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


class FakeHost:
    """The host that fake VMs run on. Give one to two drivers in turn to play a restart of the node agent."""

    def __init__(self) -> None:
        self.machines: dict[str, _Machine] = {}
        self.debris: set[str] = set()  # ids of which something is left without a VM
        self.pids = itertools.count(1000)


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

    def handle(self) -> dict[str, Any]:
        return {"driver": "fake", "id": self.id, "pid": self._machine.pid, "started": 1}

    async def start(self) -> None:
        self._driver.may_fail("start")
        if self._move({State.CREATED}, State.RUNNING) and self._driver.agent is not None:
            self.channel_path.parent.mkdir(parents=True, exist_ok=True)
            self._machine.stop_agent = await self._driver.agent(self.channel_path)

    async def pause(self) -> None:
        self._driver.may_fail("pause")
        self._move({State.RUNNING}, State.PAUSED)

    async def resume(self) -> None:
        self._driver.may_fail("resume")
        self._move({State.PAUSED}, State.RUNNING)

    def _move(self, allowed: set[State], to: State) -> bool:
        """Whether something changed."""
        if self._machine.state == to:
            return False
        if self._machine.state not in allowed:
            raise ConflictError(f"VM {self.id} is {self._machine.state}: it cannot become {to}")
        self._machine.state = to
        return True

    async def attach_disk(self, disk: Disk) -> None:
        raise UnsupportedError("the fake takes no disk while it runs")

    async def detach_disk(self, serial: str) -> None:
        raise UnsupportedError("the fake gives up no disk while it runs")

    async def set_limits(self, limits: HostLimits) -> None:
        self.limits = limits

    async def snapshot(self, folder: Path) -> None:
        raise UnsupportedError("the fake makes no snapshots")

    async def stats(self) -> VmStats:
        self._driver.may_fail("stats")
        if self._machine.state == State.ENDED:
            raise ConflictError(f"VM {self.id} has ended")
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
        return Capabilities(accel="none", channel="virtio-serial", overhead_mib=16)

    async def create(self, spec: VmSpec) -> FakeVm:
        self.may_fail("create")
        check(spec, self.capabilities())
        if spec.id in self.host.machines or spec.id in self.host.debris:
            raise AlreadyExistsError(f"a VM {spec.id} exists already")
        for file in (spec.boot.kernel, spec.boot.initramfs, *(disk.path for disk in spec.disks if disk.path)):
            if not file.exists():
                raise NotFoundError(f"{file} does not exist")
        machine = _Machine(spec, next(self.host.pids))
        self.host.machines[spec.id] = machine
        return FakeVm(self, machine)

    def snapshot_facts(self) -> dict[str, str]:
        return {"driver": self.name}

    async def restore(self, spec: VmSpec, folder: Path) -> FakeVm:
        raise UnsupportedError("the fake restores no snapshots")

    async def verify(self, folder: Path) -> None:
        raise UnsupportedError("the fake restores no snapshots")

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
