"""A pod that names a node which never was is not left to wait for it for ever."""

from __future__ import annotations

from cuboid.controllers import podgc
from cuboid.controllers.podgc import PodGarbage
from cuboid.kube.client import NODES, PODS
from tests.harness.control import World
from tests.harness.kube_server import pod


async def test_a_pod_of_a_node_that_never_was_goes_after_a_while() -> None:
    async with World(lambda: [PodGarbage()]) as world:
        await world.add_node("here")
        await world.advance(1)  # all that is looked at when a controller starts
        await world.create(PODS, pod("ghost", nodeName="nowhere"))
        await world.create(PODS, pod("real", nodeName="here"))
        await world.advance(podgc.PATIENCE - 1)
        assert [one["metadata"]["name"] for one in world.select(PODS)] == ["ghost", "real"]
        await world.advance(2)
        assert [one["metadata"]["name"] for one in world.select(PODS)] == ["real"]


async def test_a_pod_whose_node_comes_in_time_stays() -> None:
    async with World(lambda: [PodGarbage()]) as world:
        await world.advance(1)
        await world.create(PODS, pod("early", nodeName="late"))
        await world.advance(podgc.PATIENCE / 2)
        await world.add_node("late")
        await world.advance(podgc.PATIENCE)
        assert world.select(PODS) and world.select(NODES)
