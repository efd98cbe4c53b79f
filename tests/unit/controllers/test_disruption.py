"""What budgets allow."""

from __future__ import annotations

from typing import Any

import pytest

from cuboid.controllers.disruption import DisruptionController, budgets_of, scaled
from cuboid.controllers.disruption_stale import StaleDisruption
from cuboid.kube import objects
from cuboid.kube.client import BUDGETS, DEFINITIONS, DEPLOYMENTS, PODS, REPLICA_SETS, STATEFUL_SETS, Resource
from cuboid.kube.controller.view import Change, Key
from cuboid.lib.clock import rfc3339
from tests.harness.control import World, every_interrupted_point
from tests.harness.plain_view import PlainView, settle

Object = dict[str, Any]
KEY = Key("ns", "budget")
NOW = 10_000.0


def budget(*, status: Object | None = None, generation: int = 1, **spec: Any) -> Object:
    given = {"selector": {"matchLabels": {"app": "web"}}, **spec}
    meta = {"name": "budget", "namespace": "ns", "generation": generation}
    return {
        "apiVersion": "policy/v1",
        "kind": "PodDisruptionBudget",
        "metadata": meta,
        "spec": given,
        "status": status or {},
    }


def pod(number: int, *, ready: bool = True, leaving: bool = False, owner: str = "ReplicaSet/rs") -> Object:
    meta: Object = {"name": f"p{number}", "namespace": "ns", "labels": {"app": "web"}}
    if leaving:
        meta["deletionTimestamp"] = rfc3339(NOW)
    if owner:
        kind, _, name = owner.partition("/")
        group = {"Widget": "example.com/v1", "Job": "batch/v1"}.get(kind, "apps/v1")
        meta["ownerReferences"] = [
            {"apiVersion": group, "kind": kind, "name": name, "uid": f"uid-{name}", "controller": True}
        ]
    return {
        "kind": "Pod",
        "metadata": meta,
        "spec": {},
        "status": {"conditions": [{"type": "Ready", "status": str(ready)}]},
    }


def scale(kind: str, name: str, replicas: int, owner: str = "") -> Object:
    meta: Object = {"name": name, "namespace": "ns", "uid": f"uid-{name}"}
    if owner:
        ref = {"apiVersion": "apps/v1", "kind": "Deployment", "name": owner, "uid": f"uid-{owner}", "controller": True}
        meta["ownerReferences"] = [ref]
    return {"kind": kind, "metadata": meta, "spec": {"replicas": replicas}}


def world(given: Object, *pods: Object, replicas: int = 4) -> PlainView:
    view = PlainView()
    view.put(BUDGETS, given)
    view.put(PODS, *pods)
    view.put(REPLICA_SETS, scale("ReplicaSet", "rs", replicas))
    return view


def status(view: PlainView) -> Object:
    settle(DisruptionController(), KEY, view, NOW)
    found = view.get(BUDGETS, "ns", "budget")
    assert found is not None
    result: Object = found["status"]
    return result


def numbers(view: PlainView) -> tuple[int, int, int, int]:
    found = status(view)
    return found["expectedPods"], found["currentHealthy"], found["desiredHealthy"], found["disruptionsAllowed"]


@pytest.mark.parametrize(
    ("spec", "expected"),
    [
        ({"minAvailable": 2}, (4, 4, 2, 2)),
        ({"minAvailable": 6}, (4, 4, 6, 0)),
        ({"minAvailable": 0}, (4, 4, 0, 4)),
        ({"minAvailable": "30%"}, (4, 4, 2, 2)),
        ({"minAvailable": "100%"}, (4, 4, 4, 0)),
        ({"maxUnavailable": 1}, (4, 4, 3, 1)),
        ({"maxUnavailable": "30%"}, (4, 4, 2, 2)),
        ({"maxUnavailable": 9}, (4, 4, 0, 4)),
        ({"maxUnavailable": 0}, (4, 4, 4, 0)),
    ],
)
def test_numbers_and_percentages_which_are_rounded_up(spec: Object, expected: tuple[int, ...]) -> None:
    assert numbers(world(budget(**spec), *(pod(n) for n in range(4)))) == expected


def test_pods_that_are_not_ready_or_leaving_are_not_healthy() -> None:
    view = world(budget(minAvailable=1), pod(1), pod(2, ready=False), pod(3, leaving=True))
    assert numbers(view) == (3, 1, 1, 0)
    (condition,) = status(view)["conditions"]
    assert (condition["status"], condition["reason"]) == ("False", "InsufficientPods")


def test_without_pods_nothing_is_allowed_and_it_is_said_once() -> None:
    view = world(budget(maxUnavailable=1))
    assert numbers(view) == (0, 0, 0, 0)
    status(view)
    assert view.told == ["NoPods: No matching pods found"]


def test_two_replica_sets_of_one_deployment_count_once() -> None:
    view = world(budget(maxUnavailable=1), pod(1, owner="ReplicaSet/new"), pod(2, owner="ReplicaSet/old"))
    view.put(REPLICA_SETS, scale("ReplicaSet", "new", 1, "web"), scale("ReplicaSet", "old", 1, "web"))
    view.put(DEPLOYMENTS, scale("Deployment", "web", 2))
    assert numbers(view)[0] == 2


def test_stateful_sets_and_custom_resources_have_scales_too() -> None:
    view = world(budget(maxUnavailable=1), pod(1, owner="StatefulSet/db"), pod(2, owner="Widget/w"))
    view.put(STATEFUL_SETS, scale("StatefulSet", "db", 3))
    scaling = {"scale": {"specReplicasPath": ".spec.size.count"}}
    names = {"kind": "Widget", "plural": "widgets"}
    versions = [{"name": "v1", "subresources": scaling}]
    spec = {"group": "example.com", "names": names, "scope": "Namespaced", "versions": versions}
    view.put(DEFINITIONS, {"metadata": {"name": "widgets.example.com"}, "spec": spec})
    widget = {"metadata": {"name": "w", "namespace": "ns", "uid": "uid-w"}, "spec": {"size": {"count": 5}}}
    view.put(Resource("example.com", "v1", "widgets"), widget)
    assert numbers(view)[0] == 8


def test_pods_whose_number_nobody_knows_are_not_disrupted() -> None:
    view = world(budget(maxUnavailable=1), pod(1, owner="Job/j"))
    found = status(view)
    (condition,) = found["conditions"]
    assert found["disruptionsAllowed"] == 0
    assert (condition["reason"], condition["message"]) == ("SyncFailed", 'found no controllers for pod "p1"')
    assert numbers(view)[3] == 0
    (told,) = view.told
    assert told.startswith("CalculateExpectedPodCountFailed: Failed to calculate the number of expected pods: found no")


def test_an_integer_needs_no_controllers() -> None:
    assert numbers(world(budget(minAvailable=1), pod(1, owner=""), pod(2, owner="Job/j"))) == (2, 2, 1, 1)


def test_unmanaged_pods_are_said() -> None:
    view = world(budget(maxUnavailable=1), pod(1, owner=""))
    status(view)
    assert view.told[0].startswith("UnmanagedPods: Pods selected by this PodDisruptionBudget (selector: app=web)")


def test_a_granted_eviction_counts_until_its_pod_is_seen_leaving_or_two_minutes_have_passed() -> None:
    granted = {"p1": rfc3339(NOW - 10), "p2": rfc3339(NOW - 10), "p3": rfc3339(NOW - 121), "gone": rfc3339(NOW)}
    given = budget(minAvailable=1, status={"disruptedPods": granted, "observedGeneration": 1})
    view = world(given, pod(1), pod(2, leaving=True), pod(3), pod(4))
    plan = DisruptionController().plan(KEY, view, NOW)
    assert plan.again == 110.0
    found = status(view)
    assert found["disruptedPods"] == {"p1": rfc3339(NOW - 10)}
    assert (found["currentHealthy"], found["disruptionsAllowed"]) == (2, 1)
    assert view.told == ["NotDeleted: Pod was expected by PDB ns/budget to be deleted but it wasn't"]


@pytest.mark.parametrize(("selector", "count"), [({}, 2), (None, 0), ({"matchLabels": {"app": "web"}}, 1)])
def test_an_empty_selector_is_every_pod_and_none_is_none(selector: Object | None, count: int) -> None:
    other = pod(2)
    other["metadata"]["labels"] = {}
    assert numbers(world(budget(minAvailable=1, selector=selector), pod(1), other))[0] == count


def test_nothing_is_written_at_rest() -> None:
    view = world(budget(minAvailable=1), pod(1), pod(2))
    status(view)
    view.log.clear()
    status(view)
    assert view.log == []


def test_a_pod_wakes_its_budgets_before_and_after_a_change_of_labels() -> None:
    view = world(budget(minAvailable=1))
    moved = pod(1)
    moved["metadata"]["labels"] = {}
    assert list(budgets_of(Change("MODIFIED", moved, pod(1)), view)) == [KEY]
    assert list(budgets_of(Change("MODIFIED", pod(1), pod(1)), view)) == []
    assert list(budgets_of(Change("ADDED", moved), view)) == []


@pytest.mark.parametrize(("value", "total", "expected"), [(3, 10, 3), ("25%", 10, 3), ("1%", 1, 1), ("0%", 5, 0)])
def test_shares_are_rounded_up(value: int | str, total: int, expected: int) -> None:
    assert scaled(value, total) == expected


async def test_a_pod_that_was_not_disrupted_after_all_is_no_longer_said_to_be() -> None:
    async with World(lambda: [StaleDisruption()]) as world:
        for name in ("stays", "leaves"):
            spec = {"containers": [{"name": "c", "image": "i"}]}
            await world.create(PODS, {"metadata": {"name": name}, "spec": spec})
            await world.kubelet.run(name)
            target = {"type": "DisruptionTarget", "status": "True", "lastTransitionTime": rfc3339(world.clock.now())}
            conditions = [*world.get(PODS, name)["status"]["conditions"], target]
            await world.patch(PODS, name, {"status": {"conditions": conditions}}, sub="status")
        await world.delete(PODS, "leaves")
        await world.advance(119)
        assert objects.is_true(world.get(PODS, "stays"), "DisruptionTarget")
        await world.advance(2)
        assert not objects.is_true(world.get(PODS, "stays"), "DisruptionTarget")
        assert objects.ready(world.get(PODS, "stays"))
        assert objects.is_true(world.get(PODS, "leaves"), "DisruptionTarget")


async def test_budgets_are_kept_from_every_interrupted_point_of_the_real_registry() -> None:
    async def scenario(world: World) -> object:
        labels = {"app": "web"}
        for name in ("a", "b", "c"):
            spec = {"containers": [{"name": "c", "image": "i"}]}
            await world.create(PODS, {"metadata": {"name": name, "labels": labels}, "spec": spec})
            await world.kubelet.run(name, ready=name != "c")
        given = {"selector": {"matchLabels": labels}, "minAvailable": 1}
        await world.create(BUDGETS, {"metadata": {"name": "budget"}, "spec": given})
        await world.settle()
        await world.kubelet.run("c")
        await world.settle()
        found = world.get(BUDGETS, "budget")["status"]
        assert (found["disruptionsAllowed"], found["observedGeneration"]) == (2, 1)
        return world.outline(BUDGETS)

    assert await every_interrupted_point(lambda: [DisruptionController()], scenario) == 2
