"""The guest's console on the host: a file of bounded size in memory that no path leads to.

The guest writes what it likes and as fast as it likes. QEMU appends to the file; when its tmpfs is full, further output
is dropped and the guest never waits. While this process lives it empties the file in time (once a second at most) and
keeps the newest part itself, so the last words before a panic are there. The file lives while QEMU or this process has
it open: it survives the death of either.
"""

from __future__ import annotations

import os
import stat
from contextlib import suppress
from pathlib import Path

from cuboid.lib.linux.inotify import WriteWatch
from cuboid.lib.linux.mount import DetachedTmpfs

CONSOLE, LOG = "cuboid-console", "cuboid-log"
LOG_BYTES = 16384  # of the VMM's own messages that are read
KEPT_BYTES = 16384  # of the console, when its file is emptied or closed
TRIM_SECONDS = 1.0
PANIC_WORDS = "Kernel panic - not syncing"
LINES_BEFORE_PANIC = 8  # an agent that gives up says why just before
LAST_LINES = 12
LINE_LENGTH = 200


class Console:
    """What this process keeps open: the console and the log of the VMM itself (its stderr)."""

    def __init__(self, console: int, log: int, size: int) -> None:
        self._console, self._log, self._size = console, log, size
        self._kept = self._said = ""
        self._watch: WriteWatch | None = None

    def watch(self) -> None:
        """Keep the newest part from now on. Needs a running event loop."""
        if self._console >= 0 and self._watch is None:
            self._watch = WriteWatch(self._console, self.trim, interval=TRIM_SECONDS)

    def tail(self, limit: int) -> str:
        """The last `limit` bytes; untrusted text."""
        fresh = "" if self._console < 0 else _tail(self._console, limit)
        return (self._kept + fresh)[-limit:]

    def vmm_log(self) -> str:
        return self._said if self._log < 0 else _tail(self._log, LOG_BYTES).strip()

    def trim(self) -> None:
        """Make room when half is used. What arrives between the reading and the emptying is lost."""
        if self._console >= 0 and os.fstat(self._console).st_size > self._size // 2:
            self._kept = self.tail(KEPT_BYTES)
            os.ftruncate(self._console, 0)

    def close(self) -> None:
        """Let go of the files; their last bytes stay readable."""
        if self._watch is not None:
            self._watch.close()
        self._kept, self._said = self.tail(KEPT_BYTES), self.vmm_log()
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
    """-1 for anything else: the VMM may be in its guest's hands and offer us a FIFO."""
    descriptor = os.open(path, os.O_RDWR | os.O_NONBLOCK | os.O_CLOEXEC | os.O_NOCTTY)
    if not stat.S_ISREG(os.fstat(descriptor).st_mode):
        os.close(descriptor)
        return -1
    return descriptor


def _tail(descriptor: int, limit: int) -> str:
    size = os.fstat(descriptor).st_size
    return os.pread(descriptor, limit, max(0, size - limit)).decode(errors="replace")


def last_words(text: str) -> str:
    """What to tell of a console: up to the kernel's panic line, without the dump that follows; else the last lines.

    Printable, and bounded whatever the guest wrote: at most LAST_LINES lines of LINE_LENGTH characters.
    """
    lines = ["".join(c for c in line if c.isprintable())[:LINE_LENGTH].rstrip() for line in text.split("\n")]
    lines = [line for line in lines if line]
    panics = [index for index, line in enumerate(lines) if PANIC_WORDS in line]
    if panics:
        return "\n".join(lines[max(0, panics[0] - LINES_BEFORE_PANIC) : panics[0] + 1])
    return "\n".join(lines[-LAST_LINES:])
