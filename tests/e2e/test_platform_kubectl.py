"""A current `kubectl`, and the official Python client, against pods that run in virtual machines."""

from __future__ import annotations

import fcntl
import json
import os
import pty
import select
import struct
import subprocess
import sys
import termios
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from tests.e2e.conftest import image
from tests.harness import pods as kube
from tests.harness.platform import VENV, Platform

pytestmark = [pytest.mark.e2e, pytest.mark.vm, pytest.mark.timeout(240)]
BUSYBOX, NGINX = image("busybox"), image("nginx")
KUBECTL = str(VENV / "kubectl")
WEB = f"""
apiVersion: v1
kind: Pod
metadata:
  name: web
  labels: {{app: web}}
spec:
  terminationGracePeriodSeconds: 3
  containers:
  - name: nginx
    image: {NGINX}
    ports: [{{containerPort: 80, name: http}}]
    readinessProbe: {{httpGet: {{path: /, port: http}}, periodSeconds: 1}}
    resources: {{limits: {{memory: 96Mi, cpu: "1"}}}}
  - name: shell
    image: {BUSYBOX}
    stdin: true
    tty: true
"""


class Terminal:
    """A command on a terminal of its own, as a person has it."""

    def __init__(self, place: Platform, command: list[str], rows: int = 33, columns: int = 101) -> None:
        self.ours, theirs = pty.openpty()
        fcntl.ioctl(self.ours, termios.TIOCSWINSZ, struct.pack("HHHH", rows, columns, 0, 0))
        self.process = subprocess.Popen(
            place.inside(command), env=place.environment, stdin=theirs, stdout=theirs, stderr=theirs,
            start_new_session=True, preexec_fn=lambda: fcntl.ioctl(0, termios.TIOCSCTTY, 0),
        )  # fmt: skip
        os.close(theirs)
        self.seen = b""

    def type(self, keys: bytes) -> None:
        os.write(self.ours, keys)

    def shows(self, text: bytes, seconds: float = 30) -> None:
        end = time.monotonic() + seconds
        while not self._within(text, 0.2):
            assert time.monotonic() < end, f"{text!r} is not in {self.seen!r}"

    def asked(self, line: bytes, answer: bytes, seconds: float = 30) -> None:
        """Type the line until the answer shows: a size reaches a terminal some time after it was set."""
        end = time.monotonic() + seconds
        while True:
            self.type(line)
            again = time.monotonic() + 1
            while time.monotonic() < again:
                if self._within(answer, 0.2):
                    return
            assert time.monotonic() < end, f"{answer!r} is not in {self.seen!r}"

    def _within(self, text: bytes, seconds: float) -> bool:
        if text not in self.seen and select.select([self.ours], [], [], seconds)[0]:
            try:
                self.seen += os.read(self.ours, 65_536)
            except OSError:  # its other end is closed: the command has ended
                assert text in self.seen, f"{text!r} is not in {self.seen!r}"
        return text in self.seen

    def code(self) -> int:
        return self.process.wait(30)

    def close(self) -> None:
        self.process.kill()
        self.process.wait(5)
        os.close(self.ours)


@contextmanager
def terminal(place: Platform, *command: str) -> Iterator[Terminal]:
    made = Terminal(place, [KUBECTL, *command])
    try:
        yield made
    finally:
        made.close()


@pytest.fixture(scope="module")
def web(place: Platform) -> Iterator[Platform]:
    """The platform with the pod `web`; created while a watch looks on."""
    columns = "custom-columns=P:.status.phase,R:.status.containerStatuses[*].ready"
    with place.started([KUBECTL, "get", "pods", "-w", "--no-headers", "-o", columns]) as watch:
        place.kubectl("apply", "-f", "-", stdin=WEB)
        place.wait("web", kube.ready)
        assert watch.stdout is not None
        seen: list[list[str]] = []
        while not seen or seen[-1] != ["Running", "true,true"]:
            seen.append(watch.stdout.readline().split())
    assert seen[0][0] == "Pending"
    yield place
    place.kubectl("delete", "pod", "web", "--wait=true", timeout=60)
    assert "NotFound" in place.kubectl("get", "pod", "web", check=False).stderr


def test_get_describe_and_events_tell_of_the_pod(web: Platform) -> None:
    row = web.kubectl("get", "pod", "web", "-o", "wide").stdout.splitlines()[1].split()
    assert row[:4] == ["web", "2/2", "Running", "0"]
    described = web.kubectl("describe", "pod", "web").stdout
    for words in ("Successfully assigned default/web", "Started container nginx", "QoS Class:", "Ready:          True"):
        assert words in described, described
    assert "Scheduled" in web.kubectl("events", "--for", "pod/web").stdout
    assert web.kubectl("get", "nodes").stdout.splitlines()[1].split()[1] == "Ready"
    assert web.kubectl("apply", "-f", "-", stdin=WEB).stdout == "pod/web unchanged\n"
    web.kubectl("label", "pod", "web", "tier=front")
    assert web.kubectl("get", "pods", "-l", "tier=front", "-o", "name").stdout == "pod/web\n"


def test_port_forward_carries_a_page(web: Platform) -> None:
    with web.started([KUBECTL, "port-forward", "web", ":80"]) as process:
        assert process.stdout is not None
        port = process.stdout.readline().split(":")[1].split()[0]
        script = f"import urllib.request as r; print(r.urlopen('http://127.0.0.1:{port}/', timeout=20).read().decode())"
        for _ in range(2):
            assert "virtual machine of its own" in web.run(["python3", "-c", script]).stdout


def test_logs_follow_what_comes(web: Platform) -> None:
    with web.started([KUBECTL, "logs", "-f", "web", "-c", "nginx", "--tail=0"]) as process:
        assert process.stdout is not None
        fetch = ["exec", "web", "-c", "shell", "--", "wget", "-q", "-O", "-", "http://127.0.0.1/seen-in-the-log"]
        until = time.monotonic() + 30
        line = ""
        while "seen-in-the-log" not in line:  # probes are in the log as well
            assert time.monotonic() < until, "nothing came"
            if select.select([process.stdout], [], [], 0.5)[0]:
                line = process.stdout.readline()
            else:
                web.kubectl(*fetch, check=False)
    assert "seen-in-the-log" in web.kubectl("logs", "web", "-c", "nginx", "--tail=5").stdout
    assert web.kubectl("logs", "web", "-c", "nope", check=False).returncode == 1


def test_exec_has_output_code_and_input(web: Platform) -> None:
    done = web.kubectl("exec", "web", "-c", "shell", "--", "sh", "-c", "echo o; echo e >&2; exit 9", check=False)
    assert (done.returncode, done.stdout) == (9, "o\n")
    assert "e\n" in done.stderr
    assert web.kubectl("exec", "-i", "web", "-c", "shell", "--", "wc", "-c", stdin="x" * 200_000).stdout == "200000\n"


def test_exec_on_a_terminal_is_one_with_its_size(web: Platform) -> None:
    with terminal(web, "exec", "-it", "web", "-c", "shell", "--", "sh") as screen:
        screen.asked(b"stty size; tty\n", b"33 101")
        screen.shows(b"/dev/pts/")
        fcntl.ioctl(screen.ours, termios.TIOCSWINSZ, struct.pack("HHHH", 50, 120, 0, 0))
        screen.asked(b"stty size\n", b"50 120")
        screen.type(b"sleep 100\n")
        time.sleep(0.5)
        screen.type(b"\x03")  # interrupts the sleep, not the shell
        screen.type(b"echo still-$((40 + 2))\n")
        screen.shows(b"still-42")
        screen.type(b"exit 5\n")
        assert screen.code() == 5


def test_attach_is_the_container_s_own_terminal(web: Platform) -> None:
    with terminal(web, "attach", "-it", "web", "-c", "shell") as screen:
        screen.type(b"echo pid-$$\n")
        screen.shows(b"pid-1\r\n")


def test_cp_goes_both_ways(web: Platform, tmp_path: Path) -> None:
    content = os.urandom(300_000)
    (tmp_path / "there").write_bytes(content)
    web.kubectl("cp", str(tmp_path / "there"), "web:/tmp/there", "-c", "shell")
    web.kubectl("cp", "web:/tmp/there", str(tmp_path / "back"), "-c", "shell")
    assert (tmp_path / "back").read_bytes() == content


def test_top_shows_what_is_used(web: Platform) -> None:
    rows = [line.split() for line in web.kubectl("top", "pod", "web", "--containers").stdout.splitlines()[1:]]
    assert {row[1] for row in rows} == {"nginx", "shell"}
    assert all(row[3].endswith("Mi") for row in rows)
    assert web.kubectl("top", "node").stdout.splitlines()[1].split()[0] == web.pod("web")["spec"]["nodeName"]


CLIENT = """
import json, sys, time
from kubernetes import client, config, watch
from kubernetes.stream import stream
config.load_kube_config()
api = client.CoreV1Api()
body = json.load(sys.stdin)
api.create_namespaced_pod("default", body)
phases = []
for event in watch.Watch().stream(api.list_namespaced_pod, "default", field_selector="metadata.name=official",
                                  timeout_seconds=90):
    phases.append(event["object"].status.phase)
    if phases[-1] == "Running":
        break
said = stream(api.connect_get_namespaced_pod_exec, "official", "default", command=["sh", "-c", "echo $GREETING"],
              stdout=True, stderr=True, stdin=False, tty=False)
logs = api.read_namespaced_pod_log("official", "default")
api.patch_namespaced_pod("official", "default", {"metadata": {"labels": {"seen": "yes"}}})
labels = api.read_namespaced_pod("official", "default").metadata.labels
api.delete_namespaced_pod("official", "default", grace_period_seconds=0)
names = [pod.metadata.name for pod in api.list_namespaced_pod("default").items]
until = time.monotonic() + 30
while "official" in names and time.monotonic() < until:
    time.sleep(0.2)
    names = [pod.metadata.name for pod in api.list_namespaced_pod("default").items]
print(json.dumps({"phases": phases, "said": said, "logs": logs, "labels": labels, "left": "official" in names}))
"""


def test_the_official_python_client_does_create_watch_exec_and_delete(place: Platform) -> None:
    container = {
        "image": BUSYBOX, "args": ["sh", "-c", "echo started; sleep 3600"],
        "env": [{"name": "GREETING", "value": "hello"}],
    }  # fmt: skip
    body = json.dumps(kube.manifest("official", container))
    found = json.loads(place.run([sys.executable, "-W", "ignore", "-c", CLIENT], stdin=body, timeout=150).stdout)
    assert found["phases"][-1] == "Running"
    assert found["said"] == "hello\n"
    assert found["logs"] == "started\n"
    assert found["labels"] == {"app": "official", "seen": "yes"}
    assert not found["left"]
