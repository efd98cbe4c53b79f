"""The node agent on real VMs: a pod's life, and what happens when the agent, the VMM or the start is killed."""

from __future__ import annotations

import json
import os
import re
import shutil
import signal
import subprocess
import time
from collections.abc import Callable, Iterator
from typing import Any

import pytest

from cuboid.lib.proc import start_time
from tests.harness import guest_image
from tests.harness.node_image import demo_layout
from tests.harness.platform import Object, Platform, platform

pytestmark = [
    pytest.mark.vm,
    pytest.mark.timeout(240),
    pytest.mark.skipif(bool(guest_image.missing()), reason=guest_image.missing() or "-"),
    pytest.mark.xdist_group("node-vm"),
]


@pytest.fixture(scope="module")
def place() -> Iterator[Platform]:
    with platform(
        "node", CUBOID_VMM_ACCEL="tcg", CUBOID_NODE_BACKOFF="1", CUBOID_NODE_RETRY="1",
        CUBOID_NODE_TEMPLATES="0",  # every VM is a pod's: none is made ahead
    ) as made:  # fmt: skip
        folder = made.folder / "image"
        folder.mkdir()
        made.cuboid("image", "import", str(demo_layout(folder)))
        yield made


def apply(place: Platform, name: str, container: Object | None = None, **spec: Any) -> None:
    app = {"name": "app", "image": "demo:1", "imagePullPolicy": "Never", **(container or {})}
    full = {"containers": [app], "terminationGracePeriodSeconds": 5, **spec}
    meta = {"name": name, "namespace": "default"}
    pod = {"apiVersion": "v1", "kind": "Pod", "metadata": meta, "spec": full}
    place.kubectl("apply", "-f", "-", stdin=json.dumps(pod))


def ready(pod: Object) -> bool:
    return any(c["type"] == "Ready" and c["status"] == "True" for c in pod.get("status", {}).get("conditions", []))


def ended(pod: Object) -> bool:
    return pod.get("status", {}).get("phase") in ("Succeeded", "Failed")


def app(pod: Object) -> Object:
    found: Object = pod["status"]["containerStatuses"][0]
    return found


def delete(place: Platform, name: str) -> None:
    place.kubectl("delete", "pod", name, "--wait=true", timeout=60)


def vmms(place: Platform) -> list[int]:
    """Pids of the VMMs that run: a jailed QEMU tells nothing of the platform in its own command line."""
    pids = [int(file.read_text().split()[0]) for file in place.run_folder.glob("vmm/*/pid") if file.stat().st_size]
    return [pid for pid in pids if start_time(pid) is not None]


def until(true: Callable[[], object], what: str, seconds: float = 15.0) -> None:
    end = time.monotonic() + seconds
    while not true():
        assert time.monotonic() < end, what
        time.sleep(0.1)


def until_nothing_left(place: Platform) -> None:
    until(lambda: not vmms(place), "a VMM is left")
    until(lambda: not list((place.state / "pods").iterdir()), "a record is left")
    until(lambda: not list(place.run_folder.glob("vmm/*")), "a jail is left")


def test_a_pod_starts_with_a_receipt_and_its_deletion_leaves_nothing(place: Platform) -> None:
    apply(place, "life", {"args": ["serve", "100"]})
    pod = place.wait("life", ready)
    receipt = json.loads(pod["metadata"]["annotations"]["cuboid.dev/receipt"])
    came_up = "kernel" if receipt["start"] == "cold" else "agent"
    assert {"network", "image", "disk", "vmm", came_up, "setup", "container"} <= {p["name"] for p in receipt["phases"]}
    assert place.kubectl("exec", "life", "--", "/demo", "exit", "3", check=False).returncode == 3
    delete(place, "life")
    until_nothing_left(place)


def test_init_containers_hand_files_to_the_application_through_a_volume(place: Platform) -> None:
    mount = {"volumeMounts": [{"name": "shared", "mountPath": "/shared"}]}
    init = {
        "name": "init", "image": "demo:1", "imagePullPolicy": "Never", "args": ["write", "/shared/note", "from init"],
        **mount,
    }  # fmt: skip
    apply(
        place, "inits", {"args": ["cat", "/shared/note"], **mount}, initContainers=[init], restartPolicy="Never",
        volumes=[{"name": "shared", "emptyDir": {}}],
    )  # fmt: skip
    pod = place.wait("inits", ended)
    assert pod["status"]["phase"] == "Succeeded"
    assert pod["status"]["initContainerStatuses"][0]["state"]["terminated"]["reason"] == "Completed"
    assert place.kubectl("logs", "inits").stdout == "from init\n"
    delete(place, "inits")


def test_a_missing_entrypoint_is_exit_code_127_and_names_the_file(place: Platform) -> None:
    apply(place, "missing", {"command": ["/not/there"]}, restartPolicy="Never")
    pod = place.wait("missing", ended)
    end = app(pod)["state"]["terminated"]
    assert (pod["status"]["phase"], end["exitCode"]) == ("Failed", 127)
    assert "/not/there" in end["message"]
    delete(place, "missing")
    until_nothing_left(place)


def test_memory_below_the_least_possible_fails_with_one_sentence(place: Platform) -> None:
    apply(place, "tiny", {"resources": {"limits": {"memory": "1Mi"}}})
    pod = place.wait("tiny", ended)
    assert "memory smaller than the guest needs" in pod["status"]["message"]
    delete(place, "tiny")


def test_stop_keeps_the_disk_and_start_goes_on(place: Platform) -> None:
    apply(place, "pause")
    address = place.wait("pause", ready)["status"]["podIP"]
    place.kubectl("exec", "pause", "--", "/demo", "write", "/kept", "still here")
    place.kubectl("annotate", "pod", "pause", "cuboid.dev/state=stopped")
    stopped = place.wait("pause", lambda pod: app(pod)["state"].get("waiting", {}).get("reason") == "Stopped")
    assert app(stopped)["lastState"]["terminated"]["exitCode"] == 0  # it took SIGTERM
    until(lambda: not vmms(place), "a VMM is left")
    place.kubectl("annotate", "pod", "pause", "cuboid.dev/state-")
    assert place.wait("pause", ready)["status"]["podIP"] == address
    assert place.kubectl("exec", "pause", "--", "/demo", "cat", "/kept").stdout == "still here"
    delete(place, "pause")


def test_a_vmm_that_is_killed_fails_the_pod_within_a_second(place: Platform) -> None:
    apply(place, "never", restartPolicy="Never")
    place.wait("never", ready)
    (vmm,) = vmms(place)
    with place.started(["kubectl", "get", "pod", "never", "-w", "-o", "jsonpath={.status.phase}{'\\n'}"]) as watch:
        assert watch.stdout is not None and watch.stdout.readline() == "Running\n"
        os.kill(vmm, signal.SIGKILL)
        begun = time.monotonic()
        while watch.stdout.readline() != "Failed\n":
            assert time.monotonic() - begun < 5
        assert time.monotonic() - begun < 1.0
    pod = place.wait("never", ended)
    assert pod["status"]["reason"] == "VMMDied"
    assert app(pod)["state"]["terminated"]["exitCode"] == 137
    delete(place, "never")
    until_nothing_left(place)


def test_a_vmm_that_is_killed_is_replaced_if_the_pod_restarts(place: Platform) -> None:
    apply(place, "again")
    place.wait("again", ready)
    (vmm,) = vmms(place)
    os.kill(vmm, signal.SIGKILL)
    pod = place.wait("again", lambda pod: app(pod)["restartCount"] == 1 and ready(pod))
    assert app(pod)["lastState"]["terminated"]["reason"] == "VMMDied"
    delete(place, "again")
    until_nothing_left(place)


def ticks(place: Platform, name: str) -> list[int]:
    return [int(number) for number in re.findall(r"^tick (\d+)$", place.kubectl("logs", name).stdout, re.MULTILINE)]


def test_a_node_agent_that_is_killed_loses_nothing_and_no_pod_notices(place: Platform) -> None:
    apply(place, "steady", {"args": ["serve", "20"]})
    place.wait("steady", ready)
    before = vmms(place)
    place.kill_daemon("cuboid-node")
    time.sleep(1.0)
    place.up()
    execute = ["exec", "steady", "--", "/demo", "true"]
    until(lambda: place.kubectl(*execute, check=False).returncode == 0, "exec does not work again")
    assert vmms(place) == before and app(place.pod("steady"))["restartCount"] == 0
    found = ticks(place, "steady")
    assert found == list(range(len(found))) and len(found) > 50, "lines are missing or doubled"
    delete(place, "steady")
    until_nothing_left(place)


@pytest.mark.parametrize("seconds", [0.3, 1.0, 2.5])
def test_a_start_that_was_cut_by_a_kill_of_the_agent_is_finished(place: Platform, seconds: float) -> None:
    name = f"cut{int(seconds * 10)}"
    apply(place, name)
    time.sleep(seconds)
    place.kill_daemon("cuboid-node")
    place.up()
    place.wait(name, ready)
    assert len(vmms(place)) == 1
    delete(place, name)
    until_nothing_left(place)


def test_an_exit_while_no_agent_ran_is_told_afterwards(place: Platform) -> None:
    apply(place, "gone", {"args": ["serve", "20"]}, restartPolicy="Never")
    place.wait("gone", ready)
    place.kill_daemon("cuboid-node")
    (vmm,) = vmms(place)
    os.kill(vmm, signal.SIGKILL)
    place.up()
    pod = place.wait("gone", ended)
    assert pod["status"]["reason"] == "VMMDied"
    delete(place, "gone")
    until_nothing_left(place)


def test_after_a_reboot_of_the_host_pods_start_again_and_nothing_of_before_is_left(place: Platform) -> None:
    apply(place, "boot")
    pod = place.wait("boot", ready)
    place.kill_daemon("cuboid-node")
    for vmm in vmms(place):
        os.kill(vmm, signal.SIGKILL)
    for namespace in place.run_folder.glob("netns/*"):  # all that is in the run folder goes with the host's memory
        subprocess.run(["umount", namespace], check=True, timeout=10)
    shutil.rmtree(place.run_folder / "netns")
    for record in (place.state / "pods" / pod["metadata"]["uid"]).glob("*.json"):
        record.write_text(re.sub(r'"boot_id":"[^"]*"', '"boot_id":"the boot before"', record.read_text()))
    place.up()
    again = place.wait("boot", lambda pod: app(pod)["restartCount"] == 1 and ready(pod))
    assert app(again)["lastState"]["terminated"]["reason"] == "HostRebooted"
    delete(place, "boot")
    until_nothing_left(place)


def test_down_ends_every_vm_and_up_starts_pods_by_their_policy(place: Platform) -> None:
    apply(place, "always")
    apply(place, "once", restartPolicy="Never")
    place.wait("always", ready)
    place.wait("once", ready)
    place.cuboid("down")
    until(lambda: not vmms(place), "a VMM is left")
    place.up()
    place.wait("always", lambda pod: app(pod)["restartCount"] == 1 and ready(pod))
    assert place.wait("once", ended)["status"]["reason"] == "NodeDown"
    for name in ("always", "once"):
        delete(place, name)
    until_nothing_left(place)
