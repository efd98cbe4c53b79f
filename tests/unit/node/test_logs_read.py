from __future__ import annotations

import asyncio
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from cuboid.lib.errors import NotFoundError
from cuboid.node import logread
from cuboid.node.logfiles import Index, create, notify, prune, segments, write_index
from cuboid.node.logread import LogOptions, read_logs


def record(n: int, text: str, *, stream: str = "stdout", tag: str = "F") -> bytes:
    return f"2026-01-02T03:04:{n:02d}.000000000Z {stream} {tag} {text}\n".encode()


class Log:
    def __init__(self, folder: Path) -> None:
        self.folder = folder
        folder.mkdir()
        self.end = 0
        self.current = create(folder, 0)

    def add(self, *records: bytes) -> Log:
        with self.current.path.open("ab") as file:
            for one in records:
                self.end += file.write(one)
        notify(self.folder)
        return self

    def turn(self) -> Log:
        self.current = create(self.folder, self.end)
        return self

    def attempts(self, *offsets: int) -> None:
        write_index(self.folder, Index(end=self.end, attempts=list(enumerate(offsets))), durable=False)


@pytest.fixture
def log(tmp_path: Path) -> Log:
    return Log(tmp_path / "main")


async def read(log: Log, options: LogOptions | None = None) -> bytes:
    async with asyncio.timeout(10):
        return b"".join([piece async for piece in read_logs(log.folder, options or LogOptions())])


def ten(log: Log) -> Log:
    for n in range(10):
        log.add(record(n, f"line {n}"))
        if n in (3, 6):
            log.turn()
    return log


async def test_all_lines_come_without_their_prefix_over_all_segments(log: Log) -> None:
    assert await read(ten(log)) == b"".join(b"line %d\n" % n for n in range(10))


@pytest.mark.parametrize("count", [0, 1, 3, 4, 7, 10, 50])
async def test_tail_gives_the_last_lines(log: Log, count: int) -> None:
    expected = [b"line %d\n" % n for n in range(10)]
    assert await read(ten(log), LogOptions(tail_lines=count)) == b"".join(expected[len(expected) - min(count, 10) :])


async def test_tail_does_not_read_the_whole_file(log: Log, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(logread, "BLOCK", 4096)
    for n in range(2000):
        log.add(record(n % 60, "x" * 50))
    first = logread._tail_start(log.folder, 0, None, LogOptions(tail_lines=3))
    assert log.end - first == 3 * len(record(0, "x" * 50))
    seen = 0
    for _ in logread._lines_backwards(logread._spans(log.folder, 0, None)):
        seen += 1
        if seen == 4:
            break
    assert seen == 4


async def test_parts_of_a_line_are_joined_and_count_as_one(log: Log) -> None:
    log.add(record(0, "first"), record(1, "a", tag="P"), record(1, "b", tag="P"), record(1, "c"), record(2, "last"))
    assert await read(log) == b"first\nabc\nlast\n"
    assert await read(log, LogOptions(tail_lines=2)) == b"abc\nlast\n"
    stamped = await read(log, LogOptions(timestamps=True, tail_lines=2))
    assert stamped == b"2026-01-02T03:04:01.000000000Z abc\n2026-01-02T03:04:02.000000000Z last\n"


async def test_one_stream_can_be_chosen(log: Log) -> None:
    log.add(record(0, "out"), record(1, "err", stream="stderr"), record(2, "out2"))
    assert await read(log, LogOptions(stream="stderr")) == b"err\n"
    assert await read(log, LogOptions(stream="stdout", tail_lines=2)) == b"out\nout2\n"


@pytest.mark.parametrize("second", [0, 5, 9, 30])
async def test_since_leaves_out_what_is_older(log: Log, second: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(logread, "BLOCK", 100)
    expected = b"".join(b"line %d\n" % n for n in range(second, 10))
    assert await read(ten(log), LogOptions(since=f"2026-01-02T03:04:{second:02d}.000000000Z")) == expected


@pytest.mark.parametrize("limit", [0, 1, 9, 1000])
async def test_limit_cuts_at_the_byte(log: Log, limit: int) -> None:
    assert await read(ten(log), LogOptions(limit_bytes=limit)) == b"".join(b"line %d\n" % n for n in range(10))[:limit]


async def test_previous_is_the_attempt_before_and_the_default_is_the_current_one(log: Log) -> None:
    log.add(record(0, "zero"))
    first = log.end
    log.add(record(1, "one"))
    log.turn()
    second = log.end
    log.add(record(2, "two"))
    log.attempts(0, first, second)
    assert await read(log) == b"two\n"
    assert await read(log, LogOptions(previous=True)) == b"one\n"
    assert await read(log, LogOptions(previous=True, tail_lines=5)) == b"one\n"


async def test_without_an_attempt_before_previous_is_refused(log: Log) -> None:
    log.add(record(0, "zero"))
    log.attempts(0)
    with pytest.raises(NotFoundError):
        await read(log, LogOptions(previous=True))


async def test_a_container_that_never_started_has_no_lines(tmp_path: Path) -> None:
    assert [piece async for piece in read_logs(tmp_path / "none", LogOptions())] == []


async def test_follow_gives_new_lines_at_once_and_over_new_segments_and_ends_with_the_container(log: Log) -> None:
    alive = True
    log.add(record(0, "old"))
    got: asyncio.Queue[bytes] = asyncio.Queue()

    async def follow() -> None:
        async for piece in read_logs(log.folder, LogOptions(follow=True), lambda: alive):
            got.put_nowait(piece)

    task = asyncio.get_running_loop().create_task(follow())
    async with asyncio.timeout(5):
        assert await got.get() == b"old\n"
        for n in range(5):
            started = asyncio.get_running_loop().time()
            log.add(record(n, f"new {n}"))
            assert await got.get() == b"new %d\n" % n
            assert asyncio.get_running_loop().time() - started < 0.5
            log.turn()
            prune(log.folder, 2)
        alive = False
        log.add(record(9, "last words"))
        assert await got.get() == b"last words\n"
        await task


async def test_follow_waits_for_last_words_that_come_after_the_end(log: Log) -> None:
    log.add(record(0, "old"))

    async def late() -> None:
        await asyncio.sleep(0.05)
        log.add(record(1, "late"))

    task = asyncio.get_running_loop().create_task(late())
    assert await read(log, LogOptions(follow=True)) == b"old\nlate\n"
    await task


async def test_a_reader_that_lags_behind_removed_segments_goes_on_with_what_is_there(log: Log) -> None:
    log.add(record(0, "zero"))
    cursor = logread._Cursor(log.folder, 0, None)
    assert cursor.read() == record(0, "zero")
    log.turn().add(record(1, "one")).turn().add(record(2, "two"))
    prune(log.folder, 1)
    assert cursor.read() == record(2, "two")
    assert len(segments(log.folder)) == 1
    cursor.close()


async def test_a_record_that_was_cut_is_shown_as_far_as_it_goes(log: Log) -> None:
    log.add(record(0, "whole"), record(1, "half of it")[:-5])
    assert await read(log) == b"whole\nhalf o"


@settings(deadline=None)
@given(st.lists(st.binary(max_size=60), max_size=20), st.integers(0, 10), st.booleans(), st.booleans())
def test_no_bytes_of_a_guest_break_the_reader(
    tmp_path_factory: pytest.TempPathFactory, pieces: list[bytes], tail: int, timestamps: bool, since: bool
) -> None:
    log = Log(tmp_path_factory.mktemp("garbage") / "main").add(*pieces)
    options = LogOptions(tail_lines=tail or None, timestamps=timestamps, since="2026" if since else "")
    text = asyncio.run(read(log, options))
    assert len(text) <= sum(map(len, pieces)) + 1
