"""What every benchmark needs: the machine in words, medians, verdicts, a platform to measure."""

from __future__ import annotations

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
    """Median, spread and count of a sample in its own unit."""
    return {
        "median": round(statistics.median(values), digits), "min": round(min(values), digits),
        "max": round(max(values), digits), "runs": len(values),
    }  # fmt: skip


def timed(call: Callable[[], Any]) -> float:
    started = time.monotonic()
    call()
    return time.monotonic() - started


def verdict(met: bool) -> str:
    return "met" if met else "missed"


@contextmanager
def running_platform(log_mib: int = 0) -> Iterator[Platform]:
    """A platform that has busybox; one pod has run, so the guest's files are in the host's page cache."""
    settings = {"CUBOID_NODE_LOG_MIB": str(log_mib)} if log_mib else {}
    with platform("bench", disk_mib=0, **settings) as place:
        place.start_registry()
        push = [PYTHON, "-m", "tools.push", str(debian_images.layout("busybox")), BUSYBOX]
        place.run(push, timeout=180)
        place.cuboid("run", "-q", "--rm", BUSYBOX, "true", timeout=300)
        yield place
