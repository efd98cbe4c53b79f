"""What every benchmark needs: the machine in words, medians, verdicts, a platform to measure."""

from __future__ import annotations

import math
import os
import platform as host
import statistics
import subprocess
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from tests.harness.platform import VENV, Platform, platform
from tools import debian_images

RESULTS = Path(__file__).resolve().parent / "results"
REGISTRY = "localhost:5000"
BUSYBOX = f"{REGISTRY}/busybox:1"
CUBOID = str(VENV / "cuboid")
PYTHON = str(VENV / "python")
Result = dict[str, Any]
LOOK_SECONDS = 0.2
QUIET_SECONDS = 0.02  # of CPU time in LOOK_SECONDS: what watches and heartbeats need


def machine() -> Result:
    """The machine in words: nothing that names it."""
    qemu = subprocess.run(
        ["qemu-system-x86_64", "--version"], capture_output=True, text=True, timeout=10, check=False
    ).stdout
    return {
        "cpu": _row("/proc/cpuinfo", "model name").partition(":")[2].strip() or "?", "cores": os.cpu_count(),
        "memory_gib": round(int(_row("/proc/meminfo", "MemTotal").split()[1]) / 2**20, 1),
        "kernel": host.release().partition("-")[0],
        "qemu": qemu.splitlines()[0] if qemu else "?",
    }  # fmt: skip


def _row(path: str, start: str) -> str:
    return next((line for line in Path(path).read_text().splitlines() if line.startswith(start)), "")


def load() -> float:
    """Processes that wanted a CPU in the last minute, the benchmark's own included."""
    return round(os.getloadavg()[0], 1)


def summary(values: Sequence[float], digits: int = 3) -> Result:
    """Median, spread, 99th percentile and count of a sample in its own unit."""
    return {
        "median": round(statistics.median(values), digits), "min": round(min(values), digits),
        "max": round(max(values), digits), "p99": round(percentile(values, 99), digits), "runs": len(values),
    }  # fmt: skip


def percentile(values: Sequence[float], percent: float) -> float:
    """The smallest value that so many per cent of the values do not exceed (nearest rank)."""
    ordered = sorted(values)
    return ordered[max(0, math.ceil(len(ordered) * percent / 100) - 1)]


def timed(call: Callable[[], Any]) -> float:
    started = time.monotonic()
    call()
    return time.monotonic() - started


def verdict(met: bool) -> str:
    return "met" if met else "missed"


def cpu_seconds(pid: int) -> float:
    """What the threads that a process has now have used of CPUs, to the nanosecond (`/proc/PID/task/*/schedstat`)."""
    files = Path(f"/proc/{pid}/task").glob("*/schedstat")
    return sum(int(file.read_text().split()[0]) for file in files) / 1e9


def settle(place: Platform, *, seconds: float = 60.0) -> None:
    """Wait until the platform does nothing any more: a pool is filled, a pod's things are removed."""
    until, used, still = time.monotonic() + seconds, -1.0, 0
    while still < 3 and time.monotonic() < until:
        now = sum(cpu_seconds(pid) for pid in place.processes())
        still = still + 1 if 0 <= now - used < QUIET_SECONDS else 0
        used = now
        time.sleep(LOOK_SECONDS)


@contextmanager
def running_platform(**settings: str) -> Iterator[Platform]:
    """A platform that has busybox; one pod has run, so the guest's files are in the host's page cache.

    `settings` are the node agent's: `warm_max="0"`.
    """
    environment = {f"CUBOID_NODE_{key.upper()}": value for key, value in settings.items()}
    with platform("bench", disk_mib=0, **environment) as place:
        place.start_registry()
        push = [PYTHON, "-m", "tools.push", str(debian_images.layout("busybox")), BUSYBOX]
        place.run(push, timeout=180)
        place.cuboid("run", "-q", "--rm", BUSYBOX, "true", timeout=300)
        yield place
