"""A call when a file was written to, at most once in a while: whoever writes cannot keep us busy."""

from __future__ import annotations

import asyncio
import os
from collections.abc import Callable

from cuboid.lib.linux import libc

IN_MODIFY, IN_ONESHOT = 0x2, 0x80000000


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
        self._queue = libc.call("inotify_init1", os.O_NONBLOCK | os.O_CLOEXEC)
        self._loop.add_reader(self._queue, self._written)
        self._arm()

    def _arm(self) -> None:
        self._timer = None
        libc.call("inotify_add_watch", self._queue, f"/proc/self/fd/{self._watched}".encode(), IN_MODIFY | IN_ONESHOT)
        self._hook()  # for what was written while the watch was disarmed

    def _written(self) -> None:
        os.read(self._queue, 4096)
        if self._timer is None:
            self._timer = self._loop.call_later(self._interval, self._arm)

    def close(self) -> None:
        if self._queue < 0:
            return
        self._loop.remove_reader(self._queue)
        if self._timer is not None:
            self._timer.cancel()
        queue, self._queue = self._queue, -1
        self._loop.run_in_executor(None, os.close, queue)  # the kernel waits for readers of the watch: 5 to 15 ms
