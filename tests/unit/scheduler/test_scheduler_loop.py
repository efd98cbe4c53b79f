"""The scheduler on a real registry, in one process: pods get nodes, reasons, victims, and nothing is given twice."""

from __future__ import annotations

import asyncio
import random
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest

from cuboid.kube import namespaces
from cuboid.kube.cache import Cache
from cuboid.kube.client import NODES, PODS, Resource
from cuboid.kube.controller.sources import Follower, LocalSource
from cuboid.kube.kinds import Kinds
from cuboid.kube.local import LocalClient
from cuboid.kube.registry import Registry
from cuboid.kube.store import Store
from cuboid.lib.aio import TaskSet
from cuboid.lib.errors import UnavailableError
from cuboid.scheduler.loop import Scheduler
from tests.harness.kube_server import node

Object = dict[str, Any]


def pod(name: str, cpu: str = "1", **spec: Any) -> Object:
    container = {"name": "c", "image": "registry.example/app:1", "resources": {"requests": {"cpu": cpu}}}
    return {"metadata": {"name": name}, "spec": {"containers": [container], **spec}}


class Flaky(LocalClient):
    """Some bindings do not get through."""

    share = 0.0

    async def create(self, resource: Any, body: Object, namespace: str = "", **options: Any) -> Object:
        if options.get("sub") == "binding" and random.random() < self.share:
            raise UnavailableError("no route")
        return await super().create(resource, body, namespace, **options)


class Forgetful(LocalSource):
    """Remembers whom to tell that changes were missed."""

    def __init__(self, registry: Registry) -> None:
        super().__init__(registry)
        self.followers: list[Follower] = []

    def follow(self, resource: Resource, follower: Follower) -> None:
        self.followers.append(follower)
        super().follow(resource, follower)


@dataclass
class Told:
    lines: list[tuple[str, str, str]] = field(default_factory=list)

    def tell(self, about: Object, type_: str, reason: str, message: str) -> None:
        self.lines.append((about["metadata"]["name"], reason, message))


@dataclass
class Place:
    registry: Registry
    client: Flaky
    told: Told
    source: Forgetful

    async def pods(self) -> dict[str, Object]:
        return {item["metadata"]["name"]: item for item in (await self.client.list(PODS)).items}

    async def until(self, name: str, fine: Any) -> Object:
        async with asyncio.timeout(20):
            while True:
                found = (await self.pods()).get(name)
                if found is not None and fine(found):
                    return found
                await asyncio.sleep(0.01)

    async def bound(self, name: str) -> str:
        found = await self.until(name, lambda item: item["spec"].get("nodeName"))
        return str(found["spec"]["nodeName"])


@asynccontextmanager
async def scheduling(folder: Path) -> AsyncIterator[Place]:
    store = Store(folder / "store.db")
    try:
        kinds = Kinds()
        cache = Cache(store, {kind.stored_as: kind.strategy.selectable for kind in kinds.stored()})
        registry = Registry(store, cache, kinds)
        await namespaces.ensure_permanent(registry)
        source = Forgetful(registry)
        place = Place(registry, Flaky(registry), Told(), source)
        scheduler = Scheduler(place.client, source, place.told)
        async with TaskSet("test") as tasks:
            await source.run(tasks)
            tasks.start(scheduler.run(), name="scheduler")
            yield place
    finally:
        store.close()


def told_why(item: Object) -> str:
    conditions = item.get("status", {}).get("conditions", [])
    return next((c.get("message", "") for c in conditions if c["type"] == "PodScheduled"), "")


async def test_a_pod_gets_a_node_and_an_event(tmp_path: Path) -> None:
    async with scheduling(tmp_path) as place:
        await place.client.create(NODES, node("n"))
        await place.client.create(PODS, pod("web"), "default")
        assert await place.bound("web") == "n"
        async with asyncio.timeout(5):
            while not place.told.lines:
                await asyncio.sleep(0.01)
        assert place.told.lines == [("web", "Scheduled", "Successfully assigned default/web to n")]


async def test_a_pod_waits_until_a_node_comes_that_has_room(tmp_path: Path) -> None:
    async with scheduling(tmp_path) as place:
        await place.client.create(NODES, node("n"))
        await place.client.create(PODS, pod("big", cpu="6"), "default")
        waiting = await place.until("big", told_why)
        assert told_why(waiting).startswith("0/1 nodes are available: 1 Insufficient cpu. preemption: 0/1")
        large = node("m")
        large["status"]["allocatable"]["cpu"] = "8"
        await place.client.create(NODES, large)
        assert await place.bound("big") == "m"


async def test_the_end_of_another_makes_room(tmp_path: Path) -> None:
    async with scheduling(tmp_path) as place:
        await place.client.create(NODES, node("n"))
        await place.client.create(PODS, pod("first", cpu="3"), "default")
        await place.bound("first")
        await place.client.create(PODS, pod("second", cpu="3"), "default")
        await place.until("second", told_why)
        await place.client.delete(PODS, "first", "default", grace=0)
        assert await place.bound("second") == "n"


async def test_gates_hold_a_pod_until_the_last_is_gone(tmp_path: Path) -> None:
    async with scheduling(tmp_path) as place:
        await place.client.create(NODES, node("n"))
        await place.client.create(PODS, pod("gated", schedulingGates=[{"name": "x.y/z"}]), "default")
        assert told_why(await place.until("gated", told_why)) == (
            "Scheduling is blocked due to non-empty scheduling gates"
        )
        await place.client.patch(PODS, "gated", {"spec": {"schedulingGates": []}}, "default", form=_MERGE)
        assert await place.bound("gated") == "n"


_MERGE = "application/merge-patch+json"


async def test_an_important_pod_takes_the_place_of_a_lesser_one(tmp_path: Path) -> None:
    async with scheduling(tmp_path) as place:
        await place.client.create(NODES, node("n"))
        await place.client.create(PODS, pod("low", cpu="3"), "default")
        await place.bound("low")
        await place.client.create(PODS, pod("boss", cpu="3", priority=1000), "default")
        leaving = await place.until("low", lambda item: item["metadata"].get("deletionTimestamp"))
        assert any(c["type"] == "DisruptionTarget" for c in leaving["status"]["conditions"])
        boss = await place.until("boss", lambda item: item["status"].get("nominatedNodeName"))
        assert not boss["spec"].get("nodeName")
        await place.client.delete(PODS, "low", "default", grace=0)
        assert await place.bound("boss") == "n"


@pytest.mark.parametrize("seed", [1, 2, 3])
async def test_no_node_is_ever_overfull_though_bindings_fail(tmp_path: Path, seed: int) -> None:
    random.seed(seed)
    async with scheduling(tmp_path) as place:
        place.client.share = 0.3
        for name in ("a", "b"):
            await place.client.create(NODES, node(name))
        names = [f"p{number}" for number in range(12)]
        await asyncio.gather(*(place.client.create(PODS, pod(name, cpu="1"), "default") for name in names))
        async with asyncio.timeout(30):
            while True:
                found = await place.pods()
                where = [item["spec"].get("nodeName") for item in found.values()]
                assert all(where.count(name) <= 4 for name in ("a", "b")), where
                if len([name for name in where if name]) == 8:
                    break
                await asyncio.sleep(0.02)


async def test_after_missed_changes_everything_is_looked_at_again(tmp_path: Path) -> None:
    async with scheduling(tmp_path) as place:
        await place.client.create(NODES, node("n"))
        await place.client.create(PODS, pod("first", cpu="3"), "default")
        await place.bound("first")
        for follower in place.source.followers:
            follower.lost()
        await place.client.create(PODS, pod("second", cpu="3"), "default")
        assert "Insufficient cpu" in told_why(await place.until("second", told_why))
        await place.client.create(PODS, pod("third", cpu="1"), "default")
        assert await place.bound("third") == "n"
