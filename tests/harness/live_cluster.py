"""A real API server process with nodes that only pretend: pods start, become ready and end by themselves. For tests of
what controllers do, seen with real clients."""

from __future__ import annotations

import asyncio
import json
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

from cuboid.kube.client import LEASES, NODES, Client, KubeClient
from cuboid.lib.clock import rfc3339_micro
from cuboid.lib.errors import AlreadyExistsError, CuboidError
from tests.harness.fake_kubelet import FakeKubelet
from tests.harness.kube_server import ServerProcess, node, serving

Object = dict[str, Any]
KUBECTL = Path(".venv/bin/kubectl").absolute()
_BEAT = 1.0


class LiveCluster:
    """`kubelet` may be told to leave pods unready or alone."""

    def __init__(self, server: ServerProcess, nodes: tuple[str, ...]) -> None:
        self.server = server
        self._nodes = nodes
        self._config = server.kubeconfig()
        self._stop = threading.Event()
        self._thread = threading.Thread(target=lambda: asyncio.run(self._live()), name="kubelets")
        self.makes_ready = True
        self.dead: set[str] = set()
        """Nodes that say nothing any more."""

    def kubectl(self, *words: str, stdin: str = "", check: bool = True, seconds: float = 60) -> str:
        """What it prints."""
        done = subprocess.run(
            [KUBECTL, "--kubeconfig", self._config, *words],
            input=stdin, capture_output=True, text=True, timeout=seconds, check=False,
        )  # fmt: skip
        assert not check or done.returncode == 0, f"kubectl {' '.join(words)}: {done.stdout}{done.stderr}"
        return done.stdout + ("" if check else done.stderr)

    def get(self, *words: str) -> Object:
        found: Object = json.loads(self.kubectl("get", *words, "-o", "json"))
        return found

    def apply(self, document: Object) -> None:
        self.kubectl("apply", "-f", "-", stdin=json.dumps(document))

    def until(self, found: Callable[[], object], what: str, seconds: float = 30.0) -> None:
        end = time.monotonic() + seconds
        while not found():
            assert time.monotonic() < end, f"{what}\n{self.server.log()[-3000:]}"
            time.sleep(0.1)

    def start(self) -> None:
        self._thread.start()

    def stop(self) -> None:
        self._stop.set()
        self._thread.join(timeout=30)
        assert not self._thread.is_alive()

    async def _live(self) -> None:
        async with KubeClient(self.server.url, self.server.token, self.server.ca_file) as client:
            kubelet = FakeKubelet(client, time.time)
            kubelet.binds = self.server.settings.get("controllers") == "false"  # then there is no scheduler either
            last = 0.0
            while not self._stop.is_set():
                if time.monotonic() - last > _BEAT:
                    last = time.monotonic()
                    for name in set(self._nodes) - self.dead:
                        await beat(client, name)
                kubelet.makes_ready, kubelet.dead = self.makes_ready, self.dead
                with suppress(CuboidError):  # somebody else was faster
                    await kubelet.work()
                await asyncio.sleep(0.1)


async def beat(client: Client, name: str) -> None:
    """The node is there, and alive now."""
    now = rfc3339_micro(time.time())
    with suppress(AlreadyExistsError):
        await client.create(NODES, node(name))
    spec = {"holderIdentity": name, "leaseDurationSeconds": 8, "renewTime": now}
    with suppress(AlreadyExistsError):
        await client.create(LEASES, {"metadata": {"name": name}, "spec": spec}, "kube-node-lease")
        return
    await client.patch(LEASES, name, {"spec": {"renewTime": now}}, "kube-node-lease")


@contextmanager
def living(root: Path, *nodes: str, **settings: str) -> Iterator[LiveCluster]:
    with serving(root, python=Path(sys.executable), **settings) as server:
        cluster = LiveCluster(server, nodes or ("node-1",))
        cluster.start()
        try:
            yield cluster
        finally:
            cluster.stop()
