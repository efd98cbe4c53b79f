"""Sets of completion indexes as a Job's status writes them: `1,3-5,7`. Kept as intervals: a job may have 100,000."""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Iterable, Iterator
from dataclasses import dataclass


@dataclass(frozen=True)
class Indexes:
    """`spans` are (first, last), both included, in rising order, with a gap between each two."""

    spans: tuple[tuple[int, int], ...] = ()

    @classmethod
    def parse(cls, text: str, completions: int) -> Indexes:
        """What a status says. Indexes from `completions` on are left out: a job may have been made smaller. Anything
        that is no interval is skipped, as a status may have been written by anybody."""
        found: list[tuple[int, int]] = []
        for part in text.split(",") if text else ():
            first, _, last = part.partition("-")
            if first.isascii() and first.isdigit() and (not last or (last.isascii() and last.isdigit())):
                low, high = int(first), min(int(last or first), completions - 1)
                if low <= high:
                    found.append((low, high))
        return cls(_merged(found))

    def __contains__(self, index: int) -> bool:
        place = bisect_right(self.spans, index, key=lambda span: span[0]) - 1
        return place >= 0 and index <= self.spans[place][1]

    def __len__(self) -> int:
        return sum(last - first + 1 for first, last in self.spans)

    def __str__(self) -> str:
        return ",".join(_written(first, last) for first, last in self.spans)

    def including(self, more: Iterable[int]) -> Indexes:
        return Indexes(_merged([*self.spans, *((index, index) for index in more)]))

    def union(self, other: Indexes) -> Indexes:
        return Indexes(_merged([*self.spans, *other.spans]))

    def shared(self, other: Indexes) -> int:
        """How many are in both; what it costs does not grow with how many they are."""
        count, mine, theirs = 0, 0, 0
        while mine < len(self.spans) and theirs < len(other.spans):
            (first, last), (low, high) = self.spans[mine], other.spans[theirs]
            count += max(0, min(last, high) - max(first, low) + 1)
            if last < high:
                mine += 1
            else:
                theirs += 1
        return count

    def missing(self, completions: int) -> Iterator[int]:
        """Those below `completions` that are not in it, in rising order."""
        at = 0
        for first, last in self.spans:
            yield from range(at, min(first, completions))
            at = last + 1
        yield from range(at, completions)


def _merged(spans: list[tuple[int, int]]) -> tuple[tuple[int, int], ...]:
    merged: list[tuple[int, int]] = []
    for first, last in sorted(spans):
        if merged and first <= merged[-1][1] + 1:
            merged[-1] = (merged[-1][0], max(merged[-1][1], last))
        else:
            merged.append((first, last))
    return tuple(merged)


def _written(first: int, last: int) -> str:
    if first == last:
        return str(first)
    return f"{first},{last}" if last == first + 1 else f"{first}-{last}"
