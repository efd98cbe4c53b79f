from __future__ import annotations

import asyncio
import os
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any, cast

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from cuboid.guest import agent_pb2 as pb
from cuboid.guest.base import Guest
from cuboid.lib.errors import UnavailableError
from cuboid.node import logfiles, logs
from cuboid.node.logfiles import Limits, Segment, read_index, segments
from cuboid.node.logs import LogPump


class Spool:
    """A guest's log spool: bytes from `first` on, streams that break when told to, acknowledgements noted."""

    def __init__(self, data: bytes = b"", piece: int = 1000) -> None:
        self.data = data
        self.first = 0
        self.piece = piece
        self.acked = 0
        self.complete = True
        self.break_after: int | None = None  # bytes until the channel breaks, once
        self.calls: list[tuple[int, bool]] = []
        self.start: bytes | None = None  # said on channel 1 instead of the truth

    async def logs(self, container: str, offset: int, *, follow: bool) -> SpoolStream:
        self.calls.append((offset, follow))
        return SpoolStream(self, offset, follow)

    async def ack_logs(self, container: str, offset: int) -> None:
        self.acked = max(self.acked, offset)


class SpoolStream:
    id = 1

    def __init__(self, spool: Spool, offset: int, follow: bool) -> None:
        self.spool, self.offset, self.follow = spool, max(offset, spool.first), follow
        self.asked = offset

    async def received(self) -> AsyncIterator[tuple[int, bytes]]:
        spool = self.spool
        if self.offset != self.asked or spool.start is not None:
            yield 1, self.offset.to_bytes(8, "little") if spool.start is None else spool.start
        while True:
            if spool.break_after is not None and spool.break_after <= 0:
                spool.break_after = None
                raise ConnectionResetError("channel broke")
            piece = spool.data[self.offset : self.offset + spool.piece]
            if piece:
                self.offset += len(piece)
                if spool.break_after is not None:
                    spool.break_after -= len(piece)
                yield 0, piece
            elif not self.follow or spool.complete:
                return
            else:
                await asyncio.sleep(0.005)

    async def reply(self) -> pb.Reply:
        return pb.Reply(logs=pb.LogsEnd(first_offset=self.spool.first, end_offset=self.offset))

    async def __aenter__(self) -> SpoolStream:
        return self

    async def __aexit__(self, *details: object) -> None: ...


def lines(count: int, *, start: int = 0) -> bytes:
    return b"".join(b"2026-01-02T03:04:05.%09dZ stdout F line %d\n" % (n, n) for n in range(start, start + count))


def on_disk(folder: Path) -> bytes:
    return b"".join(segment.path.read_bytes() for segment in segments(folder))


def pump(spool: Spool, folder: Path, limits: Limits | None = None, boot: str = "b1") -> LogPump:
    return LogPump(cast(Guest, spool), "main", folder, limits, boot=boot)


async def run(spool: Spool, folder: Path, limits: Limits | None = None, boot: str = "b1") -> LogPump:
    one = pump(spool, folder, limits, boot)
    async with asyncio.timeout(10):
        await one.run()
        await one.close()
    return one


@pytest.fixture(autouse=True)
def _quick(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(logs, "RETRY_SECONDS", 0.001)
    monkeypatch.setattr(logs, "COMMIT_SECONDS", 0.01)


async def test_everything_arrives_and_is_acknowledged(tmp_path: Path) -> None:
    spool = Spool(lines(500))
    await run(spool, tmp_path / "main")
    assert on_disk(tmp_path / "main") == spool.data
    assert spool.acked == len(spool.data)
    assert (tmp_path / "main" / "0.log").read_bytes() == spool.data


async def test_a_broken_channel_loses_nothing_and_doubles_nothing(tmp_path: Path) -> None:
    for after in (1, 777, 5000, 20_000):
        spool = Spool(lines(1000))
        spool.break_after = after
        folder = tmp_path / str(after)
        await run(spool, folder)
        assert on_disk(folder) == spool.data


async def test_rotation_cuts_between_lines_and_keeps_the_newest_segments(tmp_path: Path) -> None:
    spool = Spool(lines(2000), piece=333)
    folder = tmp_path / "main"
    await run(spool, folder, Limits(max_bytes=5000, max_files=3))
    kept = segments(folder)
    assert len(kept) == 3
    for segment in kept:
        content = segment.path.read_bytes()
        assert content.endswith(b"\n") and content.startswith(b"2026-")
        assert len(content) <= 5000 + 100
    assert spool.data.endswith(on_disk(folder))


async def test_a_guest_that_never_ends_its_line_cannot_make_a_segment_grow_for_ever(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(logs, "LONGEST_LINE", 2000)
    spool = Spool(b"x" * 50_000)
    spool.first = 0
    folder = tmp_path / "main"
    one = pump(spool, folder, Limits(max_bytes=1000, max_files=2))
    for start in range(0, 50_000, 500):
        await one._append(spool.data[start : start + 500])
    await one.close()
    assert len(segments(folder)) == 2
    assert all(s.path.stat().st_size <= 4000 for s in segments(folder))


async def test_what_is_not_in_the_index_is_cut_off_after_a_kill(tmp_path: Path) -> None:
    folder = tmp_path / "main"
    spool = Spool(lines(100))
    await run(spool, folder)
    newest = segments(folder)[-1].path
    with newest.open("ab") as file:
        file.write(b"half a batch that the index does not kn")
    spool.data += lines(100, start=100)
    await run(spool, folder)
    assert on_disk(folder) == spool.data


@given(cut=st.integers(0, 8000), size=st.integers(1500, 5000), piece=st.integers(1, 700))
@settings(max_examples=15, deadline=None)
def test_killed_at_any_byte_it_goes_on_exactly_there(
    tmp_path_factory: pytest.TempPathFactory, cut: int, size: int, piece: int
) -> None:
    async def scenario(folder: Path) -> bytes:
        spool = Spool(lines(200), piece=piece)
        first = pump(spool, folder, Limits(size, 1000))
        stop = asyncio.Event()
        write = first._write

        def stopping(data: bytes) -> None:
            write(data)
            if first._end >= cut:
                stop.set()

        cast(Any, first)._write = stopping
        task = asyncio.get_running_loop().create_task(first.run())
        waiter = asyncio.get_running_loop().create_task(stop.wait())
        await asyncio.wait([task, waiter], return_when=asyncio.FIRST_COMPLETED)
        task.cancel()  # as if killed: no close, nothing written any more
        waiter.cancel()
        await asyncio.gather(task, waiter, return_exceptions=True)
        os.close(first._fd)
        assert spool.acked <= read_index(folder).end
        spool.first = spool.acked
        await run(spool, folder, Limits(size, 1000))
        return spool.data

    folder = tmp_path_factory.mktemp("kill") / "main"
    data = asyncio.run(scenario(folder))
    assert on_disk(folder) == data


async def test_bytes_that_the_guest_dropped_leave_a_gap_that_is_told(tmp_path: Path) -> None:
    folder = tmp_path / "main"
    spool = Spool(lines(100))
    await run(spool, folder)
    before = len(spool.data)
    spool.data += lines(100, start=100)
    spool.first = before + len(lines(50, start=100))
    one = await run(spool, folder)
    assert one.dropped_bytes == spool.first - before
    assert on_disk(folder) == lines(100) + lines(50, start=150)
    assert one.guest_offset == len(spool.data)
    spool.data += lines(1, start=200)
    await run(spool, folder)
    assert on_disk(folder).endswith(b" line 199\n" + lines(1, start=200))


async def test_after_a_new_boot_the_guest_counts_from_zero_and_a_cut_line_is_ended(tmp_path: Path) -> None:
    folder = tmp_path / "main"
    await run(Spool(lines(3) + b"2026-01-02T03:04:05.000000000Z stdout F cut"), folder)
    spool = Spool(lines(2, start=10))
    await run(spool, folder, boot="b2")
    assert spool.calls[0] == (0, True)
    assert on_disk(folder) == lines(3) + b"2026-01-02T03:04:05.000000000Z stdout F cut\n" + lines(2, start=10)


async def test_attempts_are_noted_by_their_first_byte(tmp_path: Path) -> None:
    folder = tmp_path / "main"
    spool = Spool(lines(5))
    one = pump(spool, folder)
    await one.attempt_started(0, 0)
    await one.run()
    await one.attempt_started(1, one.guest_offset)
    await one.attempt_started(2, one.guest_offset + 7)
    await one.close()
    assert read_index(folder).attempts == [(1, len(spool.data)), (2, len(spool.data) + 7)]


async def test_waiting_for_an_offset_ends_when_its_bytes_are_in_the_file(tmp_path: Path) -> None:
    spool = Spool(lines(10))
    one = pump(spool, tmp_path / "main")
    task = asyncio.get_running_loop().create_task(one.run())
    assert await one.wait_for(len(spool.data), timeout=5)
    assert not await one.wait_for(len(spool.data) + 1, timeout=0.01)
    await task
    await one.close()


@pytest.mark.parametrize("start", [b"", b"\x00" * 9, b"\x01" + b"\x00" * 7, b"\xff" * 8])
async def test_a_log_that_begins_where_it_cannot_is_not_taken(tmp_path: Path, start: bytes) -> None:
    folder = tmp_path / "main"
    await run(Spool(lines(10)), folder)
    spool = Spool(lines(20))
    spool.start = start
    one = pump(spool, folder)
    task = asyncio.get_running_loop().create_task(one.run())
    await asyncio.sleep(0.05)
    task.cancel()
    await asyncio.gather(task, return_exceptions=True)
    await one.close()
    assert on_disk(folder) == lines(10)


async def test_a_guest_that_is_away_is_asked_again(tmp_path: Path) -> None:
    spool = Spool(lines(10))
    refusals = [UnavailableError("not up"), ConnectionResetError("gone")]
    plain = spool.logs

    async def refusing(container: str, offset: int, *, follow: bool) -> SpoolStream:
        if refusals:
            raise refusals.pop()
        return await plain(container, offset, follow=follow)

    cast(Any, spool).logs = refusing
    await run(spool, tmp_path / "main")
    assert on_disk(tmp_path / "main") == spool.data


async def test_a_full_disk_delays_but_does_not_lose(tmp_path: Path) -> None:
    spool = Spool(lines(10))
    one = pump(spool, tmp_path / "main")
    write, failures = one._write, [OSError(28, "No space left on device")]

    def failing(data: bytes) -> None:
        write(data[:5])
        if failures:
            raise failures.pop()
        write(data[5:])

    cast(Any, one)._write = failing
    await one.run()
    await one.close()
    assert on_disk(tmp_path / "main") == spool.data


async def test_a_segment_that_cannot_be_made_is_made_later(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    failures = [OSError(28, "No space left on device")] * 2
    plain = logfiles.create

    def failing(folder: Path, start: int) -> Segment:
        if failures:
            raise failures.pop()
        return plain(folder, start)

    monkeypatch.setattr(logs, "create", failing)
    spool, folder = Spool(lines(500)), tmp_path / "main"
    await run(spool, folder, Limits(max_bytes=5000, max_files=100))
    assert on_disk(folder) == spool.data
    assert len(segments(folder)) > 3


def test_an_unreadable_index_does_not_stop_the_log(tmp_path: Path) -> None:
    (tmp_path / "index.json").write_text("{broken")
    (tmp_path / "0.log.00000000000000000007").write_bytes(b"abc")
    assert read_index(tmp_path).end == 10
