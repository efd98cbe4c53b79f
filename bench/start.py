"""Starts: `cuboid run` against podman, the API against the floor of this machine, boots against bare boots.

Everything takes turns in one run. Each kind of start has a platform of its own, all of them up at once and still while
another one is measured: `warm` (as it comes), `restored` (no machine is made ahead), `cold` (no templates), `general`
(cold, with the distribution's kernel), `fake` (no machine at all: what the host's side costs).
"""

from __future__ import annotations

import os
import shutil
import statistics
import subprocess
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field

from bench import chart
from bench.clones import Clones
from bench.common import BUSYBOX, CUBOID, Result, cpu_seconds, running_platform, settle, summary, timed
from bench.floor import Bare, shared
from bench.starts import ECHO, SLEEP, STAY, Client, Start
from cuboid.guest.assets import GENERAL, MINIMAL, GuestAssets, guest_assets
from tests.harness.platform import Platform
from tools import debian_images

RUNS = int(os.environ.get("BENCH_RUNS", "20"))
SHARED_RUNS = 5  # of the independent program, in each of its turns
SHARED_EVERY = 5  # turns
MEMORY_MIB = 128  # of a VM whose start is compared with a bare one of the same size
HOST_BAR = 0.060  # s
GUEST_PHASES = ("agent", "kernel", "setup", "container")  # of a receipt: the host waits for the guest
PODMAN = ["podman", "--runtime", "runc", "run", "--rm", "--ulimit", "nofile=1024:2048", "--ulimit", "nproc=1000:1000"]
QUICK = ("warm", "restored", "fake")  # their readiness is measured as well
KINDS: dict[str, dict[str, str]] = {
    "warm": {},
    "restored": {"warm_min": "0", "warm_max": "0"},
    "cold": {"templates": "0", "warm_min": "0", "warm_max": "0"},
    "general": {"templates": "0", "warm_min": "0", "warm_max": "0", "guest": GENERAL},
    "fake": {"driver": "fake"},
}


@dataclass
class Samples:
    """Seconds, of one turn each."""

    seconds: dict[str, list[float]] = field(default_factory=dict)
    starts: dict[str, list[Start]] = field(default_factory=dict)

    def add(self, name: str, seconds: float) -> None:
        self.seconds.setdefault(name, []).append(seconds)

    def outputs(self, kind: str) -> list[float]:
        return [start.output for start in self.starts[kind] if start.output and not start.failed]

    def readies(self, kind: str) -> list[float]:
        return [start.ready for start in self.starts[kind] if start.ready and not start.failed]

    def hosts(self, kind: str) -> list[float]:
        """Of each start until Ready, what the host's side took: all that is not a wait for the guest."""
        good = [start for start in self.starts[kind] if start.ready and not start.failed]
        return [start.ready - start.phase(*GUEST_PHASES) for start in good]


def first_output(place: Platform, name: str) -> float:
    """Seconds from the start of `cuboid run` to the first line of the container."""
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


def podman_image() -> str:
    """The same image in podman's store; "" without podman."""
    if not shutil.which("podman"):
        return ""
    pull = ["podman", "pull", "-q", f"oci:{debian_images.layout('busybox')}"]
    return subprocess.run(pull, check=True, capture_output=True, text=True, timeout=120).stdout.split()[-1]


@contextmanager
def platforms(kinds: dict[str, dict[str, str]]) -> Iterator[dict[str, Platform]]:
    with ExitStack() as stack:
        yield {kind: stack.enter_context(running_platform(**settings)) for kind, settings in kinds.items()}


def measure() -> Result:
    assets = guest_assets()
    kinds = {kind: settings for kind, settings in KINDS.items() if kind != "general" or assets.kind == MINIMAL}
    samples = Samples()
    with platforms(kinds) as places:
        accel = _accel(places["warm"])
        with _floors(assets, accel) as (bare, clones):
            image = podman_image()
            for turn in range(RUNS):
                _turn(turn, places, bare, clones, image, samples)
                if turn % SHARED_EVERY == 0 and clones:
                    for name, value in shared(assets.kernel, SHARED_RUNS, accel).items():
                        if name.endswith("_s"):
                            samples.add(f"shared {name}", value)
    chart.draw({kind: samples.starts[kind] for kind in ("warm", "restored", "cold")})
    return _result(samples, accel, assets)


def _accel(place: Platform) -> str:
    """Also the first start on this platform, which is not measured."""
    client = Client(place.state)
    (start,) = client.start(["first"])
    client.remove(["first"])
    return str(start.receipt.get("accel", ""))


@contextmanager
def _floors(assets: GuestAssets, accel: str) -> Iterator[tuple[Bare, Clones | None]]:
    """Clones need virtio in the kernel itself."""
    bare = Bare(assets, MEMORY_MIB, accel)
    try:
        clones = Clones(bare) if assets.kind == MINIMAL else None
        try:
            yield bare, clones
        finally:
            if clones:
                clones.close()
    finally:
        bare.close()


def _turn(
    turn: int, places: dict[str, Platform], bare: Bare, clones: Clones | None, image: str, samples: Samples
) -> None:
    samples.add("bare boot", bare.packed())
    samples.add("bare boot, unpacked", bare.unpacked())
    if clones:
        samples.add("clone", clones.clone())
    warm = places["warm"]
    settle(warm)
    samples.add("run", first_output(warm, f"run-{turn}"))
    if image:
        samples.add("podman", timed(lambda: podman_run(image)))
    warm.cuboid("rm", "-f", f"run-{turn}")
    for kind, place in places.items():
        output = STAY if kind == "fake" else ECHO
        for command in (output, SLEEP) if kind in QUICK else (output,):
            settle(place)
            _start(kind, place, f"{command[0]}-{turn}", command, samples)


def _start(kind: str, place: Platform, name: str, command: tuple[str, ...], samples: Samples) -> None:
    client = Client(place.state)
    daemons = {"server": place.daemon_pid("cuboid-server"), "node agent": place.daemon_pid("cuboid-node")}
    before = {daemon: cpu_seconds(pid) for daemon, pid in daemons.items()}
    (start,) = client.start([name], command=command)
    for daemon, pid in daemons.items():
        if start.ready:
            samples.add(f"{kind}: CPU of the {daemon}", cpu_seconds(pid) - before[daemon])
    samples.starts.setdefault(kind, []).append(start)
    client.remove([name])


# --- the result ------------------------------------------------------------------------------------------------------


def _result(samples: Samples, accel: str, assets: GuestAssets) -> Result:
    figures: Result = {
        "what": f"starts, {assets.kind} kernel {assets.release}, image local, with network", "unit": "s",
        "accelerator": accel, "cuboid run to first output": summary(samples.seconds["run"]),
    }  # fmt: skip
    checks: dict[str, bool] = {}
    if "podman" in samples.seconds:
        ratio = _ratio(samples.seconds["run"], samples.seconds["podman"])
        figures |= {"podman run with runc": summary(samples.seconds["podman"]), "ratio to podman": ratio}
        checks["cuboid run <= 0.8 of podman run"] = ratio <= 0.8
    for kind in samples.starts:
        figures[f"{kind}: create to first output"] = summary(samples.outputs(kind))
        if readies := samples.readies(kind):
            figures[f"{kind}: create to Ready"] = summary(readies)
        figures[f"{kind}: how"] = _counts(samples.starts[kind])
    hosts = samples.hosts("warm")
    figures["warm: host side (to Ready, without the guest's phases)"] = summary(hosts)
    checks["host side <= 60 ms, and with fake machines"] = (
        statistics.median(hosts) <= HOST_BAR and statistics.median(samples.outputs("fake")) <= HOST_BAR
    )
    for name in ("server", "node agent"):
        figures[f"CPU of the {name} per warm start"] = summary(samples.seconds[f"warm: CPU of the {name}"], 4)
    figures |= _floor_figures(samples, checks)
    figures["phases, warm"] = chart.medians(samples.starts["warm"])
    missed = [name for name, met in checks.items() if not met]
    return {**figures, "bar": "; ".join(checks), "verdict": f"missed: {'; '.join(missed)}" if missed else "met"}


def _floor_figures(samples: Samples, checks: dict[str, bool]) -> Result:
    seconds = samples.seconds
    figures: Result = {name: summary(seconds[name]) for name in ("bare boot", "bare boot, unpacked")}
    colds = _boots(samples.starts["cold"])
    boots = _ratio(colds, seconds["bare boot"])
    figures["cold boot, until the agent answers"] = summary(colds)
    figures["cold boot to a bare boot of its kernel"] = boots
    figures["whole cold start to a bare boot of its kernel"] = _ratio(samples.outputs("cold"), seconds["bare boot"])
    checks["cold boot <= 1.25 of a bare boot"] = boots <= 1.25
    if "general" in samples.starts:
        generals = _boots(samples.starts["general"])
        kernels = _ratio(colds, generals)
        figures["general-purpose kernel, until the agent answers"] = summary(generals)
        figures["cold boot, minimal to general-purpose kernel"] = kernels
        figures["whole cold start, minimal to general-purpose kernel"] = _ratio(
            samples.outputs("cold"), samples.outputs("general")
        )
        checks["minimal kernel <= 0.5 of the general-purpose one"] = kernels <= 0.5
    if "clone" in seconds:
        measured = seconds.get("shared clone_answered_s") or seconds["clone"]
        floor = statistics.median(measured)
        figures |= {"a bare clone answers": summary(seconds["clone"]), "floor": summary(measured)}
        for what, values, bar in (("output", samples.outputs("warm"), 3.0), ("Ready", samples.readies("warm"), 3.5)):
            ratio = round(statistics.median(values) / floor, 2)
            figures[f"create to {what}, of the floor"] = ratio
            checks[f"create to {what} <= {bar:g} of the floor"] = ratio <= bar
    return figures


def _boots(starts: list[Start]) -> list[float]:
    """Seconds from the wish for a machine until its agent answers."""
    return [start.phase("vmm", "kernel") for start in starts]


def _ratio(values: list[float], others: list[float]) -> float:
    """Median of the ratios of each turn: what else the machine did then slowed both."""
    return round(statistics.median(a / b for a, b in zip(values, others, strict=False)), 2)


def _counts(starts: list[Start]) -> str:
    kinds = sorted({start.how for start in starts})
    failed = sum(1 for start in starts if start.failed)
    counts = [f"{sum(1 for start in starts if start.how == kind)} {kind}" for kind in kinds]
    return ", ".join(counts + ([f"{failed} FAILED"] if failed else []))
