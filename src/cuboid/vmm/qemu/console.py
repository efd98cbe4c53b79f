"""The guest's console on the host: a file of bounded size in memory that no path leads to.

The guest writes what it likes and as fast as it likes. QEMU appends to the file; when its tmpfs is full, further output
is dropped and the guest never waits. `trim` keeps the newest part, so that the last words before a panic are there.
The file lives while QEMU or this process has it open: it survives the death of either.
"""

from __future__ import annotations

import os
import stat
from contextlib import suppress
from pathlib import Path

from cuboid.lib.linux.mount import DetachedTmpfs

CONSOLE, LOG = "cuboid-console", "cuboid-log"
LOG_BYTES = 16384  # of the VMM's own messages that are read


class Console:
    """What this process keeps open: the console and the log of the VMM itself (its stderr)."""

    def __init__(self, console: int, log: int, size: int) -> None:
        self._console, self._log, self._size = console, log, size
        self._kept = ""

    def tail(self, limit: int) -> str:
        """The last `limit` bytes; untrusted text."""
        return self._kept[-limit:] if self._console < 0 else _tail(self._console, limit)

    def vmm_log(self) -> str:
        return "" if self._log < 0 else _tail(self._log, LOG_BYTES).strip()

    def trim(self) -> None:
        """Make room when more than half is used: the oldest goes. What arrives meanwhile may be lost."""
        if self._console >= 0 and os.fstat(self._console).st_size > self._size // 2:
            os.ftruncate(self._console, 0)

    def close(self) -> None:
        """Let go of the memory; the last 4 KiB stay readable."""
        if self._console < 0:
            return
        self._kept = self.tail(4096)
        for descriptor in (self._console, self._log):
            if descriptor >= 0:
                os.close(descriptor)
        self._console = self._log = -1


def make(size: int) -> tuple[Console, int, int]:
    """A console of at most `size` bytes, and the descriptors that the VMM appends console and log to."""
    opened: list[int] = []
    try:
        with DetachedTmpfs(size) as folder:
            for name in (CONSOLE, LOG):
                opened.append(folder.open(name, os.O_WRONLY | os.O_APPEND | os.O_CREAT))
                opened.append(folder.open(name, os.O_RDWR))
    except OSError:
        for descriptor in opened:
            os.close(descriptor)
        raise
    return Console(opened[1], opened[3], size), opened[0], opened[2]


def reopen(pid: int, size: int) -> Console:
    """The console of a VMM that runs already, after a restart of this process."""
    return Console(_find(pid, CONSOLE), _find(pid, LOG), size)


def _find(pid: int, name: str) -> int:
    with suppress(OSError):
        for link in Path(f"/proc/{pid}/fd").iterdir():
            with suppress(OSError):
                if link.readlink().name == name:
                    return _open_regular(link)
    return -1


def _open_regular(path: Path) -> int:
    descriptor = os.open(path, os.O_RDWR | os.O_NONBLOCK | os.O_CLOEXEC | os.O_NOCTTY)
    if not stat.S_ISREG(os.fstat(descriptor).st_mode):
        os.close(descriptor)
        return -1
    return descriptor


def _tail(descriptor: int, limit: int) -> str:
    size = os.fstat(descriptor).st_size
    return os.pread(descriptor, limit, max(0, size - limit)).decode(errors="replace")
