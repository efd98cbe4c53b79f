"""A real API server process on a free loopback port, with its state in a temporary folder."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import httpx

from cuboid.server.kubeconfig import Access, render
from cuboid.server.main import ADDRESS_FILE
from cuboid.server.tls import client_context
from cuboid.server.tokens import read_admin

START_SECONDS = 30.0


@dataclass
class ServerProcess:
    """Start, kill and start it again; `http()` is a client with the administrator's token."""

    root: Path
    settings: dict[str, str] = field(default_factory=dict)
    process: subprocess.Popen[bytes] | None = None
    python: Path = Path(sys.executable)

    @property
    def folder(self) -> Path:
        return self.root / "state" / "server"

    @property
    def ca_file(self) -> Path:
        return self.folder / "ca.crt"

    @property
    def url(self) -> str:
        return (self.folder / ADDRESS_FILE).read_text().strip()

    @property
    def token(self) -> str:
        return read_admin(self.folder)

    def start(self) -> None:
        (self.folder / ADDRESS_FILE).unlink(missing_ok=True)
        environment = {
            "PATH": os.environ["PATH"],
            "CUBOID_STATE_DIR": str(self.root / "state"),
            "CUBOID_RUN_DIR": str(self.root / "run"),
            "CUBOID_SERVER_PORT": "0",
            "CUBOID_SERVER_DNS_PORT": "0",
            "PYTHONPATH": os.pathsep.join(path for path in sys.path if path.endswith(("site-packages", "/src"))),
            **{f"CUBOID_SERVER_{key.upper()}": value for key, value in self.settings.items()},
        }
        with (self.root / "log").open("ab") as log:
            self.process = subprocess.Popen(
                [self.python, "-m", "cuboid.server"],
                env=environment,
                stdout=log,
                stderr=log,
                stdin=subprocess.DEVNULL,
            )
        self._wait()

    def _wait(self) -> None:
        end = time.monotonic() + START_SECONDS
        while not (self.folder / ADDRESS_FILE).exists():
            if self.process is None or self.process.poll() is not None or time.monotonic() > end:
                raise AssertionError(f"the server did not start:\n{self.log()}")
            time.sleep(0.02)

    def log(self) -> str:
        return (self.root / "log").read_text()

    def kill(self, number: signal.Signals = signal.SIGKILL) -> int:
        """Returns the exit status."""
        assert self.process is not None
        self.process.send_signal(number)
        try:
            return self.process.wait(timeout=15)
        except subprocess.TimeoutExpired:
            self.process.kill()
            self.process.wait()
            raise

    def http(self) -> httpx.Client:
        headers = {"Authorization": f"Bearer {self.token}"}
        return httpx.Client(
            base_url=self.url, headers=headers, verify=client_context(self.ca_file), timeout=20, trust_env=False
        )

    def kubeconfig(self) -> Path:
        path = self.root / "kubeconfig"
        path.write_text(render(Access(self.url, self.ca_file.read_bytes(), self.token)))
        path.chmod(0o600)
        return path


@contextmanager
def serving(root: Path, *, python: Path = Path(sys.executable), **settings: str) -> Iterator[ServerProcess]:
    server = ServerProcess(root, settings, python=python)
    server.start()
    try:
        yield server
    finally:
        if server.process is not None and server.process.poll() is None:
            server.kill()


def pod(name: str = "web", **spec: Any) -> dict[str, Any]:
    """The smallest valid pod."""
    container = {"name": "main", "image": "registry.example/app:1"}
    return {"apiVersion": "v1", "kind": "Pod", "metadata": {"name": name}, "spec": {"containers": [container], **spec}}


def node(name: str = "node-1", *, port: int = 10250, memory: str = "4Gi") -> dict[str, Any]:
    """A ready node that answers on loopback."""
    resources = {"cpu": "4", "memory": memory, "pods": "110", "ephemeral-storage": "20Gi"}
    return {
        "apiVersion": "v1",
        "kind": "Node",
        "metadata": {"name": name, "labels": {"kubernetes.io/hostname": name}},
        "status": {
            "capacity": resources,
            "allocatable": resources,
            "conditions": [{"type": "Ready", "status": "True", "reason": "KubeletReady", "message": "ready"}],
            "addresses": [{"type": "InternalIP", "address": "127.0.0.1"}, {"type": "Hostname", "address": name}],
            "daemonEndpoints": {"kubeletEndpoint": {"Port": port}},
            "nodeInfo": {"kubeletVersion": "v1.37.0", "osImage": "Debian", "kernelVersion": "6.12"},
        },
    }
