"""Time, injected: cores take times as arguments, loops take a `Clock`, tests a `ManualClock`."""

from __future__ import annotations

import time
from datetime import UTC, datetime
from functools import lru_cache
from typing import Protocol


class Clock(Protocol):
    def monotonic(self) -> float:
        """Seconds since some fixed point; never goes back."""
        ...

    def now(self) -> float:
        """Seconds since the epoch, UTC."""
        ...


class SystemClock:
    def monotonic(self) -> float:
        return time.monotonic()

    def now(self) -> float:
        return time.time()


class ManualClock:
    """A clock that moves only when told to."""

    def __init__(self, start: float = 1_700_000_000.0) -> None:
        self._now = start

    def monotonic(self) -> float:
        return self._now

    def now(self) -> float:
        return self._now

    def advance(self, seconds: float) -> None:
        self._now += seconds


def rfc3339(seconds: float) -> str:
    """`metav1.Time`: whole seconds, UTC (`2026-01-02T03:04:05Z`)."""
    return _whole_second(int(seconds))


@lru_cache(64)
def _whole_second(seconds: int) -> str:
    return datetime.fromtimestamp(seconds, UTC).strftime("%Y-%m-%dT%H:%M:%SZ")


def rfc3339_micro(seconds: float) -> str:
    """`metav1.MicroTime`: microseconds, UTC."""
    whole, rest = divmod(round(seconds * 1e6), 1_000_000)
    return f"{_whole_second(whole)[:-1]}.{rest:06d}Z"


def parse_rfc3339(text: str) -> float:
    """Seconds since the epoch; raises ValueError. Takes both forms above and offsets."""
    moment = datetime.fromisoformat(text)
    if moment.tzinfo is None:
        raise ValueError(f"no time zone in {text!r}")
    return moment.timestamp()
