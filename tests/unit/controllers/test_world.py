"""The world of controllers itself: it settles, kills and notices restlessness."""

from __future__ import annotations

import pytest

from cuboid.kube import objects
from cuboid.kube.client import CONFIG_MAPS, PODS
from cuboid.kube.controller.instructions import NOTHING, Create, Patch, Plan, Together
from cuboid.kube.controller.view import Key, View, Watch, itself
from tests.harness.control import World, every_interrupted_point
from tests.harness.kube_server import pod


class Copies:
    """Every ConfigMap gets as many copies as it says."""

    name = "copies"
    watches = (Watch(CONFIG_MAPS, itself, initial=True),)

    def plan(self, key: Key, view: View, now: float) -> Plan:
        found = view.get(CONFIG_MAPS, key.namespace, key.name)
        if found is None or "copies" not in found.get("data", {}):
            return NOTHING
        wanted = int(found["data"]["copies"])
        have = view.owned(CONFIG_MAPS, objects.uid(found))
        made = tuple(
            Create(CONFIG_MAPS, _copy(found, number), key.namespace)
            for number in range(wanted)
            if f"{key.name}-{number}" not in {objects.name(item) for item in have}
        )
        return Plan((Together(made),)) if made else NOTHING


class Restless(Copies):
    def plan(self, key: Key, view: View, now: float) -> Plan:
        version = (view.get(CONFIG_MAPS, key.namespace, key.name) or {})["metadata"]["resourceVersion"]
        body = {"metadata": {"annotations": {"seen": version}}}
        return Plan((Patch(CONFIG_MAPS, key.name, body, key.namespace),))


def _copy(found: dict[str, object], number: int) -> dict[str, object]:
    owner = objects.owner_reference(found)
    return {"metadata": {"name": f"{objects.name(found)}-{number}", "ownerReferences": [owner]}}


async def _scenario(world: World) -> object:
    await world.create(CONFIG_MAPS, {"metadata": {"name": "one"}, "data": {"copies": "5"}})
    await world.settle()
    return world.outline(CONFIG_MAPS)


async def test_a_controller_without_memory_ends_the_same_from_every_interrupted_point() -> None:
    assert await every_interrupted_point(lambda: [Copies()], _scenario) == 5


class Deaf(Copies):
    """Does not look at what exists when it starts."""

    watches = (Watch(CONFIG_MAPS, itself),)


async def test_a_controller_that_only_follows_changes_is_found_out() -> None:
    with pytest.raises(AssertionError, match="killed behind write 1 of 5"):
        await every_interrupted_point(lambda: [Deaf()], _scenario)


async def test_controllers_that_never_rest_are_said_to() -> None:
    async with World(lambda: [Restless()]) as world:
        await world.create(CONFIG_MAPS, {"metadata": {"name": "one"}})
        with pytest.raises(AssertionError, match="do not come to rest"):
            await world.settle()


async def test_the_kubelet_runs_and_ends_pods() -> None:
    async with World() as world:
        await world.create(PODS, pod("web"))
        await world.live()
        assert objects.ready(world.get(PODS, "web"))
        assert world.get(PODS, "web")["spec"]["nodeName"] == "node-1"
        await world.delete(PODS, "web")
        assert objects.deleting(world.get(PODS, "web"))
        await world.live()
        assert world.select(PODS) == []
