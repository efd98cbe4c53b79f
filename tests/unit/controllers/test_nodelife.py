"""Nodes that are no longer heard of, and what becomes of their pods."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import pytest

from cuboid.controllers import nodelife_zones as zones
from cuboid.controllers.nodelife import NodeLifecycleController
from cuboid.controllers.nodelife_pods import by_looking, in_cache
from cuboid.controllers.nodelife_taints import taints
from cuboid.controllers.podgc import PodGarbage
from cuboid.controllers.replicaset import ReplicaSets
from cuboid.controllers.statefulset import StatefulSets
from cuboid.controllers.taints import TaintController, seconds_left, tolerates
from cuboid.kube import objects
from cuboid.kube.client import LEASES, NODES, PODS, REPLICA_SETS, STATEFUL_SETS, Resource
from cuboid.kube.controller.view import Controller
from cuboid.lib.clock import rfc3339, rfc3339_micro
from cuboid.lib.errors import NotFoundError
from tests.harness.control import World, every_interrupted_point

Object = dict[str, Any]
LEASE = 8
BEAT = 2
TOLERATION = 4


def make() -> list[Controller]:
    return [NodeLifecycleController(), TaintController()]


async def beat(world: World, *nodes: str) -> None:
    """What a node agent does every two seconds."""
    for node in nodes:
        spec = {"holderIdentity": node, "leaseDurationSeconds": LEASE, "renewTime": rfc3339_micro(world.clock.now())}
        try:
            await world.patch(LEASES, node, {"spec": spec}, "kube-node-lease")
        except NotFoundError:
            await world.create(LEASES, {"metadata": {"name": node}, "spec": spec}, "kube-node-lease")


async def say(world: World, node: str, status: str, **more: str) -> None:
    """The node agent writes its Node object."""
    now = rfc3339(world.clock.now())
    rows = [
        {
            "type": "Ready",
            "status": status,
            "lastHeartbeatTime": now,
            "lastTransitionTime": now,
            "reason": "R",
            "message": "m",
        }
    ]
    rows += [
        {"type": kind, "status": value, "lastHeartbeatTime": now, "lastTransitionTime": now}
        for kind, value in more.items()
    ]
    await world.patch(NODES, node, {"status": {"conditions": rows}}, sub="status")


async def live(world: World, seconds: int, *nodes: str) -> None:
    for _ in range(seconds // BEAT):
        await beat(world, *nodes)
        await world.advance(BEAT)


async def cluster(world: World, *nodes: str) -> None:
    for node in nodes:
        await world.add_node(node)
    await live(world, 4, *nodes)


async def place(world: World, name: str, node: str, *, tolerations: Iterable[Object] | None = None) -> None:
    keys = ("node.kubernetes.io/not-ready", "node.kubernetes.io/unreachable")
    default = [{"key": k, "operator": "Exists", "effect": "NoExecute", "tolerationSeconds": TOLERATION} for k in keys]
    spec = {
        "containers": [{"name": "c", "image": "i"}],
        "tolerations": default if tolerations is None else list(tolerations),
    }
    await world.create(PODS, {"metadata": {"name": name}, "spec": spec})
    await world.kubelet.bind(name, node)
    await world.kubelet.run(name)
    await world.settle()


def ready(world: World, node: str) -> str:
    found = objects.condition(world.get(NODES, node, ""), "Ready")
    return str(found["status"]) if found else ""


def tainted(world: World, node: str) -> list[str]:
    given = world.get(NODES, node, "")["spec"].get("taints") or []
    return sorted(f"{t['key'].removeprefix('node.kubernetes.io/')}:{t['effect']}" for t in given)


def leaving(world: World, pod: str) -> bool:
    return objects.deleting(world.get(PODS, pod))


async def test_a_node_that_falls_silent_is_unknown_and_its_pods_are_evicted_within_thirteen_seconds() -> None:
    async with World(make) as world:
        await cluster(world, "a", "b")
        await place(world, "web", "a")
        silent_since = world.clock.now()
        while ready(world, "a") == "True":
            await live(world, BEAT, "b")
        assert 6 <= world.clock.now() - silent_since <= LEASE
        condition = objects.condition(world.get(NODES, "a", ""), "Ready")
        assert condition is not None
        assert condition["reason"] == "NodeStatusUnknown"
        assert condition["message"] == "Kubelet stopped posting node status."
        assert tainted(world, "a") == ["unreachable:NoExecute", "unreachable:NoSchedule"]
        assert not objects.ready(world.get(PODS, "web")), "nobody is sent to a pod that is not heard of"
        assert not leaving(world, "web"), "it is tolerated for a while"
        while not leaving(world, "web"):
            await live(world, BEAT, "b")
        assert world.clock.now() - silent_since <= 13
        target = objects.condition(world.get(PODS, "web"), "DisruptionTarget")
        assert target is not None
        assert (target["status"], target["reason"]) == ("True", "DeletionByTaintManager")
        assert world.reasons() == ["NodeNotReady", "NodeNotReady", "TaintManagerEviction"]
        assert tainted(world, "b") == []


async def test_a_node_that_renews_its_lease_is_left_in_peace() -> None:
    async with World(make) as world:
        await cluster(world, "a", "b")
        await live(world, 60, "a", "b")
        assert (ready(world, "a"), world.writes) == ("True", 0)


async def test_a_node_that_comes_back_loses_its_taints_and_pods_that_were_not_evicted_stay() -> None:
    async with World(make) as world:
        await cluster(world, "a", "b")
        await place(world, "web", "a")
        while not tainted(world, "a"):
            await live(world, BEAT, "b")
        await beat(world, "a")
        await say(world, "a", "True")
        await live(world, 20, "a", "b")
        assert tainted(world, "a") == []
        assert not leaving(world, "web")


async def test_when_all_nodes_are_lost_at_once_nothing_is_evicted_and_each_gets_time_to_come_back() -> None:
    async with World(make) as world:
        await cluster(world, "a", "b", "c")
        for number, node in enumerate("abc"):
            await place(world, f"p{number}", node)
        await world.advance(120)  # nobody is heard of
        assert [ready(world, node) for node in "abc"] == ["Unknown"] * 3
        assert [tainted(world, node) for node in "abc"] == [["unreachable:NoSchedule"]] * 3
        assert not any(leaving(world, f"p{n}") for n in range(3))
        await beat(world, "a")
        await say(world, "a", "True")
        await live(world, LEASE - 2, "a")
        assert tainted(world, "b") == ["unreachable:NoSchedule"], "it may come back a little later than the first"
        await beat(world, "b")
        await say(world, "b", "True")
        await live(world, 12, "a", "b")
        assert [tainted(world, node) for node in "ab"] == [[], []]
        assert tainted(world, "c") == ["unreachable:NoExecute", "unreachable:NoSchedule"]
        assert [leaving(world, f"p{n}") for n in range(3)] == [False, False, True]


async def test_after_a_time_without_a_server_every_node_gets_its_lease_anew() -> None:
    async with World(make) as world:
        await cluster(world, "a", "b")
        world.clock.advance(600)  # the server was away: leases are ten minutes old
        world._start()
        await live(world, 6, "b")
        assert ready(world, "a") == "True"
        await live(world, 4, "b")
        assert ready(world, "a") == "Unknown"


async def test_a_process_that_stood_still_gives_up_nobody_for_it() -> None:
    async with World(make) as world:
        await cluster(world, "a", "b")
        world.clock.advance(600)
        await live(world, 4, "b")
        assert ready(world, "a") == "True"
        await live(world, 6, "b")
        assert ready(world, "a") == "Unknown"


async def test_nodes_are_given_up_two_at_a_time() -> None:
    async with World(make) as world:
        names = [f"n{n}" for n in range(10)]
        await cluster(world, *names)
        alive = names[4:]
        while ready(world, "n0") == "True":
            await live(world, BEAT, *alive)

        def given_up() -> int:
            return sum("unreachable:NoExecute" in tainted(world, name) for name in names)

        assert given_up() == 2
        await live(world, 12, *alive)
        assert given_up() == 4


async def test_a_node_that_says_it_is_not_ready_takes_no_new_pods_and_keeps_its_own_for_as_long_as_a_lease() -> None:
    async with World(make) as world:
        await cluster(world, "a", "b")
        await place(world, "web", "a")
        await say(world, "a", "False")
        await world.settle()
        assert tainted(world, "a") == ["not-ready:NoSchedule"]
        await live(world, LEASE - 2, "a", "b")
        assert tainted(world, "a") == ["not-ready:NoSchedule"]
        await live(world, 4, "a", "b")
        assert tainted(world, "a") == ["not-ready:NoExecute", "not-ready:NoSchedule"]
        assert objects.ready(world.get(PODS, "web")), "the agent may just be replaced: pods run on"


async def test_taints_follow_pressure_and_cordons_and_leave_those_of_others() -> None:
    async with World(make) as world:
        await cluster(world, "a", "b")
        mine = {"key": "team", "value": "x", "effect": "NoSchedule"}
        await world.patch(NODES, "a", {"spec": {"unschedulable": True, "taints": [mine]}})
        await say(world, "a", "True", DiskPressure="True")
        await world.settle()
        assert tainted(world, "a") == ["disk-pressure:NoSchedule", "team:NoSchedule", "unschedulable:NoSchedule"]
        await world.patch(NODES, "a", {"spec": {"unschedulable": False}})
        await say(world, "a", "True", DiskPressure="False")
        await world.settle()
        assert world.get(NODES, "a", "")["spec"]["taints"] == [mine]


async def test_a_node_that_never_spoke_gets_a_minute() -> None:
    async with World(make) as world:
        await world.create(NODES, {"metadata": {"name": "shy"}})
        await world.advance(59)
        assert ready(world, "shy") == ""
        await world.advance(2)
        found = objects.condition(world.get(NODES, "shy", ""), "Ready")
        assert found is not None
        assert (found["status"], found["reason"]) == ("Unknown", "NodeStatusNeverUpdated")


async def test_a_dead_node_is_dealt_with_from_every_interrupted_point() -> None:
    async def scenario(world: World) -> object:
        await cluster(world, "a", "b")
        await place(world, "web", "a")
        await place(world, "db", "a")
        await live(world, 40, "b")
        return world.outline(PODS, NODES)

    assert await every_interrupted_point(make, scenario) >= 6


# --- NoExecute -------------------------------------------------------------------------------------------------------


async def test_a_taint_put_by_hand_drives_out_who_does_not_tolerate_it_and_counts_from_then() -> None:
    async with World(make) as world:
        await cluster(world, "a", "b")
        some = [{"key": "maintenance", "operator": "Exists", "effect": "NoExecute", "tolerationSeconds": 30}]
        await place(world, "plain", "a")
        await place(world, "some", "a", tolerations=some)
        await place(world, "all", "a", tolerations=[{"operator": "Exists"}])
        await place(world, "elsewhere", "b")
        await world.patch(NODES, "a", {"spec": {"taints": [{"key": "maintenance", "effect": "NoExecute"}]}})
        await world.settle()
        names = ("plain", "some", "all", "elsewhere")
        assert [leaving(world, name) for name in names] == [True, False, False, False]
        await live(world, 28, "a", "b")
        assert not leaving(world, "some")
        await live(world, 4, "a", "b")
        assert [leaving(world, name) for name in names] == [True, True, False, False]


async def test_pods_of_a_node_out_of_service_are_gone_without_its_agent() -> None:
    async with World(make) as world:
        await cluster(world, "a", "b")
        await place(world, "web", "a")
        while not leaving(world, "web"):
            await live(world, BEAT, "b")
        held = world.get(NODES, "a", "")["spec"]["taints"]
        out = {"key": "node.kubernetes.io/out-of-service", "value": "nodeshutdown", "effect": "NoExecute"}
        await world.patch(NODES, "a", {"spec": {"taints": [*held, out]}})
        await world.settle()
        with pytest.raises(NotFoundError):
            world.get(PODS, "web")


async def test_pods_of_a_healthy_node_are_not_forced_whatever_its_taints_say() -> None:
    async with World(make) as world:
        await cluster(world, "a", "b")
        await place(world, "web", "a")
        out = {"key": "node.kubernetes.io/out-of-service", "effect": "NoExecute"}
        await world.patch(NODES, "a", {"spec": {"taints": [out]}})
        await world.settle()
        assert leaving(world, "web"), "asked to end, by its node"


def taint(key: str = "k", value: str = "", effect: str = "NoExecute", at: float = 100.0) -> Object:
    return {"key": key, "value": value, "effect": effect, "timeAdded": rfc3339(at)}


@pytest.mark.parametrize(
    ("toleration", "expected"),
    [
        ({"operator": "Exists"}, True),
        ({"key": "k", "operator": "Exists"}, True),
        ({"key": "k", "value": "v"}, True),
        ({"key": "k", "operator": "Equal", "value": "v", "effect": "NoExecute"}, True),
        ({"key": "k", "value": "other"}, False),
        ({"key": "other", "operator": "Exists"}, False),
        ({"key": "k", "operator": "Exists", "effect": "NoSchedule"}, False),
        ({}, False),
    ],
)
def test_tolerations(toleration: Object, expected: bool) -> None:
    assert tolerates(toleration, taint(value="v")) is expected


FOREVER: Object = {"operator": "Exists"}


@pytest.mark.parametrize(
    ("tolerations", "given", "expected"),
    [
        ([], [taint()], 0.0),
        ([{"operator": "Exists"}], [taint()], None),
        ([{"operator": "Exists", "tolerationSeconds": 60}], [taint()], 40.0),
        ([{"operator": "Exists", "tolerationSeconds": 10}], [taint()], 0.0),
        ([{"operator": "Exists", "tolerationSeconds": -5}], [taint(at=119)], 0.0),
        ([FOREVER | {"tolerationSeconds": 60}, {**FOREVER, "key": "k", "tolerationSeconds": 25}], [taint()], 5.0),
        ([{"key": "k", "operator": "Exists"}], [taint(), taint("other")], 0.0),
    ],
)  # fmt: skip
def test_how_long_a_pod_may_stay(tolerations: list[Object], given: list[Object], expected: float | None) -> None:
    pod = {"metadata": {"creationTimestamp": rfc3339(50)}, "spec": {"tolerations": tolerations}}
    assert seconds_left(pod, given, 120.0) == expected


# --- pure parts ------------------------------------------------------------------------------------------------------


def node(name: str, status: str = "True", zone: str = "", given: Iterable[Object] = ()) -> Object:
    return {
        "metadata": {"name": name, "labels": {"topology.kubernetes.io/zone": zone}},
        "spec": {"taints": list(given)}, "status": {"conditions": [{"type": "Ready", "status": status}]},
    }  # fmt: skip


@pytest.mark.parametrize(
    ("lost", "count", "expected"),
    [
        (0, 3, "NORMAL"),
        (1, 2, "NORMAL"),
        (2, 3, "NORMAL"),
        (3, 5, "PARTIAL"),
        (3, 6, "NORMAL"),
        (3, 3, "FULL"),
        (1, 1, "FULL"),
    ],
)
def test_the_state_of_a_zone(lost: int, count: int, expected: str) -> None:
    nodes = [node(str(n), "Unknown" if n < lost else "True") for n in range(count)]
    assert zones.state(nodes) is zones.State[expected]


def test_a_small_zone_that_is_mostly_lost_keeps_its_pods_and_another_zone_does_not_care() -> None:
    broken = [node(f"x{n}", "Unknown" if n < 3 else "True", "x") for n in range(5)]
    whole = [node(f"y{n}", "Unknown" if n < 1 else "True", "y") for n in range(5)]
    assert zones.wait(broken[0], broken + whole, ["u"], 0, {}) is None
    assert zones.wait(whole[0], broken + whole, ["u"], 0, {}) == 0.0


def test_a_large_zone_that_is_mostly_lost_loses_nodes_slowly() -> None:
    given_up = node("n0", "Unknown", given=[taint("u", at=1000)])
    nodes = [given_up, *(node(f"n{n}", "Unknown" if n < 50 else "True") for n in range(1, 60))]
    assert zones.wait(nodes[1], nodes, ["u"], 1030.0, {}) == 70.0


def test_taints_keep_the_time_at_which_they_were_added() -> None:
    held = [{"key": "node.kubernetes.io/unreachable", "effect": "NoSchedule", "timeAdded": "2026-01-01T00:00:00Z"}]
    lost = node("a", "Unknown", given=held)
    assert taints(lost, "", 0) == held
    assert held[0] in taints(lost, "node.kubernetes.io/unreachable", 0)


# --- with those who make pods ----------------------------------------------------------------------------------------


def template() -> Object:
    keys = ("node.kubernetes.io/not-ready", "node.kubernetes.io/unreachable")
    stays = [{"key": k, "operator": "Exists", "effect": "NoExecute", "tolerationSeconds": TOLERATION} for k in keys]
    spec = {"containers": [{"name": "c", "image": "i"}], "tolerations": stays}
    return {"metadata": {"labels": {"app": "web"}}, "spec": spec}


async def run_one(world: World, resource: Resource, **spec: Any) -> Object:
    """A workload of one pod, which runs on the node `a`."""
    selector = {"matchLabels": {"app": "web"}}
    given = {"replicas": 1, "selector": selector, "template": template(), **spec}
    await world.create(resource, {"metadata": {"name": "web"}, "spec": given})
    await world.settle()
    (first,) = world.pods()
    await world.kubelet.bind(objects.name(first), "a")
    await world.kubelet.run(objects.name(first))
    return first


async def test_a_replica_set_has_another_pod_while_the_old_one_is_still_there() -> None:
    async with World(lambda: [*make(), ReplicaSets()]) as world:
        await cluster(world, "a", "b")
        first = await run_one(world, REPLICA_SETS)
        died = world.clock.now()
        while not [pod for pod in world.pods() if objects.uid(pod) != objects.uid(first)]:
            await live(world, BEAT, "b")
        assert world.clock.now() - died <= 13
        assert leaving(world, objects.name(first)), "its node has not said that it ended"


@pytest.mark.parametrize("how", ["out-of-service", "deleted"])
async def test_a_stateful_set_has_another_pod_only_when_the_old_one_surely_ended(how: str) -> None:
    async with World(lambda: [*make(), StatefulSets(), PodGarbage()]) as world:
        await cluster(world, "a", "b")
        first = await run_one(world, STATEFUL_SETS, serviceName="web")
        await live(world, 60, "b")
        assert leaving(world, "web-0"), "at most one: the node may just be unreachable"
        if how == "deleted":
            await world.delete(NODES, "a")
            await live(world, 60, "b")
        else:
            held = world.get(NODES, "a", "")["spec"]["taints"]
            out = {"key": "node.kubernetes.io/out-of-service", "effect": "NoExecute"}
            await world.patch(NODES, "a", {"spec": {"taints": [*held, out]}})
            await world.settle()
        assert [objects.name(pod) for pod in world.pods()] == ["web-0"]
        assert objects.uid(world.get(PODS, "web-0")) != objects.uid(first)


async def test_the_pods_of_a_node_are_found_in_the_cache_by_their_bytes() -> None:
    async with World() as world:
        for name, node in (("one", "a"), ("two", "a"), ("other", "ab")):
            await place(world, name, node)
        await place(world, "decoy", "b", tolerations=[])
        await world.patch(PODS, "decoy", {"metadata": {"annotations": {"x": '"nodeName":"a"'}}})
        found = in_cache(world.registry)(world.view, "a")
        assert [objects.name(pod) for pod in found] == ["one", "two"]
        assert found == by_looking(world.view, "a")
