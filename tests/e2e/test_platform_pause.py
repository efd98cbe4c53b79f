"""What is promised of `cuboid pause`: the machine stands still, peers wait, nothing takes it for dead, it goes on."""

from __future__ import annotations

import json
import os
import signal
import socket
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.e2e.conftest import image, need_qemu, stock
from tests.harness.platform import VENV, Object, Platform, platform
from tests.harness.pods import apply, condition, container, manifest, ready, shell, terminated, until, waiting

pytestmark = [pytest.mark.e2e, pytest.mark.vm, pytest.mark.timeout(300)]
PORT = 8124
LOST_SECONDS = 4
REQUEST = b"GET / HTTP/1.1\r\nHost: pod\r\n\r\n"


@pytest.fixture(scope="module")
def patient() -> Iterator[Platform]:
    """A platform on which a guest that says nothing is soon given up."""
    need_qemu()
    with platform("e2e-pause", CUBOID_NODE_LOST_SECONDS=str(LOST_SECONDS), CUBOID_NODE_BACKOFF="1") as found:
        stock(found, ("busybox", "nginx"))
        yield found
        found.save_logs("e2e-pause")


@pytest.fixture
def place(patient: Platform) -> Iterator[Platform]:
    yield patient
    names = patient.cuboid("ps", "-a", "-q").stdout.split()
    if names:
        patient.cuboid("rm", "-f", *names, timeout=200)


def vmm(place: Platform, name: str) -> int:
    """Pid of the pod's VMM. It may have been made before the pod, and be named after no pod."""
    return int(place.record(place.pod(name)["metadata"]["uid"])["handle"]["pid"])


def runs(pid: int) -> bool:
    return Path(f"/proc/{pid}").exists()


def paused(pod: Object) -> bool:
    return condition(pod, "cuboid.dev/Paused") == "True"


def answer(connection: socket.socket, seconds: float) -> bytes:
    """What comes within so many seconds; empty if nothing does. ConnectionError if the peer is gone."""
    connection.settimeout(seconds)
    try:
        found = connection.recv(65536)
    except TimeoutError:
        return b""
    if not found:
        raise ConnectionError("the peer has closed")
    return found


def drain(connection: socket.socket) -> None:
    while answer(connection, 0.5):
        pass


def serve(place: Platform, name: str) -> socket.socket:
    """A web server in a pod, and an open connection to its published port that has had an answer."""
    ports, probe = [{"containerPort": 80, "hostPort": PORT}], {"tcpSocket": {"port": 80}, "periodSeconds": 1}
    apply(place, manifest(name, {"image": image("nginx"), "ports": ports, "readinessProbe": probe}))
    place.wait(name, ready)
    connection = place.enter(lambda: socket.create_connection(("127.0.0.1", PORT), 20))
    connection.sendall(REQUEST)
    assert answer(connection, 20).startswith(b"HTTP/1.1 200")
    drain(connection)
    return connection


def test_a_paused_pod_is_frozen_and_not_dead_for_its_peers_and_for_the_platform(place: Platform) -> None:
    with serve(place, "web") as connection:
        before = vmm(place, "web")
        place.cuboid("pause", "web")
        pod = place.pod("web")
        assert (pod["status"]["phase"], pod["status"]["reason"]) == ("Running", "Paused")
        assert condition(pod, "Ready") == "False" and paused(pod)
        assert "Paused" in place.cuboid("ps").stdout and "Paused" in place.kubectl("get", "pod", "web").stdout
        connection.sendall(REQUEST)
        assert answer(connection, 2) == b"", "nothing answers, nothing is refused"

        place.kill_daemon("cuboid-node")
        place.up()
        time.sleep(LOST_SECONDS + 3)  # a guest that is silent for so long would be given up
        assert paused(place.pod("web")) and vmm(place, "web") == before

        place.cuboid("resume", "web")
        assert answer(connection, 30).startswith(b"HTTP/1.1 200"), "the connection goes on"
        pod = place.wait("web", ready)
        assert container(pod)["restartCount"] == 0 and vmm(place, "web") == before
        assert abs(int(shell(place, "web", "date +%s")) - time.time()) < 5, "the clock has been set"
        reasons = place.cuboid("events", "web").stdout
        assert "Paused" in reasons and "Resumed" in reasons


def test_who_asks_a_paused_pod_is_told_and_who_was_there_before_waits(place: Platform) -> None:
    apply(place, manifest("box", {"image": image("busybox"), "command": ["sh", "-c", "echo begun; sleep 3600"]}))
    place.wait("box", ready)
    command = [str(VENV / "cuboid"), "exec", "-i", "box", "sh", "-c", "echo here; read word; echo got $word"]
    streams = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE}
    with place.started(command, **streams) as session:
        assert session.stdin is not None and session.stdout is not None
        assert session.stdout.readline() == "here\n"
        place.cuboid("pause", "box")
        session.stdin.write("patience\n")
        session.stdin.flush()

        refused = place.cuboid("exec", "box", "true", check=False)
        assert refused.returncode != 0 and "box is paused" in refused.stderr and "cuboid resume box" in refused.stderr
        refused = place.kubectl("exec", "box", "--", "true", check=False)
        assert refused.returncode != 0 and "box is paused" in refused.stderr
        assert place.cuboid("logs", "box").stdout == "begun\n", "the log is on the host"
        assert "box" in place.cuboid("why", "box").stdout and "cuboid resume" in place.cuboid("why", "box").stdout

        place.cuboid("resume", "box")
        assert session.stdout.readline() == "got patience\n"
        assert "box is not paused" in place.cuboid("resume", "box", check=False).stderr


def test_a_paused_pod_can_be_stopped_restarted_and_removed(place: Platform) -> None:
    # Its file is written by what gets SIGTERM: a machine that was ended without being resumed would not have it.
    script = "trap 'date > /end; exit 0' TERM; test -e /end && echo again; echo up; while true; do sleep 0.2; done"
    apply(place, manifest("box", {"image": image("busybox"), "command": ["sh", "-c", script]}))
    place.wait("box", ready)
    before = vmm(place, "box")

    place.cuboid("pause", "box")
    place.cuboid("stop", "-t", "20", "box")
    until(lambda: not runs(before), "the machine has ended")
    assert "box does not run" in place.cuboid("pause", "box", check=False).stderr
    assert "cuboid start box" in place.cuboid("resume", "box", check=False).stderr
    place.cuboid("start", "box")
    until(lambda: "again" in place.cuboid("logs", "box").stdout, "the container ended by itself")

    place.cuboid("pause", "box")
    place.cuboid("restart", "-t", "20", "box")
    pod = place.wait("box", ready)
    assert not paused(pod) and terminated(pod, last=True)["exitCode"] == 0

    before = vmm(place, "box")
    place.cuboid("pause", "box")
    place.cuboid("rm", "-f", "box")
    until(lambda: not runs(before), "the machine has ended", 5)


def test_a_paused_machine_that_ends_is_told_and_made_anew_when_the_pod_goes_on(place: Platform) -> None:
    apply(place, manifest("box", {"image": image("busybox"), "command": ["sleep", "3600"]}))
    place.wait("box", ready)
    place.cuboid("pause", "box")
    os.kill(vmm(place, "box"), signal.SIGKILL)
    pod = place.wait("box", lambda pod: waiting(pod) == "Paused")
    assert terminated(pod, last=True)["reason"] == "VMMDied" and paused(pod)
    assert "Paused" in json.dumps(pod["status"]["conditions"])
    place.cuboid("resume", "box", timeout=150)
    assert container(place.wait("box", ready))["restartCount"] == 1
