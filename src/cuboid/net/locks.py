"""One worker per pod at a time, also across a restart of this process.

The lock is an flock on a file whose descriptor every plugin inherits. A plugin that outlived its killed parent
holds the lock on, so nobody undoes what it is still doing.
"""

from __future__ import annotations

import asyncio
import fcntl
import os
import signal
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from pathlib import Path

from cuboid.lib.errors import UnavailableError
from cuboid.lib.log import get_log

log = get_log(__name__)
_POLL = 0.05  # s; only after a crash is there anything to wait for


class PodLocks:
    def __init__(self, folder: Path, *, patience: float) -> None:
        """`patience`: seconds for which an orphaned plugin may run on before it is killed."""
        self._folder = folder
        self._patience = patience
        self._waiters: dict[str, tuple[asyncio.Lock, int]] = {}
        folder.mkdir(mode=0o700, parents=True, exist_ok=True)

    @asynccontextmanager
    async def held(self, uid: str) -> AsyncIterator[int]:
        """Yields the descriptor that plugins are to inherit."""
        lock, users = self._waiters.get(uid, (asyncio.Lock(), 0))
        self._waiters[uid] = (lock, users + 1)
        try:
            async with lock:
                descriptor = await self._acquire(self._folder / f"{uid}.lock")
                try:
                    yield descriptor
                finally:
                    os.close(descriptor)
        finally:
            self._leave(uid)

    def _leave(self, uid: str) -> None:
        lock, users = self._waiters[uid]
        if users > 1:
            self._waiters[uid] = (lock, users - 1)
            return
        del self._waiters[uid]
        (self._folder / f"{uid}.lock").unlink(missing_ok=True)

    async def _acquire(self, path: Path) -> int:
        descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW, 0o600)
        try:
            if not await self._flock(descriptor):
                _kill_holders(path)
                if not await self._flock(descriptor):
                    raise UnavailableError(f"an earlier network plugin still runs and holds {path}")
        except BaseException:
            os.close(descriptor)
            raise
        return descriptor

    async def _flock(self, descriptor: int) -> bool:
        end = time.monotonic() + self._patience
        while True:
            with suppress(BlockingIOError):
                fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
                return True
            if time.monotonic() > end:
                return False
            await asyncio.sleep(_POLL)


def _kill_holders(path: Path) -> None:
    """Kill the plugins that have the lock file open: each leads a process group of its own (lib/proc)."""
    for pid in _holders(path):
        with suppress(ProcessLookupError, PermissionError):
            if pid != os.getpid() and os.getpgid(pid) == pid:
                log.warning("killing a network plugin that outlived its deadline", pid=pid, lock=path)
                os.killpg(pid, signal.SIGKILL)


def _holders(path: Path) -> list[int]:
    found = []
    for folder in Path("/proc").iterdir():
        if not folder.name.isdigit():
            continue
        with suppress(OSError):
            if any(link.readlink() == path for link in (folder / "fd").iterdir()):
                found.append(int(folder.name))
    return found
