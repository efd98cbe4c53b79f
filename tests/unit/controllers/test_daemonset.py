"""DaemonSets run one pod on every node that fits, and roll within their bounds."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from cuboid.controllers.daemonset import DaemonSets
from cuboid.controllers.daemonset_nodes import Place, node_of, place
from cuboid.kube import objects
from cuboid.kube.client import DAEMON_SETS, NODES, PODS, REVISIONS
from tests.harness.control import World, every_interrupted_point
from tests.unit.controllers.workloads import image_of, template, workload

Object = dict[str, Any]
FIRST = "registry.example/app:1"
SECOND = "registry.example/app:2"


def world() -> World:
    return World(lambda: [DaemonSets()])


async def daemons(w: World, nodes: int = 3, **spec: Any) -> None:
    for number in range(nodes):
        await w.add_node(f"n{number}")
    await w.create(DAEMON_SETS, workload(replicas=None, **spec))
    await w.live()


async def roll(w: World, image: str) -> None:
    await w.patch(DAEMON_SETS, "web", {"spec": {"template": template("web", image)}})


def where(w: World) -> list[str]:
    return sorted(node_of(pod) for pod in w.pods())


def images(w: World) -> list[str]:
    return sorted(image_of(pod) for pod in w.pods())


def _update(unavailable: Any, surge: Any = 0) -> Object:
    return {"type": "RollingUpdate", "rollingUpdate": {"maxUnavailable": unavailable, "maxSurge": surge}}


async def test_every_node_gets_one_also_those_that_come_later() -> None:
    async with world() as w:
        await daemons(w)
        assert where(w) == ["n0", "n1", "n2"]
        await w.add_node("n3")
        await w.live()
        assert where(w) == ["n0", "n1", "n2", "n3"]
        status = w.get(DAEMON_SETS, "web")["status"]
        numbers = ("desiredNumberScheduled", "currentNumberScheduled", "numberReady", "numberAvailable")
        assert [status[key] for key in (*numbers, "updatedNumberScheduled")] == [4] * 5
        assert status["numberMisscheduled"] == 0
        assert w.plans() == []


async def test_a_pod_that_goes_or_fails_is_replaced() -> None:
    async with world() as w:
        await daemons(w)
        await w.delete(PODS, objects.name(w.pods()[0]))
        await w.kubelet.finish(objects.name(w.pods()[0]), phase="Failed")
        await w.live()
        assert len(w.pods()) == 2
        await w.advance(11)
        await w.live()
        assert where(w) == ["n0", "n1", "n2"]


async def test_a_cordoned_node_keeps_its_daemon_and_a_tainted_one_loses_it() -> None:
    async with world() as w:
        await daemons(w)
        cordon = {"key": "node.kubernetes.io/unschedulable", "effect": "NoSchedule"}
        await w.patch(NODES, "n0", {"spec": {"taints": [cordon]}})
        await w.patch(NODES, "n1", {"spec": {"taints": [{"key": "own", "effect": "NoSchedule"}]}})
        await w.patch(NODES, "n2", {"spec": {"taints": [{"key": "own", "effect": "NoExecute"}]}})
        await w.live()
        assert where(w) == ["n0", "n1"]
        assert w.get(DAEMON_SETS, "web")["status"]["numberMisscheduled"] == 1
        await w.delete(PODS, next(objects.name(pod) for pod in w.pods() if node_of(pod) == "n1"))
        await w.live()
        assert where(w) == ["n0"]


async def test_a_node_that_is_relabelled_comes_and_goes() -> None:
    async with world() as w:
        await daemons(w, template=template("web", FIRST, nodeSelector={"disk": "fast"}))
        assert where(w) == []
        await w.patch(NODES, "n1", {"metadata": {"labels": {"disk": "fast"}}})
        await w.live()
        assert where(w) == ["n1"]
        await w.patch(NODES, "n1", {"metadata": {"labels": {"disk": "slow"}}})
        await w.live()
        assert where(w) == []


async def test_an_update_goes_node_by_node() -> None:
    async with world() as w:
        await daemons(w)
        await roll(w, SECOND)
        await w.settle()
        assert images(w) == [FIRST, FIRST]
        await w.live()
        assert images(w) == [SECOND] * 3
        assert len(w.select(REVISIONS)) == 2


async def test_with_a_surge_the_old_one_goes_when_the_new_one_works() -> None:
    async with world() as w:
        await daemons(w, updateStrategy=_update(0, 1))
        await roll(w, SECOND)
        await w.settle()
        assert images(w) == [FIRST] * 3 + [SECOND]
        await w.live()
        assert images(w) == [SECOND] * 3
        assert w.plans() == []


async def test_on_delete_only_pods_that_are_deleted_are_updated() -> None:
    async with world() as w:
        await daemons(w, updateStrategy={"type": "OnDelete"})
        await roll(w, SECOND)
        await w.live()
        assert images(w) == [FIRST] * 3
        await w.delete(PODS, objects.name(w.pods()[0]))
        await w.live()
        assert images(w) == [FIRST, FIRST, SECOND]


RUNS, STAYS, NOT_AT_ALL = Place(True, True), Place(False, True), Place(False, False)


def _node(labels: Object | None = None, taint: str = "") -> Object:
    key, _, effect = taint.partition(":")
    taints = [{"key": key, "effect": effect}] if taint else []
    return {"metadata": {"name": "a", "labels": labels or {}}, "spec": {"taints": taints}}


def _required(*expressions: Object, key: str = "matchExpressions") -> Object:
    terms = {"nodeSelectorTerms": [{key: list(expressions)}]}
    return {"affinity": {"nodeAffinity": {"requiredDuringSchedulingIgnoredDuringExecution": terms}}}


def _says(key: str, operator: str, *values: str) -> Object:
    return {"key": key, "operator": operator, "values": list(values)}


@pytest.mark.parametrize(
    ("spec", "node", "expected"),
    [
        ({}, _node(), RUNS),
        ({"nodeName": "b"}, _node(), NOT_AT_ALL),
        ({"nodeSelector": {"a": "1"}}, _node({"a": "2"}), NOT_AT_ALL),
        (_required(_says("n", "Gt", "3")), _node({"n": "4"}), RUNS),
        (_required(_says("n", "Lt", "3")), _node({"n": "4"}), NOT_AT_ALL),
        (_required(_says("metadata.name", "In", "a"), key="matchFields"), _node(), RUNS),
        (_required(), _node(), NOT_AT_ALL),
        ({}, _node(taint="x:NoSchedule"), STAYS),
        ({}, _node(taint="x:NoExecute"), NOT_AT_ALL),
        ({}, _node(taint="x:PreferNoSchedule"), RUNS),
        ({"tolerations": [{"operator": "Exists"}]}, _node(taint="x:NoExecute"), RUNS),
        ({}, _node(taint="node.kubernetes.io/disk-pressure:NoSchedule"), RUNS),
        ({}, _node(taint="node.kubernetes.io/network-unavailable:NoSchedule"), STAYS),
        ({"hostNetwork": True}, _node(taint="node.kubernetes.io/network-unavailable:NoSchedule"), RUNS),
    ],
)
def test_which_nodes_fit(spec: Object, node: Object, expected: Place) -> None:
    assert place({"spec": {"template": {"spec": spec}}}, node) == expected


@pytest.mark.parametrize("update", [_update(1), _update(0, 1)])
async def test_it_ends_the_same_from_every_interrupted_point(update: Object) -> None:
    async def scenario(w: World) -> object:
        await daemons(w, updateStrategy=update)
        await roll(w, SECOND)
        await w.live()
        await w.delete(NODES, "n2")
        await w.live()
        return w.get(DAEMON_SETS, "web")["status"], where(w), images(w), len(w.select(REVISIONS)), w.plans()

    assert await every_interrupted_point(lambda: [DaemonSets()], scenario) > 15


@settings(max_examples=12, deadline=None)
@given(
    nodes=st.integers(1, 4),
    bounds=st.sampled_from([(1, 0), (2, 0), ("50%", 0), (0, 1), (0, "50%")]),
    walk=st.lists(st.tuples(st.integers(0, 9), st.integers(0, 20)), max_size=40),
)
def test_no_walk_leaves_the_bounds(nodes: int, bounds: tuple[Any, Any], walk: list[tuple[int, int]]) -> None:
    asyncio.run(_walk(nodes, bounds, walk))


def _up(value: Any, total: int) -> int:
    return -(-total // 2) if value == "50%" else int(value)


async def _walk(nodes: int, bounds: tuple[Any, Any], walk: list[tuple[int, int]]) -> None:
    unavailable, surge = (_up(value, nodes) for value in bounds)
    async with world() as w:
        await daemons(w, nodes, updateStrategy=_update(*bounds))

        def within() -> None:
            working = {node_of(pod) for pod in w.pods() if objects.ready(pod)}
            assert len(working) >= nodes - unavailable
            assert len(w.pods()) <= nodes + surge

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
        wanted = image_of(w.get(DAEMON_SETS, "web")["spec"]["template"])
        assert images(w) == [wanted] * nodes
        assert w.plans() == []
