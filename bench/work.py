"""Work that ends: a Job of many pods from its creation to Complete, and garbage of many owners until it is gone.

Registry, store (in memory), watch cache and controllers in one process, as in the server; pods only pretend.
"""

from __future__ import annotations

import asyncio
import shutil
import tempfile
import time
from collections.abc import Awaitable, Callable, Iterable
from pathlib import Path
from typing import Any

from bench.common import Result, summary
from cuboid.controllers.garbage import Garbage
from cuboid.controllers.garbage_kinds import CachedObjects
from cuboid.controllers.job import Jobs, ended
from cuboid.controllers.job_orphans import JobOrphans
from cuboid.kube import namespaces
from cuboid.kube.cache import Cache
from cuboid.kube.client import CONFIG_MAPS, JOBS, MERGE, PODS, SECRETS
from cuboid.kube.controller.runtime import Runtime
from cuboid.kube.controller.sources import LocalSource
from cuboid.kube.controller.view import Controller
from cuboid.kube.kinds import Kinds, builtin
from cuboid.kube.local import LocalClient
from cuboid.kube.registry import Registry
from cuboid.kube.store import Store
from cuboid.lib.aio import TaskSet

TURNS = 3
PODS_OF_JOB, AT_ONCE = 2_000, 100
OWNERS, OWNED = 100, 10_000
BATCH = 500
LOOK = 0.01
Object = dict[str, Any]
Turn = Callable[[Registry, LocalClient], Awaitable[dict[str, float]]]


class Silent:
    def tell(self, about: Object, type_: str, reason: str, message: str) -> None:
        """Events are not what is measured."""


class Pauses:
    """The longest time that the event loop was not to be had, seconds."""

    def __init__(self) -> None:
        self.longest = 0.0

    async def look(self) -> None:
        began = time.monotonic()
        await asyncio.sleep(LOOK)
        self.longest = max(self.longest, time.monotonic() - began - LOOK)


def measure() -> Result:
    jobs = [asyncio.run(_turn(_job, lambda _: [Jobs(), JobOrphans()])) for _ in range(TURNS)]
    found = [asyncio.run(_turn(_garbage, lambda reg: [Garbage(reg.kinds, CachedObjects(reg))])) for _ in range(TURNS)]
    figures = {name: summary([turn[name] for turn in turns], 2) for turns in (jobs, found) for name in turns[0]}
    return {
        "what": f"a Job of {PODS_OF_JOB} pods, {AT_ONCE} at once; {OWNED} objects of {OWNERS} owners, collected",
        "unit": "s",
        **figures, "bar": "none", "verdict": "measured",
    }  # fmt: skip


async def _turn(turn: Turn, controllers: Callable[[Registry], Iterable[Controller]]) -> dict[str, float]:
    folder = Path(tempfile.mkdtemp(prefix="cbw-", dir="/dev/shm"))
    store, kinds = Store(folder / "store.db"), Kinds()
    try:
        cache = Cache(store, {kind.stored_as: kind.strategy.selectable for kind in kinds.stored()})
        registry = Registry(store, cache, kinds)
        await namespaces.ensure_permanent(registry)
        client = LocalClient(registry)
        async with TaskSet("bench") as tasks:
            runtime = Runtime(client, LocalSource(registry), Silent(), controllers(registry))
            running = tasks.start(runtime.run(), name="controllers")
            figures = await turn(registry, client)
            running.cancel()
        return figures
    finally:
        store.close()
        shutil.rmtree(folder)


async def _job(registry: Registry, client: LocalClient) -> dict[str, float]:
    pod = {"restartPolicy": "Never", "containers": [{"name": "main", "image": "sums"}]}
    spec = {"completions": PODS_OF_JOB, "parallelism": AT_ONCE, "template": {"spec": pod}}
    pods, done, pauses = registry.of(builtin("Pod")), set[str](), Pauses()
    began = time.monotonic()
    job = await client.create(JOBS, {"metadata": {"name": "sums"}, "spec": spec}, "default")
    while not ended(job):
        await pauses.look()
        fresh = [entry.key.name for entry in pods if entry.key.name not in done]
        done.update(fresh)
        body = {"status": {"phase": "Succeeded"}}
        await asyncio.gather(*(client.patch(PODS, name, body, "default", form=MERGE, sub="status") for name in fresh))
        job = await client.get(JOBS, "sums", "default")
    assert job["status"]["succeeded"] == PODS_OF_JOB
    return {"job": time.monotonic() - began, "longest pause, job": pauses.longest}


async def _garbage(registry: Registry, client: LocalClient) -> dict[str, float]:
    names = [f"owner-{number}" for number in range(OWNERS)]
    owners = [await client.create(SECRETS, {"metadata": {"name": name}}, "default") for name in names]

    async def own(number: int) -> None:
        metadata = owners[number % OWNERS]["metadata"]
        ref = {"apiVersion": "v1", "kind": "Secret", "name": metadata["name"], "uid": metadata["uid"]}
        body = {"metadata": {"name": f"owned-{number}", "ownerReferences": [ref]}, "data": {"text": "x" * 500}}
        await client.create(CONFIG_MAPS, body, "default")

    began = time.monotonic()
    for first in range(0, OWNED, BATCH):
        await asyncio.gather(*(own(number) for number in range(first, first + BATCH)))
    made = time.monotonic() - began
    began, pauses, left = time.monotonic(), Pauses(), registry.of(builtin("ConfigMap"))
    await asyncio.gather(*(client.delete(SECRETS, name, "default") for name in names))
    while left.count:
        await pauses.look()
    gone = time.monotonic() - began
    return {"objects made": made, "objects collected": gone, "longest pause, collection": pauses.longest}
