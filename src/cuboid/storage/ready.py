"""Writable devices that wait for their pods, by size. Each is whole from the moment it has its name."""

from __future__ import annotations

import asyncio
import shutil
from collections.abc import Awaitable, Callable
from contextlib import suppress
from itertools import count
from pathlib import Path

from cuboid.lib.aio import TaskSet

Make = Callable[[Path, int], Awaitable[None]]  # an empty file system of a size at a path, whole or not at all


class ReadyDevices:
    """Belongs to one process: what an earlier one has left in `folder` is removed. `most` bounds each size."""

    def __init__(self, folder: Path, make: Make, *, most: int) -> None:
        self._folder = folder
        self._make = make
        self._most = most
        self._names = count()
        self._wanted: dict[int, int] = {}
        self._ready: dict[int, list[Path]] = {}
        self._turns: dict[int, asyncio.Lock] = {}
        self._tasks = TaskSet("ready disks")
        shutil.rmtree(folder, ignore_errors=True)
        folder.mkdir(mode=0o700)

    def count(self, size: int) -> int:
        return len(self._ready.get(size, ()))

    async def want(self, size: int, number: int) -> None:
        """Make or remove until there are `number`, `most` at most. Raises what making one raises."""
        self._wanted[size] = min(number, self._most)
        await self._settle(size)
        if not self._wanted.get(size):
            for book in (self._wanted, self._ready, self._turns):
                book.pop(size, None)

    def take(self, size: int, path: Path) -> bool:
        """Move one to `path` if there is one; another is made behind it. Waits for nothing."""
        taken = False
        while not taken and self.count(size):
            with suppress(FileNotFoundError):  # somebody has cleaned up by hand
                self._ready[size].pop(0).rename(path)
                taken = True
        if self.count(size) < self._wanted.get(size, 0) and not self._turn(size).locked():
            self._tasks.start(self._settle(size), name=str(size))
        return taken

    def _turn(self, size: int) -> asyncio.Lock:
        return self._turns.setdefault(size, asyncio.Lock())

    async def _settle(self, size: int) -> None:
        """One device at a time: pods that start meanwhile have the disk too."""
        async with self._turn(size):
            ready = self._ready.setdefault(size, [])
            while len(ready) < self._wanted.get(size, 0):
                path = self._folder / f"{size}.{next(self._names)}.ext4"
                await self._make(path, size)
                ready.append(path)
            while len(ready) > self._wanted.get(size, 0):
                ready.pop().unlink(missing_ok=True)

    async def close(self) -> None:
        """End what is being made. What is ready goes with the next process' start."""
        self._wanted.clear()
        await self._tasks.cancel()
