"""The scheduler as a process of its own, over HTTP, for pods that ask for it by name."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from tests.harness.kube_server import ServerProcess, node, pod, serving


@contextmanager
def scheduler(server: ServerProcess) -> Iterator[subprocess.Popen[bytes]]:
    command = [sys.executable, "-m", "cuboid.scheduler", "--kubeconfig", str(server.kubeconfig())]
    path = os.pathsep.join(entry for entry in sys.path if entry.endswith(("site-packages", "/src")))
    process = subprocess.Popen(command, env={**os.environ, "PYTHONPATH": path}, stdin=subprocess.DEVNULL)
    try:
        yield process
    finally:
        process.kill()
        process.wait(timeout=10)


def node_of(server: ServerProcess, name: str) -> str:
    until = time.monotonic() + 40
    with server.http() as http:
        while time.monotonic() < until:
            found = http.get(f"/api/v1/namespaces/default/pods/{name}").json()["spec"].get("nodeName", "")
            if found:
                return str(found)
            time.sleep(0.1)
    return ""


def wanted(server: ServerProcess, name: str) -> None:
    with server.http() as http:
        body = pod(name, schedulerName="cuboid-scheduler")
        assert http.post("/api/v1/namespaces/default/pods", json=body).status_code == 201


def test_it_places_pods_of_its_name_and_another_takes_over_when_it_is_killed(tmp_path: Path) -> None:
    with serving(tmp_path) as server:
        with server.http() as http:
            assert http.post("/api/v1/nodes", json=node("n")).status_code == 201
        wanted(server, "first")
        with scheduler(server):  # killed at the end: its lease stays with it
            assert node_of(server, "first") == "n"
        with scheduler(server):
            wanted(server, "second")
            assert node_of(server, "second") == "n"
