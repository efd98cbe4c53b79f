"""Other resources for a pod that runs: in place, by a restart, put off, and after interruptions."""

from __future__ import annotations

from typing import Any

import pytest

from cuboid.kube.types import Pod
from cuboid.node import status
from cuboid.node.sandbox import events as ev
from cuboid.node.sandbox import instructions as do
from cuboid.node.sandbox.plan import plan
from cuboid.node.sandbox.state import RunStage
from tests.harness.node import World, make_pod

TOO_LARGE = ("Deferred", "the pod's machine has 128 MiB")


def sized(memory: str, *, restart: bool = False, **spec: Any) -> Pod:
    policy = "RestartContainer" if restart else "NotRequired"
    resources = {"requests": {"memory": memory}, "limits": {"memory": memory}}
    container = {"name": "app", "image": "demo:1", "resources": resources}
    return make_pod({**container, "resizePolicy": [{"resourceName": "memory", "restartPolicy": policy}]}, **spec)


def shown(world: World) -> dict[str, Any]:
    return status.render(world.state, {}, host_ip="", now=world.now)


def memory(world: World) -> tuple[str, str]:
    """Of the only container: what it has been given, and what it has."""
    (row,) = shown(world)["containerStatuses"]
    return row["allocatedResources"]["memory"], row["resources"]["limits"]["memory"]


def conditions(world: World) -> dict[str, tuple[str, str]]:
    rows = {row["type"]: row for row in shown(world)["conditions"]}
    found = {name: rows[name] for name in status.RESIZES if name in rows}
    return {name: (row.get("reason", ""), row.get("message", "")) for name, row in found.items()}


def test_limits_of_a_container_that_runs_are_changed_in_place() -> None:
    world = World(sized("64Mi")).admit()
    assert memory(world) == ("64Mi", "64Mi")
    world.update(sized("32Mi"))
    assert memory(world) == ("32Mi", "32Mi")
    assert (world.resources, world.counts["start app"], conditions(world)) == ({"app": 0}, 1, {})


def test_until_the_guest_has_answered_the_change_is_in_progress() -> None:
    world = World(sized("64Mi")).admit()
    world.mute.add("ApplyResources")
    world.update(sized("32Mi"))
    assert memory(world) == ("32Mi", "64Mi")
    assert conditions(world) == {"PodResizeInProgress": ("", "")}
    world.mute.clear()
    world.interrupt()
    assert memory(world) == ("32Mi", "32Mi"), "asked again after a restart of the agent"
    assert conditions(world) == {}


def test_what_the_machine_cannot_give_is_put_off_and_comes_with_the_next_machine() -> None:
    world = World(sized("64Mi")).admit()
    world.update(sized("1Gi"), refusal=TOO_LARGE)
    assert memory(world) == ("64Mi", "64Mi")
    assert conditions(world) == {"PodResizePending": TOO_LARGE}
    assert world.counts["ApplyResources"] == 0
    world.vm_dies().until_quiet()
    assert memory(world) == ("1Gi", "1Gi")
    assert conditions(world) == {}


def test_a_pending_change_ends_when_it_is_taken_back() -> None:
    world = World(sized("64Mi")).admit()
    world.update(sized("1Gi"), refusal=TOO_LARGE)
    world.update(sized("64Mi"))
    assert (conditions(world), world.counts["ApplyResources"]) == ({}, 0)


def test_a_container_whose_policy_says_so_gets_it_by_a_restart_with_a_fresh_root() -> None:
    world = World(sized("64Mi", restart=True)).admit()
    world.update(sized("32Mi", restart=True))
    assert world.counts["start app"] == 2
    assert [i.keep_root for i in world.trace if isinstance(i, do.StartContainer)] == [False, False]
    assert memory(world) == ("32Mi", "32Mi")
    assert (world.resources, world.run().reason, conditions(world)) == ({}, "", {})


def test_a_change_that_fails_is_tried_again_and_says_why() -> None:
    world = World(sized("64Mi")).admit()
    said = "40 MiB are in use"
    world.failures["ApplyResources"] = ev.ResizeFailed(at=world.now, attempt=0, reason="ResizeError", message=said)
    world.update(sized("32Mi"))
    assert conditions(world) == {"PodResizeInProgress": ("Error", said)}
    assert memory(world) == ("32Mi", "64Mi")
    world.advance(world.state.rules.retry + 1)
    assert (memory(world), conditions(world)) == (("32Mi", "32Mi"), {})


def test_a_container_that_restarts_meanwhile_has_it_from_its_start() -> None:
    world = World(sized("64Mi"), exits={}).admit()
    world.mute.add("ApplyResources")
    world.update(sized("32Mi"))
    world.exit("app", 1)
    assert world.run().stage is RunStage.RUNNING
    assert memory(world) == ("32Mi", "32Mi")


def test_a_pod_that_stands_still_gets_it_when_it_goes_on() -> None:
    world = World(sized("64Mi", annotations={"cuboid.dev/state": "paused"})).admit()
    world.update(sized("32Mi", annotations={"cuboid.dev/state": "paused"}))
    assert world.counts["ApplyResources"] == 0
    world.update(sized("32Mi"))
    assert memory(world) == ("32Mi", "32Mi")


@pytest.mark.parametrize("steps", range(12))
@pytest.mark.parametrize("restart", [False, True])
def test_interrupted_anywhere_the_pod_has_what_it_asks_for_in_the_end(steps: int, restart: bool) -> None:
    world = World(sized("64Mi", restart=restart)).admit()
    world.send(ev.Updated(at=world.now, plan=plan(sized("32Mi", restart=restart))))
    for _ in range(steps):
        world.act()
    world.interrupt().until_quiet()
    assert (memory(world), conditions(world)) == (("32Mi", "32Mi"), {})
    assert world.run().stage is RunStage.RUNNING
