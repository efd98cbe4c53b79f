"""`cuboid run` to the container's first output, against bare boots of the same kernel and against podman.

All take turns in one run. The image (busybox, local) and the command (echo) are the same for podman and Cuboid.
"""

from __future__ import annotations

import json
import shutil
import statistics
import subprocess
import time

from bench.common import BUSYBOX, CUBOID, Result, running_platform, summary, timed, verdict
from bench.floor import Floor
from cuboid.node.settings import NodeSettings
from tests.harness.platform import Platform
from tools import debian_images

RUNS = 8
BAR = 1.5  # of a bare boot
PODMAN = ["podman", "--runtime", "runc", "run", "--rm", "--ulimit", "nofile=1024:2048", "--ulimit", "nproc=1000:1000"]


def first_output(place: Platform, name: str) -> float:
    """Seconds from the start of the command to the first line of the container."""
    started = time.monotonic()
    command = [CUBOID, "run", "-q", "--name", name, BUSYBOX, "echo", "hello"]
    with place.started(command, stderr=subprocess.STDOUT) as process:
        assert process.stdout is not None
        line = process.stdout.readline()
        seconds = time.monotonic() - started
        assert line == "hello\n", line + process.stdout.read()
        assert process.wait(120) == 0
    return seconds


def podman_run(image: str) -> None:
    done = subprocess.run([*PODMAN, image, "echo", "hello"], capture_output=True, text=True, timeout=60, check=False)
    assert done.stdout == "hello\n", done.stderr


def receipt(place: Platform, name: str) -> Result:
    found: Result = json.loads(place.cuboid("why", name, "-o", "json").stdout)["receipt"]
    return found


def phases(receipts: list[Result]) -> Result:
    """Medians of the receipts' phases, in seconds."""
    rows: dict[str, list[float]] = {}
    for one in receipts:
        for phase in one["phases"]:
            rows.setdefault(phase["name"], []).append(phase["seconds"])
        rows.setdefault("total", []).append(one["totalSeconds"])
    return {name: round(statistics.median(values), 3) for name, values in rows.items()}


def measure() -> Result:
    samples: dict[str, list[float]] = {"cuboid": [], "bare": [], "unpacked": [], "podman": []}
    receipts: list[Result] = []
    settings = NodeSettings()
    podman = _podman_image() if shutil.which("podman") else None
    with running_platform() as place:
        accel = _accel(place)
        floor = Floor(settings.container_mib + settings.guest_overhead_mib, accel)
        try:
            for number in range(RUNS):
                name = f"start-{number}"
                samples["bare"].append(floor.packed())
                samples["cuboid"].append(first_output(place, name))
                samples["unpacked"].append(floor.unpacked())
                if podman:
                    samples["podman"].append(timed(lambda: podman_run(podman)))
                receipts.append(receipt(place, name))
                place.cuboid("rm", "-f", name)
        finally:
            floor.close()
    return _result(samples, accel, phases(receipts))


def _result(samples: dict[str, list[float]], accel: str, receipt_phases: Result) -> Result:
    ratio, strict = _ratio(samples, "bare"), _ratio(samples, "unpacked")
    result: Result = {
        "what": "`cuboid run` to first output, image local, with network", "unit": "s", "accelerator": accel,
        "cuboid": summary(samples["cuboid"]), "bare QEMU boot of the kernel": summary(samples["bare"]),
        "ratio to it": ratio, "bare QEMU boot of the unpacked kernel": summary(samples["unpacked"]),
        "ratio to that": strict,
        "bar": f"ratio to a bare boot of the kernel <= {BAR}", "verdict": verdict(ratio <= BAR),
    }  # fmt: skip
    if samples["podman"]:
        result["podman run with runc"] = summary(samples["podman"])
        result["ratio to podman"] = _ratio(samples, "podman")
    result["phases of the receipt"] = receipt_phases
    return result


def _ratio(samples: dict[str, list[float]], other: str) -> float:
    """Median of the ratios of each turn: what else the machine did then slowed both."""
    return round(statistics.median(a / b for a, b in zip(samples["cuboid"], samples[other], strict=True)), 2)


def _accel(place: Platform) -> str:
    place.cuboid("run", "-q", "--name", "first", BUSYBOX, "true")
    accel = str(receipt(place, "first")["accel"])
    place.cuboid("rm", "-f", "first")
    return accel


def _podman_image() -> str:
    """The same image in podman's store."""
    layout = debian_images.layout("busybox")
    pull = ["podman", "pull", "-q", f"oci:{layout}"]
    return subprocess.run(pull, check=True, capture_output=True, text=True, timeout=120).stdout.split()[-1]
