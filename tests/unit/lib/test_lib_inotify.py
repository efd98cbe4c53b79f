"""Watching files for writes: every watch is told, seldom, and hundreds of them need one instance of the host's 128."""

from __future__ import annotations

import asyncio
import os
from collections.abc import Callable
from pathlib import Path

from cuboid.lib.linux.inotify import WriteWatch

SOON = 0.02  # s between two reports


class Watched:
    """A file, and how often its watch's hook was called since it was made."""

    def __init__(self, path: Path) -> None:
        self.file = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC)
        self.calls = -1  # the first call is for what was written before
        self.watch = WriteWatch(self.file, self._called, interval=SOON)

    def _called(self) -> None:
        self.calls += 1

    def write(self) -> None:
        os.write(self.file, b"x")

    def close(self) -> None:
        self.watch.close()
        os.close(self.file)


async def until(condition: Callable[[], bool]) -> None:
    async with asyncio.timeout(10):
        while not condition():
            await asyncio.sleep(0.005)


def instances() -> int:
    return sum(os.readlink(f"/proc/self/fd/{name}") == "anon_inode:inotify" for name in _descriptors())  # noqa: PTH115


def _descriptors() -> list[str]:
    return [entry.name for entry in Path("/proc/self/fd").iterdir() if entry.is_symlink()]


async def test_only_the_watch_of_the_file_that_was_written_to_is_told(tmp_path: Path) -> None:
    first, second = Watched(tmp_path / "1"), Watched(tmp_path / "2")
    first.write()
    await until(lambda: first.calls == 1)
    second.write()
    await until(lambda: second.calls == 1)
    assert first.calls == 1
    first.close()
    second.close()


async def test_a_writer_without_end_is_told_of_once_in_an_interval(tmp_path: Path) -> None:
    watched = Watched(tmp_path / "1")
    begin = asyncio.get_running_loop().time()
    while watched.calls < 5:
        watched.write()
        await asyncio.sleep(0.001)
    assert asyncio.get_running_loop().time() - begin >= 5 * SOON
    watched.close()


async def test_what_was_written_between_two_reports_is_told_of_with_the_second(tmp_path: Path) -> None:
    watched = Watched(tmp_path / "1")
    watched.write()
    await until(lambda: watched.calls == 1)
    watched.write()
    await until(lambda: watched.calls == 2)
    watched.close()


async def test_two_watches_of_one_file_are_both_told_and_one_stays_when_the_other_goes(tmp_path: Path) -> None:
    first, second = Watched(tmp_path / "1"), Watched(tmp_path / "1")
    first.write()
    await until(lambda: first.calls >= 1 and second.calls >= 1)
    first.close()
    second.write()
    await until(lambda: second.calls >= 2)
    second.close()


async def test_hundreds_of_watches_share_one_instance_which_goes_with_the_last(tmp_path: Path) -> None:
    before = instances()
    many = [Watched(tmp_path / str(number)) for number in range(300)]
    assert instances() == before + 1
    many[299].write()
    await until(lambda: many[299].calls == 1)
    for watched in many:
        watched.close()
    await until(lambda: instances() == before)
    again = Watched(tmp_path / "again")
    again.write()
    await until(lambda: again.calls == 1)
    again.close()


async def test_a_closed_watch_is_told_nothing(tmp_path: Path) -> None:
    watched, other = Watched(tmp_path / "1"), Watched(tmp_path / "2")
    watched.write()
    watched.close()
    watched.watch.close()
    other.write()
    await until(lambda: other.calls == 1)
    assert watched.calls == 0
    other.close()
