"""ReplicaSets keep the number of their pods, choose well which to end, and survive any interruption."""

from __future__ import annotations

from typing import Any

import pytest

from cuboid.controllers.replicaset import ReplicaSets
from cuboid.controllers.replicaset_rank import COST, first_to_go
from cuboid.kube import objects, status
from cuboid.kube.admission import Chain, Request
from cuboid.kube.client import PODS, REPLICA_SETS
from cuboid.kube.kind import Kind
from cuboid.lib.clock import rfc3339
from tests.harness.control import World, every_interrupted_point
from tests.unit.controllers.workloads import template, workload

Object = dict[str, Any]
NOW = 1_700_000_000.0


def world(**more: Any) -> World:
    return World(lambda: [ReplicaSets()], **more)


async def test_pods_are_made_counted_and_replaced() -> None:
    async with world() as w:
        made = await w.create(REPLICA_SETS, workload())
        await w.live()
        pods = w.pods()
        assert len(pods) == 3
        assert {objects.controller(pod)["uid"] for pod in pods if objects.controller(pod)} == {objects.uid(made)}  # type: ignore[index]
        assert w.get(REPLICA_SETS, "web")["status"] == {
            "replicas": 3,
            "fullyLabeledReplicas": 3,
            "readyReplicas": 3,
            "availableReplicas": 3,
            "terminatingReplicas": 0,
            "observedGeneration": 1,
        }
        await w.kubelet.finish(objects.name(pods[0]), phase="Failed")
        await w.live()
        assert len(w.pods()) == 3
        assert len(w.select(PODS)) == 4
        assert w.reasons().count("SuccessfulCreate") == 4
        assert w.plans() == []


async def test_scaling_down_ends_the_newest_and_counts_those_that_end() -> None:
    async with world() as w:
        await w.create(REPLICA_SETS, workload(replicas=2))
        await w.live()
        old = {objects.name(pod) for pod in w.pods()}
        await w.advance(1000)
        await w.patch(REPLICA_SETS, "web", {"spec": {"replicas": 4}})
        await w.live()
        await w.advance(1)
        await w.patch(REPLICA_SETS, "web", {"spec": {"replicas": 2}})
        await w.settle()
        assert {objects.name(pod) for pod in w.pods()} == old
        assert w.get(REPLICA_SETS, "web")["status"]["terminatingReplicas"] == 2
        await w.live()
        assert w.get(REPLICA_SETS, "web")["status"]["terminatingReplicas"] == 0


async def test_orphans_are_adopted_and_what_is_relabelled_is_released() -> None:
    async with world() as w:
        orphan = {"metadata": {"name": "lone", "labels": {"app": "web"}}, "spec": template()["spec"]}
        await w.create(PODS, orphan)
        await w.create(REPLICA_SETS, workload(replicas=1))
        await w.live()
        assert [objects.name(pod) for pod in w.pods()] == ["lone"]
        assert objects.controller(w.get(PODS, "lone")) is not None
        await w.patch(PODS, "lone", {"metadata": {"labels": {"app": "other"}}})
        await w.live()
        assert objects.controller(w.get(PODS, "lone")) is None
        assert len(w.pods()) == 2


async def test_pods_of_another_controller_are_left_alone() -> None:
    async with world() as w:
        other = {"apiVersion": "v1", "kind": "Other", "name": "x", "uid": "u", "controller": True}
        taken = {"metadata": {"name": "taken", "labels": {"app": "web"}, "ownerReferences": [other]}}
        await w.create(PODS, {**taken, "spec": template()["spec"]})
        await w.create(REPLICA_SETS, workload(replicas=1))
        await w.settle()
        assert len(w.pods()) == 2


async def test_a_pod_of_another_namespace_that_calls_itself_owned_is_a_strangers() -> None:
    async with world() as w:
        made = await w.create(REPLICA_SETS, workload(replicas=1))
        await w.settle()
        claim = {**objects.owner_reference(made)}
        body = {"metadata": {"name": "intruder", "labels": {"app": "web"}, "ownerReferences": [claim]}}
        await w.create(PODS, {**body, "spec": template()["spec"]}, "kube-public")
        await w.patch(REPLICA_SETS, "web", {"spec": {"replicas": 0}})
        await w.settle()
        assert [objects.name(pod) for pod in w.pods()] == ["intruder"]
        assert w.get(REPLICA_SETS, "web")["status"]["replicas"] == 0


async def test_a_pod_counts_as_available_after_its_time() -> None:
    async with world() as w:
        await w.create(REPLICA_SETS, workload(replicas=1, minReadySeconds=30))
        await w.live()
        assert "availableReplicas" not in w.get(REPLICA_SETS, "web")["status"]
        await w.advance(29)
        assert "availableReplicas" not in w.get(REPLICA_SETS, "web")["status"]
        await w.advance(1)
        assert w.get(REPLICA_SETS, "web")["status"]["availableReplicas"] == 1


class Quota:
    """Refuses pods beyond a number."""

    def __init__(self, most: int) -> None:
        self.left = most

    def handles(self, kind: Kind, operation: str, sub: str) -> bool:
        return kind.kind == "Pod" and operation == "CREATE"

    def admit(self, request: Request) -> None:
        if self.left <= 0:
            raise status.forbidden("pods", "", "", "exceeded quota: few")
        self.left -= 1

    def reserve(self, request: Request) -> None:
        return None


async def test_a_refused_pod_is_said_in_the_status_and_tried_again() -> None:
    quota = Quota(1)
    async with world(admission=Chain(quota)) as w:
        await w.create(REPLICA_SETS, workload())
        await w.settle()
        condition = objects.condition(w.get(REPLICA_SETS, "web"), "ReplicaFailure")
        assert condition is not None
        assert condition["reason"] == "FailedCreate"
        assert "exceeded quota" in condition["message"]
        assert "FailedCreate" in w.reasons()
        quota.left = 10
        await w.advance(120)
        assert len(w.pods()) == 3
        assert objects.condition(w.get(REPLICA_SETS, "web"), "ReplicaFailure") is None


async def test_one_that_is_being_deleted_makes_no_pods() -> None:
    async with world() as w:
        held = workload()
        held["metadata"]["finalizers"] = ["example.org/hold"]
        await w.create(REPLICA_SETS, held)
        await w.settle()
        await w.delete(REPLICA_SETS, "web")
        name = objects.name(w.pods()[0])
        await w.delete(PODS, name)
        await w.settle()
        assert len(w.pods()) == 2


def _pod(name: str, **about: Any) -> Object:
    given = {"node": "n1", "phase": "Running", "ready": 100, "cost": 0, "restarts": 0, "age": 200, **about}
    ready = given["ready"] is not None
    since = rfc3339(NOW - (given["ready"] or 0))
    return {
        "metadata": {
            "name": name,
            "uid": name,
            "creationTimestamp": rfc3339(NOW - given["age"]),
            "annotations": {COST: str(given["cost"])},
        },
        "spec": {"nodeName": given["node"]},
        "status": {
            "phase": given["phase"],
            "conditions": [{"type": "Ready", "status": str(ready), "lastTransitionTime": since}],
            "containerStatuses": [{"restartCount": given["restarts"]}],
        },
    }


@pytest.mark.parametrize(
    ("first", "second"),
    [
        ({"node": ""}, {"phase": "Pending", "ready": None}),
        ({"phase": "Pending"}, {"phase": "Running", "ready": None}),
        ({"ready": None}, {"cost": -5}),
        ({"cost": -1, "ready": 5000}, {}),
        ({"ready": 2}, {"ready": 1000}),
        ({"restarts": 3}, {"restarts": 1}),
        ({"age": 3}, {"age": 4000}),
        ({"cost": "many", "ready": 1}, {"cost": 0}),
    ],
)
def test_who_goes_first(first: Object, second: Object) -> None:
    pods = [_pod("b", **second), _pod("a", **first)]
    assert [objects.name(pod) for pod in first_to_go(pods, pods, NOW)] == ["a", "b"]


def test_one_of_two_on_a_node_goes_before_one_that_is_alone() -> None:
    pods = [_pod("alone", node="n2"), _pod("x", node="n1"), _pod("y", node="n1")]
    neighbour = _pod("of another revision", node="n2")
    assert objects.name(first_to_go(pods, pods, NOW)[0]) in ("x", "y")
    assert objects.name(first_to_go(pods[:2], [*pods[:2], neighbour], NOW)[0]) == "alone"


async def test_it_ends_the_same_from_every_interrupted_point() -> None:
    async def scenario(w: World) -> object:
        await w.create(PODS, {"metadata": {"name": "lone", "labels": {"app": "web"}}, "spec": template()["spec"]})
        await w.create(REPLICA_SETS, workload(replicas=5))
        await w.live()
        await w.patch(REPLICA_SETS, "web", {"spec": {"replicas": 2}})
        await w.live()
        await w.kubelet.finish(objects.name(w.pods()[0]), phase="Failed")
        await w.live()
        return len(w.pods()), w.get(REPLICA_SETS, "web")["status"], w.plans()

    assert await every_interrupted_point(lambda: [ReplicaSets()], scenario) >= 15
