"""Events are counted instead of repeated, combined when they are alike, and never more than their bounds."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from typing import Any

import pytest

from cuboid.kube.client import CONFIG_MAPS, EVENTS
from cuboid.kube.controller.recorder import BURST, REFILL_SECONDS, SIMILAR, WAITING, Recorder
from cuboid.lib.aio import TaskSet
from tests.harness.control import World

Object = dict[str, Any]


@pytest.fixture
async def world() -> AsyncIterator[World]:
    async with World() as made:
        yield made


async def written(world: World, recorder: Recorder) -> list[Object]:
    """The events after all of them went out."""
    async with TaskSet("test") as tasks:
        tasks.start(recorder.run(), name="recorder")
        await asyncio.sleep(0.3)
    return world.select(EVENTS)


async def _about(world: World) -> Object:
    return await world.create(CONFIG_MAPS, {"metadata": {"name": "one"}})


async def test_the_same_event_is_written_once_and_counted(world: World) -> None:
    recorder, about = Recorder(world.client, "tester", world.clock.now), await _about(world)
    for _ in range(3):
        recorder.tell(about, "Normal", "Happened", "it did")
    (event,) = await written(world, recorder)
    assert (event["count"], event["reason"], event["message"]) == (3, "Happened", "it did")
    assert event["involvedObject"]["uid"] == about["metadata"]["uid"]
    assert event["source"]["component"] == "tester"
    world.clock.advance(30)
    recorder.tell(about, "Normal", "Happened", "it did")
    (event,) = await written(world, recorder)
    assert event["count"] == 4
    assert event["firstTimestamp"] < event["lastTimestamp"]


async def test_after_ten_minutes_it_is_a_new_one(world: World) -> None:
    recorder, about = Recorder(world.client, clock=world.clock.now), await _about(world)
    recorder.tell(about, "Normal", "Happened", "it did")
    await written(world, recorder)
    world.clock.advance(700)
    recorder.tell(about, "Normal", "Happened", "it did")
    assert [event["count"] for event in await written(world, recorder)] == [1, 1]


async def test_many_alike_become_one(world: World) -> None:
    recorder, about = Recorder(world.client, clock=world.clock.now), await _about(world)
    for number in range(SIMILAR + 8):
        recorder.tell(about, "Normal", "Happened", f"number {number}")
    events = await written(world, recorder)
    assert len(events) == SIMILAR + 1
    combined = next(event for event in events if event["message"].startswith("(combined from similar events)"))
    assert combined["count"] == 8


async def test_one_object_does_not_flood_the_rest(world: World) -> None:
    recorder, about = Recorder(world.client, clock=world.clock.now), await _about(world)
    for number in range(BURST + 20):
        recorder.tell(about, "Normal", f"Reason{number}", "it did")
    assert recorder.lost == 20
    world.clock.advance(2 * REFILL_SECONDS)
    recorder.tell(about, "Normal", "Later", "it did")
    assert recorder.lost == 20
    assert len(await written(world, recorder)) == BURST + 1


async def test_what_waits_is_bounded(world: World) -> None:
    recorder = Recorder(world.client, clock=world.clock.now)
    for number in range(WAITING + 5):
        about = {"kind": "ConfigMap", "metadata": {"name": "x", "namespace": "default", "uid": str(number)}}
        recorder.tell(about, "Normal", "Happened", "it did")
    assert recorder.lost == 5


async def test_an_event_that_has_expired_is_written_anew(world: World) -> None:
    recorder, about = Recorder(world.client, clock=world.clock.now), await _about(world)
    recorder.tell(about, "Normal", "Happened", "it did")
    (event,) = await written(world, recorder)
    await world.delete(EVENTS, event["metadata"]["name"])
    recorder.tell(about, "Normal", "Happened", "it did")
    (again,) = await written(world, recorder)
    assert again["count"] == 2


async def test_a_namespace_that_is_gone_costs_only_the_event(world: World) -> None:
    recorder, about = Recorder(world.client, clock=world.clock.now), await _about(world)
    recorder.tell({"kind": "Pod", "metadata": {"name": "x", "namespace": "gone", "uid": "u"}}, "Normal", "A", "b")
    recorder.tell(about, "Normal", "Happened", "it did")
    assert [event["reason"] for event in await written(world, recorder)] == ["Happened"]
    assert recorder.lost == 1
