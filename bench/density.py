"""What the node agent costs by itself and per pod, and many starts at once."""

from __future__ import annotations

import json
import os
import statistics
import subprocess
import time
from pathlib import Path

from bench.common import BUSYBOX, CUBOID, Result, running_platform, summary, verdict
from tests.harness.platform import Platform

PODS = 20
BAR_EMPTY, BAR_PER_POD = 70.0, 0.3  # MB
IDLE_SECONDS = 10.0
DEADLINE = 600.0  # seconds for all starts together


def resident_mb(pid: int, kind: str = "VmRSS") -> float:
    """Resident set of a process in MB: with shared pages (VmRSS) or its own memory alone (RssAnon)."""
    rows = Path(f"/proc/{pid}/status").read_text().splitlines()
    return int(next(row.split()[1] for row in rows if row.startswith(kind))) * 1024 / 1e6


def settled_mb(pid: int) -> float:
    """The median of some readings, after a while without work."""
    time.sleep(5)
    readings = []
    for _ in range(5):
        readings.append(resident_mb(pid))
        time.sleep(0.5)
    return statistics.median(readings)


def idle_percent(pids: list[int]) -> float:
    """Of one core, what each of these processes uses on average while nothing happens."""
    before = sum(_cpu_seconds(pid) for pid in pids)
    time.sleep(IDLE_SECONDS)
    return (sum(_cpu_seconds(pid) for pid in pids) - before) / len(pids) / IDLE_SECONDS * 100


def _cpu_seconds(pid: int) -> float:
    """User and system time (fields 14 and 15 of `proc_pid_stat(5)`)."""
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


def start_all(place: Platform, names: list[str]) -> tuple[float, int]:
    """(seconds until all run, how many do not)."""
    started = time.monotonic()
    processes = [
        subprocess.Popen(
            place.inside([CUBOID, "run", "-q", "-d", "--name", name, "-m", "32m", BUSYBOX, "sleep", "3600"]),
            env=place.environment, stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL,
        )
        for name in names
    ]  # fmt: skip
    failed = sum(1 for process in processes if process.wait(DEADLINE) != 0)
    return time.monotonic() - started, failed


def measure() -> Result:
    names = [f"many-{number}" for number in range(PODS)]
    with running_platform() as place:
        node = place.daemon_pid("cuboid-node")
        empty = settled_mb(node)
        seconds, failed = start_all(place, names)
        full = settled_mb(node)
        whys = [json.loads(place.cuboid("why", name, "-o", "json").stdout) for name in names]
        idle = idle_percent(place.vmms())
        guests = [resident_mb(pid, "RssAnon") for pid in place.vmms()]
        place.cuboid("rm", "-f", *names, timeout=300)
    totals = [why["receipt"]["totalSeconds"] for why in whys if why.get("receipt")]
    per_pod = (full - empty) / PODS
    met = empty <= BAR_EMPTY and per_pod <= BAR_PER_POD and not failed
    return {
        "what": f"the node agent alone and with {PODS} pods; {PODS} pods started at once", "unit": "MB, s",
        "node agent, 0 pods": round(empty, 1), f"node agent, {PODS} pods": round(full, 1),
        "more per pod": round(per_pod, 2), "private memory of a VMM, median": round(statistics.median(guests), 1),
        "an idle VMM, % of a core": round(idle, 1),
        "started at once": PODS, "failed": failed, "seconds until all run": round(seconds, 1),
        "receipts' totals": summary(totals, 2),
        "bar": f"<= {BAR_EMPTY} MB with 0 pods, <= {BAR_PER_POD} MB more per pod, none of {PODS} failing",
        "verdict": verdict(met),
    }  # fmt: skip
