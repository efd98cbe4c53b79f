"""Locks between processes (`flock`): the kernel frees them when their holder dies, however it dies."""

from __future__ import annotations

import asyncio
import fcntl
import os
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, contextmanager
from pathlib import Path

_FIRST_WAIT, _LONGEST_WAIT = 0.01, 0.25  # seconds between tries; flock cannot be awaited


@asynccontextmanager
async def locked(path: Path, *, shared: bool = False) -> AsyncIterator[None]:
    """Wait for the lock without blocking the loop."""
    wait = _FIRST_WAIT
    fd = _open(path)
    try:
        while not try_lock(fd, shared):
            await asyncio.sleep(wait)
            wait = min(wait * 2, _LONGEST_WAIT)
        yield
    finally:
        os.close(fd)


@contextmanager
def locked_briefly(path: Path) -> Iterator[None]:
    """For sections of a few milliseconds that never wait for anything: blocks the caller."""
    fd = _open(path)
    try:
        fcntl.flock(fd, fcntl.LOCK_EX)
        yield
    finally:
        os.close(fd)


@contextmanager
def locked_if_free(path: Path) -> Iterator[bool]:
    """Yields whether the lock was had."""
    fd = _open(path)
    try:
        yield try_lock(fd, shared=False)
    finally:
        os.close(fd)


@contextmanager
def abandoned(folder: Path) -> Iterator[bool]:
    """Yields whether a folder is there and nobody has it locked; meanwhile it is locked."""
    try:
        fd = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC | os.O_NOFOLLOW)
    except OSError:  # removed at this moment, or no folder
        yield False
        return
    try:
        yield try_lock(fd, shared=False)
    finally:
        os.close(fd)


def try_lock(fd: int, shared: bool) -> bool:
    try:
        fcntl.flock(fd, (fcntl.LOCK_SH if shared else fcntl.LOCK_EX) | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True


def _open(path: Path) -> int:
    return os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW, 0o600)
