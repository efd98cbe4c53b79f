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


@contextmanager
def pretended_node(place: Platform, name: str) -> Iterator[None]:
    """The node is removed behind the block; its pods should have gone before."""
    stop = threading.Event()
    thread = threading.Thread(target=lambda: place.enter(lambda: asyncio.run(_live(place, name, stop))), name=name)
    thread.start()
    try:
        place.kubectl("wait", "--for=create", f"node/{name}", "--timeout=20s")
        place.kubectl("wait", "--for=condition=Ready", f"node/{name}", "--timeout=20s")
        yield
    finally:
        stop.set()
        thread.join(timeout=30)
        place.kubectl("delete", "node", name, "--ignore-not-found", timeout=60)
        assert not thread.is_alive()


async def _live(place: Platform, name: str, stop: threading.Event) -> None:
    row = json.loads((place.state / "client.json").read_text())
    token = Path(row["token_file"]).read_text().strip()
    async with KubeClient(row["server"], token, Path(row["ca_file"])) as client:
        kubelet = FakeKubelet(client, time.time)
        kubelet.binds = False
        kubelet.dead = {place.node}  # a real node agent is there
        last = 0.0
        while not stop.is_set():
            with suppress(CuboidError):  # somebody else was faster
                if time.monotonic() - last > _BEAT:
                    last = time.monotonic()
                    await beat(client, name)
                await kubelet.work()
            await asyncio.sleep(0.2)
