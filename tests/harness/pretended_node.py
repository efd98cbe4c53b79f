"""A second node of a platform, which only pretends: its pods run, are ready and end without a machine."""

from __future__ import annotations

import asyncio
import json
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from cuboid.kube.client import KubeClient
from cuboid.lib.errors import CuboidError
from tests.harness.fake_kubelet import FakeKubelet
from tests.harness.live_cluster import beat
from tests.harness.platform import Platform

_BEAT = 1.0  # s


class PretendedNode:
    def __init__(self, name: str) -> None:
        self.name = name
        self._dead = threading.Event()

    def die(self) -> None:
        """From now on nothing is heard of it."""
        self._dead.set()

    async def live(self, place: Platform) -> None:
        row = json.loads((place.state / "client.json").read_text())
        token = Path(row["token_file"]).read_text().strip()
        async with KubeClient(row["server"], token, Path(row["ca_file"])) as client:
            kubelet = FakeKubelet(client, time.time)
            kubelet.binds = False
            kubelet.dead = {place.node}  # a real node agent is there
            last = 0.0
            while not self._dead.is_set():
                with suppress(CuboidError):  # somebody else was faster
                    if time.monotonic() - last > _BEAT:
                        last = time.monotonic()
                        await beat(client, self.name)
                    await kubelet.work()
                await asyncio.sleep(0.2)


@contextmanager
def pretended_node(place: Platform, name: str) -> Iterator[PretendedNode]:
    """The node is removed behind the block; its pods should have gone before."""
    node = PretendedNode(name)
    thread = threading.Thread(target=lambda: place.enter(lambda: asyncio.run(node.live(place))), name=name)
    thread.start()
    try:
        place.kubectl("wait", "--for=create", f"node/{name}", "--timeout=20s")
        place.kubectl("wait", "--for=condition=Ready", f"node/{name}", "--timeout=20s")
        yield node
    finally:
        node.die()
        thread.join(timeout=30)
        place.kubectl("delete", "node", name, "--ignore-not-found", timeout=60)
        assert not thread.is_alive()
