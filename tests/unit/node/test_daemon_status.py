"""What a pod's status shows, in the words of Kubernetes."""

from __future__ import annotations

from typing import Any

from cuboid.node import status
from cuboid.node.sandbox import events as ev
from tests.harness.node import World, make_pod

POD: dict[str, Any] = {"spec": {}}


def shown(world: World, pod: dict[str, Any] = POD, **options: Any) -> dict[str, Any]:
    return status.render(world.state, pod, host_ip="192.0.2.1", now=world.now, **options)


def condition(rendered: dict[str, Any], kind: str) -> dict[str, Any]:
    found: dict[str, Any] = next(c for c in rendered["conditions"] if c["type"] == kind)
    return found


def app(rendered: dict[str, Any]) -> dict[str, Any]:
    found: dict[str, Any] = rendered["containerStatuses"][0]
    return found


def test_a_pod_that_waits_for_its_machine_is_pending() -> None:
    world = World(make_pod())
    world.send(ev.Admitted(at=world.now))
    rendered = shown(world)
    assert rendered["phase"] == "Pending"
    assert app(rendered)["state"]["waiting"]["reason"] == "ContainerCreating"
    assert condition(rendered, "PodReadyToStartContainers")["status"] == "False"


def test_a_running_pod_has_all_conditions_and_addresses() -> None:
    rendered = shown(World(make_pod()).admit())
    assert {c["type"]: c["status"] for c in rendered["conditions"]} == dict.fromkeys(
        ("PodReadyToStartContainers", "Initialized", "ContainersReady", "Ready", "PodScheduled"), "True"
    )
    assert (rendered["podIP"], rendered["hostIP"]) == ("10.0.0.2", "192.0.2.1")
    assert app(rendered)["containerID"] == "cuboid://0f1e2d3c-0001/app/0"


def test_initialisation_names_what_it_waits_for() -> None:
    world = World(make_pod(inits=({"name": "one", "image": "i:1"},))).admit()
    rendered = shown(world)
    assert (rendered["phase"], app(rendered)["state"]["waiting"]["reason"]) == ("Pending", "PodInitializing")
    assert "[one]" in condition(rendered, "Initialized")["message"]
    assert "running" in rendered["initContainerStatuses"][0]["state"]


def test_a_crash_loop_waits_with_its_last_end() -> None:
    rendered = shown(World(make_pod(), exits={"app": [1, 2]}).admit())
    assert app(rendered)["state"]["waiting"]["reason"] == "CrashLoopBackOff"
    assert app(rendered)["lastState"]["terminated"]["exitCode"] == 2
    assert (app(rendered)["restartCount"], rendered["phase"]) == (1, "Running")


def test_a_finished_pod_shows_how_each_container_ended() -> None:
    rendered = shown(World(make_pod(restartPolicy="Never"), exits={"app": [0]}).admit())
    assert rendered["phase"] == "Succeeded"
    assert app(rendered)["state"]["terminated"]["reason"] == "Completed"
    assert condition(rendered, "Ready")["reason"] == "PodCompleted"


def test_transition_times_stay_until_the_status_changes() -> None:
    world = World(make_pod()).admit()
    before = shown(world)
    world.now += 100
    assert condition(shown(world, previous=before["conditions"]), "Ready") == condition(before, "Ready")
    world.exit("app", 1).exit("app", 1)
    after = condition(shown(world, previous=before["conditions"]), "Ready")
    assert (
        after["status"] == "False" and after["lastTransitionTime"] != condition(before, "Ready")["lastTransitionTime"]
    )


def test_conditions_of_others_are_kept_and_gates_hold_readiness_back() -> None:
    world = World(make_pod()).admit()
    gate = {"conditionType": "example.com/gate"}
    pod: dict[str, Any] = {"spec": {"readinessGates": [gate]}, "status": {"conditions": []}}
    assert condition(shown(world, pod), "Ready")["reason"] == "ReadinessGatesNotReady"
    pod["status"]["conditions"] = [{"type": "example.com/gate", "status": "True"}]
    rendered = shown(world, pod)
    assert condition(rendered, "Ready")["status"] == "True"
    assert condition(rendered, "example.com/gate")["status"] == "True"


def test_an_endless_termination_message_is_cut() -> None:
    world = World(make_pod(restartPolicy="Never")).admit()
    world.send(ev.Exited(at=world.now, name="app", attempt=0, code=1, message="ü" * 10_000))
    assert len(app(shown(world))["state"]["terminated"]["message"].encode()) <= 4096


def test_a_volume_in_use_is_told_by_its_own_reason() -> None:
    world = World(make_pod())
    sentence = "the volume default/data is in use by the pod other"
    world.failures["CreateDisk"] = ev.DiskFailed(at=world.now, reason="VolumeInUse", message=sentence)
    world.admit()
    assert app(shown(world))["state"]["waiting"] == {"reason": "VolumeInUse", "message": sentence}
