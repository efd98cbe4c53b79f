"""Machines made ahead, on real virtual machines: starts, bursts, misses, and what breaks templates."""

from __future__ import annotations

import json
import os
import signal
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from tests.e2e.conftest import image, need_qemu, stock
from tests.harness.platform import Platform, platform

pytestmark = [pytest.mark.e2e, pytest.mark.vm, pytest.mark.timeout(300)]
BUSYBOX, NGINX = image("busybox"), image("nginx")
WARM_MIN = 2


@pytest.fixture(scope="module")
def warm_place() -> Iterator[Platform]:
    need_qemu()
    with platform("e2e-warm", CUBOID_NODE_WARM_MIN=str(WARM_MIN), CUBOID_NODE_WARM_MAX="4") as found:
        stock(found, ("busybox", "nginx"))
        found.cuboid("pull", BUSYBOX)
        found.cuboid("pull", NGINX)
        yield found


@pytest.fixture
def ready(warm_place: Platform) -> Iterator[Platform]:
    """With as many machines waiting as should be, and no pod."""
    until(lambda: waiting(warm_place) >= WARM_MIN, "machines wait")
    yield warm_place
    left = warm_place.cuboid("ps", "-a", "-q").stdout.split()
    if left:
        warm_place.cuboid("rm", "-f", *left, timeout=180)


def until(true: Callable[[], object], what: str, seconds: float = 120.0) -> None:
    end = time.monotonic() + seconds
    while not true():
        assert time.monotonic() < end, f"not within {seconds} s: {what}"
        time.sleep(0.2)


def waiting(place: Platform) -> int:
    return sum(row["state"] == "waiting" for row in place.waiting())


def receipt(place: Platform, name: str) -> dict[str, Any]:
    found: dict[str, Any] = json.loads(place.cuboid("why", name, "-o", "json").stdout)["receipt"]
    return found


def start(place: Platform, name: str, *arguments: str) -> str:
    """Start a pod that stays; how its machine came up."""
    place.cuboid("run", "-d", "--name", name, *arguments, BUSYBOX, "sleep", "3600")
    place.wait(name, lambda pod: pod["status"].get("phase") == "Running")
    return str(receipt(place, name)["start"])


def test_a_pod_gets_a_machine_that_waits_and_has_nothing_of_its_rehearsal(ready: Platform) -> None:
    assert start(ready, "warm") == "warm"
    look = "hostname; cat /proc/mounts; ls /; ps; cat /etc/machine-id 2>/dev/null; df -k /"
    seen = ready.cuboid("exec", "warm", "sh", "-c", look).stdout
    assert seen.splitlines()[0] == "warm"
    assert "rehears" not in seen


def test_two_pods_that_were_clones_are_two_machines(ready: Platform) -> None:
    assert [start(ready, "one"), start(ready, "two")] == ["warm", "warm"]
    secrets = (
        "cat /proc/sys/kernel/random/boot_id /proc/sys/kernel/random/uuid; head -c 16 /dev/urandom | md5sum; "
        "ip -o link; ip -o -4 addr"
    )
    one, two = (set(ready.cuboid("exec", name, "sh", "-c", secrets).stdout.splitlines()) for name in ("one", "two"))
    assert {line for line in one & two if "lo" not in line.split()[1:2] and ": lo" not in line} == set()


def test_a_published_port_reaches_a_pod_in_a_machine_made_ahead(ready: Platform) -> None:
    ready.cuboid("run", "-d", "--name", "web", "-p", "8080:80", NGINX)
    fetch = "import urllib.request as r; print(r.urlopen('http://127.0.0.1:8080/', timeout=5).status)"
    until(lambda: ready.run(["python3", "-c", fetch], check=False).stdout.strip() == "200", "nginx answers", 60)
    assert receipt(ready, "web")["start"] == "warm"
    ready.cuboid("rm", "-f", "web")
    until(lambda: ready.leftovers() == [], "nothing is left")


def test_a_burst_larger_than_what_waits_is_slower_and_complete(ready: Platform) -> None:
    names = [f"burst{number}" for number in range(6)]
    for name in names:
        ready.cuboid("run", "-d", "--name", name, BUSYBOX, "sleep", "3600")
    for name in names:
        ready.wait(name, lambda pod: pod["status"].get("phase") == "Running", timeout=120)
    starts = [receipt(ready, name)["start"] for name in names]
    assert starts.count("warm") >= 1 and set(starts) <= {"warm", "restored"}
    ready.cuboid("rm", "-f", *names, timeout=180)
    until(lambda: ready.leftovers() == [], "nothing is left")


def test_pods_with_a_kernel_of_their_choice_boot_and_say_why(ready: Platform) -> None:
    assert start(ready, "args", "--kernel-arg", "cuboid_test=1") == "cold"
    assert "cuboid_test=1" in ready.cuboid("exec", "args", "cat", "/proc/cmdline").stdout
    assert any("arguments for its kernel" in note for note in receipt(ready, "args")["notes"])


def test_a_machine_that_dies_while_it_waits_is_replaced(ready: Platform) -> None:
    (first, *_) = [row["vm"] for row in ready.waiting() if row["state"] == "waiting"]
    (vmm,) = [pid for pid in ready.processes() if first in Path(f"/proc/{pid}/cgroup").read_text()]
    os.kill(vmm, signal.SIGKILL)
    until(lambda: first not in [row["vm"] for row in ready.waiting()], "it is no longer offered")
    until(lambda: waiting(ready) >= WARM_MIN, "another one waits")
    assert start(ready, "after") == "warm"
    until(lambda: ready.leftovers(ready.pod("after")["metadata"]["uid"]) == [], "nothing is left of the dead one")


def test_killed_node_agents_leave_no_machine_and_lose_no_pod(ready: Platform) -> None:
    assert start(ready, "steady") == "warm"
    uid = ready.pod("steady")["metadata"]["uid"]
    (vmm,) = ready.vmms(uid)
    before = {row["vm"] for row in ready.waiting()}
    ready.kill_daemon("cuboid-node")
    ready.cuboid("up", timeout=180)
    assert ready.vmms(uid) == [vmm]
    until(lambda: waiting(ready) >= WARM_MIN, "new machines wait")
    assert not before & {row["vm"] for row in ready.waiting()}
    until(lambda: ready.leftovers(uid) == [], "the old ones are gone")
    assert ready.cuboid("exec", "steady", "echo", "still here").stdout == "still here\n"


@contextmanager
def node_down(place: Platform) -> Iterator[Path]:
    """Templates while no agent looks at them."""
    place.kill_daemon("cuboid-node")
    yield place.state / "templates"
    place.cuboid("up", timeout=180)


def manifests(templates: Path) -> dict[str, str]:
    """By template; there may be some that no pod of this platform uses."""
    return {path.name: (path / "snapshot.json").read_text() for path in templates.iterdir() if path.is_dir()}


def test_a_template_with_a_wrong_byte_is_built_anew(ready: Platform) -> None:
    with node_down(ready) as templates:
        before = manifests(templates)
        for name in before:
            files = [path for path in (templates / name).iterdir() if path.name != "snapshot.json"]
            with max(files, key=lambda path: path.stat().st_blocks).open("r+b") as file:
                offset = os.lseek(file.fileno(), 0, os.SEEK_DATA)
                byte = os.pread(file.fileno(), 1, offset)
                os.pwrite(file.fileno(), bytes([byte[0] ^ 0xFF]), offset)
    until(lambda: waiting(ready) >= WARM_MIN, "machines wait again")
    assert start(ready, "mended") == "warm"
    assert manifests(templates) != before


def test_a_template_of_another_machine_is_not_used(ready: Platform) -> None:
    """Its name says what it was made for; one that lies is found out by its manifest."""
    with node_down(ready) as templates:
        for name, text in manifests(templates).items():
            manifest = json.loads(text)
            manifest["facts"] = dict.fromkeys(manifest["facts"], "another")
            (templates / name / "snapshot.json").write_text(json.dumps(manifest))
    until(lambda: waiting(ready) >= WARM_MIN, "machines wait again")
    assert start(ready, "own") == "warm"
    assert any("another" not in json.loads(text)["facts"].values() for text in manifests(templates).values())


def test_an_agent_killed_while_it_builds_a_template_leaves_no_half_one(ready: Platform) -> None:
    with node_down(ready) as templates:
        for folder in list(templates.iterdir()):
            for path in folder.iterdir():
                path.unlink()
            folder.rmdir()
    until(lambda: any("template-" in Path(f"/proc/{pid}/cgroup").read_text() for pid in ready.processes()), "it builds")
    with node_down(ready):
        pass
    until(lambda: waiting(ready) >= WARM_MIN, "machines wait after all")
    whole = [path for path in (ready.state / "templates").iterdir() if path.is_dir()]
    assert whole and all((path / "snapshot.json").exists() for path in whole)
    assert start(ready, "built") == "warm"
