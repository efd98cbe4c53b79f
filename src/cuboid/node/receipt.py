"""The timeline of one start of a pod: which step took how long. Offsets are monotonic, from the start's beginning."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from contextlib import contextmanager

from cuboid.lib.clock import Clock, parse_rfc3339, rfc3339_micro

NOTES_LIMIT = 10
WAIT_LIMIT = 3600.0  # seconds: a pod that waited longer for a node has a receipt of its start alone


class Timeline:
    """Phases may overlap. A phase begun twice (a retry) is one phase from its first begin to its last end."""

    def __init__(self, clock: Clock) -> None:
        self._clock = clock
        self.restart()

    def restart(self) -> None:
        """A new start (a new VM of the same pod) begins."""
        self._wall = self._clock.now()
        self._zero = self._clock.monotonic()
        self._spans: dict[str, tuple[float, float]] = {}
        self._inside: dict[str, float] = {}
        self.notes: list[str] = []

    def began(self, admitted: str, bound: str) -> None:
        """The start began when the API took the pod: what came before it was seen here are its first phases.

        Both are RFC 3339 times of the API's clock, or "". What cannot be (a clock that is off) is left out.
        """
        try:
            first, second = parse_rfc3339(admitted), parse_rfc3339(bound)
        except ValueError:
            return
        if not first <= second <= self._wall <= first + WAIT_LIMIT or self._spans:
            return
        self._zero -= self._wall - first
        self.span("schedule", 0.0, second - first)
        self.span("watch", second - first, self._wall - first)
        self._wall = first

    def _offset(self) -> float:
        return self._clock.monotonic() - self._zero

    @contextmanager
    def phase(self, name: str) -> Iterator[None]:
        begin = self._offset()
        try:
            yield
        finally:
            self.span(name, begin, self._offset())

    def span(self, name: str, begin: float, end: float) -> None:
        first = self._spans[name][0] if name in self._spans else begin
        self._spans[name] = (first, end)

    def inside(self, name: str, phases_ns: Mapping[str, int]) -> None:
        """What the guest says of its own share of a phase: `total`, or the sum of its parts. A claim of the guest's."""
        spent = phases_ns.get("total", sum(phases_ns.values())) / 1e9
        if 0 <= spent < WAIT_LIMIT:
            self._inside[name] = self._inside.get(name, 0.0) + spent

    def since(self, name: str, after: str) -> None:
        """A phase from the end of another one until now."""
        if name not in self._spans and after in self._spans:
            self.span(name, self._spans[after][1], self._offset())

    def note(self, text: str) -> None:
        if len(self.notes) < NOTES_LIMIT:
            self.notes.append(text)

    @property
    def total(self) -> float:
        """Seconds until the last phase ended."""
        return max((end for _, end in self._spans.values()), default=0.0)

    def receipt(self, driver: str, accel: str, *, start: str = "cold") -> str:
        """The JSON of annotation `cuboid.dev/receipt`."""
        spans = sorted(self._spans.items(), key=lambda item: item[1][0])
        return json.dumps(
            {
                "version": 1, "startedAt": rfc3339_micro(self._wall), "totalSeconds": round(self.total, 6),
                "driver": driver, "accel": accel, "start": start,
                "phases": [
                    {"name": name, "offsetSeconds": round(begin, 6), "seconds": round(end - begin, 6)}
                    | ({"guestSeconds": round(self._inside[name], 6)} if name in self._inside else {})
                    for name, (begin, end) in spans
                ],
                "notes": self.notes,
            },
            separators=(",", ":"),
        )  # fmt: skip
