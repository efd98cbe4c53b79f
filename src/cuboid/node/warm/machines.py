"""Machines made ahead of demand: each has a network, a restored VM and a connected, rehearsed agent, and is paused.

A start takes one, or finds none and is slower. Nothing of this is on record: what a crash leaves is swept like all
that no pod names.
"""

from __future__ import annotations

import asyncio
import uuid
from collections import deque
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from cuboid.guest.base import Guest
from cuboid.lib.aio import TaskSet, gather_all, in_thread, within
from cuboid.lib.clock import Clock
from cuboid.lib.errors import CuboidError, NotFoundError
from cuboid.lib.log import get_log
from cuboid.net.base import Attachment, Network
from cuboid.node.steps.gate import BootGate
from cuboid.node.warm import rehearsal
from cuboid.node.warm.demand import Demand, share
from cuboid.node.warm.relay import GuestFactory, Relay
from cuboid.node.warm.shape import MTU, Shape, read_only_serial, writable_serial
from cuboid.node.warm.templates import Templates
from cuboid.storage.base import Disks
from cuboid.vmm.base import Disk, Driver, HostLimits, Nic, Vm, VmSpec

log = get_log(__name__)
MAKE_SECONDS = 60.0
PATIENCE_SECONDS = 10.0  # for starts to be over
RETRY_SECONDS = 15.0  # after one could not be made
DISCARD_SECONDS = 30.0
BACKGROUND_WEIGHT = 1  # CPU weight while it is made: pods that start go first
MEMINFO = Path("/proc/meminfo")
Hook = Callable[[str, float], None]


@dataclass(eq=False)
class WarmMachine:
    """A place for a pod. Whoever takes it owns its VM, its connection and its network slot."""

    shape: Shape
    slot: str  # of the network
    attachment: Attachment
    vm: Vm
    guest: Guest
    relay: Relay
    watcher: asyncio.Task[None] | None = field(default=None, repr=False)


@dataclass(frozen=True)
class Bounds:
    """`low` machines of the first shape always wait; never more than `high`, nor than fit in the share of memory."""

    low: int
    high: int
    memory_percent: int
    machine_mib: int  # what one costs the host, about


class WarmMachines:
    """Not for drivers that restore nothing or networks that prepare nothing: then there never is a machine."""

    def __init__(
        self, templates: Templates, driver: Driver, network: Network, disks: Disks, guest: GuestFactory, gate: BootGate,
        clock: Clock, *, bounds: Bounds, image: Path, boot_seconds: float, told: Hook = lambda what, seconds: None,
    ) -> None:  # fmt: skip
        self._templates = templates
        self._driver = driver
        self._network = network
        self._disks = disks
        self._guest = guest
        self._gate = gate
        self._clock = clock
        self._bounds = bounds
        self._image = image
        self._boot_seconds = boot_seconds
        self._told = told
        self._idle: dict[Shape, deque[WarmMachine]] = {}
        self._demands: dict[Shape, Demand] = {}
        self._changed = asyncio.Event()
        self._tasks = TaskSet("warm")
        self._under_way: dict[str, Shape] = {}  # by slot: being made, or being removed
        self._first: Shape | None = None
        self._disk_bytes = 0

    # --- for starts --------------------------------------------------------------------------------------------------

    @property
    def usable(self) -> bool:
        return self._bounds.high > 0 and self._templates.usable and self._network.prepares

    def favour(self, shape: Shape, *, disk_bytes: int) -> None:
        """The shape and the disk of the most ordinary pod: some of them wait from the beginning."""
        self._first, self._disk_bytes = shape, disk_bytes
        self._templates.favour(shape)
        self._demands.setdefault(shape, Demand())
        self._changed.set()

    def take(self, shape: Shape) -> WarmMachine | None:
        """The machine that has waited longest; None is a miss. The demand is noted either way."""
        if not self.usable:
            return None
        waiting = self._idle.get(shape)
        machine = waiting.popleft() if waiting else None
        self._demands.setdefault(shape, Demand()).taken(self._clock.monotonic(), hit=machine is not None)
        self._told("hit" if machine else "miss", 0.0)
        self._changed.set()
        if machine is not None and machine.watcher is not None:
            machine.watcher.cancel()
        return machine

    def give_back(self, machine: WarmMachine) -> None:
        """It was taken but not touched."""
        self._wait(machine)

    async def discard(self, machine: WarmMachine, *, keep_network: bool = False) -> None:
        """End it; the network goes too unless a pod has it."""
        await machine.guest.close()
        await machine.vm.kill()
        await self._driver.clean(machine.vm.id)
        if not keep_network:
            await self._network.detach(machine.slot)

    def rows(self) -> list[dict[str, Any]]:
        """Every machine that is there for no pod yet: its network slot, VM, size, and whether it waits or is made."""
        waiting = [(machine.slot, machine.shape, "waiting") for idle in self._idle.values() for machine in idle]
        making = [(slot, shape, "making") for slot, shape in self._under_way.items()]
        return [
            {"slot": slot, "vm": _vm_id(slot), "vcpus": shape.vcpus, "memoryMiB": shape.memory_mib, "state": state}
            for slot, shape, state in (*waiting, *making)
        ]

    def counts(self) -> dict[Shape, int]:
        """Machines that wait now."""
        return {shape: len(waiting) for shape, waiting in self._idle.items() if waiting}

    # --- making ------------------------------------------------------------------------------------------------------

    async def run(self) -> None:
        """Keep as many waiting as the demand wants, for ever; at its end all of them are gone."""
        self._templates.on_change = self._changed.set
        try:
            while True:
                try:
                    await self._adjust()
                except (CuboidError, OSError) as error:  # a full disk, no address: for now
                    log.warning("nothing is made ahead for now", error=str(error))
                    self._again_later()
                await self._next_turn()
        finally:
            await asyncio.shield(self._end())

    async def _next_turn(self) -> None:
        """Until something was taken or the demand has faded; and no pod is starting."""
        now = self._clock.monotonic()
        pause = min((demand.next_change(now) for demand in self._demands.values()), default=float("inf"))
        try:
            async with asyncio.timeout(pause if pause < float("inf") else None):
                await self._changed.wait()
        except TimeoutError:
            pass
        with suppress(TimeoutError):  # a host that always starts something still gets its machines
            await asyncio.wait_for(self._gate.quiet(), PATIENCE_SECONDS)
        self._changed.clear()

    async def _adjust(self) -> None:
        wanted = self._wanted()
        if self._disk_bytes:
            await self._disks.prepare_writables(self._disk_bytes, max(sum(wanted.values()), self._bounds.low, 1))
        if not self.usable:
            return
        for shape, waiting in list(self._idle.items()):
            while len(waiting) > wanted.get(shape, 0):
                await self._drop(waiting.pop())
        for shape, count in wanted.items():
            # One whose template is not there is made when it is: the others do not wait for it.
            if len(self._idle.get(shape, ())) < count and self._templates.find(shape) is not None:
                await self._make_waiting(shape)
                return

    def _wanted(self) -> dict[Shape, int]:
        now, ceiling = self._clock.monotonic(), self._ceiling()
        names = {str(number): shape for number, shape in enumerate(self._demands)}
        wanted = {
            name: self._demands[shape].wanted(
                now, floor=self._bounds.low if shape == self._first else 0, ceiling=ceiling
            )
            for name, shape in names.items()
        }
        return {names[name]: count for name, count in share(wanted, ceiling).items()}

    def _ceiling(self) -> int:
        """By the setting and by the memory that the host has to spare, those that wait already included."""
        here = sum(len(waiting) for waiting in self._idle.values())
        room = available_mib() * self._bounds.memory_percent // 100 // max(self._bounds.machine_mib, 1)
        return min(self._bounds.high, here + room)

    async def _make_waiting(self, shape: Shape) -> None:
        begin = self._clock.monotonic()
        try:
            machine = await self.make(shape)
        except (CuboidError, OSError) as error:
            log.warning("no machine could be made ahead", error=str(error))
            self._again_later()
            return
        self._told("made", self._clock.monotonic() - begin)
        self._wait(machine)
        self._changed.set()

    def _again_later(self) -> None:
        asyncio.get_running_loop().call_later(RETRY_SECONDS, self._changed.set)

    def _wait(self, machine: WarmMachine) -> None:
        self._idle.setdefault(machine.shape, deque()).append(machine)
        machine.watcher = self._tasks.start(self._watch(machine), name=machine.vm.id)

    async def _watch(self, machine: WarmMachine) -> None:
        """One that ends while it waits is no longer offered."""
        ended = await machine.vm.wait()
        log.warning("a waiting machine ended", vm=machine.vm.id, cause=ended.cause, detail=ended.detail[-200:])
        self._idle[machine.shape].remove(machine)
        machine.watcher = None
        await self._quietly_discard(machine)
        self._changed.set()

    async def _drop(self, machine: WarmMachine) -> None:
        if machine.watcher is not None:
            machine.watcher.cancel()
        await self._quietly_discard(machine)

    async def _quietly_discard(self, machine: WarmMachine) -> None:
        self._under_way[machine.slot] = machine.shape
        try:
            await within(DISCARD_SECONDS, self.discard(machine), "discarding a machine")
        except (CuboidError, OSError) as error:
            log.warning("a machine was not removed whole; the next start of the agent does", error=str(error))
        finally:
            self._under_way.pop(machine.slot, None)

    async def make(self, shape: Shape) -> WarmMachine:
        """All of it, or nothing is left. Two at a time would only slow each other and the pods."""
        slot = str(uuid.uuid4())
        self._under_way[slot] = shape
        try:
            return await within(MAKE_SECONDS, self._make(shape, slot), "making a machine ahead")
        except BaseException:
            await asyncio.shield(self._undo(slot))
            raise
        finally:
            del self._under_way[slot]

    async def _undo(self, slot: str) -> None:
        try:
            await self._driver.clean(_vm_id(slot))
            await self._network.detach(slot)
            await self._disks.remove_writable(slot)
        except (CuboidError, OSError) as error:
            log.warning("an unfinished machine was not removed whole", error=str(error))

    async def _make(self, shape: Shape, slot: str) -> WarmMachine:
        folder = self._templates.find(shape)
        if folder is None:
            raise NotFoundError("the template is gone")
        await in_thread(lambda: rehearsal.make_image(self._image))
        attachment = await self._network.prepare(slot)
        writable = await self._disks.create_writable(slot, rehearsal.DISK_BYTES)
        stage = (
            Disk(read_only_serial(0), self._image, read_only=True), Disk(writable_serial(0), writable, read_only=False)
        )  # fmt: skip
        spec = VmSpec(
            id=_vm_id(slot), boot=shape.boot, vcpus=shape.vcpus, memory_mib=shape.memory_mib,
            disks=shape.filled(stage), nics=(Nic(attachment.tap, attachment.mac, min(attachment.mtu, MTU)),),
            netns=attachment.netns, limits=replace(self.limits(shape), cpu_weight=BACKGROUND_WEIGHT),
        )  # fmt: skip
        try:
            vm = await self._driver.restore(spec, folder)
        except CuboidError as error:
            self._templates.restore_failed(shape, error)
            raise
        relay = Relay()
        guest = self._guest(vm, relay.event, on_final=relay.final)
        machine = WarmMachine(shape, slot, attachment, vm, guest, relay)
        try:
            await self._rehearse(machine, stage)
        except BaseException:
            await asyncio.shield(guest.close())
            raise
        await self._disks.remove_writable(slot)
        return machine

    async def _rehearse(self, machine: WarmMachine, stage: tuple[Disk, ...]) -> None:
        await machine.vm.resume()
        await machine.guest.connect(timeout=self._boot_seconds)
        await machine.guest.rehearse(rehearsal.call(machine.attachment, self._clock.now()))
        machine.guest.hold(True)  # it says nothing while it waits, and is not to be greeted anew for that
        machine.guest.hold(True)
        await machine.vm.pause()
        for disk in stage:
            await machine.vm.detach_disk(disk.serial)

    def limits(self, shape: Shape) -> HostLimits:
        """Of a machine that no pod has yet."""
        overhead = self._driver.capabilities().overhead_mib
        return HostLimits(cpu_millis=shape.vcpus * 1000, memory_mib=shape.memory_mib + overhead)

    async def _end(self) -> None:
        waiting = [machine for machines in self._idle.values() for machine in machines]
        self._idle.clear()
        await gather_all(*(self._drop(machine) for machine in waiting))
        await self._tasks.cancel()


def _vm_id(slot: str) -> str:
    """1 to 40 of [a-z0-9-], as drivers want it."""
    return "warm-" + slot.replace("-", "")


def available_mib(path: Path = MEMINFO) -> int:
    """Memory that the host could give without swapping."""
    for line in path.read_text().splitlines():
        if line.startswith("MemAvailable:"):
            return int(line.split()[1]) // 1024
    return 0
