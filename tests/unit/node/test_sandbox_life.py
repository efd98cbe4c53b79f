"""The ordinary life of a pod, as Kubernetes tells it."""

from __future__ import annotations

from typing import Any

import pytest

from cuboid.node.sandbox import events as ev
from cuboid.node.sandbox import instructions as do
from cuboid.node.sandbox import state as st
from cuboid.node.sandbox.plan import plan
from tests.harness.node import World, make_pod

NEVER: dict[str, Any] = {"restartPolicy": "Never"}


def test_network_disk_and_image_are_asked_for_at_once_and_the_vm_when_all_are_there() -> None:
    world = World(make_pod())
    world.send(ev.Admitted(at=world.now))
    first = [type(i) for i in world.todo]
    assert first[:3] == [do.AttachNetwork, do.CreateDisk, do.PullImage]
    assert do.CreateVm not in first
    world.settle()
    assert world.run().stage is st.RunStage.RUNNING
    assert world.counts["CreateVm"] == 1


def test_a_pod_that_never_restarts_succeeds_and_leaves_nothing() -> None:
    world = World(make_pod(**NEVER), exits={"app": [0]}).admit()
    assert world.state.phase == "Succeeded"
    assert world.nothing_left()
    assert world.ended().reason == "Completed"


def test_a_failing_pod_that_never_restarts_fails() -> None:
    world = World(make_pod(**NEVER), exits={"app": [3]}).admit()
    assert (world.state.phase, world.ended().code) == ("Failed", 3)
    assert world.counts["start app"] == 1


def test_on_failure_restarts_until_it_succeeds() -> None:
    world = World(make_pod(restartPolicy="OnFailure"), exits={"app": [1, 1, 0]}).admit()
    assert world.counts["start app"] == 2  # the first restart is immediate
    assert world.run().reason == "CrashLoopBackOff"
    world.advance(9.9)
    assert world.counts["start app"] == 2
    world.advance(0.2)
    assert (world.state.phase, world.counts["start app"]) == ("Succeeded", 3)


def test_back_off_doubles_to_five_minutes() -> None:
    world = World(make_pod(), exits={"app": [1] * 9}).admit()
    waits = []
    while world.state.timer:
        waits.append(round(world.state.timer - world.now))
        world.advance(world.state.timer - world.now)
    assert waits == [10, 20, 40, 80, 160, 300, 300, 300]


def test_back_off_is_forgotten_after_running_long_enough() -> None:
    world = World(make_pod(), exits={"app": [1, 1]}).admit().advance(10)
    assert world.run().failures == 2
    world.advance(601).exit("app", 1)
    assert world.run().failures == 1
    assert world.run().stage is st.RunStage.RUNNING


def test_init_containers_run_one_after_the_other_before_the_application() -> None:
    inits = ({"name": "one", "image": "i:1"}, {"name": "two", "image": "i:1"})
    world = World(make_pod(inits=inits)).admit()
    assert world.run("one").stage is st.RunStage.RUNNING
    assert world.run("two").stage is st.RunStage.WAITING
    world.exit("one", 0)
    assert (world.run("two").stage, world.run("app").stage) == (st.RunStage.RUNNING, st.RunStage.WAITING)
    world.exit("two", 0)
    assert world.run("app").stage is st.RunStage.RUNNING


def test_a_failed_init_container_is_run_again_unless_the_policy_is_never() -> None:
    init = ({"name": "one", "image": "i:1"},)
    world = World(make_pod(inits=init), exits={"one": [1, 0]}).admit()
    assert world.run("app").stage is st.RunStage.RUNNING
    world = World(make_pod(inits=init, **NEVER), exits={"one": [1]}).admit()
    assert world.state.phase == "Failed"
    assert world.counts["start app"] == 0
    assert world.nothing_left()


def _sidecar(name: str, **more: object) -> dict[str, object]:
    return {"name": name, "image": "s:1", "restartPolicy": "Always", **more}


def test_sidecars_start_before_and_end_after_the_application_in_reverse() -> None:
    probe = {"startupProbe": {"tcpSocket": {"port": 1}}}
    world = World(make_pod(inits=(_sidecar("one", **probe), _sidecar("two")))).admit()
    assert world.run("two").stage is st.RunStage.WAITING
    world.probe("one", ev.Check.STARTUP, True)
    assert world.run("app").stage is st.RunStage.RUNNING
    world.delete()
    ended = [i.name for i in world.trace if isinstance(i, do.StopSignal)]
    assert ended == ["app", "two", "one"]
    assert world.forgotten and world.nothing_left() and not world.in_api


def test_a_sidecar_that_ends_starts_again_and_does_not_keep_a_finished_pod_alive() -> None:
    world = World(make_pod(inits=(_sidecar("side"),), **NEVER)).admit()
    world.exit("side", 0)
    assert world.counts["start side"] == 2
    world.exit("app", 0)
    assert world.state.phase == "Succeeded" and world.nothing_left()


def test_deleting_sends_the_stop_signal_and_sigkill_after_the_grace_period() -> None:
    world = World(make_pod()).admit()
    world.deaf.add("app")
    world.delete(grace=5)
    assert world.run().stage is st.RunStage.RUNNING
    world.advance(4.9)
    assert not any(isinstance(i, do.StopSignal) and i.kill for i in world.trace)
    world.advance(0.2)
    assert world.forgotten and world.nothing_left()


def test_a_stop_has_the_seconds_that_it_was_given_in_place_of_the_pods_grace_period() -> None:
    world = World(make_pod()).admit()
    world.deaf.add("app")
    world.update(make_pod(annotations={"cuboid.dev/state": "stopped", "cuboid.dev/stop-seconds": "3"}))
    world.advance(2.9)
    assert world.run().stage is st.RunStage.RUNNING
    world.advance(0.2)
    assert world.run().stage is st.RunStage.EXITED and world.vm is None


@pytest.mark.parametrize("text", ["", "-1", "soon", "1.5", "9" * 9, "٣"])
def test_a_stop_time_that_is_no_number_is_the_pods_own(text: str) -> None:
    made = plan(make_pod(annotations={"cuboid.dev/stop-seconds": text}, terminationGracePeriodSeconds=7))
    assert made.stop_grace == made.grace == 7


def test_grace_zero_ends_the_vm_at_once() -> None:
    world = World(make_pod({"name": "app", "image": "a:1", "lifecycle": {"preStop": {"exec": {"command": ["x"]}}}}))
    world.admit().delete(grace=0)
    assert world.forgotten
    assert world.counts["RunHook"] == world.counts["StopSignal"] == 0


def test_a_shorter_grace_period_hurries_the_end() -> None:
    world = World(make_pod()).admit()
    world.deaf.add("app")
    world.delete(grace=300).delete(grace=1)
    world.advance(1.1)
    assert world.forgotten


def test_a_container_that_cannot_be_killed_takes_the_vm_with_it() -> None:
    world = World(make_pod()).admit()
    world.mute.add("StopSignal")
    world.delete(grace=5).advance(16)
    assert world.forgotten and world.nothing_left()


def test_a_pre_stop_hook_runs_first_and_a_slow_one_leaves_two_seconds() -> None:
    hook = {"name": "app", "image": "a:1", "lifecycle": {"preStop": {"exec": {"command": ["sleep"]}}}}
    world = World(make_pod(hook)).admit().delete()
    kinds = [type(i) for i in world.trace if isinstance(i, do.RunHook | do.StopSignal)]
    assert kinds == [do.RunHook, do.StopSignal]
    slow = World(make_pod(hook)).admit()
    slow.mute.add("RunHook")
    slow.deaf.add("app")
    slow.delete(grace=5).advance(5.1)
    assert slow.counts["StopSignal"] == 1
    slow.advance(2)
    assert slow.forgotten


def test_a_failed_post_start_hook_ends_the_container() -> None:
    hook = {"name": "app", "image": "a:1", "lifecycle": {"postStart": {"exec": {"command": ["x"]}}}}
    world = World(make_pod(hook))
    world.failures["RunHook"] = ev.HookDone(
        at=world.now, name="app", attempt=0, point=ev.HookPoint.POST_START, ok=False, message="no"
    )
    world.admit()
    assert "FailedPostStartHook" in world.notes
    assert world.run().attempt == 1 and world.run().started


def test_readiness_follows_its_probe() -> None:
    world = World(make_pod({"name": "app", "image": "a:1", "readinessProbe": {"tcpSocket": {"port": 80}}})).admit()
    assert not world.run().readiness_ok
    assert world.probe("app", ev.Check.READINESS, True).run().readiness_ok
    assert not world.probe("app", ev.Check.READINESS, False).run().readiness_ok
    assert world.run().stage is st.RunStage.RUNNING


def test_a_failed_liveness_probe_restarts_with_its_own_grace_period() -> None:
    probe = {"tcpSocket": {"port": 80}, "terminationGracePeriodSeconds": 3}
    world = World(make_pod({"name": "app", "image": "a:1", "livenessProbe": probe})).admit()
    world.deaf.add("app")
    world.probe("app", ev.Check.LIVENESS, False)
    assert "Unhealthy" in world.notes
    world.advance(3.1)
    assert world.run().attempt == 1 and world.last().code == 137


def test_the_active_deadline_fails_the_pod() -> None:
    world = World(make_pod(activeDeadlineSeconds=60)).admit().advance(59)
    assert not world.state.terminal
    world.advance(2)
    assert (world.state.phase, world.state.reason) == ("Failed", "DeadlineExceeded")
    assert world.nothing_left() and not world.state.gone


def test_a_pod_that_takes_more_than_it_may_is_evicted() -> None:
    world = World(make_pod()).admit()
    world.send(ev.Evicted(at=world.now, message="too much"))
    world.settle()
    assert (world.state.phase, world.state.reason, world.state.message) == ("Failed", "Evicted", "too much")
    assert world.nothing_left()


def test_the_init_timeout_names_what_has_not_started() -> None:
    world = World(make_pod(annotations={"cuboid.dev/init-timeout": "5"}))
    world.mute.add("PullImage")
    world.admit().advance(5.1)
    assert (world.state.phase, world.state.reason) == ("Failed", "InitTimeout")
    assert "app" in world.state.message
    assert do.CancelPull("app") in world.trace


def test_the_init_timeout_does_not_touch_a_pod_that_has_started() -> None:
    world = World(make_pod(annotations={"cuboid.dev/init-timeout": "5"})).admit().advance(100)
    assert world.run().stage is st.RunStage.RUNNING and not world.state.terminal


def test_host_paths_and_host_namespaces_are_refused_in_one_sentence() -> None:
    world = World(make_pod(volumes=[{"name": "v", "hostPath": {"path": "/etc"}}])).admit()
    assert (world.state.phase, world.state.reason) == ("Failed", "UnsupportedHostPath")
    assert "cuboid cp" in world.state.message and "NFS" in world.state.message
    assert world.counts["CreateVm"] == 0
    world = World(make_pod(hostNetwork=True)).admit()
    assert world.state.reason == "UnsupportedHostNetwork"


def test_a_pull_that_fails_is_tried_again_with_back_off() -> None:
    world = World(make_pod())
    bad = ev.ImageFailed(at=world.now, name="app", reason="ErrImagePull", message="no such image")
    world.failures["PullImage"] = bad
    world.admit()
    assert world.run().image.reason == "ErrImagePull"
    world.advance(1.1)
    assert world.run().image.reason == "ImagePullBackOff"
    assert "no such image" in world.run().image.message
    world.advance(9)
    assert world.run().stage is st.RunStage.RUNNING


def test_a_missing_entrypoint_is_an_exit_code_and_the_policy_decides() -> None:
    world = World(make_pod(**NEVER))
    world.failures["StartContainer"] = ev.StartFailed(
        at=world.now, name="app", attempt=0, code=127, reason="ContainerCannotRun", message="/nope: not found"
    )
    world.admit()
    end = world.run().ended
    assert end is not None and (end.code, end.message) == (127, "/nope: not found")
    assert world.state.phase == "Failed" and world.nothing_left()


def test_a_configuration_that_lacks_something_waits_for_it() -> None:
    world = World(make_pod(**NEVER))
    world.failures["StartContainer"] = ev.StartFailed(
        at=world.now, name="app", attempt=0, reason="CreateContainerConfigError", message='secret "s" not found'
    )
    world.admit()
    assert (world.run().stage, world.run().reason) == (st.RunStage.WAITING, "CreateContainerConfigError")
    world.advance(5.1)
    assert (world.run().stage, world.run().attempt) == (st.RunStage.RUNNING, 0)


def test_out_of_memory_is_told_apart() -> None:
    world = World(make_pod(**NEVER)).admit().exit("app", 137, 9, oom=True)
    assert world.ended().reason == "OOMKilled"


def test_a_fatal_failure_fails_the_pod() -> None:
    world = World(make_pod())
    world.failures["CreateVm"] = ev.VmFailed(
        at=world.now, attempt=0, reason="Invalid", message="memory smaller than the guest needs", fatal=True
    )
    world.admit()
    assert (world.state.phase, world.state.reason) == ("Failed", "Invalid")
    assert world.nothing_left()


def test_a_volume_that_lacks_its_config_map_waits_with_the_vm_up() -> None:
    world = World(make_pod())
    world.failures["Setup"] = ev.SetupFailed(
        at=world.now, attempt=0, reason="FailedMount", message='configmap "c" not found', again=True
    )
    world.admit()
    assert world.state.machine.stage is st.VmStage.SETTING_UP
    world.advance(5.1)
    assert world.run().stage is st.RunStage.RUNNING and world.counts["CreateVm"] == 1


def test_stop_keeps_disk_and_address_and_start_goes_on_with_the_same_root() -> None:
    pod = make_pod()
    world = World(pod).admit()
    stopped = make_pod(annotations={"cuboid.dev/state": "stopped"})
    world.update(stopped)
    assert world.vm is None and world.network and world.disk
    assert not world.state.terminal and world.run().stage is st.RunStage.EXITED
    world.update(pod)
    assert world.run().stage is st.RunStage.RUNNING
    assert world.trace.count(do.StartContainer("app", 1, keep_root=True)) == 1
    assert world.counts["AttachNetwork"] == 1


def test_restart_stops_and_starts_each_container_once_without_back_off() -> None:
    world = World(make_pod(**NEVER)).admit()
    world.update(make_pod(annotations={"cuboid.dev/restartedAt": "2026-01-01"}, **NEVER))
    assert world.run().stage is st.RunStage.RUNNING and world.run().attempt == 1
    assert world.counts["CreateVm"] == 1
    world.update(make_pod(annotations={"cuboid.dev/restartedAt": "2026-01-01"}, **NEVER))
    assert world.run().attempt == 1


def test_a_pod_that_vanishes_from_the_api_is_torn_down() -> None:
    world = World(make_pod()).admit()
    world.send(ev.Vanished(at=world.now))
    world.settle()
    assert world.forgotten and world.nothing_left()
    assert world.counts["DeletePod"] == 0


def test_node_shutdown_fails_pods_but_keeps_their_objects() -> None:
    world = World(make_pod()).admit()
    world.send(ev.Shutdown(at=world.now))
    world.settle()
    assert (world.state.phase, world.state.reason) == ("Failed", "Terminated")
    assert world.nothing_left() and world.in_api


def test_a_receipt_is_asked_for_once_started_and_once_ready() -> None:
    world = World(make_pod({"name": "app", "image": "a:1", "readinessProbe": {"tcpSocket": {"port": 80}}})).admit()
    assert world.trace.count(do.WriteReceipt(0, ready=False)) == 1
    world.probe("app", ev.Check.READINESS, True)
    world.probe("app", ev.Check.READINESS, False).probe("app", ev.Check.READINESS, True)
    assert world.trace.count(do.WriteReceipt(0, ready=True)) == 1


def test_a_timer_that_fires_early_is_set_again() -> None:
    world = World(make_pod(), exits={"app": [1, 1]}).admit()
    due = world.state.timer
    world.send(ev.TimerFired(at=due - 0.001))
    assert do.SetTimer(due) in world.todo
