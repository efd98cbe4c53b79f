"""What pods cost the host: the node agent by itself and per pod, and the virtual machine monitors by part."""

from __future__ import annotations

import json
import statistics
import subprocess
import time
from collections import Counter
from pathlib import Path

from bench.common import PYTHON, Result, cpu_seconds, running_platform, settle, verdict
from bench.starts import Client, names
from cuboid.lib.proc import start_time
from cuboid.vmm.qemu import usage
from tests.harness.platform import ROOT, Platform

PODS = 20
MEMORY = "32m"
GUEST_KIB = 32 << 10  # a mapping that is as large is the guest's memory, or translated code
BAR_EMPTY, BAR_PER_POD, BAR_VMM = 70.0, 0.3, 45.0  # MB
FLAT = 1.5  # times the memory per pod of 200, that it may be per pod of 2,000
IDLE_SECONDS = 10.0
DIRTY_MIB = 24  # that a pod writes, and gives back
GIVEN_BACK_SECONDS = 15.0
CROWD_SECONDS = 1800.0


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
    before = sum(cpu_seconds(pid) for pid in pids)
    time.sleep(IDLE_SECONDS)
    return (sum(cpu_seconds(pid) for pid in pids) - before) / len(pids) / IDLE_SECONDS * 100


def threads(pid: int) -> int:
    return len(list(Path(f"/proc/{pid}/task").iterdir()))


def files(pid: int) -> int:
    return len(list(Path(f"/proc/{pid}/fd").iterdir()))


def private_parts(pid: int) -> dict[str, float]:
    """MB of a VMM's own memory by part."""
    private, guest, translation = usage.parts(Path(f"/proc/{pid}/smaps").read_bytes(), GUEST_KIB)
    return {
        "all": private / 1e6, "guest": guest / 1e6, "translated code": translation / 1e6,
        "QEMU": (private - guest - translation) / 1e6,
    }  # fmt: skip


def medians(rows: list[dict[str, float]]) -> dict[str, float]:
    return {name: round(statistics.median(row[name] for row in rows), 1) for name in rows[0]}


def others(place: Platform) -> int:
    """Processes of the platform that are no VMM. One that has ended and that init has not noticed yet is none."""
    vmms = set(place.vmms())
    # Machines that wait for a pod are no pod's: how many there are follows the demand.
    every = set(place.processes("qemu-system")) | set(vmms)
    return sum(1 for pid in place.processes() if pid not in every and start_time(pid) is not None)


def given_back(place: Platform, name: str) -> dict[str, float]:
    """MB of a VMM's guest before a pod writes DIRTY_MIB of memory, after that, and once the pod has let go of it."""
    uid = place.pod(name)["metadata"]["uid"]
    (pid,) = place.vmms(uid)
    shell = ["exec", name, "sh", "-c"]
    before = private_parts(pid)["guest"]
    place.cuboid(*shell, f"head -c {DIRTY_MIB}m /dev/urandom > /dev/shm/dirty")
    dirty = private_parts(pid)["guest"]
    place.cuboid(*shell, "rm /dev/shm/dirty")
    until, after = time.monotonic() + GIVEN_BACK_SECONDS, dirty
    while time.monotonic() < until and after > (before + dirty) / 2:
        time.sleep(0.5)
        after = private_parts(pid)["guest"]
    return {"before": round(before, 1), "written": round(dirty, 1), "let go of": round(after, 1)}


def crowd() -> dict[str, dict[str, float]]:
    """See `bench.crowd`, a process of its own."""
    done = subprocess.run(
        [PYTHON, "-m", "bench.crowd"], cwd=ROOT, check=True, capture_output=True, text=True, timeout=CROWD_SECONDS
    )
    found: dict[str, dict[str, float]] = json.loads(done.stdout.splitlines()[-1])
    return found


def measure() -> Result:
    wanted = list(names("many", PODS))
    with running_platform() as place:
        client = Client(place.state)
        settle(place)
        node = place.daemon_pid("cuboid-node")
        empty, threads_before, files_before, others_before = settled_mb(node), threads(node), files(node), others(place)
        starts = client.start(wanted, memory=MEMORY)
        settle(place)
        full, threads_after, files_after, others_after = settled_mb(node), threads(node), files(node), others(place)
        pods = [place.vmms(place.pod(name)["metadata"]["uid"])[0] for name in wanted]
        idle, vmms = idle_percent(pods), [private_parts(pid) for pid in pods]
        memory = given_back(place, wanted[0])
        client.remove(wanted)
    rows = crowd()
    per_pod, vmm = (full - empty) / PODS, medians(vmms)
    growth = {count: _per_pod(rows, "1", count) for count in ("200", "2000")}
    checks = {
        f"<= {BAR_EMPTY} MB with 0 pods": empty <= BAR_EMPTY,
        f"<= {BAR_PER_POD} MB more per pod": per_pod <= BAR_PER_POD and max(growth.values()) <= BAR_PER_POD,
        "flat to 2,000 pods": growth["2000"] <= growth["200"] * FLAT,
        "no process and no thread per pod": others_after <= others_before and threads_after - threads_before < PODS,
        f"a VMM <= {BAR_VMM} MB of its own": vmm["all"] <= BAR_VMM,
        "none fails": not any(start.failed for start in starts),
    }
    missed = [name for name, met in checks.items() if not met]
    return {
        "what": f"the node agent alone and with {PODS} pods; the VMMs of these", "unit": "MB",
        "node agent, 0 pods": round(empty, 1), f"node agent, {PODS} pods": round(full, 1),
        "more per pod": round(per_pod, 2),
        "threads": f"{threads_before} → {threads_after}", "open files": f"{files_before} → {files_after}",
        "processes besides VMMs": f"{others_before} → {others_after}",
        "private memory of a VMM, medians": vmm, "an idle VMM, % of a core": round(idle, 2),
        "came up": dict(Counter(start.how for start in starts)),
        f"guest memory of one VMM, {DIRTY_MIB} MiB written": memory,
        "with fakes around it, by pods": rows, "with fakes around it, more per pod": growth,
        "bar": "; ".join(checks), "verdict": verdict(not missed) + (f": {'; '.join(missed)}" if missed else ""),
    }  # fmt: skip


def _per_pod(rows: dict[str, dict[str, float]], few: str, many: str) -> float:
    return round((rows[many]["MB"] - rows[few]["MB"]) / (int(many) - int(few)), 3)
