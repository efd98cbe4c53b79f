"""Many starts at once, and how many of them found a machine that waited."""

from __future__ import annotations

from collections import Counter

from bench.common import Result, settle, summary
from bench.starts import Client, names
from tests.harness.platform import Platform

COUNTS = (20, 20, 50)  # the second twenty find what the pool has learnt from the first
MEMORY = "32m"


def bursts(place: Platform) -> Result:
    """Figures of each burst: seconds from a pod's own request, failures, and how they came up."""
    client = Client(place.state)
    figures: Result = {}
    for number, count in enumerate(COUNTS):
        settle(place)
        wanted = list(names(f"burst-{number}", count))
        starts = client.start(wanted, memory=MEMORY)
        client.remove(wanted)
        label = f"{count} at once" + (" again" if count in COUNTS[:number] else "")
        good = [start for start in starts if not start.failed]
        figures[f"{label}, failed"] = len(starts) - len(good)
        figures[f"{label}, how"] = ", ".join(f"{n} {how}" for how, n in Counter(s.how for s in starts).most_common())
        if good:
            figures[f"{label}: create to first output"] = summary([start.output for start in good])
            figures[f"{label}: create to Ready"] = summary([start.ready for start in good])
    return figures
