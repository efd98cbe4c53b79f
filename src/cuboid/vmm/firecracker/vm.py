"""One VM under Firecracker: its states, its disks, its end, and what it leaves (nothing)."""

from __future__ import annotations

import asyncio
import os
import signal
import socket
import stat
from collections.abc import Callable, Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any

from cuboid.lib import proc
from cuboid.lib.aio import TaskSet, deadline, gather_all, within
from cuboid.lib.errors import (
    ConflictError,
    CuboidError,
    DeadlineError,
    HostileError,
    UnavailableError,
    UnsupportedError,
)
from cuboid.lib.log import get_log
from cuboid.lib.threads import in_thread
from cuboid.vmm.base import Disk, EndCause, Ended, HostLimits, State, VmStats
from cuboid.vmm.firecracker import command, ends, requests, saving
from cuboid.vmm.firecracker.channel import open_channel
from cuboid.vmm.firecracker.http import Api
from cuboid.vmm.firecracker.mounts import Binding, Jailed
from cuboid.vmm.firecracker.record import Record
from cuboid.vmm.firecracker.requests import Request
from cuboid.vmm.qemu import usage
from cuboid.vmm.qemu.console import KEPT_BYTES, Console
from cuboid.vmm.qemu.jail import Jail
from cuboid.vmm.settings import VmmSettings

log = get_log(__name__)


LOG_BYTES = 128 << 10  # of the VMM's log before it is cut to its end
RETRY_SECONDS = (0.001, 0.05)  # first and longest pause between two attempts to reach a VMM that is starting

Facts = Callable[[], Mapping[str, str]]
_STATES = {"Not started": State.CREATED, "Running": State.RUNNING, "Paused": State.PAUSED}


class FirecrackerVm:
    """Made by `FirecrackerDriver`. Everything runs on the event loop that it was made on."""

    def __init__(
        self, jail: Jail, pid: int, started: int, output: Console, record: Record, facts: Facts,
        settings: VmmSettings, tasks: TaskSet,
    ) -> None:  # fmt: skip
        self._jail = jail
        self._pid = pid
        self._started = started
        self._console = output
        self._record = record
        self._facts = facts
        self._settings = settings
        self._tasks = tasks
        self._state = State.CREATED
        self._cause: EndCause | None = None
        self._ended: asyncio.Future[Ended] = asyncio.get_running_loop().create_future()
        self._changing = asyncio.Lock()
        self._api = Api(self._inside(requests.API_SOCKET), pid, seconds=settings.call_seconds)
        self._watching = False
        self._pidfd = os.pidfd_open(pid)
        try:
            self._jailed = Jailed(pid, record.uid)
            self._log = _open_log(self._inside(requests.LOG))
        except OSError as error:
            os.close(self._pidfd)
            raise ProcessLookupError from error

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
    def user(self) -> int:
        """The uid and gid of that process."""
        return self._record.uid

    @property
    def channel_path(self) -> Path:
        """Firecracker's vsock socket; `open_channel()` gives the agent's stream behind it."""
        return self._inside(requests.CHANNEL_SOCKET)

    def handle(self) -> dict[str, Any]:
        return {"driver": "firecracker", "id": self.id, "pid": self._pid, "started": self._started}

    def console_tail(self, limit: int = 4096) -> str:
        return self._console.tail(limit)

    def last_words(self) -> str:
        """Why the VMM did not get far, in its own words."""
        return ends.complaint(self._log.tail(KEPT_BYTES)) or ends.complaint(self._console.vmm_log())

    @property
    def vmm_log(self) -> str:
        """What Firecracker said: its log, or what it printed before it had one."""
        return self._log.tail(KEPT_BYTES) or self._console.vmm_log()

    def _inside(self, path: str) -> Path:
        """A path of the jail, seen from here. Who serves a socket there is checked at each connection."""
        return Path(f"/proc/{self._pid}/root{path}")

    # -- connecting

    def watch(self) -> None:
        """Notice the end of the process from now on, and keep its newest output."""
        asyncio.get_running_loop().add_reader(self._pidfd, self._on_exit)
        self._watching = True
        self._console.watch()
        self._log.watch()

    async def reached(self, seconds: float = 0.0) -> None:
        """Return when the VMM answers; find out in what state it is. Raises if it does not in time, or ended."""
        async with deadline(seconds or self._settings.create_seconds, "the VMM's first answer"):
            pause, longest = RETRY_SECONDS
            while True:
                try:
                    description = await self._api.get(requests.describe(), seconds=seconds)
                    break
                except UnavailableError as error:
                    if self._state == State.ENDED:
                        raise UnavailableError("the VMM ended before it could be spoken to") from error
                    await asyncio.sleep(pause)
                    pause = min(pause * 2, longest)
        state = description.get("state")
        if not isinstance(state, str) or state not in _STATES:
            raise HostileError(f"the VMM of {self.id} is in the state {state!r:.40}")
        self._state = _STATES[state]

    async def call(self, *wanted: Request, seconds: float = 0.0) -> None:
        """One after the other; stops at the first that fails. ConflictError if the VM has ended."""
        for request in wanted:
            try:
                await self._api.call(request, seconds=seconds)
            except CuboidError as error:
                if self._state == State.ENDED or self._cause is not None:
                    raise ConflictError(f"VM {self.id} has ended") from error
                raise

    async def made_ready(self) -> None:
        """Wait until the VMM answers, and until files can be given to it."""
        await gather_all(self.reached(), self._jailed.prepare())

    async def give(self, *bindings: Binding) -> None:
        """Put files into the jail."""
        await self._jailed.bind(bindings)

    async def open_channel(self) -> socket.socket:
        """A new connection to the agent, past Firecracker's greeting. Errors as `channel.open_channel`."""
        return await open_channel(
            self.channel_path, self._pid, command.CHANNEL_PORT, seconds=self._settings.call_seconds
        )

    # -- commands

    async def start(self) -> None:
        await self._move({State.CREATED}, State.RUNNING, requests.start())

    async def pause(self) -> None:
        await self._move({State.RUNNING}, State.PAUSED, requests.pause())

    async def resume(self) -> None:
        await self._move({State.PAUSED}, State.RUNNING, requests.resume())

    async def _move(self, allowed: set[State], to: State, request: Request) -> None:
        async with self._changing:
            if self._state == to:
                return
            if self._record.spent and self._state == State.PAUSED:
                raise ConflictError(f"the template {self.id} has been snapshotted: it can only be killed")
            if self._state not in allowed:
                raise ConflictError(f"VM {self.id} is {self._state}: it cannot become {to}")
            await self.call(request)
            if self._state in allowed:  # it may have ended meanwhile
                self._state = to

    def loaded(self) -> None:
        """A snapshot has been loaded into the fresh VMM."""
        if self._state == State.CREATED:
            self._state = State.PAUSED

    async def attach_disk(self, disk: Disk) -> None:
        self._must_live()
        number, slot = self._record.slot(disk.serial)
        if disk.path is None:
            raise ConflictError(f"disk {disk.serial} has no path: there is nothing to attach")
        if disk.read_only != slot.read_only:
            kinds = ("writable", "read-only")
            raise ConflictError(
                f"slot {disk.serial} of {self.id} is {kinds[slot.read_only]}, the disk {kinds[disk.read_only]}"
            )
        if disk.path.is_socket():
            raise UnsupportedError("a vhost-user disk is there from the start of its VM or not at all")
        async with self._changing:
            if disk.serial in self._record.disks:
                raise ConflictError(f"slot {disk.serial} of {self.id} is taken")
            binding = Binding(disk.path, requests.disk_path(disk.serial), disk.read_only)
            await self._jailed.bind([binding])
            try:
                await self.call(self._medium(number, disk))
            except BaseException:
                with suppress(CuboidError):
                    await self._jailed.release([binding.inside])
                raise
            self._remember(self._record.with_disks({**self._record.disks, disk.serial: str(disk.path)}))

    async def detach_disk(self, serial: str) -> None:
        self._must_live()
        number, slot = self._record.slot(serial)
        if serial in self._record.vhost_user:
            raise UnsupportedError("a vhost-user disk stays until the end of its VM")
        async with self._changing:
            if serial not in self._record.disks:
                return
            await self._jailed.release([requests.disk_path(serial)])
            await self.call(self._medium(number, Disk(serial, None, slot.read_only)))
            left = {key: path for key, path in self._record.disks.items() if key != serial}
            self._remember(self._record.with_disks(left))

    def _medium(self, number: int, disk: Disk) -> Request:
        """Have Firecracker open a drive's path anew."""
        return (requests.put_drive if self._state == State.CREATED else requests.swap_medium)(number, disk)

    def _remember(self, record: Record) -> None:
        record.save(self._jail.folder)
        self._record = record

    async def set_limits(self, limits: HostLimits) -> None:
        self._must_live()
        try:
            await in_thread(self._jail.change_limits, self._pid, limits)
        except ProcessLookupError as error:
            raise ConflictError(f"VM {self.id} has ended") from error
        except OSError as error:
            raise UnavailableError(f"the limits of VM {self.id} cannot be changed: {error.strerror}") from error

    async def snapshot(self, folder: Path) -> None:
        async with self._changing:
            self._must_live()
            if self._state != State.PAUSED:
                raise ConflictError(f"VM {self.id} is {self._state}: only a paused VM is snapshotted")
            if self._record.shared_memory:
                raise UnsupportedError(f"VM {self.id} shares its memory with other processes: it cannot be saved")
            if self._record.spent:
                raise UnsupportedError(f"the template {self.id} has been snapshotted, which is done once")

            async def write() -> None:
                await self.call(requests.save(), seconds=self._settings.memory_seconds)

            await saving.save(self._jail, self._jailed, self._record, self._facts(), folder, write)
            self._remember(self._record.handed_over())

    def _must_live(self) -> None:
        if self._state == State.ENDED:
            raise ConflictError(f"VM {self.id} has ended")

    async def stats(self) -> VmStats:
        self._must_live()
        return await in_thread(usage.stats, self._pid, self._record.shape.memory_mib)

    # -- its end

    async def kill(self) -> None:
        if not self._ended.done():
            if self._cause is None:
                self._cause = EndCause.KILLED
            if self._pidfd >= 0:
                with suppress(ProcessLookupError):
                    signal.pidfd_send_signal(self._pidfd, signal.SIGKILL)
        await self.wait_for(self._settings.call_seconds)

    async def wait(self) -> Ended:
        return await asyncio.shield(self._ended)

    async def wait_for(self, seconds: float) -> Ended:
        return await within(seconds, self.wait(), f"the end of VM {self.id}")

    def when_ended(self, hook: Callable[[], None]) -> None:
        """`hook` is called when the VM has ended and nothing of it is left."""
        self._ended.add_done_callback(lambda _: hook())

    def _on_exit(self) -> None:
        """The process is gone; a pidfd says so at once, for a process that is no child of ours too."""
        self._stop_watching()
        self._state = State.ENDED
        self._tasks.start(self._finish(), name=f"finish-{self.id}")

    async def _finish(self) -> None:
        self._close_files()
        ended = Ended(EndCause.KILLED)
        try:
            if self._cause != EndCause.KILLED:
                ended = self._why()
            await asyncio.to_thread(self._jail.remove)
        finally:  # whoever waits learns of the end even where the host refuses to clean up
            if not self._ended.done():
                self._ended.set_result(ended)

    def _why(self) -> Ended:
        tails = (self._log.tail(KEPT_BYTES), self._console.tail(KEPT_BYTES), self._console.vmm_log())
        used = self._jail.group.stats()
        return ends.conclude(*tails, used.oom_kills, used.limit_hits)

    def _stop_watching(self) -> None:
        if self._watching:
            asyncio.get_running_loop().remove_reader(self._pidfd)
        if self._pidfd >= 0:
            os.close(self._pidfd)
        self._pidfd, self._watching = -1, False

    def _close_files(self) -> None:
        self._console.close()
        self._log.close()
        self._jailed.close()

    def release(self) -> None:
        """Let go of it without ending it."""
        self._stop_watching()
        self._close_files()

    async def discard(self) -> None:
        """Kill it and remove everything, whatever state it is in. Never raises."""
        try:
            await self.kill()
        except DeadlineError as error:
            log.warning("a killed VMM does not go", vm=self.id, error=error)
        self.release()


def _open_log(path: Path) -> Console:
    """The VMM's log, if it still is the regular file that it was made as."""
    descriptor = os.open(path, os.O_RDWR | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC | os.O_NOCTTY)
    if not stat.S_ISREG(os.fstat(descriptor).st_mode):
        os.close(descriptor)
        return Console(-1, -1, LOG_BYTES)
    return Console(descriptor, -1, LOG_BYTES)


def still_runs(handle: dict[str, Any]) -> bool:
    """Whether the process that a handle names still is that process."""
    return proc.alive(int(handle["pid"]), int(handle["started"]))
