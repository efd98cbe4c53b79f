"""How many machines should wait. Pure: from the starts that were seen to a number.

A pool serves a burst if it holds as many machines as are taken before the first of them is replaced. So the demand is
the most starts within one replacement's time; it is remembered, and halves over quiet times.
"""

from __future__ import annotations

import math
from collections import deque
from dataclasses import dataclass, field

WINDOW_SECONDS = 5.0  # about the time in which a machine that was taken is replaced on a busy host
HALF_LIFE_SECONDS = 300.0
NEGLIGIBLE = 0.5  # of a machine


@dataclass
class Demand:
    """Of one shape. `taken` is told of each start, hit or miss, with the time in seconds."""

    level: float = 0.0
    at: float = 0.0
    recent: deque[float] = field(default_factory=deque)

    def taken(self, now: float, *, hit: bool) -> None:
        """A miss asks for one machine more than the starts that were seen."""
        self.recent.append(now)
        while self.recent[0] < now - WINDOW_SECONDS:
            self.recent.popleft()
        self.level = max(self.left(now), float(len(self.recent) + (0 if hit else 1)))
        self.at = now

    def left(self, now: float) -> float:
        """The level after the time that has passed."""
        return self.level * math.exp2(-max(now - self.at, 0.0) / HALF_LIFE_SECONDS)

    def wanted(self, now: float, *, floor: int, ceiling: int) -> int:
        """Machines that should wait. What is negligible counts as none."""
        left = self.left(now)
        return min(max(math.ceil(left - 1e-9) if left >= NEGLIGIBLE else 0, floor), ceiling)

    def next_change(self, now: float) -> float:
        """Seconds until `wanted` falls by one of itself; infinite when there is nothing left to fall."""
        left = self.left(now)
        if left < NEGLIGIBLE:
            return math.inf
        lower = max(math.ceil(left - 1e-9) - 1.0, NEGLIGIBLE)
        return HALF_LIFE_SECONDS * math.log2(left / lower) + 0.01


def share(wanted: dict[str, int], ceiling: int) -> dict[str, int]:
    """Bound the sum: those that want most give first, none below the others; ties by name."""
    result = dict(wanted)
    while sum(result.values()) > ceiling:
        largest = max(sorted(result), key=lambda name: result[name])
        result[largest] -= 1
    return result
