"""What the node agent costs by itself and per pod, and many starts at once."""

from __future__ import annotations

import json
import statistics
import subprocess
import time
from pathlib import Path

from bench.common import REGISTRY, Result, running_platform, save, summary, verdict
from tests.harness.platform import Platform

PODS = 20
BAR_EMPTY, BAR_PER_POD = 70.0, 0.3  # MiB


def resident_mib(pid: int) -> float:
    """Proportional set size where the kernel tells it, in MiB."""
    rollup = Path(f"/proc/{pid}/status").read_text()
    return int(next(line.split()[1] for line in rollup.splitlines() if line.startswith("VmRSS"))) / 1024


def settle(pid: int) -> float:
    """The lowest of some readings, after a while without work."""
    time.sleep(5)
    readings = []
    for _ in range(5):
        readings.append(resident_mib(pid))
        time.sleep(0.5)
    return min(readings)


def start_all(place: Platform) -> tuple[float, int]:
    """(seconds until all run, how many do not)."""
    started = time.monotonic()
    command = [".venv/bin/cuboid", "run", "-q", "-d"]
    processes = [
        subprocess.Popen(
            place.inside([*command, "--name", f"many-{number}", "-m", "32m", f"{REGISTRY}/busybox:1", "sleep", "3600"]),
            env=place.environment,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
        )
        for number in range(PODS)
    ]
    failed = sum(1 for process in processes if process.wait(600) != 0)
    return time.monotonic() - started, failed


def measure() -> Result:
    with running_platform() as place:
        place.cuboid("run", "--rm", f"{REGISTRY}/busybox:1", "true")
        node = place.daemon_pid("cuboid-node")
        empty = settle(node)
        seconds, failed = start_all(place)
        full = settle(node)
        totals = [
            json.loads(place.cuboid("why", f"many-{number}", "-o", "json").stdout)["receipt"]["totalSeconds"]
            for number in range(PODS)
        ]
        guests = [resident_mib(pid) for pid in place.vmms()]
        others = len(place.processes()) - len(guests)
    per_pod = (full - empty) / PODS
    result: Result = {
        "what": f"the node agent alone and with {PODS} pods; {PODS} pods started at once", "unit": "MiB",
        "node_agent_0_pods": round(empty, 1), f"node_agent_{PODS}_pods": round(full, 1), "per_pod": round(per_pod, 3),
        "vmm_resident_median": round(statistics.median(guests), 1), "processes_besides_vmms": others,
        "at_once": {
            "pods": PODS, "seconds_until_all_run": round(seconds, 1), "failed": failed,
            "receipt_total_s": summary(totals, 2),
        },
        "bar": f"<= {BAR_EMPTY} MiB with 0 pods, <= {BAR_PER_POD} MiB more per pod, none of {PODS} failing",
        "verdict": verdict(max(empty / BAR_EMPTY, per_pod / BAR_PER_POD, 1.0 + failed if failed else 0), 1.0),
    }  # fmt: skip
    save("density", result)
    return result
