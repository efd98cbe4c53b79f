"""Reading a container's log from the host's files: a part of it, the end of it, or all that comes.

Lines are in CRI form (`TIME STREAM F|P TEXT`). Whole blocks are turned by one regular expression; single lines are
looked at only where a filter needs it. What a guest wrote is hostile: a line in no known form is passed on as it is.
"""

from __future__ import annotations

import asyncio
import os
import re
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

from cuboid.lib.errors import NotFoundError
from cuboid.node.logfiles import Segment, read_index, segments, watching

BLOCK = 256 << 10  # bytes read at once
LONGEST_LINE = 1 << 20  # bytes kept while waiting for a line's end
FALLBACK_SECONDS = 2.0  # look at the file after that long even if nobody said that it grew
SETTLE_SECONDS = 0.25  # a container has ended and its log was quiet for that long: it is complete
SETTLE_LIMIT = 5.0
_RECORD = re.compile(rb"([^ \n]*) (stdout|stderr) (?:F ([^\n]*\n)|P ([^\n]*)\n)")
_PLAIN = re.compile(rb"[^ \n]* std(?:out|err) (?:F ([^\n]*\n)|P ([^\n]*)\n)")


@dataclass(frozen=True)
class LogOptions:
    tail_lines: int | None = None
    since: str = ""  # RFC 3339 with nanoseconds, UTC, as in the file: earlier lines are left out
    timestamps: bool = False
    limit_bytes: int | None = None
    follow: bool = False
    previous: bool = False  # the attempt before the current one
    stream: str = ""  # "stdout" or "stderr"; both if empty

    @property
    def plain(self) -> bool:
        return not (self.since or self.timestamps or self.stream)


def has_previous(folder: Path) -> bool:
    """Whether there is an attempt before the current one."""
    return len(read_index(folder).attempts) > 1


async def read_logs(
    folder: Path, options: LogOptions, running: Callable[[], bool] = lambda: False
) -> AsyncIterator[bytes]:
    """Pieces of text as the program wrote it. `follow` ends when `running` says no and the log is quiet.
    NotFoundError if `previous` is asked for and there is no attempt before the current one."""
    left = options.limit_bytes
    async for piece in _pieces(folder, options, running):
        if left is not None:
            piece = piece[:left]
            left -= len(piece)
        if piece:
            yield piece
        if left == 0:
            return


async def wait_for_offset(folder: Path, guest_offset: int, *, timeout: float) -> bool:
    """Whether the guest's bytes before `guest_offset`, of its current boot, are here, waiting `timeout` s at most."""
    end = read_index(folder).base + guest_offset
    with watching(folder) as grown:
        try:
            async with asyncio.timeout(timeout):
                while _end(folder) < end:
                    await grown.wait()
                    grown.clear()
        except TimeoutError:
            return False
    return True


def _end(folder: Path) -> int:
    found = segments(folder)
    return found[-1].start + found[-1].path.stat().st_size if found else 0


async def _pieces(folder: Path, options: LogOptions, running: Callable[[], bool]) -> AsyncIterator[bytes]:
    start, end = await asyncio.to_thread(_find, folder, options)
    turn = _Turner(options)
    follow = options.follow and not options.previous
    with watching(folder) as grown:
        cursor = _Cursor(folder, start, end)
        try:
            while True:
                grown.clear()
                alive = follow and running()
                while block := cursor.read():
                    yield turn(block)
                    await asyncio.sleep(0)
                if not alive and not (follow and await _grows(grown, cursor)):
                    break
                if alive:
                    await _wait(grown, FALLBACK_SECONDS)
        finally:
            cursor.close()
    yield turn.rest()


async def _wait(event: asyncio.Event, seconds: float) -> bool:
    try:
        async with asyncio.timeout(seconds):
            return await event.wait()
    except TimeoutError:
        return False


async def _grows(grown: asyncio.Event, cursor: _Cursor) -> bool:
    """Whether something still came in after the container's end: its last lines may be on their way."""
    cursor.settling += SETTLE_SECONDS
    return cursor.settling < SETTLE_LIMIT and await _wait(grown, SETTLE_SECONDS)


def _find(folder: Path, options: LogOptions) -> tuple[int, int | None]:
    """Where to begin and to end. Tried again when a segment is removed meanwhile."""
    start, end = _range(folder, options)
    for _ in range(3):
        with suppress(FileNotFoundError):
            if options.tail_lines is not None:
                return _tail_start(folder, start, end, options), end
            return (_since_start(folder, start, end, options.since) if options.since else start), end
    return start, end


def _range(folder: Path, options: LogOptions) -> tuple[int, int | None]:
    """First offset and end of the attempt that is asked for; None: whatever comes."""
    attempts = read_index(folder).attempts
    if not options.previous:
        return (attempts[-1][1] if attempts else 0), None
    if len(attempts) < 2:
        raise NotFoundError("there is no previous attempt of this container")
    return attempts[-2][1], attempts[-1][1]


# --- bytes -----------------------------------------------------------------------------------------------------------


class _Cursor:
    """Reads on from an offset over the borders of segments, also while they are added and removed."""

    def __init__(self, folder: Path, start: int, end: int | None) -> None:
        self._folder = folder
        self._offset = start
        self._end = end
        self._fd = -1
        self._base = 0
        self.settling = 0.0

    def read(self) -> bytes:
        """The next block, empty if there is none now."""
        while True:
            newer = self._next_segment()
            if self._fd >= 0 and (block := self._read_here()):
                return block
            if newer is None:
                return b""
            self._open(newer)

    def _read_here(self) -> bytes:
        count = BLOCK if self._end is None else min(BLOCK, self._end - self._offset)
        block = os.pread(self._fd, count, self._offset - self._base) if count > 0 else b""
        self._offset += len(block)
        return block

    def _next_segment(self) -> Segment | None:
        """The segment to open when this one gives no more: it was listed before, so this one is then complete."""
        found = segments(self._folder)
        if self._fd < 0:
            at_or_before = [s for s in found if s.start <= self._offset]
            return at_or_before[-1] if at_or_before else (found[0] if found else None)
        return next((s for s in found if s.start > self._base), None)

    def _open(self, segment: Segment) -> None:
        try:
            descriptor = os.open(segment.path, os.O_RDONLY | os.O_CLOEXEC | os.O_NOFOLLOW)
        except FileNotFoundError:  # removed since it was listed
            self.close()
            self._offset = max(self._offset, segment.start + 1)
            return
        self.close()
        self._fd, self._base = descriptor, segment.start
        self._offset = max(self._offset, segment.start)

    def close(self) -> None:
        if self._fd >= 0:
            os.close(self._fd)
            self._fd = -1


def _spans(folder: Path, start: int, end: int | None) -> list[tuple[Segment, int, int]]:
    """Segments with the part of each, in the whole log's offsets, that lies in the range; oldest first."""
    spans = []
    for segment in segments(folder):
        with suppress(FileNotFoundError):
            stop = segment.start + segment.path.stat().st_size
            low, high = max(start, segment.start), stop if end is None else min(stop, end)
            if low < high:
                spans.append((segment, low, high))
    return spans


def _tail_start(folder: Path, start: int, end: int | None, options: LogOptions) -> int:
    """The offset at which the last `tail_lines` lines begin, found from the end backwards."""
    wanted = options.tail_lines or 0
    spans = _spans(folder, start, end)
    if wanted <= 0:
        return spans[-1][2] if spans else start
    seen = 0
    first = spans[0][1] if spans else start
    for offset, line in _lines_backwards(spans):
        if not _counts(line, options):
            continue
        if seen == wanted:
            return offset + len(line) + 1
        seen += 1
    return first


def _counts(record: bytes, options: LogOptions) -> bool:
    """Whether a record ends a line that the reader will show."""
    fields = record.split(b" ", 3)
    if len(fields) < 4:
        return bool(record)
    time, stream, tag = fields[0], fields[1].decode(errors="replace"), fields[2]
    return tag != b"P" and options.stream in ("", stream) and time >= options.since.encode()


def _lines_backwards(spans: list[tuple[Segment, int, int]]) -> Iterator[tuple[int, bytes]]:
    """(offset, line without its end) from the last to the first; the piece behind the last line end first."""
    for segment, low, high in reversed(spans):
        with segment.path.open("rb") as file:
            rest = b""
            position = high
            while position > low:
                size = min(BLOCK, position - low)
                position -= size
                file.seek(position - segment.start)
                lines = (file.read(size) + rest).split(b"\n")
                rest = lines[0]
                offset = position + sum(map(len, lines)) + len(lines) - 1
                for line in reversed(lines[1:]):
                    offset -= len(line)
                    yield offset, line
                    offset -= 1
            yield low, rest


def _since_start(folder: Path, start: int, end: int | None, since: str) -> int:
    """An offset at or before the first line that is not older than `since`: halving, as lines are in order of time."""
    moment = since.encode()
    older = [span for span in _spans(folder, start, end) if _first_time(*span[:2]) < moment]
    if not older:
        return start
    segment, low, high = older[-1]
    with segment.path.open("rb") as file:
        while high - low > BLOCK:
            middle = (low + high) // 2
            file.seek(middle - segment.start)
            file.readline(LONGEST_LINE)  # the line that the middle cuts
            low, high = (middle, high) if _time(file.readline(LONGEST_LINE)) < moment else (low, middle)
        if low == older[-1][1]:
            return low
        file.seek(low - segment.start)
        return low + len(file.readline(LONGEST_LINE))


def _first_time(segment: Segment, offset: int) -> bytes:
    with segment.path.open("rb") as file:
        file.seek(offset - segment.start)
        return _time(file.readline(LONGEST_LINE))


def _time(record: bytes) -> bytes:
    return record.split(b" ", 1)[0]


# --- text ------------------------------------------------------------------------------------------------------------


class _Turner:
    """Turns blocks of records into text; keeps what lies behind the last line end for the next block."""

    def __init__(self, options: LogOptions) -> None:
        self._options = options
        self._since = options.since.encode()
        self._rest = b""
        self._inside: dict[bytes, bool] = {}  # stream → the last record was a part of a line

    def __call__(self, block: bytes) -> bytes:
        block = self._rest + block
        cut = block.rfind(b"\n") + 1
        if cut == 0 and len(block) > LONGEST_LINE:
            cut = len(block)
        self._rest = block[cut:]
        return self._text(block[:cut])

    def rest(self) -> bytes:
        """What came after the last line end: a record that was cut, shown as far as it goes."""
        return self._text(self._rest + b"\n").removesuffix(b"\n") if self._rest else b""

    def _text(self, records: bytes) -> bytes:
        if self._options.plain:
            return _PLAIN.sub(rb"\1\2", records)
        return _RECORD.sub(self._record, records)

    def _record(self, match: re.Match[bytes]) -> bytes:
        time, stream, whole, part = match.groups()
        if time < self._since or self._options.stream not in ("", stream.decode()):
            return b""
        text: bytes = part if whole is None else whole
        prefix = b"" if self._inside.get(stream) or not self._options.timestamps else time + b" "
        self._inside[stream] = whole is None
        return prefix + text
