"""Pods and events that nobody ends any more."""

from __future__ import annotations

from typing import Any

import pytest

from cuboid.controllers import expiry, podgc
from cuboid.controllers.expiry import EventExpiry, expired
from cuboid.controllers.podgc import Cached, PodGarbage, Pods
from cuboid.kube import objects
from cuboid.kube.client import EVENTS, NODES, PODS
from cuboid.lib.clock import rfc3339
from tests.harness.control import World
from tests.harness.kube_server import pod

Object = dict[str, Any]


class Lazily:
    """A `Pods` of a world that does not exist yet."""

    def __init__(self) -> None:
        self.world: World | None = None

    def _all(self) -> Pods:
        assert self.world is not None
        return Cached(self.world.registry)

    def finished(self, beyond: int) -> list[Object]:
        return self._all().finished(beyond)

    def on_other_nodes(self, nodes: set[str]) -> Any:
        return self._all().on_other_nodes(nodes)


def names(world: World) -> list[str]:
    return [objects.name(one) for one in world.select(PODS)]


@pytest.fixture(params=["seen", "cached"])
def lazily(request: pytest.FixtureRequest) -> Lazily | None:
    return Lazily() if request.param == "cached" else None


async def test_the_oldest_of_too_many_finished_pods_go_those_evicted_first(lazily: Lazily | None) -> None:
    async with World(lambda: [PodGarbage(lazily, threshold=3)]) as world:
        if lazily is not None:
            lazily.world = world
        for number in range(6):
            await world.create(PODS, pod(f"done-{number}"))
            reason: Object = {"reason": "Evicted"} if number == 4 else {}
            await world.kubelet.run(f"done-{number}")
            await world.kubelet.finish(f"done-{number}", phase="Failed", **reason)
            world.clock.advance(1)
        await world.create(PODS, pod("at-work"))
        await world.kubelet.run("at-work")
        await world.add_node("node-1")
        await world.advance(podgc.INTERVAL + 1)
        assert names(world) == ["at-work", "done-2", "done-3", "done-5"]


async def test_pods_of_a_node_that_is_gone_fail_and_go_after_a_while(lazily: Lazily | None) -> None:
    async with World(lambda: [PodGarbage(lazily)]) as world:
        if lazily is not None:
            lazily.world = world
        for node in ("here", "there"):
            await world.add_node(node)
            body = pod(f"on-{node}")
            body["metadata"]["labels"] = {"nodeName": "here"}
            await world.create(PODS, body)
            await world.kubelet.bind(f"on-{node}", node)
            await world.kubelet.run(f"on-{node}")
        await world.patch(PODS, "on-there", {"metadata": {"finalizers": ["example.com/look"]}})
        await world.settle()
        await world.delete(NODES, "there")
        await world.advance(podgc.PATIENCE - 1)
        assert objects.phase(world.get(PODS, "on-there")) == "Running"
        await world.advance(2)
        lost = world.get(PODS, "on-there")
        assert objects.phase(lost) == "Failed"
        found = objects.condition(lost, "DisruptionTarget") or {}
        assert (found["reason"], found["message"]) == ("DeletionByPodGC", "PodGC: node no longer exists")
        assert objects.deleting(lost)
        assert objects.phase(world.get(PODS, "on-here")) == "Running"


async def test_a_node_that_comes_back_in_time_keeps_its_pods() -> None:
    async with World(lambda: [PodGarbage()]) as world:
        await world.add_node("node-1")
        await world.create(PODS, pod("web"))
        await world.kubelet.run("web")
        await world.settle()
        await world.delete(NODES, "node-1")
        await world.advance(podgc.PATIENCE - 1)
        await world.add_node("node-1")
        await world.advance(600)
        assert objects.phase(world.get(PODS, "web")) == "Running"


async def test_a_pod_of_no_node_that_is_to_end_fails_so_that_others_may_count_it() -> None:
    async with World(lambda: [PodGarbage()]) as world:
        body = pod("waits")
        body["metadata"]["finalizers"] = ["example.com/count"]
        await world.create(PODS, body)
        await world.delete(PODS, "waits")
        await world.settle()
        assert objects.phase(world.get(PODS, "waits")) == "Failed"
        await world.patch(PODS, "waits", {"metadata": {"finalizers": None}})
        assert not names(world)


# --- events ----------------------------------------------------------------------------------------------------------


def event(name: str, created: float, last: float | None = None) -> Object:
    about = {"kind": "Pod", "name": "x", "namespace": "default"}
    body: Object = {"metadata": {"name": name, "creationTimestamp": rfc3339(created)}, "involvedObject": about}
    return {**body, "lastTimestamp": rfc3339(last)} if last is not None else body


async def test_events_are_forgotten_an_hour_after_they_last_happened() -> None:
    async with World(lambda: [EventExpiry()]) as world:
        now = world.clock.now()
        await world.create(EVENTS, event("once", now))
        await world.create(EVENTS, event("again", now, now + 1800))
        await world.advance(expiry.LIFE - 60)
        assert len(world.select(EVENTS)) == 2
        await world.advance(180)
        assert [objects.name(one) for one in world.select(EVENTS)] == ["again"]
        await world.advance(1800)
        assert not world.select(EVENTS)


def test_an_event_from_the_future_is_kept_no_longer_than_two_lives() -> None:
    far = event("far", 0.0, 10**9)
    assert expired([far], 2 * expiry.LIFE + 1)
    assert not expired([far], 2 * expiry.LIFE - 1)


def test_of_too_many_events_the_oldest_go(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(expiry, "MAX_EVENTS", 2)
    found = expired([event("b", 20.0), event("a", 10.0), event("c", 30.0)], 40.0)
    assert [objects.name(one) for one in found] == ["a"]
