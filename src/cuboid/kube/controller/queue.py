"""The queue of keys: each waits at most once, is worked on by one at a time, and comes back later after a failure."""

from __future__ import annotations

import asyncio
import random
from collections import deque

from cuboid.kube.controller.view import Key

FIRST_DELAY = 0.05
MAX_DELAY = 60.0
"""Seconds between attempts at a key that keeps failing: doubled from the first up to this."""

MIN_REST = 0.02
"""Seconds below which a key does not rest."""


class KeyQueue:
    """Bounded by the number of different keys."""

    def __init__(self) -> None:
        self._ready: deque[Key] = deque()
        self._waiting: set[Key] = set()
        self._working: set[Key] = set()
        self._resting: set[Key] = set()
        self._again: set[Key] = set()  # came while being worked on, or at rest
        self._timers: dict[Key, asyncio.TimerHandle] = {}
        self._failures: dict[Key, int] = {}
        self._rests: dict[Key, float] = {}  # seconds, of keys that are being worked on
        self._wake = asyncio.Event()

    def __len__(self) -> int:
        return len(self._ready)

    def add(self, key: Key) -> None:
        if key in self._working or key in self._resting:
            self._again.add(key)
        elif key not in self._waiting:
            self._waiting.add(key)
            self._ready.append(key)
            self._wake.set()

    def add_after(self, key: Key, seconds: float) -> None:
        """The soonest of several wins."""
        loop = asyncio.get_running_loop()
        when, known = loop.time() + seconds, self._timers.get(key)
        if known is not None:
            if known.when() <= when:
                return
            known.cancel()
        self._timers[key] = loop.call_at(when, self._due, key)

    def _due(self, key: Key) -> None:
        self._timers.pop(key, None)
        self.add(key)

    async def take(self) -> Key:
        """The next key; `done` or `failed` gives it back."""
        while not self._ready:
            self._wake.clear()
            await self._wake.wait()
        key = self._ready.popleft()
        self._waiting.discard(key)
        self._working.add(key)
        return key

    def done(self, key: Key) -> None:
        self._failures.pop(key, None)
        self._finish(key)

    def failed(self, key: Key) -> float:
        """Seconds after which it comes back."""
        count = self._failures[key] = self._failures.get(key, 0) + 1
        delay: float = min(FIRST_DELAY * 2 ** min(count - 1, 20), MAX_DELAY) * random.uniform(0.75, 1.0)
        self.add_after(key, delay)
        self._finish(key)
        return delay

    def rest(self, key: Key, seconds: float) -> None:
        """A key that is being worked on is not taken again before so long after its end; a trifle does not count."""
        if seconds >= MIN_REST:
            self._rests[key] = seconds

    def _finish(self, key: Key) -> None:
        self._working.discard(key)
        if rest := self._rests.pop(key, 0.0):
            self._resting.add(key)
            asyncio.get_running_loop().call_later(rest, self._rested, key)
        else:
            self._once_more(key)

    def _rested(self, key: Key) -> None:
        self._resting.discard(key)
        self._once_more(key)

    def _once_more(self, key: Key) -> None:
        if key in self._again:
            self._again.discard(key)
            self.add(key)

    def close(self) -> None:
        for timer in self._timers.values():
            timer.cancel()
        self._timers.clear()
