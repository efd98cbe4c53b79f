"""The status that a pod's object shows, from the sandbox's state. Pure."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from cuboid.kube.names import PAUSED
from cuboid.kube.qos import qos_class
from cuboid.lib.clock import rfc3339
from cuboid.node.sandbox.draft import apps
from cuboid.node.sandbox.plan import ContainerPlan, Role
from cuboid.node.sandbox.state import Ended, Run, RunStage, Sandbox, VmStage

Raw = dict[str, Any]
MESSAGE_LIMIT = 4096  # bytes; the API's limit for a termination message
TOLD_AS_THEY_ARE = ("VolumeInUse", "DiskPressure")
"""Reasons of a pod without a disk that a person can do something about; others are Kubernetes' "ContainerCreating"."""
RESIZES = ("PodResizePending", "PodResizeInProgress")
OURS = ("PodReadyToStartContainers", "Initialized", "ContainersReady", "Ready", PAUSED, *RESIZES)
STANDS_STILL = "the pod's machine stands still and keeps its memory; `cuboid resume` lets it go on"
WITHOUT_MACHINE = "the pod is paused and has no machine; `cuboid resume` starts it"


def render(state: Sandbox, pod: Raw, *, host_ip: str, now: float, previous: Iterable[Raw] = ()) -> Raw:
    """A merge patch of `.status`. `previous`: the conditions last written, for their transition times."""
    known = {condition["type"]: condition for condition in [*_conditions_of(pod), *previous]}
    pairs = state.pairs
    reason, message = (state.reason, state.message) if state.reason else _pause(state)
    status: Raw = {
        "phase": phase(state), "reason": reason or None, "message": message or state.message or None,
        "observedGeneration": state.plan.generation or None,
        "conditions": _conditions(state, pod, known, now),
        "hostIP": host_ip or None, "hostIPs": [{"ip": host_ip}] if host_ip else None,
        "podIP": state.ips[0] if state.ips else None, "podIPs": [{"ip": ip} for ip in state.ips] or None,
        "startTime": rfc3339(state.admitted_at) if state.admitted_at else None,
        "qosClass": qos_class(pod.get("spec", {})),
        "containerStatuses": [_container(state, c, run) for c, run in pairs if c.role is Role.APP],
    }  # fmt: skip
    if inits := [_container(state, c, run) for c, run in pairs if c.role in (Role.INIT, Role.SIDECAR)]:
        status["initContainerStatuses"] = inits
    if debugs := [_ephemeral(state, c, run) for c, run in pairs if c.role is Role.DEBUG]:
        status["ephemeralContainerStatuses"] = debugs
    return status


def _conditions_of(pod: Raw) -> list[Raw]:
    found = (pod.get("status") or {}).get("conditions") or []
    return [condition for condition in found if isinstance(condition, dict) and "type" in condition]


def phase(state: Sandbox) -> str:
    """Kubernetes' rule: Pending until every container has run at least once."""
    if state.phase:
        return state.phase
    ran = all(run.started_at or run.ended or run.last for run in apps(state))
    return "Running" if state.began or ran else "Pending"


def _pause(state: Sandbox) -> tuple[str, str]:
    """Reason and message of a pod that is paused; the phase stays, and kubectl shows the reason in its place."""
    if not state.shown_paused:
        return "", ""
    return "Paused", WITHOUT_MACHINE if state.machine.stage is VmStage.ABSENT else STANDS_STILL


# --- conditions ------------------------------------------------------------------------------------------------------


def _conditions(state: Sandbox, pod: Raw, known: dict[str, Raw], now: float) -> list[Raw]:
    own = [
        _condition("PodReadyToStartContainers", _has_been_up(state)),
        _initialized(state),
        _containers_ready(state),
        _ready(state, pod, known),
        *_resize(state),
        *([_condition(PAUSED, state.shown_paused)] if state.shown_paused or PAUSED in known else []),
    ]
    scheduled = known.get("PodScheduled") or _condition("PodScheduled", True)
    others = [condition for kind, condition in known.items() if kind not in (*OURS, "PodScheduled")]
    return [_stamped(c, known.get(c["type"]), state, now) for c in [*own, scheduled]] + others


def _resize(state: Sandbox) -> list[Raw]:
    resize = state.resize
    if state.phase:
        return []
    pending = [_condition(RESIZES[0], True, resize.reason, resize.message)] if resize.reason else []
    error = ("Error", resize.failure) if resize.failure else ("", "")
    if resize.due or resize.held:
        return [*pending, _condition(RESIZES[1], True, *error)]
    return pending


def _has_been_up(state: Sandbox) -> bool:
    """Also while a machine that runs on is spoken with anew, after a pause or a restart of ours."""
    machine = state.machine
    return machine.stage is VmStage.UP or (machine.stage is VmStage.SETTING_UP and bool(machine.up_at))


def _condition(kind: str, good: bool, reason: str = "", message: str = "") -> Raw:
    said = {"reason": reason, "message": message} if not good or reason else {}
    return {
        "type": kind, "status": "True" if good else "False", **{key: text for key, text in said.items() if text}
    }  # fmt: skip


def _stamped(condition: Raw, before: Raw | None, state: Sandbox, now: float) -> Raw:
    same = before is not None and before.get("status") == condition["status"]
    time = before.get("lastTransitionTime") if before is not None and same else None
    generation = {"observedGeneration": state.plan.generation} if state.plan.generation else {}
    return {**condition, "lastTransitionTime": time or rfc3339(now), **generation}


def _initialized(state: Sandbox) -> Raw:
    waiting = [
        c.name for c, run in state.pairs
        if (c.role is Role.INIT and not _completed(run)) or (c.role is Role.SIDECAR and not run.started)
    ]  # fmt: skip
    if state.phase == "Succeeded":
        return _condition("Initialized", True, "PodCompleted")
    if state.initialized or not waiting:
        return _condition("Initialized", True)
    return _condition(
        "Initialized", False, "ContainersNotInitialized", f"containers with incomplete status: [{' '.join(waiting)}]"
    )


def _completed(run: Run) -> bool:
    return run.stage is RunStage.EXITED and run.ended is not None and run.ended.code == 0


def _containers_ready(state: Sandbox) -> Raw:
    return _unready(state, "ContainersReady") or _condition("ContainersReady", True)


def _unready(state: Sandbox, kind: str) -> Raw | None:
    if state.phase:
        reason = "PodCompleted" if state.phase == "Succeeded" else "PodFailed"
        return _condition(kind, False, reason)
    if (pause := _pause(state))[0]:
        return _condition(kind, False, *pause)
    names = [c.name for c, run in state.pairs if c.role not in (Role.INIT, Role.DEBUG) and not is_ready(run)]
    text = f"containers with unready status: [{' '.join(names)}]"
    return _condition(kind, False, "ContainersNotReady", text) if names else None


def _ready(state: Sandbox, pod: Raw, known: dict[str, Raw]) -> Raw:
    if (unready := _unready(state, "Ready")) is not None:
        return unready
    gates = [gate.get("conditionType", "") for gate in pod.get("spec", {}).get("readinessGates", [])]
    if missing := [gate for gate in gates if known.get(gate, {}).get("status") != "True"]:
        return _condition("Ready", False, "ReadinessGatesNotReady", f"gates not met: [{' '.join(missing)}]")
    return _condition("Ready", True)


def is_ready(run: Run) -> bool:
    return run.started and run.readiness_ok and run.stopping is None


# --- containers ------------------------------------------------------------------------------------------------------


def _container(state: Sandbox, container: ContainerPlan, run: Run) -> Raw:
    shown, last = _states(state, container, run)
    ready = _completed(run) if container.role is Role.INIT else is_ready(run) and not state.shown_paused
    result: Raw = {
        "name": run.name, "image": container.image, "imageID": run.image_digest or run.image_id, "ready": ready,
        "restartCount": max(run.attempt, 0), "state": shown, "lastState": _terminated(state, run.name, last),
        "started": run.started,
    }  # fmt: skip
    if (given := container.resources) is not None and (given.limits or given.requests):
        held = state.resize.held.get(run.name)
        has = held.resources if held is not None else given
        result["resources"] = {k: v for k, v in (("limits", has.limits), ("requests", has.requests)) if v}
        if given.requests:
            result["allocatedResources"] = given.requests
    if run.attempt >= 0:
        result["containerID"] = container_id(state, run.name, run.attempt)
    return result


def _ephemeral(state: Sandbox, container: ContainerPlan, run: Run) -> Raw:
    """It is never ready, and tells nothing of having started (Kubernetes)."""
    return {**_container(state, container, run), "ready": False, "started": None}


def container_id(state: Sandbox, name: str, attempt: int) -> str:
    return f"cuboid://{state.plan.uid}/{name}/{attempt}"


def _states(state: Sandbox, container: ContainerPlan, run: Run) -> tuple[Raw, Ended | None]:
    """The present state, and which end `lastState` shows."""
    if run.stage is RunStage.RUNNING:
        return {"running": {"startedAt": rfc3339(run.started_at)}}, run.last
    if run.ended is not None and (run.done or state.ending is not None):
        return _terminated(state, run.name, run.ended), run.last
    reason, message = _waiting(state, container, run)
    return {"waiting": {"reason": reason, **({"message": message} if message else {})}}, run.ended or run.last


def _waiting(state: Sandbox, container: ContainerPlan, run: Run) -> tuple[str, str]:
    if state.plan.stopped:
        return "Stopped", ""
    for reason, message in ((run.image.reason, run.image.message), (run.reason, run.message)):
        if reason:
            return reason, message
    if (pause := _pause(state))[0]:
        return pause
    if container.role is Role.APP and not state.initialized and len(apps(state)) < len(state.runs):
        return "PodInitializing", state.machine.message
    if state.disk.reason in TOLD_AS_THEY_ARE:
        return state.disk.reason, state.disk.message
    return "ContainerCreating", state.network.message or state.disk.message or state.machine.message


def _terminated(state: Sandbox, name: str, end: Ended | None) -> Raw:
    if end is None:
        return {}
    fields: Raw = {
        "exitCode": end.code, "reason": end.reason or "Error",
        "startedAt": rfc3339(end.started_at) if end.started_at else None,
        "finishedAt": rfc3339(end.finished_at) if end.finished_at else None,
        "containerID": container_id(state, name, end.attempt),
    }  # fmt: skip
    if end.signal:
        fields["signal"] = end.signal
    if end.message:
        fields["message"] = end.message.encode()[:MESSAGE_LIMIT].decode(errors="ignore")
    return {"terminated": {key: value for key, value in fields.items() if value is not None}}
