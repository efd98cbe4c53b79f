"""Container logs: `LogPump` brings them from the guest to the host's disk, `read_logs` reads them there.

The guest keeps every byte until the host has acknowledged it; the host acknowledges after fdatasync and after its index
is durable. So a host that is killed at any moment goes on exactly where its disk ends: none lost, none twice.
"""

from __future__ import annotations

import asyncio
import os
from collections.abc import Coroutine
from contextlib import suppress
from pathlib import Path
from typing import Any

from cuboid.guest.base import Guest
from cuboid.lib.aio import within
from cuboid.lib.errors import CuboidError, HostileError
from cuboid.lib.log import get_log
from cuboid.node.logfiles import Limits, Segment, create, notify, prune, read_index, recover, write_index
from cuboid.node.logread import LogOptions, has_previous, read_logs, wait_for_offset

__all__ = ["Limits", "LogOptions", "LogPump", "has_previous", "notify", "read_logs", "wait_for_offset"]

log = get_log(__name__)
COMMIT_SECONDS = 0.25  # longest time that a byte stays unacknowledged on an idle disk
COMMIT_BYTES = 4 << 20  # a commit starts at once when that much waits
UNCOMMITTED_LIMIT = 32 << 20  # more is not taken from the guest before the disk has caught up
RETRY_SECONDS = 0.2
RETRY_LIMIT = 5.0
CALL_SECONDS = 10.0
START_CHANNEL = 1  # eight bytes, little-endian: the guest offset of the first byte on channel 0, if it is another
LONGEST_LINE = 1 << 20  # bytes; the contract says 16 KiB and a little
OFFSET_LIMIT = 1 << 62


class LogPump:
    """Follows one container's log from the last durable byte until the guest says that it is complete.

    `boot` is the guest's boot id (`HelloAck.boot_id`): after a new boot the guest counts from 0 again.
    """

    def __init__(
        self, guest: Guest, container: str, folder: Path, limits: Limits | None = None, *, boot: str = ""
    ) -> None:
        self._guest = guest
        self._container = container
        self._folder = folder
        self._limits = limits or Limits()
        self._index = read_index(folder)
        self._segment = recover(folder, self._index)
        self._fd = _open(self._segment)
        self._begin_boot(boot)
        self._end = self._index.end  # written
        self._sure = self._end  # written, and known to be where it belongs; `_index.end` is durable
        self._acknowledged = 0
        self._dirty = asyncio.Event()
        self._full = asyncio.Event()
        self._progress = asyncio.Condition()
        self._lock = asyncio.Lock()

    @property
    def dropped_bytes(self) -> int:
        """Bytes that the guest could not keep while no host was connected."""
        return self._index.dropped

    @property
    def guest_offset(self) -> int:
        """The guest's offset up to which bytes are in the host's file."""
        return self._end - self._index.base

    def _begin_boot(self, boot: str) -> None:
        """A machine that died in the middle of a line must not glue it to the next boot's first one."""
        if self._index.boot == boot:
            return
        size = os.fstat(self._fd).st_size
        with self._segment.path.open("rb") as file:
            file.seek(max(0, size - 1))
            if size and file.read(1) != b"\n":
                os.write(self._fd, b"\n")
                self._index.end += 1
        self._index.boot = boot
        self._index.base = self._index.end
        write_index(self._folder, self._index, durable=False)  # a host without power takes the guest with it

    async def attempt_started(self, attempt: int, guest_offset: int) -> None:
        """Note where an attempt's lines begin. Call before StartContainer, with the `log_end_offset` that
        the guest's `List` has for the container (0 if it has none)."""
        async with self._lock:
            attempts = [pair for pair in self._index.attempts if pair[0] < attempt]
            self._index.attempts = [*attempts[-1:], (attempt, self._index.base + guest_offset)]
            write_index(self._folder, self._index, durable=False)

    async def wait_for(self, guest_offset: int, *, timeout: float) -> bool:
        """Whether the host's file has all bytes before `guest_offset`, waiting for them at most `timeout` seconds."""
        try:
            async with asyncio.timeout(timeout), self._progress:
                await self._progress.wait_for(lambda: self.guest_offset >= guest_offset)
        except TimeoutError:
            return False
        return True

    async def run(self) -> None:
        """Ends when the guest has removed the container's log; goes on over reconnects. `close` after it or after
        cancelling it."""
        async with asyncio.TaskGroup() as group:
            committer = group.create_task(self._commit_loop(), name=f"log-commit/{self._container}")
            try:
                await self._follow_until_complete()
            finally:
                committer.cancel()
        await self._commit()
        notify(self._folder)

    async def close(self) -> None:
        """Make durable what is written and let the file go. Idempotent."""
        if self._fd >= 0:
            try:
                await self._commit(acknowledge=False)
            except OSError as error:
                log.warning("cannot make a container's log durable", folder=str(self._folder), error=str(error))
            finally:
                os.close(self._fd)
                self._fd = -1

    # --- taking -------------------------------------------------------------------------------------------------------

    async def _follow_until_complete(self) -> None:
        pause = RETRY_SECONDS
        while True:
            before = self._end
            try:
                return await self._follow()
            except (CuboidError, ConnectionError) as error:
                log.debug("log stream broke off", container=self._container, error=str(error))
            except OSError as error:  # no space, say: the guest still has what was not written
                log.warning("cannot write a container's log", folder=str(self._folder), error=str(error))
            pause = RETRY_SECONDS if self._end > before else min(pause * 2, RETRY_LIMIT)
            await asyncio.sleep(pause)

    async def _follow(self) -> None:
        call = self._guest.logs(self._container, self.guest_offset, follow=True)
        async with await within(CALL_SECONDS, call, "asking the guest for logs") as stream:
            async for channel, data in stream.received():
                if channel == START_CHANNEL:
                    await self._starts_at(data)
                else:
                    await self._append(data)
            await stream.reply()

    async def _starts_at(self, data: bytes) -> None:
        """The guest could not keep all that we ask for; what comes begins at this offset and in a new segment."""
        start = self._index.base + int.from_bytes(data, "little")
        gap = start - self._end
        if len(data) != 8 or start > OFFSET_LIMIT or gap < 0:
            raise HostileError("the guest's log does not begin where it can")
        if gap == 0:
            return
        log.warning("the guest had to drop log bytes", container=self._container, bytes=gap)
        await self._commit(acknowledge=False)
        self._index.dropped += gap
        self._end = self._sure = start
        self._turn()
        prune(self._folder, self._limits.max_files)

    async def _append(self, data: bytes) -> None:
        while (cut := self._segment_end(data)) is not None:
            self._write(data[:cut])
            data = data[cut:]
            await self._rotate()
        self._write(data)
        await self._written()

    def _segment_end(self, data: bytes) -> int | None:
        """How much of `data` still belongs to this segment (whole lines); None: all of it, the segment goes on."""
        size = self._end - self._segment.start
        room = self._limits.max_bytes - size
        if len(data) <= room:
            return None
        if cut := data.find(b"\n", max(room - 1, 0)) + 1:
            return cut if cut < len(data) or size + cut >= self._limits.max_bytes else None
        return 0 if size >= self._limits.max_bytes + LONGEST_LINE else None  # no line end: let it come, up to a bound

    async def _rotate(self) -> None:
        self._sure = self._end
        await self._commit(acknowledge=False)
        self._turn()
        prune(self._folder, self._limits.max_files)

    def _turn(self) -> None:
        """Go on in a new segment that begins at `_end`."""
        segment = create(self._folder, self._end)
        descriptor, old = _open(segment), self._fd  # if that fails, the old segment goes on
        self._segment, self._fd = segment, descriptor
        os.close(old)

    def _write(self, data: bytes) -> None:
        view = memoryview(data)
        while view:
            count = os.write(self._fd, view)
            self._end += count
            view = view[count:]

    async def _written(self) -> None:
        """Bytes are in the file: tell readers, let the disk follow, wait if it is far behind."""
        self._sure = self._end
        self._dirty.set()
        notify(self._folder)
        async with self._progress:
            self._progress.notify_all()
        if self._end - self._index.end >= COMMIT_BYTES:
            self._full.set()
        if self._end - self._index.end > UNCOMMITTED_LIMIT:
            await self._commit(acknowledge=False)

    # --- keeping ------------------------------------------------------------------------------------------------------

    async def _commit_loop(self) -> None:
        while True:
            await self._dirty.wait()
            with suppress(TimeoutError):
                async with asyncio.timeout(COMMIT_SECONDS):
                    await self._full.wait()
            self._dirty.clear()
            self._full.clear()
            try:
                await self._commit()
            except OSError as error:
                log.warning("cannot make a container's log durable", folder=str(self._folder), error=str(error))
                self._dirty.set()
                await asyncio.sleep(RETRY_LIMIT)

    async def _commit(self, *, acknowledge: bool = True) -> None:
        """Put what is sure on disk, then note it in the index, then let the guest forget it."""
        async with self._lock:
            end = self._sure
            if end > self._index.end:
                await _finished(asyncio.to_thread(self._make_durable, os.dup(self._fd), end))
        if acknowledge:
            await self._acknowledge(end - self._index.base)

    def _make_durable(self, descriptor: int, end: int) -> None:
        try:
            os.fdatasync(descriptor)
        finally:
            os.close(descriptor)
        self._index.end = end
        write_index(self._folder, self._index, durable=True)

    async def _acknowledge(self, guest_offset: int) -> None:
        if guest_offset <= self._acknowledged:
            return
        try:
            call = self._guest.ack_logs(self._container, guest_offset)
            await within(CALL_SECONDS, call, "acknowledging logs")
            self._acknowledged = guest_offset
        except (CuboidError, ConnectionError) as error:  # the next acknowledgement covers it
            log.debug("logs not acknowledged", container=self._container, error=str(error))


async def _finished(work: Coroutine[Any, Any, None]) -> None:
    """Await `work` to its end even if we are cancelled meanwhile: a thread goes on whether somebody waits or not."""
    task = asyncio.Task(work)
    try:
        await asyncio.shield(task)
    except asyncio.CancelledError:
        await asyncio.wait([task])
        raise


def _open(segment: Segment) -> int:
    return os.open(segment.path, os.O_WRONLY | os.O_APPEND | os.O_CLOEXEC | os.O_NOFOLLOW)
