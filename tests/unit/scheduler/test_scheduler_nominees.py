"""Room that is being made: nobody goes twice for it, two pods do not wait for the same, and it is given up again."""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import Any

import pytest

from cuboid.kube.client import NODES, PODS
from cuboid.lib.aio import TaskSet
from cuboid.lib.errors import ConflictError
from cuboid.scheduler.decide import decide
from cuboid.scheduler.snapshot import placed
from tests.harness.kube_server import node as ready_node
from tests.unit.scheduler.test_scheduler_decide import node, pod, snapshot
from tests.unit.scheduler.test_scheduler_loop import pod as waiting_pod
from tests.unit.scheduler.test_scheduler_loop import scheduling

Object = dict[str, Any]


def boss(name: str = "boss", nominated: str = "") -> Object:
    made = pod(name, priority=100, requests={"cpu": "3"})
    return {**made, "status": {"nominatedNodeName": nominated}} if nominated else made


def lesser(name: str, where: str, *, going: bool = False, created: str = "2026-01-01T00:00:00Z") -> Object:
    made = pod(name, where, requests={"cpu": "3"})
    ending = {"deletionTimestamp": "2026-01-02T00:00:00Z"} if going else {}
    return {**made, "metadata": {**made["metadata"], "creationTimestamp": created, **ending}}


def test_while_one_ends_for_a_pod_no_other_has_to_go_though_it_would_cost_less_by_now() -> None:
    younger = lesser("young", "b", created="2026-01-01T09:00:00Z")
    there = snapshot([node("a"), node("b")], [lesser("old", "a", going=True), younger])
    decision = decide(boss(nominated="a"), there)
    assert (decision.nominated, decision.victims) == ("a", ())
    assert decision.message.endswith("preemption: not eligible due to a terminating pod on the nominated node.")


def test_when_what_ends_does_not_make_room_enough_others_have_to_go() -> None:
    going = lesser("small", "a", going=True)
    going["spec"]["containers"][0]["resources"]["requests"] = {"cpu": "1"}
    there = snapshot([node("a")], [going, lesser("large", "a")])
    assert [victim.name for victim in decide(boss(nominated="a"), there).victims] == ["large"]


def test_two_pods_do_not_wait_for_the_same_room() -> None:
    there = snapshot([node("a"), node("b")], [lesser("x", "a", going=True), lesser("y", "b")])
    there.nominate(placed(boss("first"), "a"), "first")
    decision = decide(boss("second"), there)
    assert (decision.nominated, [victim.name for victim in decision.victims]) == ("b", ["y"])


async def test_a_pod_that_changed_while_it_was_bound_is_tried_again_soon(tmp_path: Path) -> None:
    """Status and annotations wake nobody, and their news may come before the failure of the binding."""
    async with scheduling(tmp_path) as place:
        create, refused = place.client.create, 0

        async def conflicting(resource: Any, body: Object, namespace: str = "", **options: Any) -> Object:
            nonlocal refused
            if options.get("sub") == "binding" and not refused:
                refused += 1
                await place.client.patch(PODS, "web", {"metadata": {"annotations": {"a": "b"}}}, "default")
                raise ConflictError("the object has been modified")
            return await create(resource, body, namespace, **options)

        place.client.create = conflicting  # type: ignore[method-assign]
        await place.client.create(NODES, ready_node("n"))
        await place.client.create(PODS, waiting_pod("web"), "default")
        async with asyncio.timeout(10):
            assert await place.bound("web") == "n"
        assert refused == 1


async def test_room_is_given_up_when_it_can_not_be_made_any_more(tmp_path: Path) -> None:
    """Else it would stay closed to lesser pods for a pod that can never come."""
    async with scheduling(tmp_path) as place:
        client = place.client
        await client.create(NODES, ready_node("n"))
        await client.create(PODS, waiting_pod("low", "3"), "default")
        await place.bound("low")
        high = waiting_pod("high", "3", priorityClassName="system-node-critical", nodeSelector={"on": "yes"})
        high["spec"]["priority"] = 2_000_001_000
        await client.patch(NODES, "n", {"metadata": {"labels": {"on": "yes"}}})
        await client.create(PODS, high, "default")
        await place.until("high", lambda item: item["status"].get("nominatedNodeName") == "n")
        await client.patch(NODES, "n", {"metadata": {"labels": {"on": None}}})
        await place.until("high", lambda item: "nominatedNodeName" not in item["status"])
        await client.delete(PODS, "low", "default", grace=0)
        await client.create(PODS, waiting_pod("mid", "3"), "default")
        assert await place.bound("mid") == "n"


async def test_between_two_decisions_the_loop_gets_to_everything_else(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A burst of pods is hundreds of decisions, and the scheduler lives in the server's process."""
    turns, at = 0, list[int]()

    def deciding(*arguments: Any) -> Any:
        at.append(turns)
        return decide(*arguments)

    async def turning() -> None:
        nonlocal turns
        while True:
            turns += 1
            await asyncio.sleep(0)

    monkeypatch.setattr("cuboid.scheduler.loop.decide", deciding)
    async with scheduling(tmp_path) as place, TaskSet("test") as tasks:
        created = (place.client.create(PODS, waiting_pod(f"p{n}", "10m"), "default") for n in range(30))
        await asyncio.gather(*created)
        at.clear()
        tasks.start(turning(), name="turning")
        await place.client.create(NODES, ready_node("n"))
        for number in range(30):
            await place.bound(f"p{number}")
    assert len(at) >= 30
    assert len(set(at)) == len(at)
