"""The garbage collector in the world of controllers: background, foreground, orphans, wrong owners, interruptions."""

from __future__ import annotations

from typing import Any

import pytest

from cuboid.controllers.garbage import Garbage
from cuboid.controllers.garbage_judge import FOREGROUND
from cuboid.controllers.garbage_kinds import CachedObjects, resource_of
from cuboid.kube import objects
from cuboid.kube.client import CONFIG_MAPS, NAMESPACES, PRIORITY_CLASSES, REPLICA_SETS, SECRETS, Resource
from cuboid.kube.controller.act import Actor, Failure
from cuboid.kube.controller.instructions import Absent, Delete, Patch, Together
from cuboid.kube.controller.view import Change, Key
from cuboid.kube.kinds import Kinds
from tests.harness.control import World, every_interrupted_point
from tests.harness.plain_view import PlainView

Object = dict[str, Any]
CLASSES = PRIORITY_CLASSES


def make() -> list[Garbage]:
    return [Garbage(Kinds())]


def ref(owner: Object, *, blocks: bool = True, **other: Any) -> Object:
    kept = {"apiVersion": owner["apiVersion"], "kind": owner["kind"], "name": objects.name(owner)}
    return {**kept, "uid": objects.uid(owner), "blockOwnerDeletion": blocks, **other}


async def thing(world: World, name: str, *owners: Object, resource: Resource = CONFIG_MAPS, **meta: Any) -> Object:
    namespace = meta.pop("namespace", "default")
    metadata = {"name": name, "ownerReferences": list(owners), **meta}
    body: Object = {"metadata": metadata, **({"value": 7} if resource == CLASSES else {})}
    return await world.create(resource, body, namespace)


def names(world: World, resource: Resource = CONFIG_MAPS) -> list[str]:
    return [objects.name(one) for one in world.select(resource)]


async def test_what_is_owned_goes_with_its_owner_and_what_that_owns_too() -> None:
    async with World(make) as world:
        top = await thing(world, "top")
        middle = await thing(world, "middle", ref(top), resource=SECRETS)
        await thing(world, "leaf", ref(middle))
        await thing(world, "other")
        await world.settle()
        assert names(world) == ["leaf", "other", "top"]
        await world.delete(CONFIG_MAPS, "top")
        await world.settle()
        assert names(world) == ["other"]
        assert not names(world, SECRETS)


async def test_what_has_another_owner_stays_and_forgets_the_one_that_went() -> None:
    async with World(make) as world:
        one, two = await thing(world, "one"), await thing(world, "two")
        await thing(world, "child", ref(one), ref(two))
        await world.delete(CONFIG_MAPS, "one")
        await world.settle()
        assert names(world) == ["child", "two"]
        assert [r["name"] for r in world.get(CONFIG_MAPS, "child")["metadata"]["ownerReferences"]] == ["two"]


async def test_an_owner_that_never_was_or_has_another_uid_by_now_is_no_owner() -> None:
    async with World(make) as world:
        owner = await thing(world, "owner")
        await thing(world, "of-nobody", ref(owner, name="never", uid="1-2-3"))
        await thing(world, "of-another", ref(owner, uid="1-2-4"))
        await thing(world, "rightly", ref(owner))
        await world.settle()
        assert names(world) == ["owner", "rightly"]


async def test_an_owner_of_a_kind_that_is_not_served_is_believed() -> None:
    async with World(make) as world:
        owner = await thing(world, "owner")
        await thing(world, "child", ref(owner, apiVersion="example.com/v1", kind="Strange", uid="1-2-3"))
        await world.settle()
        assert names(world) == ["child", "owner"]


async def test_in_the_foreground_an_owner_waits_for_those_that_block_it() -> None:
    async with World(make) as world:
        owner = await thing(world, "owner")
        await thing(world, "blocks", ref(owner), finalizers=["example.com/wait"])
        await thing(world, "does-not", ref(owner, blocks=False))
        await world.delete(CONFIG_MAPS, "owner", propagation="Foreground")
        await world.settle()
        assert names(world) == ["blocks", "owner"]
        await world.patch(CONFIG_MAPS, "blocks", {"metadata": {"finalizers": None}})
        await world.settle()
        assert not names(world)


async def test_what_owns_something_itself_goes_in_the_foreground_with_its_owner() -> None:
    async with World(make) as world:
        top = await thing(world, "top")
        middle = await thing(world, "middle", ref(top))
        await thing(world, "leaf", ref(middle), finalizers=["example.com/wait"])
        await world.delete(CONFIG_MAPS, "top", propagation="Foreground")
        await world.settle()
        assert FOREGROUND in world.get(CONFIG_MAPS, "middle")["metadata"]["finalizers"]
        await world.patch(CONFIG_MAPS, "leaf", {"metadata": {"finalizers": None}})
        await world.settle()
        assert not names(world)


async def test_a_circle_of_owners_goes() -> None:
    async with World(make) as world:
        one = await thing(world, "one")
        two = await thing(world, "two", ref(one))
        await world.patch(CONFIG_MAPS, "one", {"metadata": {"ownerReferences": [ref(two)]}})
        await world.settle()
        assert names(world) == ["one", "two"]
        await world.delete(CONFIG_MAPS, "one", propagation="Foreground")
        await world.settle()
        assert not names(world)


async def test_orphans_stay_and_do_not_name_their_owner_any_more() -> None:
    async with World(make) as world:
        owner = await thing(world, "owner")
        for number in range(3):
            await thing(world, f"child-{number}", ref(owner))
        await world.delete(CONFIG_MAPS, "owner", propagation="Orphan")
        await world.settle()
        assert names(world) == ["child-0", "child-1", "child-2"]
        assert not any(one["metadata"].get("ownerReferences") for one in world.select(CONFIG_MAPS))


async def test_an_object_of_the_cluster_may_own_what_is_in_a_namespace_but_not_the_other_way_round() -> None:
    async with World(make) as world:
        above = await thing(world, "above", resource=CLASSES)
        await thing(world, "child", ref(above))
        below = await thing(world, "below")
        await thing(world, "wrong", ref(below), resource=CLASSES)
        await world.settle()
        await world.delete(CONFIG_MAPS, "below")
        await world.settle()
        assert "wrong" in names(world, CLASSES)
        assert "OwnerRefInvalidNamespace" in world.reasons()
        await world.delete(CLASSES, "above")
        await world.settle()
        assert not names(world)


async def test_an_owner_in_another_namespace_is_told_and_is_no_owner() -> None:
    async with World(make) as world:
        await world.create(NAMESPACES, {"metadata": {"name": "far"}})
        owner = await thing(world, "owner", namespace="far")
        await thing(world, "child", ref(owner))
        await world.settle()
        assert names(world) == ["owner"]
        assert [event.name for event in world.told if event.reason == "OwnerRefInvalidNamespace"] == ["child"]


async def test_nobody_in_another_namespace_holds_up_an_owner_or_stays_by_its_name() -> None:
    async with World(make) as world:
        await world.create(NAMESPACES, {"metadata": {"name": "far"}})
        owner = await thing(world, "owner")
        await thing(world, "child", ref(owner))  # so that the owner is known
        await world.settle()
        await thing(world, "claims", ref(owner), namespace="far", finalizers=["example.com/wait"])
        await world.settle()
        assert objects.deleting(world.get(CONFIG_MAPS, "claims", "far"))
        await world.delete(CONFIG_MAPS, "owner", propagation="Foreground")
        await world.settle()
        assert names(world) == ["claims"]


async def test_garbage_that_was_left_while_nobody_looked_is_found_by_suspicion() -> None:
    async with World() as world:
        owner = await thing(world, "owner")
        for number in range(20):
            await thing(world, f"child-{number:02}", ref(owner))
        await thing(world, "waits", resource=SECRETS)
        await world.delete(CONFIG_MAPS, "owner")
        await world.delete(SECRETS, "waits", propagation="Foreground")
        asked = CachedObjects(world.registry)
        assert len(list(asked.suspects())) == 2
        garbage = Garbage(world.registry.kinds, asked)
        plan = garbage.plan(Key("", ""), world.view, world.clock.now())
        groups = [item for item in plan.instructions if isinstance(item, Together)]
        assert sum(isinstance(item, Delete) for group in groups for item in group.instructions) == 20
        last = plan.instructions[-1]
        assert isinstance(last, Patch)
        assert last.body["metadata"]["finalizers"] is None


async def test_new_objects_of_a_known_owner_are_not_looked_at_and_go_with_it_all_the_same() -> None:
    async with World(make) as world:
        owner = await thing(world, "owner")
        garbage = world.controllers[0]
        assert isinstance(garbage, Garbage)
        for number in range(3):
            await thing(world, f"child-{number}", ref(owner))
            await world.settle()
        assert list(garbage._alive) == [objects.uid(owner)]
        await world.delete(CONFIG_MAPS, "owner")
        await thing(world, "late", ref(owner))
        await world.settle()
        assert not names(world)


async def test_every_kind_that_can_be_deleted_is_looked_after_except_events() -> None:
    garbage = Garbage(Kinds())
    followed = {watch.resource for watch in garbage.watches}
    expected = {
        resource_of(kind) for kind in Kinds().stored() if "delete" in kind.verbs and kind.stored_as != ("", "events")
    }
    assert followed == expected
    assert REPLICA_SETS in followed


async def _mixed(world: World) -> object:
    top = await thing(world, "top")
    middle = await thing(world, "middle", ref(top))
    for number in range(2):
        await thing(world, f"leaf-{number}", ref(middle))
    free = await thing(world, "free", resource=SECRETS)
    await thing(world, "stays", ref(free), ref(top))
    await world.settle()
    await world.delete(CONFIG_MAPS, "top", propagation="Foreground")
    await world.settle()
    await world.delete(SECRETS, "free", propagation="Orphan")
    await world.settle()
    return world.outline(CONFIG_MAPS, SECRETS)


async def test_the_same_is_left_from_any_interrupted_point() -> None:
    assert await every_interrupted_point(make, _mixed) > 5


async def test_the_same_is_left_when_only_suspects_are_looked_at_after_an_interruption() -> None:
    worlds: list[World] = []

    def make_one() -> list[Garbage]:
        return [Garbage(Kinds(), CachedObjects(worlds[-1].registry))]

    async def scenario(world: World) -> object:
        return await _mixed(world)

    class Last(World):
        async def __aenter__(self) -> World:
            worlds.append(self)
            return await super().__aenter__()

    async with Last(make_one) as world:
        expected, writes = await scenario(world), world.writes
    for point in range(1, writes + 1):
        async with Last(make_one, last_write=point) as world:
            assert await scenario(world) == expected


async def test_an_owner_that_only_the_view_does_not_show_yet_keeps_what_it_owns() -> None:
    async with World() as world:
        owner = await thing(world, "owner")
        child = await thing(world, "child", ref(owner))
        lagging = PlainView()
        lagging.put(CONFIG_MAPS, child)
        plan = Garbage(Kinds()).plan(Key("default", "/configmaps/child"), lagging, world.clock.now())
        assert isinstance(plan.instructions[0], Absent)
        with pytest.raises(Failure, match="configmaps owner is still there"):
            await Actor(world.client, world).carry_out(plan)
        assert names(world) == ["child", "owner"]


async def test_owners_whose_end_was_missed_are_found_out_from_time_to_time() -> None:
    async with World() as world:
        owner = await thing(world, "owner")
        child = await thing(world, "child", ref(owner))
        garbage = Garbage(Kinds(), CachedObjects(world.registry))
        (born,) = (watch.keys for watch in garbage.watches if watch.resource == CONFIG_MAPS)
        assert not list(born(Change("ADDED", child), world.view))  # its owner is there, and is remembered
        (sweep,) = (watch for watch in garbage.watches if watch.initial)
        space = world.get(NAMESPACES, "default")
        assert list(sweep.keys(Change("MODIFIED", space), world.view)) == [Key("", "")]
        assert not list(sweep.keys(Change("MODIFIED", space, space), world.view))
        await world.delete(CONFIG_MAPS, "owner")  # nobody tells
        plan = garbage.plan(Key("", ""), world.view, world.clock.now())
        assert any(isinstance(item, Together) for item in plan.instructions)
        assert list(born(Change("ADDED", child), world.view))  # and is not believed in any more
