"""Where a container's log is on the host, and what is known of it after a crash.

A log is one sequence of bytes over all attempts and boots. It is kept in segments `0.log.<first byte, 20 digits>`; the
symbolic link `0.log` names the newest. A segment's name says where it begins, so turning to a new one renames nothing
and there is no moment at which the folder cannot be understood. `index.json` holds what is durable.
"""

from __future__ import annotations

import asyncio
import os
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path

import msgspec

from cuboid.lib.log import get_log
from cuboid.lib.paths import write_atomic

log = get_log(__name__)
LINK = "0.log"
INDEX = "index.json"
_DIGITS = 20


@dataclass(frozen=True)
class Limits:
    max_bytes: int = 10 << 20  # of a segment; a line is never cut, so it may be exceeded by one
    max_files: int = 5  # segments kept, the newest included


class Index(msgspec.Struct, rename="camel"):
    """What is safe on disk. Offsets count bytes of the whole log; the guest counts from 0 at each boot."""

    version: int = 1
    boot: str = ""  # the guest's boot id
    base: int = 0  # offset of the guest's byte 0 of this boot
    end: int = 0  # everything before it is on disk
    dropped: int = 0  # bytes that the guest had to drop before the host took them
    attempts: list[tuple[int, int]] = []  # (attempt, offset at which it begins), ascending


@dataclass(frozen=True)
class Segment:
    path: Path
    start: int


def read_index(folder: Path) -> Index:
    """The index as it was last written; an empty one if there is none or it is not ours."""
    try:
        return msgspec.json.decode((folder / INDEX).read_bytes(), type=Index)
    except FileNotFoundError:
        return Index()
    except msgspec.DecodeError as error:
        log.warning("log index is unreadable, the log begins anew", folder=str(folder), error=str(error))
        return Index(end=_bytes_end(folder))


def _bytes_end(folder: Path) -> int:
    return max((s.start + s.path.stat().st_size for s in segments(folder)), default=0)


def write_index(folder: Path, index: Index, *, durable: bool) -> None:
    """With `durable`, also every segment's entry in the folder is on disk afterwards."""
    write_atomic(folder / INDEX, msgspec.json.encode(index), mode=0o640, durable=durable)


def segments(folder: Path) -> list[Segment]:
    """Oldest first."""
    prefix = LINK + "."
    try:
        names = os.listdir(folder)  # noqa: PTH208 - names only, this is called often
    except FileNotFoundError:
        return []
    starts = sorted(int(n[len(prefix) :]) for n in names if n.startswith(prefix) and n[len(prefix) :].isdecimal())
    return [segment(folder, start) for start in starts]


def segment(folder: Path, start: int) -> Segment:
    return Segment(folder / f"{LINK}.{start:0{_DIGITS}d}", start)


def recover(folder: Path, index: Index) -> Segment:
    """Make the folder hold exactly the bytes before `index.end`; the segment to go on with (made if there is none)."""
    folder.mkdir(mode=0o750, parents=True, exist_ok=True)
    found = segments(folder)
    for late in [s for s in found if s.start > index.end]:
        late.path.unlink()
    kept = [s for s in found if s.start <= index.end]
    if not kept:
        return create(folder, index.end)
    current = kept[-1]
    length = index.end - current.start
    size = current.path.stat().st_size
    if size < length:  # the disk lost what it had promised to keep: go on after the hole
        log.warning("log is shorter than recorded", file=str(current.path), missing=length - size)
        return create(folder, index.end)
    os.truncate(current.path, length)
    return current


def create(folder: Path, start: int) -> Segment:
    """A new, empty, newest segment."""
    new = segment(folder, start)
    os.close(os.open(new.path, os.O_WRONLY | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW, 0o640))
    link = folder / f".{LINK}.new"
    link.unlink(missing_ok=True)
    link.symlink_to(new.path.name)
    link.replace(folder / LINK)
    return new


def prune(folder: Path, keep: int) -> None:
    for old in segments(folder)[:-keep]:
        with suppress(FileNotFoundError):
            old.path.unlink()


# --- notice of new bytes, inside this process ------------------------------------------------------------------------

_watchers: dict[Path, set[asyncio.Event]] = {}


def notify(folder: Path) -> None:
    """Wake everyone who follows this log: bytes were added, or its container ended."""
    for event in _watchers.get(folder, ()):
        event.set()


@contextmanager
def watching(folder: Path) -> Iterator[asyncio.Event]:
    """An event that `notify` sets; the caller clears it before it looks."""
    event = asyncio.Event()
    _watchers.setdefault(folder, set()).add(event)
    try:
        yield event
    finally:
        _watchers[folder].discard(event)
        if not _watchers[folder]:
            del _watchers[folder]
