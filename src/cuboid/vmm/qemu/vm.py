"""One VM under QEMU: its states, its end, and what it leaves (nothing)."""

from __future__ import annotations

import asyncio
import os
import signal
import socket
from collections.abc import Callable, Coroutine, Iterable, Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any, TypeVar

from cuboid.lib import proc
from cuboid.lib.aio import TaskSet, within
from cuboid.lib.errors import ConflictError, CuboidError, DeadlineError, UnavailableError
from cuboid.lib.log import get_log
from cuboid.lib.threads import in_thread
from cuboid.vmm.base import Disk, EndCause, Ended, HostLimits, State, VmStats
from cuboid.vmm.channel import connect
from cuboid.vmm.qemu import usage
from cuboid.vmm.qemu.console import KEPT_BYTES, PANIC_WORDS, Console, last_words
from cuboid.vmm.qemu.jail import Jail
from cuboid.vmm.qemu.migration import Incoming, Migration
from cuboid.vmm.qemu.qmp import Qmp
from cuboid.vmm.qemu.slots import Slots
from cuboid.vmm.qemu.snapshotting import Facts, Made, Snapshots
from cuboid.vmm.settings import VmmSettings

T = TypeVar("T")

log = get_log(__name__)

FLUSH_SECONDS = 0.25  # between the guest's end and SIGKILL: QEMU writes out what it holds for the disks
_STATES = {
    "prelaunch": State.CREATED, "running": State.RUNNING, "paused": State.PAUSED,
    "finish-migrate": State.PAUSED, "postmigrate": State.PAUSED,
}  # fmt: skip
_ENDED = ("shutdown", "guest-panicked")


class QemuVm:
    """Made by `QemuDriver`. Everything runs on the event loop that it was made on."""

    def __init__(
        self, jail: Jail, pid: int, started: int, console: Console, settings: VmmSettings, tasks: TaskSet,
        made: Made, facts: Facts,
    ) -> None:  # fmt: skip
        self._jail = jail
        self._pid = pid
        self._memory_mib = made.shape.memory_mib
        self._started = started
        self._console = console
        self._settings = settings
        self._tasks = tasks
        self._state = State.CREATED
        self._cause: EndCause | None = None
        self._ended: asyncio.Future[Ended] = asyncio.get_running_loop().create_future()
        self._qmp = Qmp(jail.qmp_path, self._on_event, seconds=settings.call_seconds)
        self._slots = Slots(self._qmp, jail, made.shape.disks)
        self._migration = Migration(self._qmp, disks=bool(made.shape.disks))
        self._snapshots = Snapshots(jail, made, facts, self._migration, settings.memory_seconds)
        self._pidfd = os.pidfd_open(pid)
        self._watching = False
        self._stop_expected = False

    # -- what it is

    @property
    def id(self) -> str:
        return self._jail.id

    @property
    def state(self) -> State:
        return self._state

    @property
    def pid(self) -> int:
        """The VMM's process on the host."""
        return self._pid

    @property
    def channel_path(self) -> Path:
        return self._jail.channel_path

    async def open_channel(self) -> socket.socket:
        return await connect(self.channel_path, "the guest's port")

    def handle(self) -> dict[str, Any]:
        return {"driver": "qemu", "id": self.id, "pid": self._pid, "started": self._started}

    def console_tail(self, limit: int = 4096) -> str:
        return self._console.tail(limit)

    @property
    def vmm_log(self) -> str:
        """What QEMU itself said; empty when all is well."""
        return self._console.vmm_log()

    # -- connecting

    async def connect(self, incoming: Incoming | None = None) -> None:
        """Watch the process and connect to it; find out what state it is in. Raises if it does not answer.

        With `incoming` it is to go on from a snapshot, and has read that on return.
        """
        asyncio.get_running_loop().add_reader(self._pidfd, self._on_exit)
        self._watching = True
        self._console.watch()
        await self._qmp.connect(self._settings.create_seconds)
        if incoming is not None:
            seconds = self._settings.create_seconds if incoming.memory_stays else self._settings.memory_seconds
            await self._migration.load(seconds, memory_stays=incoming.memory_stays)
        reply = await self._qmp.execute("query-status")
        status = str(reply.get("status")) if isinstance(reply, dict) else ""
        if status in _STATES:
            self._state = _STATES[status]
        elif status not in _ENDED:
            raise UnavailableError(f"the VMM of {self.id} is in the state {status!r:.40}")
        else:  # it ended while nobody was connected: the event is gone, the console is not
            panicked = status == "guest-panicked" or PANIC_WORDS in self._console.tail(KEPT_BYTES)
            self._guest_ended(EndCause.PANIC if panicked else EndCause.POWEROFF)

    # -- commands

    async def start(self) -> None:
        await self._move({State.CREATED}, State.RUNNING, "cont")

    async def pause(self) -> None:
        await self._move({State.RUNNING}, State.PAUSED, "stop")

    async def resume(self) -> None:
        if self._snapshots.memory_is_gone:
            raise ConflictError(f"VM {self.id} was a template and has been snapshotted: it can only be killed")
        await self._move({State.PAUSED}, State.RUNNING, "cont")

    async def _move(self, allowed: set[State], to: State, command: str) -> None:
        if self._state == to:
            return
        if self._state not in allowed:
            raise ConflictError(f"VM {self.id} is {self._state}: it cannot become {to}")
        self._stop_expected = command == "stop"
        try:
            await self._qmp.execute(command)
        except CuboidError as error:
            if self._ended.done() or self._cause is not None:
                raise ConflictError(f"VM {self.id} has ended") from error
            raise
        if self._state in allowed:  # it may have ended meanwhile
            self._state = to

    async def attach_disk(self, disk: Disk) -> None:
        await self._ask(self._slots.attach(disk))

    async def detach_disk(self, serial: str) -> None:
        await self._ask(self._slots.detach(serial))

    async def tell_capacities(self, disks: Iterable[Disk]) -> None:
        """Have the guest look at the sizes of these disks again: a snapshot's guest knows those of its time."""
        await self._ask(self._slots.tell_capacities(disks))

    async def set_limits(self, limits: HostLimits) -> None:
        self._check_lives()
        try:
            await in_thread(self._jail.change_limits, self._pid, limits)
        except ProcessLookupError as error:
            raise ConflictError(f"VM {self.id} has ended") from error
        except OSError as error:
            raise UnavailableError(f"the limits of VM {self.id} cannot be changed: {error.strerror}") from error

    async def snapshot(self, folder: Path) -> None:
        self._check_lives()
        if self._state != State.PAUSED:
            raise ConflictError(f"VM {self.id} is {self._state}: only a paused VM is snapshotted")
        await self._ask(self._snapshots.take(folder))

    def _check_lives(self) -> None:
        if self._state == State.ENDED:
            raise ConflictError(f"VM {self.id} has ended")

    async def _ask(self, request: Coroutine[Any, Any, T]) -> T:
        """The answer, or ConflictError where the VM ends meanwhile."""
        if self._state == State.ENDED:
            request.close()
            self._check_lives()
        try:
            return await request
        except UnavailableError as error:
            if self._ended.done() or self._cause is not None:
                raise ConflictError(f"VM {self.id} has ended") from error
            raise

    async def stats(self) -> VmStats:
        self._check_lives()
        return await in_thread(usage.stats, self._pid, self._memory_mib)

    # -- its end

    async def kill(self) -> None:
        if not self._ended.done():
            if self._cause is None:
                self._cause = EndCause.KILLED
            self._signal(signal.SIGKILL)
        await self.wait_for(self._settings.call_seconds)

    async def wait(self) -> Ended:
        return await asyncio.shield(self._ended)

    def when_ended(self, hook: Callable[[], None]) -> None:
        """`hook` is called when the VM has ended and nothing of it is left."""
        self._ended.add_done_callback(lambda _: hook())

    async def wait_for(self, seconds: float) -> Ended:
        return await within(seconds, self.wait(), f"the end of VM {self.id}")

    def _on_event(self, name: str, data: Mapping[str, Any]) -> None:
        if name == "SHUTDOWN":
            self._guest_ended(EndCause.POWEROFF if data.get("reason") == "guest-shutdown" else EndCause.PANIC)
        elif name == "GUEST_PANICKED":
            self._guest_ended(EndCause.PANIC)
        elif name == "MIGRATION":
            self._migration.on_event(data)
        elif name == "STOP" and self._state == State.RUNNING and not self._stop_expected:
            self._guest_ended(EndCause.VMM_DIED)  # the accelerator failed: QEMU would keep the guest stopped for ever

    def _guest_ended(self, cause: EndCause) -> None:
        """QEMU holds the ended guest (`shutdown=pause`) until it is told to end too, so the cause is never missed."""
        if self._cause is not None:
            return
        self._cause = cause
        self._state = State.ENDED
        self._signal(signal.SIGTERM)
        asyncio.get_running_loop().call_later(FLUSH_SECONDS, self._signal, signal.SIGKILL)

    def _signal(self, number: signal.Signals) -> None:
        if self._pidfd >= 0:
            with suppress(ProcessLookupError):
                signal.pidfd_send_signal(self._pidfd, number)

    def _on_exit(self) -> None:
        """The process is gone; a pidfd says so at once, for a process that is no child of ours too."""
        self._stop_watching()
        self._state = State.ENDED
        self._tasks.start(self._finish(), name=f"finish-{self.id}")

    async def _finish(self) -> None:
        ended = self._why()
        self._console.close()
        try:
            await self._qmp.close()
            await asyncio.to_thread(self._jail.remove)
        finally:  # whoever waits learns of the end even where the host refuses to clean up
            if not self._ended.done():
                self._ended.set_result(ended)

    def _why(self) -> Ended:
        if self._cause == EndCause.KILLED:
            return Ended(EndCause.KILLED)
        if self._cause in (EndCause.POWEROFF, EndCause.PANIC):
            return Ended(self._cause, last_words(self._console.tail(KEPT_BYTES)))
        usage = self._jail.group.stats()
        if usage.oom_kills:
            own = "it reached its memory limit"
            others = "the host, or a group that the VMM is in, had no memory left"
            return Ended(EndCause.HOST_OOM, f"the host ended the VMM: {own if usage.limit_hits else others}")
        return Ended(EndCause.VMM_DIED, self._console.vmm_log() or "the VMM ended without a word")

    def _stop_watching(self) -> None:
        if self._watching:
            asyncio.get_running_loop().remove_reader(self._pidfd)
            os.close(self._pidfd)
            self._pidfd, self._watching = -1, False

    async def release(self) -> None:
        """Let go of it without ending it."""
        self._stop_watching()
        await self._qmp.close()
        self._console.close()

    async def discard(self) -> None:
        """Kill it and remove everything, whatever state it is in. Never raises."""
        try:
            await self.kill()
        except DeadlineError as error:
            log.warning("a killed VMM does not go", vm=self.id, error=error)
        await self.release()


def still_runs(handle: Mapping[str, Any]) -> bool:
    """Whether the process that a handle names still is that process."""
    return proc.alive(int(handle["pid"]), int(handle["started"]))
