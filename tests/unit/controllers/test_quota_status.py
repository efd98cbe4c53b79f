"""What quotas say is used."""

from __future__ import annotations

from typing import Any

from cuboid.controllers.quota import QuotaController
from cuboid.kube.client import CONFIG_MAPS, DEFINITIONS, PODS, QUOTAS, VOLUME_CLAIMS, Resource
from cuboid.kube.controller.view import Controller, Key
from tests.harness.control import World, every_interrupted_point
from tests.harness.plain_view import PlainView, settle

Object = dict[str, Any]


def make() -> list[Controller]:
    return [QuotaController()]


async def quota(world: World, **hard: str) -> None:
    given = {name.replace("__", "/").replace("_", "."): value for name, value in hard.items()}
    await world.create(QUOTAS, {"metadata": {"name": "q"}, "spec": {"hard": given}})
    await world.settle()


async def pod(world: World, name: str, cpu: str, **spec: Any) -> None:
    resources = {"requests": {"cpu": cpu, "memory": "64Mi"}, "limits": {"cpu": "2"}}
    containers = [{"name": "c", "image": "i", "resources": resources}]
    await world.create(PODS, {"metadata": {"name": name}, "spec": {"containers": containers, **spec}})


def used(world: World) -> Object:
    found: Object = world.get(QUOTAS, "q")["status"]
    assert found["hard"] == world.get(QUOTAS, "q")["spec"]["hard"]
    used: Object = found["used"]
    return used


async def test_pods_count_with_their_requests_until_they_have_ended() -> None:
    async with World(make) as world:
        await quota(world, pods="5", requests_cpu="2", limits_cpu="8", requests_memory="1Gi", count__pods="9")
        assert set(used(world).values()) == {"0"}
        await pod(world, "a", "300m")
        await pod(world, "b", "1")
        await world.advance(1)
        expected = {
            "pods": "2",
            "requests.cpu": "1300m",
            "limits.cpu": "4",
            "requests.memory": "128Mi",
            "count/pods": "2",
        }
        assert used(world) == expected
        await world.kubelet.run("a")
        await world.kubelet.finish("a")
        await world.advance(1)
        assert (used(world)["pods"], used(world)["requests.cpu"], used(world)["count/pods"]) == ("1", "1", "2")


async def test_scopes_choose_the_pods() -> None:
    async with World(make) as world:
        spec = {"hard": {"pods": "5"}, "scopes": ["Terminating"]}
        await world.create(QUOTAS, {"metadata": {"name": "q"}, "spec": spec})
        await pod(world, "a", "1", activeDeadlineSeconds=60)
        await pod(world, "b", "1")
        await world.advance(1)
        assert used(world) == {"pods": "1"}


async def test_claims_and_config_maps_count() -> None:
    async with World(make) as world:
        await quota(world, configmaps="10", requests_storage="10Gi", count__configmaps="10")
        await world.create(CONFIG_MAPS, {"metadata": {"name": "one"}})
        claim = {"accessModes": ["ReadWriteOnce"], "resources": {"requests": {"storage": "2Gi"}}}
        await world.create(VOLUME_CLAIMS, {"metadata": {"name": "data"}, "spec": claim})
        await world.advance(1)
        assert used(world) == {"configmaps": "1", "requests.storage": "2Gi", "count/configmaps": "1"}
        await world.delete(CONFIG_MAPS, "one")
        await world.advance(1)
        assert used(world)["configmaps"] == "0"


async def test_a_quota_that_is_changed_is_counted_at_once() -> None:
    async with World(make) as world:
        await quota(world, pods="5")
        await pod(world, "a", "1")
        await world.advance(1)
        await world.patch(QUOTAS, "q", {"spec": {"hard": {"pods": "7", "count/pods": "3"}}})
        await world.settle()
        assert used(world) == {"pods": "1", "count/pods": "1"}


async def test_many_objects_are_not_counted_anew_for_every_change() -> None:
    async with World(make) as world:
        await quota(world, configmaps="1000")
        for number in range(50):
            await world.create(CONFIG_MAPS, {"metadata": {"name": f"c{number}"}})
            await world.settle()
        assert world.writes == 1, "within half a second of the last count"
        await world.advance(1)
        assert (used(world)["configmaps"], world.writes) == ("50", 2)


async def test_other_namespaces_do_not_count() -> None:
    async with World(make) as world:
        await quota(world, configmaps="5")
        await world.create(CONFIG_MAPS, {"metadata": {"name": "x"}}, "kube-public")
        await world.advance(1)
        assert used(world) == {"configmaps": "0"}


async def test_quotas_are_counted_from_every_interrupted_point() -> None:
    async def scenario(world: World) -> object:
        await quota(world, pods="5", configmaps="5")
        await pod(world, "a", "1")
        await world.advance(1)
        await world.create(CONFIG_MAPS, {"metadata": {"name": "x"}})
        await world.advance(1)
        return world.outline(QUOTAS)

    assert await every_interrupted_point(make, scenario) == 3


def test_custom_resources_are_counted_by_their_definition() -> None:
    view = PlainView()
    names = {"kind": "Widget", "plural": "widgets"}
    spec = {"group": "example.com", "names": names, "scope": "Namespaced", "versions": [{"name": "v1", "served": True}]}
    view.put(DEFINITIONS, {"metadata": {"name": "widgets.example.com"}, "spec": spec})
    view.put(Resource("example.com", "v1", "widgets"), {"metadata": {"name": "w", "namespace": "ns"}})
    view.put(
        QUOTAS, {"metadata": {"name": "q", "namespace": "ns"}, "spec": {"hard": {"count/widgets.example.com": "3"}}}
    )
    plan = QuotaController().plan(Key("ns", "q"), view, 0)
    settle(QuotaController(), Key("ns", "q"), view)
    assert (view.get(QUOTAS, "ns", "q") or {})["status"]["used"] == {"count/widgets.example.com": "1"}
    assert plan.again == 30.0, "their changes are not followed"
