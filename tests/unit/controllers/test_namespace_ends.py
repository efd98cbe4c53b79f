"""Namespaces that end in the world of controllers: their content goes, they say what they wait for, none is stuck."""

from __future__ import annotations

from typing import Any

import pytest

from cuboid.controllers.job import Jobs
from cuboid.controllers.job_orphans import JobOrphans
from cuboid.controllers.namespace_content import MOST, CachedContent, Content, SeenContent
from cuboid.controllers.namespaces import NamespaceEnds
from cuboid.kube import objects
from cuboid.kube.client import CONFIG_MAPS, EVENTS, JOBS, NAMESPACES, PODS, SECRETS
from cuboid.kube.kinds import Kinds
from cuboid.lib.errors import ForbiddenError
from tests.harness.control import World, every_interrupted_point
from tests.harness.kube_server import pod
from tests.unit.controllers.test_jobs import job

Object = dict[str, Any]


def make() -> list[NamespaceEnds]:
    return [NamespaceEnds(SeenContent(Kinds()))]


async def space(world: World, name: str = "team") -> None:
    await world.create(NAMESPACES, {"metadata": {"name": name}})


def names(world: World) -> list[str]:
    return [objects.name(one) for one in world.select(NAMESPACES)]


def said(world: World, type_: str) -> tuple[str, str, str]:
    found = objects.condition(world.get(NAMESPACES, "team"), type_) or {}
    return found.get("status", ""), found.get("reason", ""), found.get("message", "")


async def test_a_namespace_goes_with_all_that_is_in_it_and_nothing_else() -> None:
    async with World(make) as world:
        await space(world)
        for resource in (CONFIG_MAPS, SECRETS):
            await world.create(resource, {"metadata": {"name": "one"}}, "team")
            await world.create(resource, {"metadata": {"name": "one"}})
        about = {"kind": "Pod", "name": "x", "namespace": "team"}
        await world.create(EVENTS, {"metadata": {"name": "seen"}, "involvedObject": about}, "team")
        await world.delete(NAMESPACES, "team")
        await world.settle()
        await world.advance(5)
        assert "team" not in names(world)
        assert [objects.namespace(one) for one in world.select(CONFIG_MAPS)] == ["default"]
        assert not world.select(EVENTS)


async def test_pods_go_first_and_what_they_work_with_outlives_them() -> None:
    async with World(make) as world:
        await space(world)
        await world.create(PODS, pod("web"), "team")
        await world.kubelet.run("web", "team")
        await world.create(SECRETS, {"metadata": {"name": "key"}}, "team")
        await world.delete(NAMESPACES, "team")
        await world.advance(10)
        assert world.get(SECRETS, "key", "team")
        assert objects.deleting(world.get(PODS, "web", "team"))
        assert said(world, "NamespaceContentRemaining") == (
            "True",
            "SomeResourcesRemain",
            "Some resources are remaining: pods. has 1 resource instances",
        )
        assert said(world, "NamespaceDeletionContentFailure")[0] == "False"
        await world.kubelet.gone("web", "team")
        await world.settle()
        await world.advance(1)
        assert "team" not in names(world)


async def test_finalizers_that_hold_it_are_named() -> None:
    async with World(make) as world:
        await space(world)
        for name in ("one", "two"):
            await world.create(CONFIG_MAPS, {"metadata": {"name": name, "finalizers": ["example.com/wait"]}}, "team")
        await world.delete(NAMESPACES, "team")
        await world.advance(10)
        message = "Some content in the namespace has finalizers remaining: example.com/wait in 2 resource instances"
        assert said(world, "NamespaceFinalizersRemaining") == ("True", "SomeFinalizersRemain", message)
        versions = world.get(NAMESPACES, "team")["metadata"]["resourceVersion"]
        await world.advance(20)
        assert world.get(NAMESPACES, "team")["metadata"]["resourceVersion"] == versions
        for name in ("one", "two"):
            await world.patch(CONFIG_MAPS, name, {"metadata": {"finalizers": None}}, "team")
        await world.advance(3)
        assert "team" not in names(world)


async def test_nothing_new_comes_into_a_namespace_that_ends() -> None:
    async with World(make) as world:
        await space(world)
        await world.create(CONFIG_MAPS, {"metadata": {"name": "held", "finalizers": ["example.com/wait"]}}, "team")
        await world.delete(NAMESPACES, "team")
        await world.settle()
        with pytest.raises(ForbiddenError, match="because it is being terminated"):
            await world.create(CONFIG_MAPS, {"metadata": {"name": "late"}}, "team")


async def test_a_finalizer_of_others_keeps_the_namespace_itself() -> None:
    async with World(make) as world:
        await world.create(NAMESPACES, {"metadata": {"name": "team", "finalizers": ["example.com/wait"]}})
        await world.delete(NAMESPACES, "team")
        await world.advance(5)
        assert "team" in names(world)
        await world.patch(NAMESPACES, "team", {"metadata": {"finalizers": None}})
        await world.settle()
        assert "team" not in names(world)


async def test_a_namespace_with_a_job_at_work_does_not_get_stuck() -> None:
    async with World(lambda: [*make(), Jobs(), JobOrphans()]) as world:
        await space(world)
        await world.create(JOBS, job(parallelism=3, completions=9), "team")
        await world.live()
        assert len(world.pods("team")) == 3
        await world.delete(NAMESPACES, "team")
        for _ in range(10):
            await world.live()
            await world.advance(5)
        assert "team" not in names(world)


async def _end(world: World) -> object:
    await space(world)
    await world.create(PODS, pod("web"), "team")
    await world.kubelet.run("web", "team")
    for name in ("one", "two"):
        await world.create(CONFIG_MAPS, {"metadata": {"name": name}}, "team")
    await world.create(SECRETS, {"metadata": {"name": "key", "finalizers": ["example.com/wait"]}}, "team")
    await world.delete(NAMESPACES, "team")
    await world.advance(5)
    await world.kubelet.gone("web", "team")
    await world.advance(5)
    await world.patch(SECRETS, "key", {"metadata": {"finalizers": None}}, "team")
    await world.advance(5)
    return world.outline(NAMESPACES, PODS, CONFIG_MAPS, SECRETS)


async def test_the_cache_says_the_same_without_reading_more_than_there_is_use_for() -> None:
    async with World() as world:
        await space(world)
        for number in range(MOST + 20):
            held = {"finalizers": ["example.com/wait"]} if number % 2 else {}
            await world.create(CONFIG_MAPS, {"metadata": {"name": f"n-{number:04}", **held}}, "team")
        await world.create(SECRETS, {"metadata": {"name": "key"}}, "team")
        ways: list[Content] = [SeenContent(Kinds()), CachedContent(world.registry)]
        seen, cached = (list(way.parts(world.view, "team")) for way in ways)
        assert [(part.resource, part.total) for part in seen] == [(part.resource, part.total) for part in cached]
        assert [part.fresh for part in seen] == [part.fresh for part in cached]
        for part in cached:
            for one in part.fresh:
                await world.delete(part.resource, objects.name(one), "team")
        seen, cached = (list(way.parts(world.view, "team")) for way in ways)
        assert [(part.total, len(part.fresh)) for part in cached] == [(part.total, len(part.fresh)) for part in seen]
        assert cached[0].held["example.com/wait"] == seen[0].held["example.com/wait"] == (MOST + 20) // 2


async def test_more_than_one_plan_deletes_goes_too() -> None:
    async with World(make) as world:
        await space(world)
        for number in range(MOST + 20):
            await world.create(CONFIG_MAPS, {"metadata": {"name": f"n-{number:04}"}}, "team")
        await world.delete(NAMESPACES, "team")
        await world.advance(1)
        assert "team" not in names(world)
        assert not world.select(CONFIG_MAPS)


async def test_it_ends_from_any_interrupted_point() -> None:
    assert await every_interrupted_point(make, _end) > 4
