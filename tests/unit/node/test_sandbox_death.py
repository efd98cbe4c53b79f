"""A VM that dies, a node agent that is killed at any moment, a host that reboots."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from cuboid.node.sandbox import events as ev
from cuboid.node.sandbox import instructions as do
from cuboid.node.sandbox import state as st
from cuboid.node.sandbox.plan import plan
from tests.harness.node import World, make_pod

HOOKED = {
    "name": "app", "image": "a:1",
    "lifecycle": {"postStart": {"exec": {"command": ["x"]}}, "preStop": {"exec": {"command": ["x"]}}},
}  # fmt: skip
INIT = {"name": "init", "image": "i:1"}
SIDE = {"name": "side", "image": "s:1", "restartPolicy": "Always"}


def test_a_vm_that_dies_ends_every_container_with_the_reason_and_is_made_again() -> None:
    world = World(make_pod()).admit()
    world.mute.add("KillVm")
    world.vm_dies("GuestPanic")
    end = world.run().ended
    assert end is not None and (end.code, end.reason) == (137, "GuestPanic")
    world.mute.clear()
    world.queue.append(ev.VmGone(at=world.now, attempt=0))
    world.settle()
    assert world.run().stage is st.RunStage.RUNNING
    assert (world.counts["CreateVm"], world.run().attempt) == (2, 1)


def test_a_vm_that_dies_again_and_again_is_made_with_back_off() -> None:
    world = World(make_pod()).admit()
    world.vm_dies().vm_dies()
    assert world.counts["CreateVm"] == 2
    world.advance(10.1)
    assert world.counts["CreateVm"] == 3


def test_a_pod_that_never_restarts_fails_with_its_vm() -> None:
    world = World(make_pod(restartPolicy="Never")).admit().vm_dies("HostOutOfMemory")
    assert (world.state.phase, world.state.reason) == ("Failed", "HostOutOfMemory")
    assert world.nothing_left() and "gone" in world.state.message


def test_init_containers_run_again_in_a_new_vm_and_finished_ones_do_not() -> None:
    pod = make_pod(
        {"name": "a", "image": "a:1"}, {"name": "b", "image": "a:1"}, inits=(INIT,), restartPolicy="OnFailure"
    )
    world = World(pod, exits={"init": [0, 0], "b": [0]}).admit()
    world.vm_dies()
    assert (world.counts["start init"], world.counts["start a"], world.counts["start b"]) == (2, 2, 1)


def test_a_vm_that_dies_while_its_pod_ends_holds_nothing_up() -> None:
    world = World(make_pod()).admit()
    world.deaf.add("app")
    world.delete().vm_dies()
    assert world.forgotten and world.nothing_left()


def test_a_boot_that_fails_is_tried_again() -> None:
    world = World(make_pod(restartPolicy="Never"))
    world.failures["Setup"] = ev.SetupFailed(at=world.now, attempt=0, reason="Timeout", message="no answer")
    world.admit()
    assert world.run().stage is st.RunStage.RUNNING and world.counts["CreateVm"] == 2


def test_a_reboot_of_the_host_starts_pods_again_by_policy() -> None:
    world = World(make_pod()).admit().reboot()
    assert world.run().stage is st.RunStage.RUNNING and world.counts["AttachNetwork"] == 2
    assert world.last().reason == "HostRebooted"
    world = World(make_pod(restartPolicy="Never")).admit().reboot()
    assert (world.state.phase, world.state.reason) == ("Failed", "HostRebooted")
    assert world.nothing_left()


def test_running_containers_do_not_notice_a_restart_of_the_node_agent() -> None:
    world = World(make_pod(inits=(SIDE,))).admit()
    before = world.state
    world.interrupt()
    assert world.state.runs == before.runs
    assert world.counts["start app"] == world.counts["start side"] == world.counts["CreateVm"] == 1


def test_an_exit_while_the_node_agent_was_down_is_seen() -> None:
    world = World(make_pod(restartPolicy="Never")).admit()
    world._end("app", 4)
    world.interrupt()
    assert world.state.phase == "Failed" and world.nothing_left()


# --- from every interrupted point ------------------------------------------------------------------------------------

Story = Callable[[World], None]


def _starts(world: World) -> None:
    world.send(ev.Admitted(at=world.now))


def _succeeds(world: World) -> None:
    world.exits = {"init": [0, 0], "app": [0, 0]}
    world.send(ev.Admitted(at=world.now))


def _is_deleted(world: World) -> None:
    world.admit()
    world.send(ev.Updated(at=world.now, plan=plan(world.pod), deleted_grace=30.0))


def _is_deleted_while_starting(world: World) -> None:
    world.send(ev.Admitted(at=world.now))
    for _ in range(4):
        world.act()
    world.send(ev.Updated(at=world.now, plan=plan(world.pod), deleted_grace=30.0))


def _is_stopped(world: World) -> None:
    world.admit()
    stopped = make_pod(HOOKED, inits=(SIDE,), annotations={"cuboid.dev/state": "stopped"})
    world.send(ev.Updated(at=world.now, plan=plan(stopped)))


def _dies(world: World) -> None:
    world.admit()
    attempt, world.vm, world.set_up, world.processes = world.vm or 0, None, False, {}
    world.send(ev.VmEnded(at=world.now, attempt=attempt, cause="VMMDied"))


STORIES: dict[str, tuple[Story, dict[str, object]]] = {
    "starts": (_starts, {"inits": (SIDE,)}),
    "succeeds": (_succeeds, {"inits": (INIT, SIDE), "restartPolicy": "Never"}),
    "deleted": (_is_deleted, {"inits": (SIDE,)}),
    "deleted while starting": (_is_deleted_while_starting, {"inits": (SIDE,)}),
    "stopped": (_is_stopped, {"inits": (SIDE,)}),
    "dies": (_dies, {"inits": (SIDE,)}),
}


def _play(story: str) -> World:
    begin, options = STORIES[story]
    world = World(make_pod(HOOKED, **options))  # type: ignore[arg-type]
    begin(world)
    return world


def _outcome(world: World) -> tuple[object, ...]:
    stages = tuple(run.stage for run in world.state.runs)
    return (
        stages, world.state.phase, world.state.gone, world.network, world.disk, world.vm is not None, world.in_api,
        world.forgotten,
    )  # fmt: skip


def _acts(story: str) -> int:
    world, count = _play(story), 0
    while world.act():
        count += 1
    return count


@pytest.mark.parametrize("story", STORIES)
def test_from_every_interrupted_point_it_comes_to_the_same_end(story: str) -> None:
    undisturbed = _play(story).settle().advance(5)
    for point in range(_acts(story) + 1):
        world = _play(story)
        for _ in range(point):
            world.act()
        world.interrupt().advance(5)
        assert _outcome(world) == _outcome(undisturbed), f"interrupted after {point} acts"
        if world.forgotten or world.state.terminal:
            assert world.nothing_left()


@pytest.mark.parametrize("story", ["starts", "succeeds"])
def test_from_every_interrupted_point_nothing_is_done_twice(story: str) -> None:
    undisturbed = _play(story).settle()
    for point in range(_acts(story) + 1):
        world = _play(story)
        for _ in range(point):
            world.act()
        world.interrupt()
        for what in ("start app", "start init", "start side"):
            assert world.counts[what] == undisturbed.counts[what], f"{what} after {point} acts"


@pytest.mark.parametrize("story", STORIES)
def test_two_interruptions_are_no_worse_than_one(story: str) -> None:
    undisturbed = _play(story).settle().advance(5)
    for point in range(0, _acts(story) + 1, 2):
        world = _play(story)
        for _ in range(point):
            world.act()
        world.todo.clear()
        world.queue.clear()
        world.send(ev.Recovered(at=world.now, network=world.network, disk=world.disk, vm=world.vm is not None))
        for _ in range(3):
            world.act()
        world.interrupt().advance(5)
        assert _outcome(world) == _outcome(undisturbed)


def test_a_vm_whose_handle_was_never_written_is_ended_by_its_id_and_another_is_made() -> None:
    world = World(make_pod())
    world.send(ev.Admitted(at=world.now))
    while world.vm is None:
        world.act()
    world.todo.clear()
    world.queue.clear()
    world.send(ev.Recovered(at=world.now, network=True, disk=True, vm=False))
    world.settle()
    assert do.KillVm(0) in world.trace
    assert world.run().stage is st.RunStage.RUNNING and world.vm == 1


def test_what_is_found_of_a_pod_that_was_taken_down_is_told_as_such() -> None:
    world = World(make_pod(restartPolicy="Never")).admit()
    world.vm, world.set_up, world.processes, world.network = None, False, {}, False
    world.send(ev.Recovered(at=world.now, network=False, disk=True, vm=False, rebooted=True, taken_down=True))
    world.settle()
    assert (world.state.phase, world.state.reason) == ("Failed", "NodeDown")
    assert world.nothing_left()
