"""The runtime of controllers: one plan per key at a time, failures later again, nothing missed or read in vain."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import pytest

from cuboid.kube import objects
from cuboid.kube.client import CONFIG_MAPS, SECRETS, Client, Resource
from cuboid.kube.controller.instructions import NOTHING, Create, Delete, Patch, Plan, Together
from cuboid.kube.controller.queue import KeyQueue
from cuboid.kube.controller.remote import RemoteSource
from cuboid.kube.controller.runtime import Runtime
from cuboid.kube.controller.sources import LocalSource, Source
from cuboid.kube.controller.view import Controller, Key, View, Watch, itself
from cuboid.kube.selectors import Requirement
from cuboid.lib.aio import TaskSet
from cuboid.lib.errors import CuboidError
from tests.harness.control import World

KEY = Key("default", "one")


class Silent:
    def tell(self, *_: Any) -> None: ...


class Mirror:
    """Every ConfigMap becomes a Secret of the same name; a Secret that goes comes back."""

    name = "mirror"
    watches: tuple[Watch, ...] = (Watch(CONFIG_MAPS, itself, initial=True), Watch(SECRETS, itself))

    def __init__(self) -> None:
        self.seen: list[Key] = []
        self.broken = 0

    def plan(self, key: Key, view: View, now: float) -> Plan:
        self.seen.append(key)
        if self.broken:
            self.broken -= 1
            raise RuntimeError("a defect")
        if view.get(CONFIG_MAPS, key.namespace, key.name) is None:
            return NOTHING
        if view.get(SECRETS, key.namespace, key.name) is not None:
            return NOTHING
        return Plan((Create(SECRETS, {"metadata": {"name": key.name}}, key.namespace),))


@asynccontextmanager
async def running(client: Client, source: Source, *controllers: Controller) -> AsyncIterator[Runtime]:
    runtime = Runtime(client, source, Silent(), controllers)
    async with TaskSet("test") as tasks:
        tasks.start(runtime.run(), name="runtime")
        yield runtime


async def until(found: Any, seconds: float = 10.0) -> None:
    async with asyncio.timeout(seconds):
        while not found():
            await asyncio.sleep(0.005)


@pytest.fixture
async def world() -> AsyncIterator[World]:
    async with World() as made:
        yield made


def source_of(world: World, kind: str) -> Source:
    return LocalSource(world.registry) if kind == "local" else RemoteSource(world.client)


@pytest.mark.parametrize("kind", ["local", "remote"])
async def test_what_exists_and_what_comes_is_taken_care_of(world: World, kind: str) -> None:
    await world.create(CONFIG_MAPS, {"metadata": {"name": "before"}})
    async with running(world.client, source_of(world, kind), Mirror()):
        await until(lambda: world.view.get(SECRETS, "default", "before"))
        await world.create(CONFIG_MAPS, {"metadata": {"name": "later"}})
        await until(lambda: world.view.get(SECRETS, "default", "later"))
        await world.delete(SECRETS, "later")
        await until(lambda: world.view.get(SECRETS, "default", "later"))


@pytest.mark.parametrize("kind", ["local", "remote"])
async def test_only_what_a_controller_is_about_is_told_at_the_start(world: World, kind: str) -> None:
    await world.create(SECRETS, {"metadata": {"name": "not-mine"}})
    await world.create(CONFIG_MAPS, {"metadata": {"name": "mine"}})
    mirror = Mirror()
    async with running(world.client, source_of(world, kind), mirror):
        await until(lambda: world.view.get(SECRETS, "default", "mine"))
    assert {key.name for key in mirror.seen} == {"mine"}


async def test_a_defect_of_a_controller_is_counted_and_tried_again(world: World) -> None:
    mirror = Mirror()
    mirror.broken = 2
    await world.create(CONFIG_MAPS, {"metadata": {"name": "one"}})
    async with running(world.client, LocalSource(world.registry), mirror) as runtime:
        await until(lambda: world.view.get(SECRETS, "default", "one"))
        await until(lambda: runtime.counts["mirror", "done"])
        assert runtime.counts["mirror", "broken"] == 2


async def test_a_watcher_that_was_cut_off_looks_at_everything_again(world: World) -> None:
    async with running(world.client, LocalSource(world.registry), Mirror()):
        await world.create(CONFIG_MAPS, {"metadata": {"name": "one"}})
        await until(lambda: world.view.get(SECRETS, "default", "one"))
        for watchers in (world.registry.cache["", "configmaps"], world.registry.cache["", "secrets"]):
            watchers.end()
        await world.create(CONFIG_MAPS, {"metadata": {"name": "two"}})
        await until(lambda: world.view.get(SECRETS, "default", "two"))


async def test_a_kind_that_appears_later_is_followed_then(world: World) -> None:
    later = Resource("later.example.org", "v1", "things")
    kind = world.registry.kinds.find("", "v1", "configmaps")
    assert kind is not None

    class Things(Mirror):
        watches = (Watch(later, itself, initial=True),)

    things = Things()
    async with running(world.client, LocalSource(world.registry), things):
        await asyncio.sleep(0.05)
        assert things.seen == []
        await world.create(CONFIG_MAPS, {"metadata": {"name": "one"}})
        known = world.registry.kinds.find
        world.registry.kinds.find = lambda group, version, plural: (  # type: ignore[method-assign]
            kind if plural == "things" else known(group, version, plural)
        )
        await until(lambda: KEY in things.seen)


class Sequence(Mirror):
    """Carries out what it is given, once."""

    watches = (Watch(CONFIG_MAPS, itself, initial=True),)

    def __init__(self, *plans: Plan) -> None:
        super().__init__()
        self.plans = list(plans)

    def plan(self, key: Key, view: View, now: float) -> Plan:
        self.seen.append(key)
        return self.plans.pop(0) if self.plans else NOTHING


async def test_a_refused_plan_says_so_before_it_is_tried_again(world: World) -> None:
    def failed(error: CuboidError) -> tuple[Patch, ...]:
        return (Patch(CONFIG_MAPS, "one", {"data": {"error": error.message}}, "default"),)

    bad = Create(SECRETS, {"metadata": {"name": "Not A Name"}}, "default")
    await world.create(CONFIG_MAPS, {"metadata": {"name": "one"}})
    controller = Sequence(Plan((bad,), failed=failed))
    async with running(world.client, LocalSource(world.registry), controller):
        await until(lambda: "Not A Name" in world.get(CONFIG_MAPS, "one").get("data", {}).get("error", ""))
        await until(lambda: len(controller.seen) >= 2)


async def test_a_slow_start_leaves_the_rest_when_one_is_refused(world: World) -> None:
    good = [Create(SECRETS, {"metadata": {"name": f"good-{n}"}}, "default") for n in range(8)]
    bad = Create(SECRETS, {"metadata": {"name": "Not A Name"}}, "default")
    await world.create(CONFIG_MAPS, {"metadata": {"name": "one"}})
    controller = Sequence(Plan((Together((good[0], bad, *good[1:])),)))
    async with running(world.client, LocalSource(world.registry), controller):
        await until(lambda: len(controller.seen) >= 2)
    assert {objects.name(found) for found in world.select(SECRETS)} == {"good-0", "good-1"}


async def test_a_deletion_spares_another_object_of_the_same_name(world: World) -> None:
    await world.create(CONFIG_MAPS, {"metadata": {"name": "one"}})
    await world.create(SECRETS, {"metadata": {"name": "kept"}})
    controller = Sequence(Plan((Delete(SECRETS, "kept", "default", uid="another"),)))
    async with running(world.client, LocalSource(world.registry), controller) as runtime:
        await until(lambda: runtime.counts["mirror", "done"])
    assert world.get(SECRETS, "kept")


async def test_a_remote_plan_waits_until_it_sees_what_it_wrote(world: World) -> None:
    mirror = Mirror()
    async with running(world.client, RemoteSource(world.client), mirror) as runtime:
        for number in range(20):
            await world.create(CONFIG_MAPS, {"metadata": {"name": f"m{number}"}})
        await until(lambda: len(world.select(SECRETS)) == 20)
        await until(lambda: runtime.counts["mirror", "done"] >= 20)
        assert runtime.counts["mirror", "failed"] == 0


async def test_a_key_is_worked_on_by_one_at_a_time_and_comes_again_when_it_was_woken() -> None:
    queue = KeyQueue()
    queue.add(KEY)
    queue.add(KEY)
    assert await queue.take() == KEY
    queue.add(KEY)
    assert len(queue) == 0
    queue.done(KEY)
    assert len(queue) == 1


async def test_a_key_that_fails_waits_longer_each_time() -> None:
    queue = KeyQueue()
    delays = []
    for _ in range(14):
        queue.add(KEY)
        await queue.take()
        delays.append(queue.failed(KEY))
    queue.close()
    assert delays[0] <= 0.05
    assert delays[3] > delays[0] * 3
    assert 45 <= delays[-1] <= 60


async def test_a_key_that_costs_much_rests_before_it_comes_again() -> None:
    queue = KeyQueue()
    queue.add(KEY)
    await queue.take()
    queue.rest(KEY, 0.05)
    queue.add(KEY)
    queue.done(KEY)
    assert len(queue) == 0
    async with asyncio.timeout(5):
        assert await queue.take() == KEY


async def test_plans_without_work_leave_the_loop_to_others(world: World) -> None:
    class Idle(Mirror):
        name = "idle"

        def plan(self, key: Key, view: View, now: float) -> Plan:
            self.seen.append(key)
            return NOTHING

    for number in range(200):
        await world.create(CONFIG_MAPS, {"metadata": {"name": f"m{number}"}})
    idle, turns = Idle(), 0
    async with running(world.client, LocalSource(world.registry), idle), asyncio.timeout(20):
        while len(idle.seen) < 200:
            await asyncio.sleep(0)
            turns += 1
    assert turns >= 200


@pytest.mark.parametrize("kind", ["local", "remote"])
async def test_orphans_are_those_without_an_owner_now(world: World, kind: str) -> None:
    labels = {"app": "x", "tier": "a"}
    chosen = (Requirement("app", "=", frozenset(("x",))), Requirement("tier", "!=", frozenset(("b",))))
    source = source_of(world, kind)
    async with running(world.client, source, Mirror()):
        owner = await world.create(CONFIG_MAPS, {"metadata": {"name": "owner"}})
        await world.create(CONFIG_MAPS, {"metadata": {"name": "free", "labels": labels}})
        await world.create(CONFIG_MAPS, {"metadata": {"name": "other", "labels": {"app": "y"}}})
        refs = [objects.owner_reference(owner)]
        await world.create(CONFIG_MAPS, {"metadata": {"name": "owned", "labels": labels, "ownerReferences": refs}})

        def names() -> list[str]:
            return [objects.name(one) for one in source.orphans(CONFIG_MAPS, "default", chosen)]

        await until(lambda: names() == ["free"])
        await world.patch(CONFIG_MAPS, "owned", {"metadata": {"ownerReferences": None}})
        await until(lambda: names() == ["free", "owned"])
        await world.patch(CONFIG_MAPS, "free", {"metadata": {"ownerReferences": refs}})
        await until(lambda: names() == ["owned"])
        await world.delete(CONFIG_MAPS, "owned")
        await until(lambda: names() == [])
        assert source.orphans(CONFIG_MAPS, "kube-public", chosen) == []
