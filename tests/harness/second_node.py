"""A second node agent beside that of a platform, on the same machine and in the same network namespace.

What two agents cannot share is theirs by settings: name, port, folders, bridge, addresses, control group, user ids.
"""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

from tests.harness import leftovers
from tests.harness.platform import VENV, Platform

NAME = "second"
UID_SHIFT = 500_000_000
READY_SECONDS = 90.0


class SecondNode:
    def __init__(self, place: Platform) -> None:
        self._place = place
        self.state, self.run_folder = place.folder / "s2", place.folder / "r2"
        self.cgroup = f"{place.cgroup}-2"
        self._process: subprocess.Popen[bytes] | None = None
        for name in ("templates", "vmm"):  # what the machine can do is known, and has been built
            if (place.state / name).is_dir():
                self.state.mkdir(mode=0o711, exist_ok=True)
                command = ["cp", "-a", "--sparse=always", str(place.state / name), str(self.state / name)]
                subprocess.run(command, check=True, timeout=60)

    @property
    def environment(self) -> dict[str, str]:
        own = self._place.environment
        return {
            **own,
            "CUBOID_NODE_NAME": NAME,
            "CUBOID_NODE_PORT": "10251",
            "CUBOID_NODE_WARM_MAX": "0",
            "CUBOID_NET_BRIDGE": "cuboid1",
            "CUBOID_NET_SUBNET": "10.78.0.0/16",
            "CUBOID_VMM_CGROUP_PARENT": self.cgroup,
            "CUBOID_VMM_UID_BASE": str(int(own["CUBOID_VMM_UID_BASE"]) + UID_SHIFT),
        }

    def _command(self, *more: str) -> list[str]:
        keys = self._place.state / "server"
        folders = ["--state", str(self.state), "--run", str(self.run_folder)]
        server = ["--server", f"unix:{self._place.run_folder}/api.sock", "--ca-file", str(keys / "ca.crt")]
        token = ["--token-file", str(keys / "admin.token")]
        return self._place.inside([str(VENV / "python"), "-m", "cuboid.node", *folders, *server, *token, *more])

    def start(self) -> None:
        log = self._place.state / "logs" / "second-node.log"
        with log.open("ab") as stream:
            self._process = subprocess.Popen(
                self._command(), env=self.environment, stdin=subprocess.DEVNULL, stdout=stream, stderr=stream,
                start_new_session=True,
            )  # fmt: skip
        until = time.monotonic() + READY_SECONDS
        while self._ready() != "True":
            assert self._process.poll() is None and time.monotonic() < until, log.read_text()[-2000:]
            time.sleep(0.2)

    def _ready(self) -> str:
        path = 'jsonpath={.status.conditions[?(@.type=="Ready")].status}'
        return self._place.kubectl("get", "node", NAME, "-o", path, check=False).stdout

    def vmms(self) -> list[int]:
        """Of its pods, as all its processes: those in its control group."""
        found = [int(entry.name) for entry in Path("/proc").iterdir() if entry.name.isdigit()]
        return [pid for pid in found if f"/{self.cgroup}/" in _groups(pid)]

    def kill(self) -> None:
        """The agent and every virtual machine at once, as when the host dies."""
        assert self._process is not None
        for pid in (self._process.pid, *self.vmms()):
            with suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
        self._process.wait(10)

    def close(self) -> None:
        """End it, and what it has on the machine; AssertionError naming what is left."""
        if self._process is not None and self._process.poll() is None:
            self._process.terminate()
            self._process.wait(30)
        done: subprocess.CompletedProcess[Any] = subprocess.run(
            self._command("--clean"), env=self.environment, stdin=subprocess.DEVNULL, capture_output=True, text=True,
            timeout=120, check=False,
        )  # fmt: skip
        left = self.vmms()
        for group in leftovers.own_groups(self.cgroup):
            with suppress(OSError):  # not empty: said below
                group.rmdir()
        assert done.returncode == 0, done.stderr
        assert not left, f"left behind: {left}"
        shutil.rmtree(self.state)


def _groups(pid: int) -> str:
    try:
        return Path(f"/proc/{pid}/cgroup").read_text()
    except OSError:
        return ""


@contextmanager
def second_node(place: Platform) -> Iterator[SecondNode]:
    """It is ready at the start of the block; at its end nothing is left of it, its Node object neither."""
    node = SecondNode(place)
    try:
        node.start()
        yield node
    finally:
        node.close()
        place.kubectl("delete", "node", NAME, "--ignore-not-found", check=False)
