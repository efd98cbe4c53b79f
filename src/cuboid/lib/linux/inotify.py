"""A call when a file was written to, at most once in a while: whoever writes cannot keep us busy.

All watches of an event loop share one inotify instance: a user may have 128 of those (fs.inotify.max_user_instances),
and a node has more VMs than that.
"""

from __future__ import annotations

import asyncio
import os
import struct
from collections.abc import Callable
from contextlib import suppress
from weakref import WeakKeyDictionary

from cuboid.lib.linux import libc

IN_MODIFY, IN_Q_OVERFLOW, IN_IGNORED, IN_ONESHOT = 0x2, 0x4000, 0x8000, 0x80000000
_EVENT = struct.Struct("iIII")  # watch, what happened, cookie, length of the name that follows
_READ = 65536


class _Queue:
    """One instance: which watch descriptor wakes whom. It is open while it has somebody to wake."""

    def __init__(self, loop: asyncio.AbstractEventLoop) -> None:
        self._loop = loop
        self._descriptor = -1
        self._watches: dict[int, set[WriteWatch]] = {}
        self._users: set[WriteWatch] = set()

    def join(self, user: WriteWatch) -> None:
        if self._descriptor < 0:
            self._descriptor = libc.call("inotify_init1", os.O_NONBLOCK | os.O_CLOEXEC)
            self._loop.add_reader(self._descriptor, self._read)
        self._users.add(user)

    def arm(self, user: WriteWatch, path: str) -> int:
        """One report of the next write. The kernel has one watch per file: two users of a file share it."""
        watch = libc.call("inotify_add_watch", self._descriptor, path.encode(), IN_MODIFY | IN_ONESHOT)
        self._watches.setdefault(watch, set()).add(user)
        return watch

    def leave(self, user: WriteWatch, watch: int) -> None:
        self._users.discard(user)
        waiting = self._watches.get(watch, set())
        waiting.discard(user)
        if not waiting and self._watches.pop(watch, None) is not None:
            with suppress(OSError):  # it has reported meanwhile
                libc.call("inotify_rm_watch", self._descriptor, watch)
        if not self._users:
            self._loop.remove_reader(self._descriptor)
            descriptor, self._descriptor = self._descriptor, -1
            self._watches.clear()
            self._loop.run_in_executor(None, os.close, descriptor)  # the kernel waits for its readers: 5 to 15 ms

    def _read(self) -> None:
        with suppress(BlockingIOError):
            data = os.read(self._descriptor, _READ)
            offset = 0
            while offset < len(data):
                watch, mask, _, length = _EVENT.unpack_from(data, offset)
                offset += _EVENT.size + length
                self._report(watch, mask)

    def _report(self, watch: int, mask: int) -> None:
        if mask & IN_Q_OVERFLOW:  # reports were lost: any of them may have been
            told, self._watches = set(self._users), {}
        elif mask & (IN_MODIFY | IN_IGNORED):
            told = self._watches.pop(watch, set())
        else:
            return
        for user in told:
            user.written()


_queues: WeakKeyDictionary[asyncio.AbstractEventLoop, _Queue] = WeakKeyDictionary()


class WriteWatch:
    """Calls `hook` on the running loop after writes to the open file `descriptor`, `interval` s apart at least.

    Each report disarms the watch until the interval is over, so a writer without end costs one wake-up per interval
    and a silent one costs none.
    """

    def __init__(self, descriptor: int, hook: Callable[[], None], *, interval: float) -> None:
        self._watched = descriptor
        self._hook = hook
        self._interval = interval
        self._loop = asyncio.get_running_loop()
        self._timer: asyncio.TimerHandle | None = None
        self._queue = _queues.setdefault(self._loop, _Queue(self._loop))
        self._queue.join(self)
        self._watch = -1
        self._open = True
        self._arm()

    def _arm(self) -> None:
        self._timer = None
        self._watch = self._queue.arm(self, f"/proc/self/fd/{self._watched}")
        self._hook()  # for what was written while the watch was disarmed

    def written(self) -> None:
        """The queue's report."""
        if self._open and self._timer is None:
            self._timer = self._loop.call_later(self._interval, self._arm)

    def close(self) -> None:
        if not self._open:
            return
        self._open = False
        if self._timer is not None:
            self._timer.cancel()
        self._queue.leave(self, self._watch)
