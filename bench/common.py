"""What every benchmark needs: the machine in words, medians, results on disk, a platform to measure."""

from __future__ import annotations

import json
import os
import platform as host
import statistics
import subprocess
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from tests.harness.platform import Platform, platform
from tools import debian_images

RESULTS = Path(__file__).resolve().parent / "results"
REGISTRY = "localhost:5000"
Result = dict[str, Any]


def machine() -> Result:
    model = next(
        (
            line.split(":", 1)[1].strip()
            for line in Path("/proc/cpuinfo").read_text().splitlines()
            if "model name" in line
        ),
        "?",
    )
    memory = int(
        next(line.split()[1] for line in Path("/proc/meminfo").read_text().splitlines() if line.startswith("MemTotal"))
    )
    qemu = subprocess.run(
        ["qemu-system-x86_64", "--version"], capture_output=True, text=True, timeout=10, check=False
    ).stdout
    return {
        "cpu": model, "cores": os.cpu_count(), "memory_gib": round(memory / 2**20, 1), "kernel": host.release(),
        "qemu": qemu.splitlines()[0] if qemu else "?", "load_before": round(os.getloadavg()[0], 2),
    }  # fmt: skip


def summary(values: Sequence[float], digits: int = 4) -> Result:
    """Median, spread and count of a sample in its own unit."""
    ordered = sorted(values)
    p99 = ordered[min(len(ordered) - 1, round(0.99 * (len(ordered) - 1)))]
    return {
        "median": round(statistics.median(ordered), digits), "min": round(ordered[0], digits),
        "p99": round(p99, digits), "max": round(ordered[-1], digits), "runs": len(ordered),
    }  # fmt: skip


def timed(call: Callable[[], Any]) -> float:
    started = time.monotonic()
    call()
    return time.monotonic() - started


def verdict(figure: float, bar: float, *, at_least: bool = False) -> str:
    met = figure >= bar if at_least else figure <= bar
    return "met" if met else "missed"


def save(name: str, result: Result) -> None:
    RESULTS.mkdir(parents=True, exist_ok=True)
    (RESULTS / f"{name}.json").write_text(json.dumps(result, indent=2) + "\n")


@contextmanager
def running_platform(**settings: str) -> Iterator[Platform]:
    """A platform with a registry that holds the benchmark's images, pulled already."""
    with platform("bench", **settings) as place:
        place.start_registry()
        for name in ("busybox", "nginx"):
            layout = debian_images.layout(name)
            place.run([".venv/bin/python", "-m", "tools.push", str(layout), f"{REGISTRY}/{name}:1"], timeout=120)
            place.cuboid("pull", f"{REGISTRY}/{name}:1", timeout=300)
        yield place
