"""Pods that are paused and go on: nothing is asked of a machine that stands still, and nothing is lost."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

from cuboid.node import status
from cuboid.node.sandbox import events as ev
from cuboid.node.sandbox import instructions as do
from cuboid.node.sandbox import state as st
from cuboid.node.sandbox.plan import plan
from tests.harness.node import World, make_pod

APP = {
    "name": "app", "image": "a:1", "readinessProbe": {"tcpSocket": {"port": 1}},
    "lifecycle": {"postStart": {"exec": {"command": ["x"]}}, "preStop": {"exec": {"command": ["x"]}}},
}  # fmt: skip
PAUSE = {"cuboid.dev/state": "paused"}


def pod(annotations: dict[str, str] | None = None, **spec: Any) -> Any:
    return make_pod({"name": "app", "image": "a:1"}, annotations=annotations or {}, **spec)


def paused_world(**spec: Any) -> World:
    world = World(pod(**spec)).admit().update(pod(PAUSE, **spec))
    assert world.frozen
    return world


def still(world: World) -> tuple[bool, bool]:
    """Whether the machine stands still, and whether its clock is off."""
    return world.frozen, world.clock_off


def shown(world: World) -> dict[str, Any]:
    return status.render(world.state, {"spec": {"containers": [{}]}}, host_ip="", now=world.now)


def condition(world: World, kind: str) -> dict[str, Any]:
    return next(c for c in shown(world)["conditions"] if c["type"] == kind)


def test_a_paused_pod_keeps_its_phase_and_says_so() -> None:
    world = paused_world()
    assert (shown(world)["phase"], shown(world)["reason"]) == ("Running", "Paused")
    assert condition(world, "cuboid.dev/Paused")["status"] == "True"
    ready = condition(world, "Ready")
    assert (ready["status"], ready["reason"], ready["message"]) == ("False", "Paused", status.STANDS_STILL)
    (row,) = shown(world)["containerStatuses"]
    assert "running" in row["state"] and not row["ready"] and row["restartCount"] == 0
    assert "Paused" in world.notes


def test_a_resumed_pod_is_as_it_was_and_its_clock_is_set() -> None:
    world = paused_world()
    before = world.run()
    world.advance(3600)
    assert still(world) == (True, True)
    world.update(pod())
    assert still(world) == (False, False) and world.state.machine.paused_at == 0
    assert world.run() == before
    assert (world.counts["CreateVm"], world.counts["start app"]) == (1, 1)
    assert shown(world)["reason"] is None and condition(world, "Ready")["status"] == "True"
    assert "Resumed" in world.notes


def test_a_pod_is_ready_again_when_its_agent_has_been_spoken_with() -> None:
    world = paused_world().interrupt()
    world.mute.add("Setup")
    world.update(pod())
    assert not world.frozen and shown(world)["reason"] == "Paused"
    world.mute.clear()
    world.queue.append(ev.SetupDone(at=world.now, attempt=0, found=tuple(world._found())))
    world.settle()
    assert shown(world)["reason"] is None and condition(world, "Ready")["status"] == "True"


def test_the_condition_stays_and_says_false_after_a_pause() -> None:
    world = paused_world()
    object_before = {"spec": {"containers": [{}]}, "status": shown(world)}
    world.update(pod())
    rows = status.render(world.state, object_before, host_ip="", now=world.now)["conditions"]
    assert [c["status"] for c in rows if c["type"] == "cuboid.dev/Paused"] == ["False"]


def test_no_timer_runs_while_a_pod_is_paused() -> None:
    assert paused_world().state.timer == 0


def test_a_container_that_is_being_started_or_stopped_is_waited_for() -> None:
    world = World(pod())
    world.mute.add("StartContainer")
    world.admit().update(pod(PAUSE))
    assert not world.frozen
    world.send(ev.Started(at=world.now, name="app", attempt=0, started_at=world.now))
    world.settle()
    assert world.frozen


def test_a_hook_is_waited_for() -> None:
    world = World(make_pod(APP))
    world.mute.add("RunHook")
    world.admit().update(make_pod(APP, annotations=PAUSE))
    assert not world.frozen
    world.send(ev.HookDone(at=world.now, name="app", attempt=0, point=ev.HookPoint.POST_START))
    world.settle()
    assert world.frozen


def test_init_containers_are_frozen_amid_their_work() -> None:
    init = {"name": "init", "image": "i:1"}
    world = World(make_pod(inits=(init,))).admit().update(make_pod(inits=(init,), annotations=PAUSE))
    assert world.frozen and world.run().stage is st.RunStage.WAITING
    world.update(make_pod(inits=(init,))).exit("init", 0)
    assert world.run().stage is st.RunStage.RUNNING


def test_a_restart_that_is_due_waits_until_the_pod_goes_on() -> None:
    world = World(pod(), exits={"app": [1, 1]}).admit()
    assert world.run().reason == "CrashLoopBackOff"
    world.update(pod(PAUSE)).advance(600)
    assert world.frozen and world.counts["start app"] == 2
    world.update(pod())
    assert world.counts["start app"] == 3


@pytest.mark.parametrize("grace", [0.0, 30.0])
def test_a_paused_pod_that_is_deleted_leaves_nothing(grace: float) -> None:
    world = paused_world().delete(grace)
    assert world.forgotten and world.nothing_left()
    signals = [i for i in world.trace if isinstance(i, do.StopSignal)]
    assert bool(signals) == bool(grace), "with a grace period it is resumed to end by itself"


def test_a_stop_resumes_first_so_that_containers_end_in_order_and_disks_are_written() -> None:
    world = paused_world().update(pod({"cuboid.dev/state": "stopped"}))
    assert do.KillVm(0, clean=True) in world.trace
    assert world.ended().code == 143 and world.vm is None
    assert shown(world)["containerStatuses"][0]["state"]["waiting"]["reason"] == "Stopped"
    world.update(pod())
    assert world.run().stage is st.RunStage.RUNNING


def test_an_empty_machine_is_resumed_as_well_before_its_end_so_that_disks_are_written() -> None:
    world = World(pod(), exits={"app": [1, 1]}).admit().update(pod(PAUSE)).delete()
    assert do.KillVm(0, clean=True) in world.trace and world.nothing_left()


def test_a_vm_that_cannot_be_resumed_holds_no_end_up() -> None:
    world = paused_world()
    world.mute.add("ResumeVm")
    world.delete(5.0).advance(60)
    assert world.forgotten and world.nothing_left()


def test_a_restart_of_a_paused_pod_happens_when_it_goes_on() -> None:
    again = {"cuboid.dev/restartedAt": "now"}
    world = paused_world().update(pod(PAUSE | again)).advance(60)
    assert world.frozen and world.counts["start app"] == 1
    world.update(pod(again))
    assert world.counts["start app"] == 2 and not world.state.restart_due


def test_the_deadline_of_a_pod_goes_on_while_it_is_paused() -> None:
    world = paused_world(activeDeadlineSeconds=100).advance(101)
    assert (world.state.phase, world.state.reason) == ("Failed", "DeadlineExceeded")
    assert world.nothing_left()


def test_a_paused_machine_that_dies_is_made_again_when_the_pod_goes_on() -> None:
    world = paused_world().vm_dies("HostOutOfMemory").advance(60)
    assert world.vm is None and shown(world)["reason"] == "Paused"
    (row,) = shown(world)["containerStatuses"]
    assert row["state"]["waiting"] == {"reason": "Paused", "message": status.WITHOUT_MACHINE}
    assert row["lastState"]["terminated"]["reason"] == "HostOutOfMemory"
    world.update(pod())
    assert world.run().stage is st.RunStage.RUNNING and world.counts["CreateVm"] == 2


def test_a_pod_that_never_restarts_fails_with_its_machine_also_while_it_is_paused() -> None:
    world = paused_world(restartPolicy="Never").vm_dies()
    assert (world.state.phase, world.state.reason) == ("Failed", "VMMDied") and world.nothing_left()


def test_a_pod_that_is_paused_from_the_start_gets_its_machine_when_it_goes_on() -> None:
    world = World(pod(PAUSE)).admit()
    assert world.network and world.vm is None and shown(world)["phase"] == "Pending"
    world.update(pod())
    assert world.run().stage is st.RunStage.RUNNING


def test_a_pause_that_fails_is_told_and_tried_again() -> None:
    world = World(pod()).admit()
    world.failures["PauseVm"] = ev.VmPauseFailed(at=world.now, attempt=0, reason="X", message="no answer")
    world.update(pod(PAUSE))
    assert not world.frozen and "FailedPause" in world.notes and condition(world, "Ready")["status"] == "True"
    world.advance(5.1)
    assert world.frozen


def test_a_failed_probe_of_the_last_moment_restarts_the_container_when_the_pod_goes_on() -> None:
    live = {"name": "app", "image": "a:1", "livenessProbe": {"tcpSocket": {"port": 1}}}
    hooked = {**live, "lifecycle": {"preStop": {"exec": {"command": ["x"]}}}}
    for container in (live, hooked):
        world = World(make_pod(container)).admit()
        world.queue.append(ev.ProbeChanged(at=world.now, name="app", attempt=0, check=ev.Check.LIVENESS, ok=False))
        world.update(make_pod(container, annotations=PAUSE)).advance(600)
        assert world.frozen and not world.counts["StopSignal"]
        world.mute.add("RunHook")
        world.update(make_pod(container)).advance(29)
        hook = container is hooked
        assert (world.counts["StopSignal"], world.counts["RunHook"]) == (0 if hook else 1, 1 if hook else 0)
        world.advance(5)
        assert world.counts["start app"] == 2


def test_a_machine_that_cannot_be_resumed_is_given_up_and_made_anew() -> None:
    world = paused_world()
    for wait in (0.0, 5.1, 10.1):
        world.failures["ResumeVm"] = ev.VmResumeFailed(at=world.now, attempt=0, reason="X", message="no answer")
        world.update(pod()).advance(wait)
    assert world.last().reason == "ResumeFailed" and world.counts["CreateVm"] == 2


def test_a_change_of_mind_while_the_pause_is_under_way_is_followed() -> None:
    world = World(pod()).admit()
    world.send(ev.Updated(at=world.now, plan=plan(pod(PAUSE))))
    world.send(ev.Updated(at=world.now, plan=plan(pod())))
    world.settle()
    assert not world.frozen and not world.clock_off
    world.update(pod(PAUSE))
    assert world.frozen


def test_a_machine_found_frozen_for_no_reason_is_resumed() -> None:
    world = World(pod()).admit()
    world.frozen = world.clock_off = True
    world.interrupt()
    assert not world.frozen and not world.clock_off and world.counts["start app"] == 1


def test_a_new_machine_found_before_it_ran_is_made_again() -> None:
    world = World(pod())
    world.send(ev.Admitted(at=world.now))
    while world.vm is None:
        world.act()
    world.frozen = True
    world.interrupt()
    assert (world.counts["CreateVm"], world.vm) == (2, 1)
    assert world.run().stage is st.RunStage.RUNNING


# --- from every interrupted point ------------------------------------------------------------------------------------

Story = Callable[[World], None]


def _pauses(world: World) -> None:
    world.admit()
    world.send(ev.Updated(at=world.now, plan=plan(make_pod(APP, annotations=PAUSE))))


def _resumes(world: World) -> None:
    _pauses(world)
    world.settle().advance(50)
    world.send(ev.Updated(at=world.now, plan=plan(make_pod(APP))))


def _pauses_while_starting(world: World) -> None:
    world.send(ev.Admitted(at=world.now))
    for _ in range(12):
        world.act()
    world.send(ev.Updated(at=world.now, plan=plan(make_pod(APP, annotations=PAUSE))))


def _is_deleted(world: World) -> None:
    _pauses(world)
    world.settle()
    world.send(ev.Updated(at=world.now, plan=plan(world.pod), deleted_grace=30.0))


def _is_stopped(world: World) -> None:
    _pauses(world)
    world.settle()
    world.send(ev.Updated(at=world.now, plan=plan(make_pod(APP, annotations={"cuboid.dev/state": "stopped"}))))


def _restarts(world: World) -> None:
    _pauses(world)
    world.settle()
    world.send(ev.Updated(at=world.now, plan=plan(make_pod(APP, annotations={"cuboid.dev/restartedAt": "1"}))))


STORIES = {
    "pauses": _pauses, "resumes": _resumes, "pauses while starting": _pauses_while_starting, "deleted": _is_deleted,
    "stopped": _is_stopped, "restarts": _restarts,
}  # fmt: skip


def _play(story: str) -> World:
    world = World(make_pod(APP))
    STORIES[story](world)
    return world


def _outcome(world: World) -> tuple[object, ...]:
    stages = tuple((run.stage, run.attempt) for run in world.state.runs)
    machine = world.state.machine
    return (
        stages, machine.stage is st.VmStage.ABSENT, machine.pause, world.state.phase, world.frozen, world.clock_off,
        world.vm is not None, world.forgotten, world.state.restart_due,
    )  # fmt: skip


def _acts(story: str) -> int:
    world, count = _play(story), 0
    while world.act():
        count += 1
    return count


@pytest.mark.parametrize("times", [1, 2])
@pytest.mark.parametrize("story", STORIES)
def test_from_every_interrupted_point_it_comes_to_the_same_end(story: str, times: int) -> None:
    undisturbed = _play(story).settle().advance(5)
    for point in range(_acts(story) + 1):
        world = _play(story)
        for _ in range(times):
            for _ in range(point):
                world.act()
            world.interrupt()
        world.advance(5)
        assert _outcome(world) == _outcome(undisturbed), f"interrupted after {point} acts"
