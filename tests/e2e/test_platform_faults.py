"""What is promised for bad days: parts killed at any moment, the host rebooted, its disk full. Nothing is lost or left.

Moments are random with pytest-randomly's seed, which every run prints; `-p randomly -p "randomly_seed=N"` repeats them.
"""

from __future__ import annotations

import http.client
import json
import os
import random
import signal
import socket
import subprocess
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import closing
from functools import partial
from typing import Any

import pytest

from tests.e2e.conftest import image, need_qemu, stock
from tests.harness.platform import VENV, Object, Platform, platform

pytestmark = [pytest.mark.e2e, pytest.mark.vm, pytest.mark.timeout(300)]
BUSYBOX, NGINX = image("busybox"), image("nginx")
PODS, CONFIG_MAPS = "/api/v1/namespaces/default/pods", "/api/v1/namespaces/default/configmaps"
PORT = 8123
ROUNDS, LINES = 50, 4000  # of the counting container
COUNT = f"i=0; while [ $i -lt {ROUNDS} ]; do seq $((i*{LINES}+1)) $((i*{LINES}+{LINES})); i=$((i+1)); done; sleep 3600"
STUBBORN = "trap '' TERM; while true; do sleep 1; done"


@pytest.fixture(scope="module")
def battered() -> Iterator[Platform]:
    need_qemu()
    settings = {
        "CUBOID_NODE_BACKOFF": "1", "CUBOID_NODE_LOST_SECONDS": "8", "CUBOID_STORAGE_RESERVE_MIB": "16",
        "CUBOID_IMAGES_MIN_FREE_BYTES": str(16 << 20),
    }  # fmt: skip
    with platform("e2e-faults", disk_mib=2048, **settings) as found:
        stock(found, ("busybox", "nginx"))
        yield found
        found.save_logs("e2e-faults")


@pytest.fixture
def place(battered: Platform) -> Iterator[Platform]:
    """The platform of this module. After each test all pods are removed, and then nothing may be left of any."""
    yield battered
    battered.up()
    names = battered.cuboid("ps", "-a", "-q").stdout.split()
    if names:
        battered.cuboid("rm", "-f", *names, timeout=200)
    assert battered.leftovers() == []


def ready(pod: Object) -> bool:
    rows = pod["status"].get("conditions", [])
    return any(row["type"] == "Ready" and row["status"] == "True" for row in rows)


def uid(pod: Object) -> str:
    return str(pod["metadata"]["uid"])


def restarts(pod: Object) -> int:
    return sum(int(row["restartCount"]) for row in pod["status"].get("containerStatuses", []))


def kill_node_and_start_again(place: Platform) -> None:
    place.kill_daemon("cuboid-node")
    place.up()


def pod(name: str, *command: str, policy: str = "Never", grace: int = 1, **container: Any) -> Object:
    """A pod of one container."""
    main = {"name": "main", "image": BUSYBOX, "command": list(command) or ["sleep", "3600"], **container}
    spec = {"restartPolicy": policy, "terminationGracePeriodSeconds": grace, "containers": [main]}
    return {"apiVersion": "v1", "kind": "Pod", "metadata": {"name": name}, "spec": spec}


def start(place: Platform, *pods: Object) -> list[Object]:
    """Create them all at once; as they are when all are ready."""
    place.kubectl("apply", "-f", "-", stdin=json.dumps({"apiVersion": "v1", "kind": "List", "items": pods}))
    return [place.wait(wanted["metadata"]["name"], ready) for wanted in pods]


# --- the node agent --------------------------------------------------------------------------------------------------


def test_running_pods_do_not_notice_that_the_node_agent_is_killed(place: Platform) -> None:
    pair = pod("pair", "sh", "-c", COUNT)
    web = {
        "name": "web", "image": NGINX, "ports": [{"containerPort": 80, "hostPort": PORT}],
        "readinessProbe": {"httpGet": {"port": 80}, "periodSeconds": 1},
    }  # fmt: skip
    pair["spec"]["containers"].append(web)
    (before,) = start(place, pair)
    (vmm,) = place.vmms(uid(before))
    with closing(keep_alive(place)) as connection:
        for _ in range(3):
            time.sleep(random.uniform(0, 1.5))
            with place.started([str(VENV / "cuboid"), "exec", "-c", "main", "pair", "sleep", "60"]):
                place.kill_daemon("cuboid-node")
                assert fetch(connection) == 200
            place.up()
        assert fetch(connection) == 200
    assert place.cuboid("exec", "-c", "main", "pair", "echo", "hi").stdout == "hi\n"
    place.wait(
        "pair", lambda _: f"{ROUNDS * LINES}\n" in place.cuboid("logs", "-c", "main", "pair", "--tail", "1").stdout
    )
    expected = "".join(f"{number}\n" for number in range(1, ROUNDS * LINES + 1))
    assert place.cuboid("logs", "-c", "main", "pair").stdout == expected
    after = place.pod("pair")
    assert (place.vmms(uid(after)), restarts(after)) == ([vmm], 0)
    assert place.leftovers(uid(after)) == []


def keep_alive(place: Platform) -> http.client.HTTPConnection:
    """A connection through the published port that is used again and again."""
    connection = http.client.HTTPConnection("127.0.0.1", PORT, timeout=20)
    connection.sock = place.enter(lambda: socket.create_connection(("127.0.0.1", PORT), 20))
    connection.auto_open = 0  # never a new one
    return connection


def fetch(connection: http.client.HTTPConnection) -> int:
    connection.request("GET", "/")
    answer = connection.getresponse()
    answer.read()
    return answer.status


def test_a_half_made_pod_is_finished_however_often_the_node_agent_is_killed(place: Platform) -> None:
    place.cuboid("image", "rm", BUSYBOX, check=False)
    place.kubectl("run", "half", f"--image={BUSYBOX}", "--", "sleep", "3600")
    for _ in range(4):
        time.sleep(random.uniform(0, 1.5))
        kill_node_and_start_again(place)
    half = place.wait("half", ready)
    assert restarts(half) == 0
    assert place.cuboid("exec", "half", "echo", "hi").stdout == "hi\n"
    assert place.leftovers(uid(half)) == []


@pytest.mark.parametrize("stage", ["images", "network", "machine"])
def test_a_half_made_pod_that_is_removed_meanwhile_is_undone(place: Platform, stage: str) -> None:
    place.cuboid("image", "rm", BUSYBOX, check=False)
    place.kubectl("run", "undone", f"--image={BUSYBOX}", "--", "sleep", "3600")
    of = uid(place.pod("undone"))
    wait_for(lambda: begun(place, of, stage), f"{stage} is begun")
    place.kill_daemon("cuboid-node")
    place.kubectl("delete", "pod", "undone", "--grace-period=1", "--wait=false")
    place.up()
    wait_for(lambda: place.cuboid("ps", "-a", "-q").stdout == "", "the pod is gone", seconds=60)
    wait_for(lambda: not place.leftovers(), "nothing is left", seconds=20)


def begun(place: Platform, of: str, stage: str) -> bool:
    """Whether a pod's record says that something has been asked for."""
    sandbox = place.record(of).get("sandbox")
    if sandbox is None:
        return False
    if stage == "images":
        return any(run.get("image", {}).get("stage", "absent") != "absent" for run in sandbox["runs"])
    return str(sandbox.get(stage, {}).get("stage", "absent")) != "absent"


def wait_for(done: Callable[[], bool], what: str, *, seconds: float = 30.0) -> None:
    until = time.monotonic() + seconds
    while not done():
        assert time.monotonic() < until, f"not within {seconds} s: {what}"
        time.sleep(0.02)


def test_a_stop_and_a_removal_go_on_after_the_node_agent_is_killed(place: Platform) -> None:
    (stubborn,) = start(place, pod("stubborn", "sh", "-c", STUBBORN, grace=3))
    of = uid(stubborn)
    with place.started([str(VENV / "cuboid"), "stop", "stubborn"]):
        wait_for(lambda: '"stopped":true' in record(place, of), "the stop is on record")
        time.sleep(random.uniform(0, 4))
        place.kill_daemon("cuboid-node")
    place.up()
    wait_for(lambda: "Stopped" in place.cuboid("ps", "-a").stdout, "the pod is stopped", seconds=60)
    wait_for(lambda: place.vmms(of) == [], "its machine has ended")
    place.cuboid("start", "stubborn")
    with place.started([str(VENV / "cuboid"), "rm", "-f", "stubborn"]):
        wait_for(lambda: '"ending"' in record(place, of), "the end is on record")
        time.sleep(random.uniform(0, 2))
        place.kill_daemon("cuboid-node")
    place.up()
    wait_for(lambda: place.cuboid("ps", "-a", "-q").stdout == "", "the pod is gone", seconds=60)


def record(place: Platform, of: str) -> str:
    return json.dumps(place.record(of), separators=(",", ":")) if place.record(of) else '"ending"'  # it has ended


def test_a_pod_that_waits_for_input_and_ignores_sigterm_is_removed_after_its_grace(place: Platform) -> None:
    """With its `run` still attached, with it killed, and with both attached and an exec open."""
    for end in (False, True):
        command = [str(VENV / "cuboid"), "run", "-i", "--name", "waiting", BUSYBOX, "cat"]
        with place.started(command, stdin=subprocess.PIPE) as attached:
            wait_for(lambda: exists(place, "waiting") and ready(place.pod("waiting")), "it runs", seconds=90)
            if end:
                attached.kill()
                attached.wait(5)
            with place.started([str(VENV / "cuboid"), "exec", "waiting", "sleep", "600"]):
                place.cuboid("rm", "-f", "waiting")
        assert not exists(place, "waiting")


def exists(place: Platform, name: str) -> bool:
    return name in place.cuboid("ps", "-a", "-q").stdout.split()


# --- the API server --------------------------------------------------------------------------------------------------


def test_no_acknowledged_write_is_lost_when_the_api_server_is_killed(place: Platform) -> None:
    stop, acknowledged = threading.Event(), list[str]()
    writer = threading.Thread(target=lambda: place.enter(lambda: write_until(place, stop, acknowledged)))
    version = place.enter(lambda: place.api().get(CONFIG_MAPS))["metadata"]["resourceVersion"]
    writer.start()
    try:
        for _ in range(2):
            enough = len(acknowledged) + 5
            wait_for(partial(longer, acknowledged, enough), "writes go on")
            time.sleep(random.uniform(0, 0.5))
            place.kill_daemon("cuboid-server")
            place.up()
    finally:
        stop.set()
        writer.join(30)
    found = place.enter(lambda: place.api().get(CONFIG_MAPS))["items"]
    assert set(acknowledged) <= {row["metadata"]["name"] for row in found}
    assert set(acknowledged) <= set(place.enter(lambda: watched(place, version)))
    (after,) = start(place, pod("after"))  # bound, started and told by a node agent that found the server again
    assert place.cuboid("exec", "after", "echo", "hi").stdout == "hi\n"
    assert place.leftovers(uid(after)) == []
    place.kubectl("delete", "configmap", "-l", "fault=server")


def longer(rows: list[str], count: int) -> bool:
    return len(rows) > count


def write_until(place: Platform, stop: threading.Event, acknowledged: list[str]) -> None:
    """One object after the other; a refused one is not tried again: only what was acknowledged counts."""
    number = 0
    while not stop.is_set():
        number += 1
        name = f"write-{number}"
        body = {"metadata": {"name": name, "labels": {"fault": "server"}}, "data": {"n": str(number)}}
        try:
            place.api().call("POST", CONFIG_MAPS, body)
            acknowledged.append(name)
        except (OSError, http.client.HTTPException, AssertionError):
            time.sleep(0.02)


def watched(place: Platform, version: str) -> list[str]:
    """Names of what was added after a version from before the server was killed."""
    changes = place.api().watch(CONFIG_MAPS, version, seconds=2)
    return [row["metadata"]["name"] for kind, row in changes if kind == "ADDED"]


# --- the VMM and what is in it ---------------------------------------------------------------------------------------

FAULTS: dict[str, tuple[str, ...]] = {
    "VMMDied": (), "GuestUnreachable": (),
    "GuestPanic": ("sh", "-c", "echo c > /proc/sysrq-trigger"),
    "GuestPoweredOff": ("sh", "-c", "echo o > /proc/sysrq-trigger"),
}  # fmt: skip


def test_a_machine_that_ends_is_told_with_its_cause_and_the_pod_gets_a_new_one(place: Platform) -> None:
    privileged = {"privileged": True}
    pods = [pod(cause.lower(), policy="Always", securityContext=privileged) for cause in FAULTS]
    for made in pods:  # the platform's own kernel has no SysRq
        made["metadata"]["annotations"] = {"cuboid.dev/kernel": "general"}
    for cause, before in zip(FAULTS, start(place, *pods), strict=True):
        harm(place, before, cause)
    for cause in FAULTS:
        name = cause.lower()
        after = place.wait(name, lambda found: ready(found) and restarts(found) == 1)
        (row,) = after["status"]["containerStatuses"]
        assert row["lastState"]["terminated"]["reason"] == cause
        assert cause in place.cuboid("events", name).stdout
        assert place.cuboid("exec", name, "echo", "hi").stdout == "hi\n"
        assert len(place.vmms(uid(after))) == 1


def harm(place: Platform, found: Object, cause: str) -> None:
    (vmm,) = place.vmms(uid(found))
    if FAULTS[cause]:
        place.cuboid("exec", found["metadata"]["name"], *FAULTS[cause], check=False, timeout=30)
    else:
        os.kill(vmm, signal.SIGKILL if cause == "VMMDied" else signal.SIGSTOP)


def test_a_pod_whose_vmm_dies_has_failed_within_a_second(place: Platform) -> None:
    (brief,) = start(place, pod("brief"))
    (vmm,) = place.vmms(uid(brief))

    def kill_and_wait() -> float:
        api = place.api()
        version = api.get(f"{PODS}/brief")["metadata"]["resourceVersion"]
        with closing(api.watch(PODS, version, seconds=30)) as changes:
            threading.Timer(0.5, os.kill, (vmm, signal.SIGKILL)).start()
            begin = time.monotonic() + 0.5
            next(row for _, row in changes if row.get("status", {}).get("phase") == "Failed")
            return time.monotonic() - begin

    seconds = place.enter(kill_and_wait)
    print(f"told {seconds:.3f} s after the kill")
    assert seconds < 1.0
    assert place.pod("brief")["status"]["reason"] == "VMMDied"
    assert "VMMDied" in place.cuboid("why", "brief").stdout
    wait_for(lambda: not place.leftovers(uid(brief)), "nothing is left of its machine")
    assert place.vmms(uid(brief)) == []


# --- the host --------------------------------------------------------------------------------------------------------


def test_after_a_reboot_of_the_host_pods_are_back_by_their_policy(place: Platform) -> None:
    pods = [pod(policy.lower(), policy=policy) for policy in ("Always", "OnFailure", "Never")]
    source = {"driver": "volume.cuboid.dev", "volumeAttributes": {"name": "lasting", "size": "64Mi"}}
    pods[0]["spec"]["volumes"] = [{"name": "data", "csi": source}]
    pods[0]["spec"]["containers"][0]["volumeMounts"] = [{"name": "data", "mountPath": "/data"}]
    before = start(place, *pods)
    place.cuboid("exec", "always", "sh", "-c", "echo kept > /data/file; sync; echo lost > /root/file")
    place.reboot()
    place.up()
    for name in ("always", "onfailure"):
        after = place.wait(name, lambda found: ready(found) and restarts(found) == 1)
        (row,) = after["status"]["containerStatuses"]
        assert row["lastState"]["terminated"]["reason"] == "HostRebooted"
    assert place.cuboid("exec", "always", "cat", "/data/file").stdout == "kept\n"
    assert place.cuboid("exec", "always", "ls", "/root").stdout == ""
    never = place.wait("never", lambda found: found["status"]["phase"] == "Failed")
    assert never["status"]["reason"] == "HostRebooted"
    assert place.leftovers(*(uid(found) for found in before)) == []


def test_down_ends_the_machines_and_up_brings_pods_back_by_their_policy(place: Platform) -> None:
    always, _ = start(place, pod("always", policy="Always"), pod("never"))
    place.cuboid("down")
    assert place.vmms() == []
    place.up()
    place.wait("always", lambda found: ready(found) and restarts(found) == 1)
    never = place.wait("never", lambda found: found["status"]["phase"] == "Failed")
    assert never["status"]["reason"] == "NodeDown"
    assert len(place.vmms(uid(always))) == 1


def test_down_that_keeps_pods_leaves_their_machines_running(place: Platform) -> None:
    (before,) = start(place, pod("kept", "sh", "-c", "i=0; while true; do i=$((i+1)); echo $i; sleep 1; done"))
    vmms = place.vmms(uid(before))
    place.cuboid("down", "--keep-pods")
    assert place.vmms(uid(before)) == vmms
    place.up()
    after = place.wait("kept", ready)
    assert (place.vmms(uid(before)), restarts(after)) == (vmms, 0)
    numbers = [int(line) for line in place.cuboid("logs", "kept").stdout.split()]
    assert numbers == list(range(1, len(numbers) + 1))


def test_a_full_disk_is_told_in_a_sentence_and_leaves_nothing(place: Platform) -> None:
    place.cuboid("image", "rm", NGINX, check=False)
    before = place.cuboid("images", "-q").stdout
    place.resize_disk(free_mib=40)
    try:
        pull = place.cuboid("pull", NGINX, check=False)
        assert pull.returncode == 1
        assert "free" in pull.stderr
        assert "Traceback" not in pull.stderr
        assert place.cuboid("images", "-q").stdout == before
        assert place.leftovers() == []
        refused = place.cuboid("run", "--name", "big", "-d", BUSYBOX, "true", check=False, timeout=60)
        assert refused.returncode == 125
        assert "MiB free" in refused.stderr
    finally:
        place.resize_disk(free_mib=1800)


def test_a_full_writable_layer_is_an_error_of_the_container_and_no_more(place: Platform) -> None:
    (full,) = start(place, pod("full", resources={"limits": {"ephemeral-storage": "32Mi"}}))
    write = place.cuboid("exec", "full", "dd", "if=/dev/zero", "of=/root/file", "bs=1M", "count=64", check=False)
    assert write.returncode == 1
    assert "No space left on device" in write.stderr
    place.cuboid("exec", "full", "rm", "/root/file")
    assert place.cuboid("exec", "full", "echo", "hi").stdout == "hi\n"
    assert restarts(place.wait("full", ready)) == 0
    assert place.leftovers(uid(full)) == []
