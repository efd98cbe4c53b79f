"""Ephemeral containers: they come while the pod runs, start once, and have no say in the pod's life."""

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

DEBUG = {"name": "debug", "image": "tools:1", "targetContainerName": "app"}


def with_debug(*more: dict[str, Any], **spec: Any) -> Pod:
    return make_pod(ephemeralContainers=[DEBUG, *more], **spec)


def shown(world: World) -> dict[str, Any]:
    return status.render(world.state, {}, host_ip="", now=world.now)


def test_one_that_is_added_is_pulled_and_started_beside_the_others() -> None:
    world = World(make_pod()).admit()
    world.update(with_debug())
    assert world.run("debug").stage is RunStage.RUNNING
    rows = shown(world)
    assert [row["name"] for row in rows["containerStatuses"]] == ["app"]
    (row,) = rows["ephemeralContainerStatuses"]
    assert (row["name"], row["ready"], "running" in row["state"]) == ("debug", False, True)
    assert rows["phase"] == "Running"


@pytest.mark.parametrize("code", [0, 3])
@pytest.mark.parametrize("policy", ["Always", "Never"])
def test_it_ends_once_and_neither_restarts_nor_ends_the_pod(code: int, policy: str) -> None:
    world = World(make_pod(restartPolicy=policy), exits={"debug": [code]}).admit()
    world.update(with_debug(restartPolicy=policy)).until_quiet()
    assert (world.counts["start debug"], world.run("app").stage) == (1, RunStage.RUNNING)
    (row,) = shown(world)["ephemeralContainerStatuses"]
    assert row["state"]["terminated"]["exitCode"] == code
    assert next(c for c in shown(world)["conditions"] if c["type"] == "Ready")["status"] == "True"


def test_its_image_that_cannot_be_had_troubles_nobody_else() -> None:
    world = World(make_pod()).admit()
    world.failures["PullImage"] = ev.ImageFailed(at=world.now, name="debug", reason="ErrImagePull", message="no")
    world.update(with_debug())
    (row,) = shown(world)["ephemeralContainerStatuses"]
    assert row["state"]["waiting"]["reason"] == "ErrImagePull"
    assert world.run("app").stage is RunStage.RUNNING
    world.vm_dies().advance(1)
    assert world.run("app").stage is RunStage.RUNNING, "a new machine waits for no ephemeral container's image"


def test_in_a_new_machine_it_is_over() -> None:
    world = World(make_pod()).admit()
    world.update(with_debug()).vm_dies().until_quiet()
    assert (world.run("app").stage, world.run("debug").stage) == (RunStage.RUNNING, RunStage.EXITED)
    assert world.counts["start debug"] == 1


def test_it_starts_although_the_pod_is_still_initializing() -> None:
    world = World(make_pod(inits=({"name": "init", "image": "i:1"},))).admit()
    world.update(with_debug(inits=({"name": "init", "image": "i:1"},)))
    assert world.run("debug").stage is RunStage.RUNNING
    assert world.run("app").stage is RunStage.WAITING


def test_a_pod_ends_with_it() -> None:
    world = World(make_pod()).admit()
    world.update(with_debug()).delete().advance(60)
    assert world.nothing_left()


@pytest.mark.parametrize("steps", range(10))
def test_interrupted_anywhere_it_is_started_once(steps: int) -> None:
    world = World(make_pod()).admit()
    world.send(ev.Updated(at=world.now, plan=plan(with_debug())))
    for _ in range(steps):
        world.act()
    world.interrupt()
    assert world.run("debug").stage is RunStage.RUNNING
    assert world.counts["start debug"] == 1
    starts = [i.attempt for i in world.trace if isinstance(i, do.StartContainer) and i.name == "debug"]
    assert set(starts) == {0}
