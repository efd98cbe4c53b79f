"""Work that costs as much as there are objects is done less often the more there are.

A burst of changes of one service or namespace would otherwise cost the square of their number. What is remembered only
delays: without it, after a restart, the work is done at once.
"""

from __future__ import annotations

from dataclasses import dataclass

from cuboid.kube.controller.view import Key


@dataclass(frozen=True)
class _Done:
    at: float
    pause: float


class Pace:
    """`per_object`: seconds between two turns of a key for each object that it read in the last; nothing below `free`
    objects, and never less than `least`."""

    def __init__(self, per_object: float, *, free: int = 0, least: float = 0.0) -> None:
        self._per_object = per_object
        self._free = free
        self._least = least
        self._done: dict[Key, _Done] = {}

    def wait(self, key: Key, now: float) -> float:
        """Seconds that the key has to wait, 0 for none."""
        done = self._done.get(key)
        return 0.0 if done is None else max(done.at + done.pause - now, 0.0)

    def done(self, key: Key, now: float, number: int) -> None:
        pause = self._least if number < self._free else max(self._least, number * self._per_object)
        if pause:
            self._done[key] = _Done(now, pause)
        else:
            self._done.pop(key, None)

    def forget(self, key: Key) -> None:
        self._done.pop(key, None)
