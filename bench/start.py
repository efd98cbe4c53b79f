"""`cuboid run` to the container's first output, against a bare boot of the same kernel and against podman.

All three take turns in one run. The image (busybox, local) and the command (echo) are the same for podman and Cuboid.
"""

from __future__ import annotations

import json
import shutil
import statistics
import subprocess
import time

from bench.common import REGISTRY, Result, running_platform, save, summary, verdict
from bench.floor import Floor
from tests.harness.platform import Platform
from tools import debian_images

RUNS = 12
BAR = 1.5  # of the floor
IMAGE = f"{REGISTRY}/busybox:1"
PODMAN = ["podman", "--runtime", "runc", "run", "--rm", "--ulimit", "nofile=1024:2048", "--ulimit", "nproc=1000:1000"]


def first_output(place: Platform, number: int) -> float:
    """Seconds from the start of the command to the first byte of the container."""
    command = [".venv/bin/cuboid", "run", "-q", "--name", f"start-{number}", IMAGE, "echo", "hello"]
    started = time.monotonic()
    with place.started(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT) as process:
        assert process.stdout is not None
        line = process.stdout.readline()
        seconds = time.monotonic() - started
        assert line == "hello\n", line + process.stdout.read()
        assert process.wait(30) == 0
    return seconds


def podman_run(image: str) -> float:
    started = time.monotonic()
    done = subprocess.run([*PODMAN, image, "echo", "hello"], capture_output=True, text=True, timeout=60, check=False)
    assert done.stdout == "hello\n", done.stderr
    return time.monotonic() - started


def phases(place: Platform, numbers: range) -> Result:
    """Medians of the receipts' phases, in seconds."""
    rows: dict[str, list[float]] = {}
    for number in numbers:
        receipt = json.loads(place.cuboid("why", f"start-{number}", "-o", "json").stdout)["receipt"]
        for phase in receipt["phases"]:
            rows.setdefault(phase["name"], []).append(phase["seconds"])
        rows.setdefault("total", []).append(receipt["totalSeconds"])
    return {name: round(statistics.median(values), 4) for name, values in rows.items()}


def measure() -> Result:
    with running_platform() as place:
        node = json.loads(place.cuboid("doctor", "-o", "json", check=False).stdout)
        accel = "kvm" if "by kvm" in json.dumps(node) else "tcg"
        place.cuboid("run", "--rm", IMAGE, "true")  # the first start warms the host's page cache
        memory = 192
        floor = Floor(memory, accel)
        podman = _podman_image() if shutil.which("podman") else None
        bare, ours, peers = [], [], []
        try:
            for number in range(RUNS):
                bare.append(floor.boot())
                ours.append(first_output(place, number))
                if podman:
                    peers.append(podman_run(podman))
                place.cuboid("rm", "-f", f"start-{number - 1}") if number else None
        finally:
            floor.close()
        names = range(RUNS - 1, RUNS)
        receipt = phases(place, names)
    ratio = statistics.median(ours) / statistics.median(bare)
    result: Result = {
        "what": "cuboid run to first output, image local, with network", "accel": accel, "unit": "s",
        "cuboid": summary(ours), "bare_kernel_boot": summary(bare), "ratio_to_bare_boot": round(ratio, 3),
        "bar": f"ratio to bare boot <= {BAR}", "verdict": verdict(ratio, BAR), "receipt_phases_s": receipt,
    }  # fmt: skip
    if peers:
        result["podman_runc_with_network"] = summary(peers)
        result["ratio_to_podman"] = round(statistics.median(ours) / statistics.median(peers), 2)
    save("start", result)
    return result


def _podman_image() -> str:
    """The same image in podman's store."""
    name = "localhost/cuboid-bench:1"
    layout = debian_images.layout("busybox")
    subprocess.run(["podman", "pull", "-q", f"oci:{layout}"], check=True, capture_output=True, timeout=120)
    found = subprocess.run(
        ["podman", "images", "-q"], check=True, capture_output=True, text=True, timeout=30
    ).stdout.split()
    subprocess.run(["podman", "tag", found[0], name], check=True, capture_output=True, timeout=30)
    return name
