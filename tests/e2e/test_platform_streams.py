"""kubectl's streams on a whole platform: a terminal, a forwarded port, files both ways, logs to the last word."""

from __future__ import annotations

import os
import re
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.e2e.conftest import image
from tests.harness.platform import VENV, Platform
from tests.harness.terminal import typed

pytestmark = [pytest.mark.e2e, pytest.mark.vm, pytest.mark.timeout(240)]
BUSYBOX, NGINX = image("busybox"), image("nginx")
KUBECTL = str(VENV / "kubectl")


@pytest.fixture
def box(pods: Platform) -> Iterator[Platform]:
    """A platform with the pod `box`, which does nothing."""
    pods.cuboid("run", "-d", "--name", "box", BUSYBOX, "sh", "-c", "trap 'exit 0' TERM; sleep 3600 & wait")
    yield pods


def test_exec_it_is_a_terminal_of_the_right_size_and_gives_the_exit_code(box: Platform) -> None:
    script = "stty size; echo ready; read line; echo got $line; exit 6"
    command = [KUBECTL, "exec", "-it", "box", "--", "sh", "-c", script]
    shown, code = typed(box, command, [("ready", b"hello\r")], (37, 111))
    assert "37 111" in shown and "got hello" in shown, shown
    assert code == 6


def test_port_forward_fetches_the_page_of_a_pod(pods: Platform) -> None:
    pods.cuboid("run", "-d", "--name", "web", NGINX)
    until = time.monotonic() + 40
    while (statuses := fetched(pods)) != ["200"] * 5 and time.monotonic() < until:
        time.sleep(0.5)  # the server has not begun to listen: kubectl gives up then
    assert statuses == ["200"] * 5


def fetched(place: Platform) -> list[str]:
    """HTTP codes of five requests over one port forwarding."""
    with place.started([KUBECTL, "port-forward", "pod/web", ":80"]) as process:
        assert process.stdout
        line = process.stdout.readline()
        found = re.search(r"127\.0\.0\.1:(\d+) ->", line)
        assert found, line
        url = f"http://127.0.0.1:{found[1]}/"
        script = f"import urllib.request as r; [print(r.urlopen('{url}', timeout=20).status) for _ in range(5)]"
        return place.run(["python3", "-c", script], check=False).stdout.split()


def test_cp_carries_bytes_unchanged_both_ways(box: Platform, tmp_path: Path) -> None:
    content = os.urandom(3_000_000)
    (tmp_path / "here").write_bytes(content)
    box.kubectl("cp", str(tmp_path / "here"), "box:/tmp/there")
    assert box.kubectl("exec", "box", "--", "wc", "-c", "/tmp/there").stdout.split()[0] == str(len(content))
    box.kubectl("cp", "box:/tmp/there", str(tmp_path / "back"))
    assert (tmp_path / "back").read_bytes() == content


def test_logs_are_complete_and_following_ends_with_the_container(pods: Platform) -> None:
    script = "i=0; while [ $i -lt 3000 ]; do i=$((i+1)); echo line $i; done; sleep 2; echo last words"
    pods.cuboid("run", "-d", "--name", "talker", "--restart", "no", BUSYBOX, "sh", "-c", script)
    followed = pods.kubectl("logs", "-f", "talker", timeout=60).stdout.splitlines()
    assert followed == [f"line {n}" for n in range(1, 3001)] + ["last words"]
    assert pods.kubectl("logs", "talker", "--tail=1").stdout == "last words\n"


def test_attach_ends_with_the_code_of_what_is_typed(pods: Platform) -> None:
    manifest = f"""
apiVersion: v1
kind: Pod
metadata: {{name: shell}}
spec:
  restartPolicy: Never
  containers: [{{name: main, image: "{BUSYBOX}", command: [sh], stdin: true, tty: true}}]
"""
    pods.kubectl("apply", "-f", "-", stdin=manifest)
    pods.kubectl("wait", "--for=condition=Ready", "pod/shell", "--timeout=60s")
    keys = [("#", b"echo $((40+2))\r"), ("42", b"exit 3\r")]
    shown, _ = typed(pods, [KUBECTL, "attach", "-it", "shell"], [("", b"\r"), *keys], (24, 80))
    assert "42" in shown, shown
    code = pods.wait("shell", lambda pod: pod["status"].get("phase") == "Failed")
    assert code["status"]["containerStatuses"][0]["state"]["terminated"]["exitCode"] == 3
