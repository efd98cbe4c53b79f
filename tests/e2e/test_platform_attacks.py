"""A tenant that is root in its machine, an image that is nonsense, and another user of the host: what they get."""

from __future__ import annotations

import hashlib
import json
import os
import shutil
import socket
import stat
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from tests.e2e.conftest import image
from tests.harness import pods as kube
from tests.harness.platform import Object, Platform
from tools import debian_images

pytestmark = [pytest.mark.e2e, pytest.mark.vm, pytest.mark.timeout(240)]
BUSYBOX = image("busybox")
ABSURD = image("absurd")
STRANGER = 65_534
OPEN_PORT = 9099  # on all addresses of the host
# What every user of the host may know: certificates, the addresses of pods, the probe's guest, kernels.
PUBLIC = {".crt", ".initramfs", ".kernel"}
PUBLIC_FOLDERS = ("ipam", "boot", "netns")

ATTACK = f"""
host=$(ip route | awk '/^default/ {{print $3}}')
for port in 6443 10250 5000 {OPEN_PORT}; do
  nc -w 3 $host $port < /dev/null > /dev/null 2>&1 && echo "reached $port" || echo "closed $port"
done
echo disks $(awk '/vd/ {{print $4}}' /proc/partitions)
printf 'log \\033[2J\\033]0;owned\\007 end\\n'
head -c 3000000 /dev/zero | tr '\\0' A; echo
(head -c 4000000 /dev/urandom > /dev/hvc0) 2> /dev/null &
dd if=/dev/zero of=/filler bs=1M count=64 2> /dev/null
printf 'told \\033[2J\\033]0;owned\\007 \\342\\200\\256' > /dev/termination-log
head -c 1000000 /dev/urandom >> /dev/termination-log
exit 3
"""
BOMB = "bomb() { bomb | bomb & }; bomb 2> /dev/null; sleep 2"


def push_absurd(place: Platform) -> None:
    """The busybox image with a configuration that no builder would write."""
    folder = place.folder / "absurd"
    shutil.copytree(debian_images.layout("busybox"), folder)
    index = json.loads((folder / "index.json").read_text())
    manifest = _blob(folder, index["manifests"][0])
    config = _blob(folder, manifest["config"])
    config["config"] = {
        "Env": ["PATH=/bin", "NO_VALUE", "=x", "", "A=\u202e\x1b[2J", *(f"V{i}=x" for i in range(3000))],
        "Cmd": ["sleep", "1"], "Entrypoint": None, "WorkingDir": "../../../proc/../a", "StopSignal": "SIG\x1b[2J9",
        "Volumes": {"../../x": {}, "/": {}, "/proc": {}}, "ExposedPorts": {"99999999999/\x1b[2J": {}},
        "Labels": {"\x1b[2J": "\x1b]0;owned\x07" * 1000},
    }  # fmt: skip
    manifest["config"] |= _put(folder, config)
    index["manifests"][0] |= _put(folder, manifest)
    (folder / "index.json").write_text(json.dumps(index))
    place.run([sys.executable, "-m", "tools.push", str(folder), ABSURD])


def _blob(folder: Path, descriptor: dict[str, Any]) -> dict[str, Any]:
    found: dict[str, Any] = json.loads((folder / "blobs/sha256" / descriptor["digest"][7:]).read_text())
    return found


def _put(folder: Path, content: dict[str, Any]) -> dict[str, Any]:
    raw = json.dumps(content).encode()
    digest = hashlib.sha256(raw).hexdigest()
    (folder / "blobs/sha256" / digest).write_bytes(raw)
    return {"digest": f"sha256:{digest}", "size": len(raw)}


def test_root_in_a_machine_reaches_nothing_and_says_nothing_to_a_terminal(pods: Platform) -> None:
    push_absurd(pods)
    attacker = {"image": BUSYBOX, "command": ["sh", "-c", ATTACK], "securityContext": {"privileged": True}}
    bomber: Object = {"name": "bomber", "image": BUSYBOX, "command": ["sh", "-c", BOMB]}
    bomber["resources"] = {"limits": {"memory": "32Mi"}}
    absurd = {"name": "absurd", "image": ABSURD}
    spec = kube.manifest("attacker", attacker, bomber, absurd, restartPolicy="Never")
    listener = [sys.executable, "-m", "http.server", str(OPEN_PORT), "--bind", "0.0.0.0"]
    with pods.started(listener):
        kube.until(lambda: pods.enter(lambda: _connects(OPEN_PORT)), "the host's own service answers")
        kube.apply(pods, spec)
        pod = pods.wait("attacker", kube.ended, timeout=120)
    log = pods.cuboid("logs", "attacker", "-c", "app").stdout
    assert [line for line in log.splitlines() if line.startswith(("reached", "closed"))] == [
        f"closed {port}" for port in (6443, 10250, 5000, OPEN_PORT)
    ]
    assert len(next(line for line in log.splitlines() if line.startswith("disks")).split()) <= 5  # images, disk, slot
    assert pod["status"]["phase"] == "Failed"
    ended = kube.terminated(pod)
    assert ended["exitCode"] == 3 and len(ended["message"]) <= 4096
    refused = kube.terminated(pod, "absurd")
    assert (refused["reason"], "working directory" in refused["message"]) == ("StartError", True)
    _check_output(pods)


def _check_output(place: Platform) -> None:
    """Commands that tell of a pod pass on none of its escapes; `logs` is the container's own output."""
    for command in (("why", "attacker"), ("ps", "-a"), ("events", "attacker"), ("images",)):
        said = place.cuboid(*command, check=False)
        assert "\x1b" not in said.stdout + said.stderr and "\u202e" not in said.stdout, command
    daemons = "".join(path.read_text(errors="replace") for path in place.state.glob("logs/*.log"))
    assert "\x1b" not in daemons and "Traceback" not in daemons


def _connects(port: int) -> bool:
    try:
        socket.create_connection(("127.0.0.1", port), 2).close()
    except OSError:
        return False
    return True


def test_another_user_of_the_host_reads_and_reaches_nothing_of_the_platform(pods: Platform) -> None:
    kube.apply(pods, kube.manifest("victim", {"image": BUSYBOX, "command": ["sleep", "600"]}))
    pods.wait("victim", kube.ready)
    files = [path for root in (pods.state, pods.run_folder) for path in root.rglob("*")]
    sockets = [path for path in files if stat.S_ISSOCK(path.lstat().st_mode)]
    assert len(sockets) >= 2 and any("store.db" in path.name for path in files)
    assert [path for path in _readable(files) if not _public(path)] == []
    assert _reached(sockets) == []
    answer = (
        "import socket, ssl; c = ssl._create_unverified_context(); s = socket.create_connection(('127.0.0.1', 10250))"
    )
    ask = (
        f"{answer}; t = c.wrap_socket(s); t.sendall(b'GET /pods HTTP/1.1\\r\\nHost: x\\r\\n\\r\\n'); print(t.recv(99))"
    )
    said = pods.run(["setpriv", f"--reuid={STRANGER}", "--clear-groups", "/usr/bin/python3", "-c", ask], check=False)
    assert "HTTP" not in said.stdout


def _public(path: Path) -> bool:
    return path.suffix in PUBLIC or path.name == "address" or any(name in path.parts for name in PUBLIC_FOLDERS)


def _as_stranger(script: str, paths: list[Path]) -> list[Path]:
    """The paths for which `script`, a shell condition on $path, holds for a user without rights."""
    loop = f'while read -r path; do if {script}; then echo "$path"; fi; done'
    command = ["setpriv", f"--reuid={STRANGER}", f"--regid={STRANGER}", "--clear-groups", "bash", "-c", loop]
    lines = "".join(f"{path}\n" for path in paths)
    done = subprocess.run(command, input=lines, capture_output=True, text=True, timeout=60, check=True)
    return [Path(line) for line in done.stdout.splitlines()]


def _readable(paths: list[Path]) -> list[Path]:
    return _as_stranger('[ -f "$path" ] && cat "$path" > /dev/null 2>&1', paths)


def _reached(paths: list[Path]) -> list[Path]:
    connect = "import socket, sys; socket.socket(socket.AF_UNIX).connect(sys.argv[1])"
    assert os.geteuid() == 0
    return _as_stranger(f'/usr/bin/python3 -c "{connect}" "$path" 2> /dev/null', paths)
