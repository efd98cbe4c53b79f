"""StatefulSets bring up, update and end numbered pods in order, and keep their claims."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from cuboid.controllers.common import MANY
from cuboid.controllers.statefulset import StatefulSets
from cuboid.kube import objects
from cuboid.kube.client import PODS, REVISIONS, STATEFUL_SETS, VOLUME_CLAIMS
from tests.harness.control import World, every_interrupted_point
from tests.unit.controllers.workloads import image_of, template, workload

Object = dict[str, Any]
FIRST = "registry.example/app:1"
SECOND = "registry.example/app:2"


def world() -> World:
    return World(lambda: [StatefulSets()])


def claims() -> list[Object]:
    room = {"resources": {"requests": {"storage": "1Gi"}}, "accessModes": ["ReadWriteOnce"]}
    return [{"metadata": {"name": "data"}, "spec": room}]


async def roll(w: World, image: str) -> None:
    await w.patch(STATEFUL_SETS, "web", {"spec": {"template": template("web", image)}})


def names(w: World) -> list[str]:
    return [objects.name(pod) for pod in w.select(PODS)]


def images(w: World) -> list[str]:
    return [image_of(pod) for pod in w.select(PODS)]


async def test_pods_come_up_one_after_the_other_with_names_and_numbers() -> None:
    async with world() as w:
        await w.create(STATEFUL_SETS, workload(serviceName="all"))
        await w.settle()
        assert names(w) == ["web-0"]
        await w.kubelet.run("web-0", ready=False)
        await w.settle()
        assert names(w) == ["web-0"]
        await w.live()
        assert names(w) == ["web-0", "web-1", "web-2"]
        pod = w.get(PODS, "web-1")
        assert objects.labels(pod)["statefulset.kubernetes.io/pod-name"] == "web-1"
        assert objects.labels(pod)["apps.kubernetes.io/pod-index"] == "1"
        assert (pod["spec"]["hostname"], pod["spec"]["subdomain"]) == ("web-1", "all")
        status = w.get(STATEFUL_SETS, "web")["status"]
        assert status["currentRevision"] == status["updateRevision"] == objects.labels(pod)["controller-revision-hash"]
        assert [status[key] for key in ("replicas", "readyReplicas", "availableReplicas", "currentReplicas")] == [3] * 4
        assert w.plans() == []


async def test_in_parallel_all_come_and_go_at_once() -> None:
    async with world() as w:
        await w.create(STATEFUL_SETS, workload(podManagementPolicy="Parallel", ordinals={"start": 5}))
        await w.settle()
        assert names(w) == ["web-5", "web-6", "web-7"]
        await w.live()
        await w.patch(STATEFUL_SETS, "web", {"spec": {"replicas": 0}})
        await w.settle()
        assert w.pods() == []


async def test_a_number_beyond_all_bounds_costs_one_step_at_a_time() -> None:
    async with world() as w:
        await w.create(STATEFUL_SETS, workload(replicas=2**31 - 1, podManagementPolicy="Parallel"))
        await w.settle(plans=3)
        assert len(w.select(PODS)) <= 2 * MANY


async def test_the_highest_number_goes_first_and_the_next_waits_for_it() -> None:
    async with world() as w:
        await w.create(STATEFUL_SETS, workload())
        await w.live()
        await w.patch(STATEFUL_SETS, "web", {"spec": {"replicas": 1}})
        await w.settle()
        assert [objects.name(pod) for pod in w.pods()] == ["web-0", "web-1"]
        await w.kubelet.gone("web-2")
        await w.settle()
        assert [objects.name(pod) for pod in w.pods()] == ["web-0"]


async def test_a_pod_that_has_ended_comes_back_under_its_name() -> None:
    async with world() as w:
        await w.create(STATEFUL_SETS, workload())
        await w.live()
        before = objects.uid(w.get(PODS, "web-1"))
        await w.kubelet.finish("web-1", phase="Failed")
        await w.live()
        assert objects.uid(w.get(PODS, "web-1")) != before
        assert "RecreatingFailedPod" in w.reasons()


async def test_an_update_goes_from_the_highest_number_down_and_waits_for_each() -> None:
    async with world() as w:
        await w.create(STATEFUL_SETS, workload())
        await w.live()
        await roll(w, SECOND)
        await w.settle()
        assert [objects.name(pod) for pod in w.pods()] == ["web-0", "web-1"]
        await w.kubelet.gone("web-2")
        await w.settle()
        assert images(w) == [FIRST, FIRST, SECOND]
        await w.settle()
        assert [objects.name(pod) for pod in w.pods()] == ["web-0", "web-1", "web-2"]
        await w.live()
        assert images(w) == [SECOND] * 3
        status = w.get(STATEFUL_SETS, "web")["status"]
        assert status["currentRevision"] == status["updateRevision"]
        assert len(w.select(REVISIONS)) == 2


async def test_a_partition_keeps_the_lower_numbers_even_when_they_are_made_anew() -> None:
    async with world() as w:
        strategy = {"type": "RollingUpdate", "rollingUpdate": {"partition": 2}}
        await w.create(STATEFUL_SETS, workload(updateStrategy=strategy))
        await w.live()
        await roll(w, SECOND)
        await w.live()
        assert images(w) == [FIRST, FIRST, SECOND]
        await w.delete(PODS, "web-0")
        await w.live()
        assert images(w) == [FIRST, FIRST, SECOND]
        status = w.get(STATEFUL_SETS, "web")["status"]
        assert status["currentRevision"] != status["updateRevision"]
        assert (status["currentReplicas"], status["updatedReplicas"]) == (2, 1)


async def test_on_delete_only_pods_that_are_deleted_are_updated() -> None:
    async with world() as w:
        await w.create(STATEFUL_SETS, workload(updateStrategy={"type": "OnDelete"}))
        await w.live()
        await roll(w, SECOND)
        await w.live()
        assert images(w) == [FIRST] * 3
        await w.delete(PODS, "web-1")
        await w.live()
        assert images(w) == [FIRST, SECOND, FIRST]


async def test_claims_are_made_once_and_stay_when_nothing_else_is_said() -> None:
    async with world() as w:
        await w.create(STATEFUL_SETS, workload(replicas=2, volumeClaimTemplates=claims()))
        await w.live()
        assert [objects.name(one) for one in w.select(VOLUME_CLAIMS)] == ["data-web-0", "data-web-1"]
        volume = next(v for v in w.get(PODS, "web-1")["spec"]["volumes"] if v["name"] == "data")
        assert volume["persistentVolumeClaim"]["claimName"] == "data-web-1"
        await w.patch(STATEFUL_SETS, "web", {"spec": {"replicas": 1}})
        await w.live()
        assert len(w.select(VOLUME_CLAIMS)) == 2
        assert all("ownerReferences" not in one["metadata"] for one in w.select(VOLUME_CLAIMS))


async def test_claims_belong_to_the_set_or_to_the_pod_that_is_scaled_away() -> None:
    async with world() as w:
        policy = {"whenDeleted": "Delete", "whenScaled": "Delete"}
        more: Object = {"volumeClaimTemplates": claims(), "persistentVolumeClaimRetentionPolicy": policy}
        await w.create(STATEFUL_SETS, workload(replicas=2, **more))
        await w.live()
        assert _owners(w) == ["StatefulSet", "StatefulSet"]
        await w.patch(STATEFUL_SETS, "web", {"spec": {"replicas": 1}})
        await w.settle()
        assert _owners(w) == ["StatefulSet", "Pod"]
        await w.patch(
            STATEFUL_SETS, "web", {"spec": {"persistentVolumeClaimRetentionPolicy": {"whenDeleted": "Retain"}}}
        )
        await w.settle()
        assert _owners(w)[0] == ""


def _owners(w: World) -> list[str]:
    refs = [one["metadata"].get("ownerReferences", [{}]) for one in w.select(VOLUME_CLAIMS)]
    return [",".join(ref.get("kind", "") for ref in row) for row in refs]


async def test_history_beyond_the_limit_is_forgotten_and_going_back_renumbers() -> None:
    async with world() as w:
        await w.create(STATEFUL_SETS, workload(replicas=1, revisionHistoryLimit=1))
        await w.live()
        for number in (2, 3):
            await roll(w, f"registry.example/app:{number}")
            await w.live()
        assert sorted(one["revision"] for one in w.select(REVISIONS)) == [2, 3]
        await roll(w, SECOND)
        await w.live()
        assert sorted(one["revision"] for one in w.select(REVISIONS)) == [3, 4]
        assert images(w) == [SECOND]


@pytest.mark.parametrize("policy", ["OrderedReady", "Parallel"])
async def test_it_ends_the_same_from_every_interrupted_point(policy: str) -> None:
    async def scenario(w: World) -> object:
        retention = {"whenDeleted": "Delete", "whenScaled": "Delete"}
        more: Object = {"volumeClaimTemplates": claims(), "persistentVolumeClaimRetentionPolicy": retention}
        await w.create(STATEFUL_SETS, workload(replicas=2, podManagementPolicy=policy, **more))
        await w.live()
        await roll(w, SECOND)
        await w.live()
        await w.patch(STATEFUL_SETS, "web", {"spec": {"replicas": 1}})
        await w.live()
        status = w.get(STATEFUL_SETS, "web")["status"]
        return status, names(w), images(w), _owners(w), len(w.select(REVISIONS)), w.plans()

    assert await every_interrupted_point(lambda: [StatefulSets()], scenario) > 15


@settings(max_examples=12, deadline=None)
@given(
    replicas=st.integers(1, 4),
    unavailable=st.sampled_from([1, 2]),
    policy=st.sampled_from(["OrderedReady", "Parallel"]),
    walk=st.lists(st.tuples(st.integers(0, 9), st.integers(0, 20)), max_size=40),
)
def test_no_walk_leaves_the_bounds(replicas: int, unavailable: int, policy: str, walk: list[tuple[int, int]]) -> None:
    asyncio.run(_walk(replicas, unavailable, policy, walk))


async def _walk(replicas: int, unavailable: int, policy: str, walk: list[tuple[int, int]]) -> None:
    async with world() as w:
        strategy = {"type": "RollingUpdate", "rollingUpdate": {"maxUnavailable": unavailable}}
        await w.create(STATEFUL_SETS, workload(replicas=replicas, podManagementPolicy=policy, updateStrategy=strategy))
        await w.live()

        def within() -> None:
            working = sum(objects.ready(pod) for pod in w.pods())
            assert working >= replicas - unavailable
            assert set(names(w)) <= {f"web-{number}" for number in range(replicas)}

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
        wanted = image_of(w.get(STATEFUL_SETS, "web")["spec"]["template"])
        assert images(w) == [wanted] * replicas
        assert w.plans() == []
