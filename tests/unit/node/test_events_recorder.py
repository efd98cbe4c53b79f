from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from typing import Any

import pytest

from cuboid.kube.types import Pod, pod
from cuboid.lib.clock import ManualClock
from cuboid.lib.errors import CuboidError, InvalidError, NotFoundError, UnavailableError
from cuboid.node import events
from cuboid.node.events import EventRecorder


class Sink:
    def __init__(self) -> None:
        self.events: dict[str, dict[str, Any]] = {}
        self.failures: list[CuboidError] = []
        self.calls = 0

    async def create_event(self, namespace: str, event: dict[str, Any]) -> None:
        self._called()
        self.events[event["metadata"]["name"]] = event

    async def patch_event(self, namespace: str, name: str, changes: dict[str, Any]) -> None:
        self._called()
        if name not in self.events:
            raise NotFoundError("it has expired")
        self.events[name] |= changes

    def _called(self) -> None:
        self.calls += 1
        if self.failures:
            raise self.failures.pop(0)


class World:
    def __init__(self) -> None:
        self.sink, self.clock = Sink(), ManualClock()
        self.recorder = EventRecorder(self.sink, "node-1", clock=self.clock)

    async def sent(self) -> list[dict[str, Any]]:
        assert await self.recorder.flush(timeout=5)
        return list(self.sink.events.values())


@pytest.fixture
async def world(monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[World]:
    monkeypatch.setattr(events, "RETRY_SECONDS", 0.001)
    world = World()
    task = asyncio.get_running_loop().create_task(world.recorder.run())
    yield world
    task.cancel()
    await asyncio.gather(task, return_exceptions=True)


def make(name: str = "web", uid: str = "u-1") -> Pod:
    spec = {"containers": [{"name": "main"}], "initContainers": [{"name": "first"}]}
    return pod({"metadata": {"name": name, "namespace": "default", "uid": uid}, "spec": spec})


async def test_an_event_says_who_what_and_where(world: World) -> None:
    world.recorder.normal(make(), "Started", "Started container main", container="main")
    event = (await world.sent())[0]
    assert event["involvedObject"]["uid"] == "u-1"
    assert event["involvedObject"]["fieldPath"] == "spec.containers{main}"
    assert (event["type"], event["reason"], event["message"]) == ("Normal", "Started", "Started container main")
    assert event["source"] == {"component": "cuboid", "host": "node-1"}
    assert (event["count"], event["firstTimestamp"]) == (1, "2023-11-14T22:13:20Z")


async def test_repetitions_become_a_count(world: World) -> None:
    for _ in range(3):
        world.recorder.warning(make(), "BackOff", "Back-off restarting", container="first")
        await world.sent()
        world.clock.advance(60)
    [event] = await world.sent()
    assert (event["count"], event["lastTimestamp"]) == (3, "2023-11-14T22:15:20Z")
    assert event["involvedObject"]["fieldPath"] == "spec.initContainers{first}"


async def test_an_event_that_has_expired_is_made_anew_with_its_count(world: World) -> None:
    world.recorder.normal(make(), "Pulled", "x")
    await world.sent()
    world.sink.events.clear()
    world.recorder.normal(make(), "Pulled", "x")
    [event] = await world.sent()
    assert event["count"] == 2


async def test_a_server_that_is_away_loses_nothing_and_a_refusal_is_final(world: World) -> None:
    world.sink.failures = [UnavailableError("away"), UnavailableError("away")]
    world.recorder.normal(make(), "A", "kept")
    assert [e["message"] for e in await world.sent()] == ["kept"]
    world.sink.failures = [InvalidError("no")]
    before = world.sink.calls
    world.recorder.normal(make(), "B", "refused")
    await world.sent()
    assert world.sink.calls == before + 1


async def test_a_flood_of_one_pod_is_cut_off_and_others_are_not(world: World) -> None:
    for n in range(100):
        world.recorder.warning(make(), "Noise", f"number {n}")
    world.recorder.normal(make("other", "u-2"), "Started", "fine")
    sent = await world.sent()
    assert len(sent) == events.BURST + 1
    world.clock.advance(events.REFILL_SECONDS)
    world.recorder.warning(make(), "Noise", "later")
    assert len(await world.sent()) == events.BURST + 2


async def test_the_queue_is_bounded_and_nobody_waits(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(events, "QUEUE_LIMIT", 5)
    world = World()
    for n in range(20):
        world.recorder.normal(make(uid=f"u-{n}"), "Started", "x")
    task = asyncio.get_running_loop().create_task(world.recorder.run())
    assert len(await world.sent()) == 5
    task.cancel()
    await asyncio.gather(task, return_exceptions=True)


async def test_long_messages_are_shortened_at_a_character(world: World) -> None:
    world.recorder.normal(make(), "Long", "é" * 2000)
    message = (await world.sent())[0]["message"]
    assert len(message.encode()) <= 1024 and message.endswith("é...")
