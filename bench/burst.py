"""Many starts at once, and how many of them found a machine that waited."""

from __future__ import annotations

import os
import statistics
from collections import Counter

from bench.common import Result, running_platform, settle, summary, verdict
from bench.starts import Client, Start, names
from tests.harness.platform import Platform

SINGLES = int(os.environ.get("BENCH_RUNS", "20"))
COUNTS = (20, 20, 50)  # the second twenty find what the pool has learnt from the first
MEMORY = "32m"
BAR = 8.0  # p99 of 20 at once, of the median of one


def together(place: Platform, client: Client, prefix: str, count: int) -> list[Start]:
    settle(place)
    wanted = list(names(prefix, count))
    starts = client.start(wanted, memory=MEMORY)
    client.remove(wanted)
    return starts


def measure() -> Result:
    figures: Result = {"what": f"starts at once, {MEMORY} each, from a pod's own request", "unit": "s"}
    with running_platform() as place:
        client = Client(place.state)
        together(place, client, "first", 1)
        singles = [start for n in range(SINGLES) for start in together(place, client, f"single-{n}", 1)]
        one = statistics.median(start.ready for start in singles if not start.failed)
        figures["one: create to Ready"] = summary([start.ready for start in singles if not start.failed])
        met, asked = True, []
        for number, count in enumerate(COUNTS):
            starts = together(place, client, f"burst-{number}", count)
            label = f"{count} at once" + (" again" if count in asked else "")
            asked.append(count)
            figures |= _figures(label, starts)
            if count == COUNTS[0]:
                met = met and not _failed(starts) and figures[f"{label}: create to Ready"]["p99"] <= BAR * one
    return {**figures, "bar": f"{COUNTS[0]} at once: none fails, p99 of Ready <= {BAR:g} x p50 of one",
            "verdict": verdict(met)}  # fmt: skip


def _failed(starts: list[Start]) -> list[Start]:
    return [start for start in starts if start.failed]


def _figures(label: str, starts: list[Start]) -> Result:
    good = [start for start in starts if not start.failed]
    figures: Result = {
        f"{label}, failed": len(_failed(starts)),
        f"{label}, how": ", ".join(f"{n} {how}" for how, n in Counter(start.how for start in starts).most_common()),
    }
    if good:
        figures[f"{label}: create to Ready"] = summary([start.ready for start in good])
    return figures
