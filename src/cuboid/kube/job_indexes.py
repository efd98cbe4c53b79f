"""Indexes of an indexed Job as text, `0,2-4`: what `status.completedIndexes` and success policies hold."""

from __future__ import annotations

import re

from cuboid.lib.errors import InvalidError

_NUMBER = re.compile(r"[0-9]{1,10}", re.ASCII)


def parse_indexes(text: str, completions: int) -> list[tuple[int, int]]:
    """Intervals, both ends included, in rising order. InvalidError, in Kubernetes' words, for anything else."""
    found: list[tuple[int, int]] = []
    for part in text.split(",") if text else []:
        first, last = _interval(part, completions)
        if found and found[-1][1] >= first:
            raise InvalidError(f"non-increasing order, previous: {found[-1][1]}, current: {first}")
        found.append((first, last))
    return found


def _interval(part: str, completions: int) -> tuple[int, int]:
    limits = part.split("-")
    if len(limits) > 2:
        raise InvalidError(
            f'the fragment "{part[:100]}" violates the requirement that an index interval can have at most two parts '
            "separated by '-'"
        )
    numbers = [_index(limit, completions) for limit in limits]
    if len(numbers) == 2 and numbers[0] >= numbers[1]:
        raise InvalidError(f"non-increasing order, previous: {numbers[0]}, current: {numbers[1]}")
    return numbers[0], numbers[-1]


def _index(text: str, completions: int) -> int:
    if not _NUMBER.fullmatch(text):
        raise InvalidError(f'cannot convert string to integer for index: "{text[:100]}"')
    if int(text) >= completions:
        raise InvalidError(f'too large index: "{text[:100]}"')
    return int(text)


def overlap(one: list[tuple[int, int]], other: list[tuple[int, int]]) -> int | None:
    """The first index that both name."""
    left, right = 0, 0
    while left < len(one) and right < len(other):
        first = max(one[left][0], other[right][0])
        if first <= min(one[left][1], other[right][1]):
            return first
        if one[left][1] < other[right][1]:
            left += 1
        else:
            right += 1
    return None
