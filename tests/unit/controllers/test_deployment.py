"""Deployments roll from template to template within their bounds, and say how they get on."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from cuboid.controllers import deployment_math as dm
from cuboid.controllers.deployment import Deployments
from cuboid.controllers.deployment_sets import REVISION, name_of
from cuboid.controllers.replicaset import ReplicaSets
from cuboid.kube import objects, status
from cuboid.kube.admission import Chain, Request
from cuboid.kube.client import DEPLOYMENTS, PODS, REPLICA_SETS
from cuboid.kube.kind import Kind
from tests.harness.control import World, every_interrupted_point
from tests.unit.controllers.workloads import image_of, template, workload

Object = dict[str, Any]
SECOND = "registry.example/app:2"
THIRD = "registry.example/app:3"


def controllers() -> list[Any]:
    return [Deployments(), ReplicaSets()]


def world(**more: Any) -> World:
    return World(controllers, **more)


async def roll(w: World, image: str) -> None:
    await w.patch(DEPLOYMENTS, "web", {"spec": {"template": template("web", image)}})


def reason(w: World, type_: str = "Progressing") -> str:
    found = objects.condition(w.get(DEPLOYMENTS, "web"), type_)
    return str(found["reason"]) if found else ""


def images(w: World) -> list[str]:
    return sorted(image_of(pod) for pod in w.pods())


def sizes(w: World) -> dict[str, int]:
    """Of ReplicaSets, by image."""
    return {image_of(one["spec"]["template"]): one["spec"]["replicas"] for one in w.select(REPLICA_SETS)}


async def test_a_deployment_comes_up_and_says_so() -> None:
    async with world() as w:
        await w.create(DEPLOYMENTS, workload())
        await w.live()
        found = w.get(DEPLOYMENTS, "web")
        conditions = found["status"].pop("conditions")
        assert found["status"] == {
            "observedGeneration": 1,
            "replicas": 3,
            "updatedReplicas": 3,
            "readyReplicas": 3,
            "availableReplicas": 3,
        }
        assert {item["type"]: item["reason"] for item in conditions} == {
            "Available": "MinimumReplicasAvailable",
            "Progressing": "NewReplicaSetAvailable",
        }
        (only,) = w.select(REPLICA_SETS)
        assert objects.labels(only)["pod-template-hash"] == objects.name(only).removeprefix("web-")
        assert objects.notes(found)[REVISION] == objects.notes(only)[REVISION] == "1"
        assert all("pod-template-hash" in objects.labels(pod) for pod in w.pods())
        assert w.plans() == []


async def test_a_new_template_replaces_all_pods_and_keeps_the_old_set() -> None:
    async with world() as w:
        await w.create(DEPLOYMENTS, workload())
        await w.live()
        await roll(w, SECOND)
        await w.live()
        assert images(w) == [SECOND] * 3
        assert sizes(w) == {"registry.example/app:1": 0, SECOND: 3}
        assert objects.notes(w.get(DEPLOYMENTS, "web"))[REVISION] == "2"
        assert reason(w) == "NewReplicaSetAvailable"


async def test_going_back_uses_the_old_set_under_a_new_revision() -> None:
    async with world() as w:
        await w.create(DEPLOYMENTS, workload())
        await w.live()
        (first,) = w.select(REPLICA_SETS)
        await roll(w, SECOND)
        await w.live()
        await roll(w, "registry.example/app:1")
        await w.live()
        again = w.get(REPLICA_SETS, objects.name(first))
        assert len(w.select(REPLICA_SETS)) == 2
        assert objects.notes(again)[REVISION] == "3"
        assert objects.notes(again)["deployment.kubernetes.io/revision-history"] == "1"


async def test_history_beyond_the_limit_is_deleted_oldest_first() -> None:
    async with world() as w:
        await w.create(DEPLOYMENTS, workload(revisionHistoryLimit=1))
        await w.live()
        for image in (SECOND, THIRD):
            await roll(w, image)
            await w.live()
        assert sizes(w) == {SECOND: 0, THIRD: 3}


async def test_an_image_that_does_not_start_stops_the_rollout_and_is_said() -> None:
    async with world() as w:
        await w.create(DEPLOYMENTS, workload(replicas=4, progressDeadlineSeconds=60))
        await w.live()
        w.kubelet.makes_ready = False
        await roll(w, SECOND)
        await w.live()
        assert sum(objects.ready(pod) for pod in w.pods()) == 3
        assert len(w.pods()) == 5
        assert reason(w) == "ReplicaSetUpdated"
        await w.advance(62)
        assert reason(w) == "ProgressDeadlineExceeded"
        w.kubelet.makes_ready = True
        await w.live()
        assert reason(w) == "NewReplicaSetAvailable"


async def test_a_paused_one_is_scaled_but_not_rolled() -> None:
    async with world() as w:
        await w.create(DEPLOYMENTS, workload())
        await w.live()
        await w.patch(DEPLOYMENTS, "web", {"spec": {"paused": True}})
        await roll(w, SECOND)
        await w.live()
        assert reason(w) == "DeploymentPaused"
        await w.patch(DEPLOYMENTS, "web", {"spec": {"replicas": 5}})
        await w.live()
        assert images(w) == ["registry.example/app:1"] * 5
        await w.patch(DEPLOYMENTS, "web", {"spec": {"paused": None}})
        await w.live()
        assert images(w) == [SECOND] * 5
        assert reason(w) == "NewReplicaSetAvailable"


async def test_recreate_ends_all_old_pods_before_the_first_new_one() -> None:
    async with world() as w:
        await w.create(DEPLOYMENTS, workload(strategy={"type": "Recreate"}))
        await w.live()
        w.after_plan = lambda: _no_mixture(w)
        await roll(w, SECOND)
        await w.settle()
        assert w.pods() == []
        await w.live()
        assert images(w) == [SECOND] * 3
        assert w.plans() == []


def _no_mixture(w: World) -> None:
    assert len({image_of(pod) for pod in w.select(PODS) if not objects.finished(pod)}) <= 1


async def test_scaling_amid_a_rollout_is_shared_in_proportion() -> None:
    async with world() as w:
        await w.create(DEPLOYMENTS, workload(replicas=10, strategy=_bounds(3, 2)))
        await w.live()
        w.kubelet.makes_ready = False
        await roll(w, SECOND)
        await w.live()
        assert sizes(w) == {"registry.example/app:1": 8, SECOND: 5}
        await w.patch(DEPLOYMENTS, "web", {"spec": {"replicas": 15}})
        await w.settle()
        assert sizes(w) == {"registry.example/app:1": 11, SECOND: 7}


def _bounds(surge: Any, unavailable: Any) -> Object:
    return {"type": "RollingUpdate", "rollingUpdate": {"maxSurge": surge, "maxUnavailable": unavailable}}


async def test_a_name_that_is_taken_is_counted_as_a_collision() -> None:
    async with world() as w:
        wanted = await w.client.create(DEPLOYMENTS, workload(paused=True), "default")
        other = workload("other", replicas=0)
        other["metadata"]["name"] = name_of(wanted)
        await w.create(REPLICA_SETS, other)
        await w.patch(DEPLOYMENTS, "web", {"spec": {"paused": None}})
        await w.live()
        assert w.get(DEPLOYMENTS, "web")["status"]["collisionCount"] == 1
        assert len(w.pods()) == 3


async def test_orphaned_sets_are_adopted_with_their_pods() -> None:
    async with world() as w:
        await w.create(DEPLOYMENTS, workload())
        await w.live()
        pods = {objects.name(pod) for pod in w.pods()}
        await w.delete(DEPLOYMENTS, "web", propagation="Background")
        (kept,) = w.select(REPLICA_SETS)
        await w.patch(REPLICA_SETS, objects.name(kept), {"metadata": {"ownerReferences": None}})
        await w.create(DEPLOYMENTS, workload())
        await w.live()
        assert {objects.name(pod) for pod in w.pods()} == pods
        assert len(w.select(REPLICA_SETS)) == 1


class NoSets:
    """Refuses ReplicaSets."""

    def handles(self, kind: Kind, operation: str, sub: str) -> bool:
        return kind.kind == "ReplicaSet" and operation == "CREATE"

    def admit(self, request: Request) -> None:
        raise status.forbidden("replicasets", "apps", "", "exceeded quota: sets")

    def reserve(self, request: Request) -> None:
        return None


async def test_a_set_that_is_refused_is_said() -> None:
    async with world(admission=Chain(NoSets())) as w:
        await w.create(DEPLOYMENTS, workload())
        await w.settle()
        assert reason(w) == "ReplicaSetCreateError"
        assert "ReplicaSetCreateError" in w.reasons()


async def test_it_ends_the_same_from_every_interrupted_point() -> None:
    async def scenario(w: World) -> object:
        await w.create(DEPLOYMENTS, workload(replicas=2, revisionHistoryLimit=0))
        await w.live()
        await roll(w, SECOND)
        await w.live()
        await w.patch(DEPLOYMENTS, "web", {"spec": {"replicas": 3}})
        await w.live()
        found = w.get(DEPLOYMENTS, "web")
        conditions = {item["type"]: item["reason"] for item in found["status"].pop("conditions")}
        return found["status"], conditions, objects.notes(found), sizes(w), images(w), w.plans()

    assert await every_interrupted_point(controllers, scenario) > 20


@settings(max_examples=12, deadline=None)
@given(
    replicas=st.integers(1, 6),
    surge=st.sampled_from([0, 1, 2, "25%", "60%"]),
    unavailable=st.sampled_from([0, 1, "30%"]),
    walk=st.lists(st.tuples(st.integers(0, 9), st.integers(0, 20)), max_size=40),
)
def test_no_walk_leaves_the_bounds(replicas: int, surge: Any, unavailable: Any, walk: list[tuple[int, int]]) -> None:
    if surge == 0 and unavailable == 0:
        unavailable = 1
    asyncio.run(_walk(replicas, surge, unavailable, walk))


async def _walk(replicas: int, surge: Any, unavailable: Any, walk: list[tuple[int, int]]) -> None:
    bounds = dm.fence(surge, unavailable, replicas)
    async with world() as w:
        await w.create(DEPLOYMENTS, workload(replicas=replicas, strategy=_bounds(surge, unavailable)))
        await w.live()

        def within() -> None:
            pods = w.pods()
            assert len(pods) <= replicas + bounds.surge
            assert sum(objects.ready(pod) for pod in pods) >= replicas - bounds.unavailable

        w.after_plan = within
        for action, which in walk:
            waiting = [pod for pod in w.select(PODS) if not objects.ready(pod) or objects.deleting(pod)]
            if action == 0:
                await roll(w, f"registry.example/app:{which}")
            elif action < 5 and waiting:
                pod = waiting[which % len(waiting)]
                move = w.kubelet.gone if objects.deleting(pod) else w.kubelet.run
                await move(objects.name(pod))
            elif action == 5:
                w.restart()
            else:
                await w.settle(plans=1 + which % 4)
        await w.live()
        assert len(w.pods()) == replicas
        assert reason(w) == "NewReplicaSetAvailable"
        assert w.plans() == []


@pytest.mark.parametrize(
    ("surge", "unavailable", "replicas", "found"),
    [
        ("25%", "25%", 10, dm.Fence(3, 2)),
        ("25%", "25%", 1, dm.Fence(1, 0)),
        (0, 0, 5, dm.Fence(0, 1)),
        (0, "10%", 5, dm.Fence(0, 1)),
        (1, 20, 5, dm.Fence(1, 5)),
    ],
)
def test_bounds_of_a_rollout(surge: Any, unavailable: Any, replicas: int, found: dm.Fence) -> None:
    assert dm.fence(surge, unavailable, replicas) == found


@pytest.mark.parametrize(
    ("new", "old", "replicas", "unavailable", "found"),
    [
        (dm.Size(0, 0), [dm.Size(10, 10)], 10, 2, [8]),
        (dm.Size(4, 4), [dm.Size(8, 8)], 10, 2, [4]),
        (dm.Size(5, 0), [dm.Size(8, 8)], 10, 2, [8]),
        (dm.Size(5, 0), [dm.Size(8, 5)], 10, 2, [8]),
        (dm.Size(5, 3), [dm.Size(3, 0), dm.Size(5, 5)], 10, 2, [0, 5]),
        (dm.Size(2, 2), [dm.Size(3, 9)], 5, 0, [3]),
    ],
)
def test_how_old_sets_shrink(
    new: dm.Size, old: list[dm.Size], replicas: int, unavailable: int, found: list[int]
) -> None:
    assert dm.old_sizes(new, old, replicas, unavailable) == found
