"""`cuboid ps` as a user feels it: the command's start, the API's answer, the table."""

from __future__ import annotations

import resource
import time

from bench.common import BUSYBOX, Result, running_platform, summary, verdict
from tests.harness.platform import Platform

RUNS = 30
BAR = 0.200  # s


def one(place: Platform) -> tuple[float, float]:
    """(seconds, seconds of CPU of the command)."""
    before, started = _cpu(), time.monotonic()
    place.cuboid("ps")
    return time.monotonic() - started, _cpu() - before


def _cpu() -> float:
    used = resource.getrusage(resource.RUSAGE_CHILDREN)
    return used.ru_utime + used.ru_stime


def measure() -> Result:
    with running_platform() as place:
        place.cuboid("run", "-q", "-d", "--name", "shown", BUSYBOX, "sleep", "3600")
        one(place)
        samples = [one(place) for _ in range(RUNS)]
    found = summary([seconds for seconds, _ in samples])
    return {
        "what": "`cuboid ps`", "unit": "s", "ps": found,
        "CPU time of the command": summary([cpu for _, cpu in samples]),
        "bar": f"median <= {BAR} s", "verdict": verdict(found["median"] <= BAR),
    }  # fmt: skip
