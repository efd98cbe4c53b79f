"""What a Docker user does in the first hour, on a whole platform."""

from __future__ import annotations

import json
import re
import time
from pathlib import Path

import pytest

from tests.e2e.conftest import image
from tests.harness import pods as kube
from tests.harness.platform import VENV, Platform
from tests.harness.terminal import typed

pytestmark = [pytest.mark.e2e, pytest.mark.vm, pytest.mark.timeout(240)]
BUSYBOX, NGINX = image("busybox"), image("nginx")


def running(pod: dict[str, object]) -> bool:
    status = pod["status"]
    return isinstance(status, dict) and status.get("phase") == "Running"


def test_run_prints_what_the_container_prints_and_ends_with_its_code(pods: Platform) -> None:
    done = pods.cuboid("run", "--rm", BUSYBOX, "sh", "-c", "echo out; echo err >&2; exit 42", check=False)
    assert done.returncode == 42, done.stderr
    assert done.stdout == "out\n"
    assert "err\n" in done.stderr
    assert pods.cuboid("ps", "-a", "-q").stdout == ""


def test_what_was_printed_before_anybody_attached_is_shown_in_full(pods: Platform) -> None:
    done = pods.cuboid("run", "--rm", "-q", BUSYBOX, "sh", "-c", "echo err >&2; seq 1 50000; sleep 3")
    assert done.stdout.splitlines() == [str(number) for number in range(1, 50_001)]
    assert done.stderr == "err\n"


def test_a_shell_shows_its_prompt_and_can_be_left_and_taken_again(pods: Platform) -> None:
    keys = [("#", b"echo $((40+2))\r"), ("42\r\n", b"\x10\x11")]
    shown, code = typed(pods, ["cuboid", "run", "-it", "-q", "--name", "shell", BUSYBOX, "sh"], keys, (24, 80))
    assert "42" in shown, shown
    assert code == 0
    keys = [("pressing enter", b"\r"), ("#", b"exit $((2+1))\r")]
    shown, _ = typed(pods, [str(VENV / "kubectl"), "attach", "-it", "shell"], keys, (24, 80))
    pod = pods.wait("shell", kube.ended)
    assert kube.terminated(pod, "main")["exitCode"] == 3, shown


def test_the_guest_has_a_kernel_of_its_own_and_the_options_reach_it(pods: Platform) -> None:
    script = "uname -r; id -u; id -g; pwd; echo $A-$B; hostname; nproc; grep -c . /proc/net/dev"
    done = pods.cuboid(
        "run", "--rm", "-q", "-e", "A=1", "-e", "B=two words", "-w", "/tmp", "-u", "1000:1000", "--hostname", "box",
        BUSYBOX, "sh", "-c", script,
    )  # fmt: skip
    lines = done.stdout.splitlines()
    assert lines[0].endswith(("-cuboid", "-cloud-amd64"))  # the minimal kernel, or Debian's
    assert lines[1:6] == ["1000", "1000", "/tmp", "1-two words", "box"]


def test_stdin_is_connected_with_i(pods: Platform) -> None:
    done = pods.cuboid(
        "run", "--rm", "-i", BUSYBOX, "sh", "-c", "read line; echo got $line; cat | wc -c", stdin="first\nrest\n"
    )
    assert done.stdout.split() == ["got", "first", "5"]


def test_a_published_port_answers_and_the_pod_reaches_others(pods: Platform) -> None:
    pods.cuboid("run", "-d", "--name", "web", "-p", "8080:80", NGINX)
    script = "import urllib.request as r; print(r.urlopen('http://127.0.0.1:8080/', timeout=10).read().decode())"
    until = time.monotonic() + 20
    while (page := pods.run(["python3", "-c", script], check=False)).returncode and time.monotonic() < until:
        time.sleep(0.2)
    assert "virtual machine of its own" in page.stdout
    ip = pods.pod("web")["status"]["podIP"]
    done = pods.cuboid("run", "--rm", "-q", BUSYBOX, "wget", "-q", "-O", "-", f"http://{ip}/")
    assert "virtual machine of its own" in done.stdout
    assert "0.0.0.0:8080->80/tcp" in pods.cuboid("ps").stdout
    assert pods.cuboid("port", "web").stdout == "80/tcp -> 0.0.0.0:8080\n"
    assert '"GET / HTTP/1.1" 200' in pods.cuboid("logs", "web").stdout


def test_exec_answers_with_output_and_code(pods: Platform) -> None:
    pods.cuboid("run", "-d", "--name", "target", BUSYBOX, "sleep", "3600")
    assert pods.cuboid("exec", "target", "echo", "hi").stdout == "hi\n"
    assert pods.cuboid("exec", "target", "sh", "-c", "exit 7", check=False).returncode == 7
    assert pods.cuboid("exec", "-i", "target", "cat", stdin="through").stdout == "through"
    missing = pods.cuboid("exec", "target", "no-such-program", check=False)
    assert missing.returncode == 127
    assert "no-such-program" in missing.stderr
    found = json.loads(
        pods.cuboid("exec", "-o", "json", "target", "sh", "-c", "echo a; echo b >&2; exit 3", check=False).stdout
    )
    assert found == {"exitCode": 3, "stdout": "a\n", "stderr": "b\n"}
    assert "sleep 3600" in pods.cuboid("top", "target").stdout


def test_a_terminal_is_one(pods: Platform) -> None:
    pods.cuboid("run", "-d", "--name", "term", BUSYBOX, "sleep", "3600")
    typed = 'stty rows 31 cols 99; cuboid exec -it term sh -c "tty; stty size"'
    done = pods.run(["script", "-qec", typed, "/dev/null"])
    assert "/dev/pts/" in done.stdout
    assert "31 99" in done.stdout


def test_files_go_in_and_come_out_without_tar_in_the_image(pods: Platform, tmp_path: Path) -> None:
    pods.cuboid("run", "-d", "--name", "files", BUSYBOX, "sleep", "3600")
    (tmp_path / "folder").mkdir()
    (tmp_path / "folder/one").write_text("1")
    (tmp_path / "folder/run").write_text("#!/bin/sh\necho ran\n")
    (tmp_path / "folder/run").chmod(0o755)
    pods.cuboid("cp", str(tmp_path / "folder"), "files:/root")
    assert pods.cuboid("exec", "files", "/root/folder/run").stdout == "ran\n"
    pods.cuboid("cp", str(tmp_path / "folder/one"), "files:/tmp/renamed")
    assert pods.cuboid("exec", "files", "cat", "/tmp/renamed").stdout == "1"
    pods.cuboid("cp", "files:/root/folder", str(tmp_path / "back"))
    assert (tmp_path / "back/one").read_text() == "1"
    missing = pods.cuboid("cp", "files:/nowhere", str(tmp_path), check=False)
    assert missing.returncode == 1
    assert "/nowhere" in missing.stderr


def test_a_stopped_pod_keeps_its_disk_and_starts_again(pods: Platform) -> None:
    pods.cuboid("run", "-d", "--name", "keeper", BUSYBOX, "sh", "-c", "echo start >> /root/starts; exec sleep 3600")
    pods.cuboid("stop", "keeper")
    assert "Stopped" in pods.cuboid("ps", "-a").stdout
    assert pods.vmms() == [] or all("keeper" not in str(pid) for pid in pods.vmms())
    pods.cuboid("start", "keeper")
    assert pods.cuboid("exec", "keeper", "cat", "/root/starts").stdout == "start\nstart\n"
    pods.cuboid("restart", "keeper")
    assert pods.cuboid("exec", "keeper", "cat", "/root/starts").stdout == "start\n" * 3


def test_a_named_volume_outlives_its_pods_and_has_one_writer(pods: Platform) -> None:
    for _ in range(2):
        pods.cuboid("run", "--rm", "-v", "data:/data", BUSYBOX, "sh", "-c", "echo x >> /data/visits")
    pods.cuboid("run", "-d", "--name", "holder", "-v", "data:/data", BUSYBOX, "sleep", "3600")
    assert pods.cuboid("exec", "holder", "cat", "/data/visits").stdout == "x\nx\n"
    second = pods.cuboid("run", "--name", "second", "-v", "data:/data", BUSYBOX, "true", check=False, timeout=60)
    assert second.returncode == 125
    assert "data" in second.stderr
    assert "holder" in second.stderr
    pods.cuboid("rm", "-f", "holder", "second")
    assert "data" in pods.cuboid("volume", "ls").stdout
    pods.cuboid("volume", "rm", "data")
    assert json.loads(pods.cuboid("volume", "ls", "-o", "json").stdout)["items"] == []


def test_logs_follow_and_are_told_in_part(pods: Platform) -> None:
    script = "for i in 1 2 3 4 5; do echo line $i; done; sleep 2; echo last"
    pods.cuboid("run", "-d", "--name", "talker", BUSYBOX, "sh", "-c", script)
    assert pods.cuboid("logs", "-f", "talker").stdout.splitlines() == [*[f"line {i}" for i in range(1, 6)], "last"]
    assert pods.cuboid("logs", "--tail", "2", "talker").stdout == "line 5\nlast\n"
    stamped = pods.cuboid("logs", "-t", "--tail", "1", "talker").stdout
    assert re.match(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d+Z last\n", stamped)


def test_a_start_writes_a_receipt(pods: Platform) -> None:
    pods.cuboid("run", "-d", "--name", "receipt", BUSYBOX, "sleep", "3600")
    answer = json.loads(pods.cuboid("why", "receipt", "-o", "json").stdout)
    names = {phase["name"] for phase in answer["receipt"]["phases"]}
    came_up = "kernel" if answer["receipt"]["start"] == "cold" else "agent"
    assert {"network", "image", "disk", came_up, "setup", "container"} <= names
    assert answer["receipt"]["totalSeconds"] > 0
    assert answer["cause"] is None
    assert "start receipt" in pods.cuboid("why", "receipt").stdout


def test_every_listing_verb_speaks_json(pods: Platform) -> None:
    pods.cuboid("run", "-d", "--name", "json", BUSYBOX, "sleep", "3600")
    for verb in (
        ["ps"],
        ["images"],
        ["stats"],
        ["events"],
        ["volume", "ls"],
        ["port", "json"],
        ["why", "json"],
        ["version"],
        ["inspect", "json"],
    ):
        assert json.loads(pods.cuboid(*verb, "-o", "json").stdout), verb
    stats = json.loads(pods.cuboid("stats", "json", "-o", "json").stdout)["items"]
    assert stats[0]["memoryBytes"] > 0


def test_memory_beyond_the_limit_is_told_as_such(pods: Platform) -> None:
    script = "x=a; while true; do x=$x$x; done"
    done = pods.cuboid("run", "--name", "hungry", "-m", "32m", BUSYBOX, "sh", "-c", script, check=False)
    assert done.returncode == 137
    assert "OOMKilled" in pods.cuboid("ps", "-a").stdout
    assert "-m" in pods.cuboid("why", "hungry").stdout


def test_an_image_is_imported_from_an_archive_run_and_removed(pods: Platform, tmp_path: Path) -> None:
    from cuboid.images.build import tar_layout
    from tools import debian_images

    archive = tmp_path / "image.tar"
    tar_layout(debian_images.layout("busybox"), archive)
    pods.cuboid("image", "import", str(archive), "--name", "imported:7")
    assert "imported" in pods.cuboid("images").stdout
    assert pods.cuboid("run", "--rm", "-q", "--pull", "never", "imported:7", "echo", "ok").stdout == "ok\n"
    inspected = json.loads(pods.cuboid("image", "inspect", "imported:7").stdout)
    assert inspected["architecture"] == "amd64"
    pods.cuboid("image", "rm", "imported:7")
    assert "imported" not in pods.cuboid("images").stdout


def test_doctor_finds_this_machine_fit(pods: Platform) -> None:
    findings = json.loads(pods.cuboid("doctor", "-o", "json").stdout)["findings"]
    assert not [row for row in findings if row["level"] == "fail"]
    assert any(row["name"] == "node" for row in findings)
