"""What each event means for the state. Events of an earlier attempt, and those told twice, change nothing."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from cuboid.node.sandbox import containers, ending, pausing, resizing, resources
from cuboid.node.sandbox import events as ev
from cuboid.node.sandbox import instructions as do
from cuboid.node.sandbox.draft import Draft, backoff, changed
from cuboid.node.sandbox.plan import ContainerPlan, Role
from cuboid.node.sandbox.state import Cause, Ended, Hook, Part, Pause, Run, RunStage, Stage, VmStage, Why

DIED = "the pod's machine ended"


def apply(draft: Draft, event: ev.Event) -> None:
    handler = _HANDLERS.get(type(event))
    if handler is not None:
        handler(draft, event)


def _run(draft: Draft, event: Any) -> Run | None:
    """The container that an event of this attempt is about."""
    run = draft.state.run(event.name)
    return run if run is not None and run.attempt == event.attempt else None


# --- the pod object --------------------------------------------------------------------------------------------------


def _admitted(draft: Draft, event: ev.Admitted) -> None:
    if not draft.state.admitted_at:
        draft.set(admitted_at=event.at)


def _timer_fired(draft: Draft, _: ev.TimerFired) -> None:
    draft.set(timer=0.0)  # it may have fired early: then it is set again


def _updated(draft: Draft, event: ev.Updated) -> None:
    before = draft.state.plan
    # Containers are those that the VM was made for; an annotation that was changed for the worse ends no pod.
    draft.set(plan=changed(event.plan, containers=before.containers, refusal=before.refusal))
    _add_ephemeral(draft, event.plan.containers)
    resizing.decide(draft, event.plan.containers, event.refusal)
    if not event.plan.stopped:
        draft.set(stop_deadline=0.0)
    if event.plan.paused != before.paused:
        draft.machine(pause_failures=0, pause_retry_at=0.0)
    if event.deleted_grace is not None:
        draft.set(deleted=True)
        ending.begin(draft, Cause.DELETED, event.deleted_grace)
    elif event.plan.restarted_at != before.restarted_at and draft.state.ending is None:
        _restart(draft)


def _add_ephemeral(draft: Draft, wanted: tuple[ContainerPlan, ...]) -> None:
    """The only containers that come while the pod runs; none ever goes."""
    state = draft.state
    new = [c for c in wanted if c.role is Role.DEBUG and state.run(c.name) is None]
    if new:
        plan = changed(state.plan, containers=(*state.plan.containers, *new))
        draft.set(plan=plan, runs=(*state.runs, *(Run(c.name) for c in new)))


def _restart(draft: Draft) -> None:
    if draft.state.frozen:
        draft.set(restart_due=True)
        return
    draft.set(restart_due=False)
    for run in draft.state.runs:
        if draft.state.container(run.name).role is not Role.APP:
            continue
        if run.stage is RunStage.RUNNING:
            containers.stop(draft, run, Why.RESTART, draft.now + draft.state.plan.stop_grace)
        elif run.stage is RunStage.EXITED:
            draft.run(run.name, done=False, retry_at=0.0, keep_root=True, reason="", message="")


def _vanished(draft: Draft, event: ev.Vanished) -> None:
    draft.set(vanished=True, deleted=True)
    ending.begin(draft, Cause.VANISHED, ending.VANISHED_GRACE)


def _shutdown(draft: Draft, event: ev.Shutdown) -> None:
    if draft.state.ending is None:
        draft.set(phase="Failed", reason="Terminated", message="Pod was terminated in response to node shutdown.")
        ending.begin(draft, Cause.SHUTDOWN, draft.state.plan.grace)


def _resized(draft: Draft, event: ev.Resized) -> None:
    if _is(draft, event.attempt, VmStage.UP) and draft.state.resize.asked:
        resizing.applied(draft, event.names)


def _resize_failed(draft: Draft, event: ev.ResizeFailed) -> None:
    if _is(draft, event.attempt, VmStage.UP) and draft.state.resize.asked:
        resizing.failed(draft, event.message)


def _pod_deleted(draft: Draft, event: ev.PodDeleted) -> None:
    _vanished(draft, ev.Vanished(at=event.at))


# --- on the host -----------------------------------------------------------------------------------------------------


def _network_attached(draft: Draft, event: ev.NetworkAttached) -> None:
    if draft.state.network.stage is Stage.ASKED:
        draft.set(network=Part(Stage.PRESENT), ips=event.ips, network_id=event.id)


def _network_failed(draft: Draft, event: ev.NetworkFailed) -> None:
    if draft.state.network.stage is Stage.ASKED:
        draft.set(network=_failed(draft, draft.state.network, event))
        _say(draft, event, "FailedCreatePodSandBox")


def _disk_ready(draft: Draft, event: ev.DiskReady) -> None:
    if draft.state.disk.stage is Stage.ASKED:
        draft.set(disk=Part(Stage.PRESENT))


def _disk_failed(draft: Draft, event: ev.DiskFailed) -> None:
    if draft.state.disk.stage is Stage.ASKED:
        draft.set(disk=_failed(draft, draft.state.disk, event))
        _say(draft, event, event.reason)


def _failed(draft: Draft, part: Part, event: ev.Failure) -> Part:
    rules = draft.state.rules
    wait = backoff(rules.retry, rules.backoff_max, part.failures + 1)
    return draft.failed(part, event.reason, event.message, wait)


def _say(draft: Draft, event: ev.Failure, reason: str) -> None:
    if event.fatal and draft.state.ending is None:
        ending.fail(draft, event.reason, event.message)
    else:
        draft.note(reason, event.message, warning=True)


def _network_detached(draft: Draft, event: ev.NetworkDetached) -> None:
    if draft.state.network.stage is Stage.REMOVING:
        draft.set(network=Part(Stage.REMOVED))


def _disk_removed(draft: Draft, event: ev.DiskRemoved) -> None:
    if draft.state.disk.stage is Stage.REMOVING:
        draft.set(disk=Part(Stage.REMOVED))


def _images_released(draft: Draft, event: ev.ImagesReleased) -> None:
    if draft.state.images is Stage.REMOVING:
        draft.set(images=Stage.REMOVED)


def _image_pulled(draft: Draft, event: ev.ImagePulled) -> None:
    run = draft.state.run(event.name)
    if run is not None and run.image.stage is Stage.ASKED:
        draft.run(run.name, image=Part(Stage.PRESENT), image_id=event.image_id, image_digest=event.digest)


def _image_failed(draft: Draft, event: ev.ImageFailed) -> None:
    run = draft.state.run(event.name)
    if run is None or run.image.stage is not Stage.ASKED:
        return
    rules = draft.state.rules
    wait = backoff(rules.pull_backoff, rules.backoff_max, run.image.failures + 1)
    draft.run(run.name, image=draft.failed(run.image, event.reason, event.message, wait))
    image = draft.state.container(run.name).image
    draft.note("Failed", f'Failed to pull image "{image}": {event.message}', warning=True)


# --- the VM ----------------------------------------------------------------------------------------------------------


def _is(draft: Draft, attempt: int, *stages: VmStage) -> bool:
    return draft.state.machine.attempt == attempt and draft.state.machine.stage in stages


def _vm_created(draft: Draft, event: ev.VmCreated) -> None:
    if _is(draft, event.attempt, VmStage.CREATING):
        draft.machine(stage=VmStage.SETTING_UP)
        draft.emit(do.Setup(event.attempt))


def _vm_failed(draft: Draft, event: ev.VmFailed) -> None:
    if _is(draft, event.attempt, VmStage.CREATING):
        _give_up_machine(draft, event)


def _give_up_machine(draft: Draft, event: ev.Failure) -> None:
    containers.lost(draft, event.reason, event.message)
    resources.machine_failed(draft, event.reason, event.message)
    resources.end_machine(draft, clean=False)
    _say(draft, event, "FailedCreatePodSandBox")


def _setup_failed(draft: Draft, event: ev.SetupFailed) -> None:
    if not _is(draft, event.attempt, VmStage.SETTING_UP):
        return
    if event.again:
        draft.machine(setup_retry_at=draft.now + draft.state.rules.retry, reason=event.reason, message=event.message)
        draft.note(event.reason, event.message, warning=True)
    else:
        _give_up_machine(draft, event)


def _setup_done(draft: Draft, event: ev.SetupDone) -> None:
    if _is(draft, event.attempt, VmStage.SETTING_UP):
        up_at = draft.state.machine.up_at or event.at
        draft.machine(stage=VmStage.UP, up_at=up_at, reason="", message="", setup_retry_at=0.0)
        containers.reconcile(draft, event.found)
        if draft.state.machine.paused_at:
            draft.emit(do.SetClock(event.attempt))
        if draft.state.restart_due and draft.state.ending is None:
            _restart(draft)


def _vm_ended(draft: Draft, event: ev.VmEnded) -> None:
    if _is(draft, event.attempt, VmStage.CREATING, VmStage.SETTING_UP, VmStage.UP):
        died(draft, event.cause, event.detail)


def _vm_paused(draft: Draft, event: ev.VmPaused) -> None:
    if _is(draft, event.attempt, VmStage.UP) and draft.state.machine.pause is Pause.PAUSING:
        pausing.paused(draft)


def _vm_pause_failed(draft: Draft, event: ev.VmPauseFailed) -> None:
    if _is(draft, event.attempt, VmStage.UP) and draft.state.machine.pause is Pause.PAUSING:
        pausing.pause_failed(draft, event.message)


def _resuming(draft: Draft, attempt: int) -> bool:
    return _is(draft, attempt, VmStage.SETTING_UP, VmStage.UP) and draft.state.machine.pause is Pause.RESUMING


def _vm_resumed(draft: Draft, event: ev.VmResumed) -> None:
    if _resuming(draft, event.attempt):
        pausing.resumed(draft)


def _vm_resume_failed(draft: Draft, event: ev.VmResumeFailed) -> None:
    if _resuming(draft, event.attempt) and not pausing.resume_failed(draft, event.message):
        died(draft, "ResumeFailed", event.message)


def _clock_set(draft: Draft, event: ev.ClockSet) -> None:
    if _is(draft, event.attempt, VmStage.UP) and not draft.state.frozen:
        draft.machine(paused_at=0.0)


def died(draft: Draft, cause: str, detail: str) -> None:
    """The VM ended without being asked: its containers with it. The restart policy decides what comes."""
    message = f"{DIED}: {detail}" if detail else DIED
    containers.lost(draft, cause, message)
    resources.machine_failed(draft, cause, message)
    resources.end_machine(draft, clean=False)
    ran = any(run.attempt >= 0 for run in draft.state.runs)
    if draft.state.ending is None and ran and draft.state.plan.restart_policy == "Never":
        ending.fail(draft, cause, message)
    else:
        draft.note(cause, message, warning=True)


def _vm_gone(draft: Draft, event: ev.VmGone) -> None:
    if _is(draft, event.attempt, VmStage.ENDING):
        resources.machine_gone(draft)


# --- containers ------------------------------------------------------------------------------------------------------


def _started(draft: Draft, event: ev.Started) -> None:
    run = _run(draft, event)
    if run is not None and run.stage is RunStage.STARTING and draft.state.machine.stage is VmStage.UP:
        containers.started(draft, draft.state.container(run.name), run, event.started_at)


def _start_failed(draft: Draft, event: ev.StartFailed) -> None:
    run = _run(draft, event)
    if run is not None and run.stage is RunStage.STARTING:
        containers.start_failed(draft, run, event.code, event.reason, event.message)


def _exited(draft: Draft, event: ev.Exited) -> None:
    run = _run(draft, event)
    if run is None or not run.alive:
        return
    if run.stage is RunStage.STARTING and event.started_at:  # its exit overtook the answer to its start
        run = draft.run(run.name, started_at=event.started_at)
    end = Ended(
        code=event.code, signal=event.signal, reason=containers.exit_reason(event.code, event.oom),
        message=event.message, started_at=event.started_at or run.started_at,
        finished_at=event.finished_at or event.at, attempt=event.attempt,
    )  # fmt: skip
    containers.ended(draft, run, end)


def _probe_changed(draft: Draft, event: ev.ProbeChanged) -> None:
    run = _run(draft, event)
    if run is None or run.stage is not RunStage.RUNNING:
        return
    container = draft.state.container(run.name)
    if event.check is ev.Check.READINESS:
        draft.run(run.name, readiness_ok=event.ok and run.stopping is None)
    elif event.check is ev.Check.STARTUP and event.ok:
        draft.run(run.name, startup_ok=True)
    elif not event.ok:
        grace = container.startup_grace if event.check is ev.Check.STARTUP else container.liveness_grace
        containers.unhealthy(draft, run, grace, f"{event.check} probe")
    if not event.ok:
        _probe_note(draft, event.check, event.message)


def _probe_failed(draft: Draft, event: ev.ProbeFailed) -> None:
    if _run(draft, event) is not None:
        _probe_note(draft, event.check, event.message)


def _probe_note(draft: Draft, check: ev.Check, message: str) -> None:
    draft.note("Unhealthy", f"{check.capitalize()} probe failed: {message[:1024]}", warning=True)


def _evicted(draft: Draft, event: ev.Evicted) -> None:
    if draft.state.ending is None:
        ending.fail(draft, "Evicted", event.message)


def _hook_done(draft: Draft, event: ev.HookDone) -> None:
    run = _run(draft, event)
    if run is None or run.stage is not RunStage.RUNNING:
        return
    running = run.stopping is not None and run.stopping.hook is Hook.RUNNING
    if running if event.point is ev.HookPoint.PRE_STOP else run.hook is Hook.RUNNING:
        containers.hook_done(draft, run, event.point, event.ok, event.message)


# --- after an interruption -------------------------------------------------------------------------------------------


def _recovered(draft: Draft, event: ev.Recovered) -> None:
    """Nothing that was under way is any more. Take what was found, ask again for the rest."""
    state = draft.state
    draft.set(
        timer=0.0, finalizing=False, resize=changed(state.resize, asked=False), ips=event.ips or state.ips,
        network=_found(state.network, event.network), disk=_found(state.disk, event.disk),
        images=Stage.PRESENT if state.images is Stage.REMOVING else state.images,
    )  # fmt: skip
    for run in state.runs:
        if run.image.stage is Stage.ASKED:
            draft.image(run.name, stage=Stage.ABSENT)
    _recover_machine(draft, event)


def _found(part: Part, present: bool) -> Part:
    if part.stage is Stage.REMOVED:
        return part
    return changed(part, stage=Stage.PRESENT if present else Stage.ABSENT)


def _recover_machine(draft: Draft, event: ev.Recovered) -> None:
    machine = draft.state.machine
    if machine.stage is VmStage.ABSENT:
        return
    draft.machine(confined=False)
    unmade = machine.stage is VmStage.CREATING and (not event.vm or event.vm_frozen)
    if machine.stage is VmStage.ENDING or unmade:
        resources.end_machine(draft, clean=False)
    elif event.vm and event.network and event.disk and event.vm_frozen:
        since = machine.paused_at or event.at
        draft.machine(
            stage=VmStage.SETTING_UP, setup_retry_at=0.0, pause=Pause.PAUSED, paused_at=since, pause_retry_at=0.0
        )
    elif event.vm and event.network and event.disk:
        draft.machine(stage=VmStage.SETTING_UP, setup_retry_at=0.0, pause=Pause.NONE, pause_retry_at=0.0)
        draft.emit(do.Setup(machine.attempt))
    elif event.taken_down:
        died(draft, "NodeDown", "the platform was taken down")
    elif event.rebooted:
        died(draft, "HostRebooted", "the host was rebooted")
    else:
        died(draft, "VMMDied", "its VMM ended while the node agent was down")


_HANDLERS: dict[type[Any], Callable[[Draft, Any], None]] = {
    ev.Admitted: _admitted,
    ev.TimerFired: _timer_fired, ev.Updated: _updated, ev.Vanished: _vanished, ev.Shutdown: _shutdown,
    ev.PodDeleted: _pod_deleted, ev.NetworkAttached: _network_attached, ev.NetworkFailed: _network_failed,
    ev.NetworkDetached: _network_detached, ev.DiskReady: _disk_ready, ev.DiskFailed: _disk_failed,
    ev.DiskRemoved: _disk_removed, ev.ImagePulled: _image_pulled, ev.ImageFailed: _image_failed,
    ev.ImagesReleased: _images_released, ev.VmCreated: _vm_created, ev.VmFailed: _vm_failed, ev.VmEnded: _vm_ended,
    ev.VmGone: _vm_gone, ev.SetupDone: _setup_done, ev.SetupFailed: _setup_failed, ev.Started: _started,
    ev.StartFailed: _start_failed, ev.Exited: _exited, ev.ProbeChanged: _probe_changed, ev.ProbeFailed: _probe_failed,
    ev.Evicted: _evicted, ev.HookDone: _hook_done, ev.Recovered: _recovered,
    ev.VmPaused: _vm_paused, ev.VmPauseFailed: _vm_pause_failed, ev.VmResumed: _vm_resumed,
    ev.VmResumeFailed: _vm_resume_failed, ev.ClockSet: _clock_set,
    ev.Resized: _resized, ev.ResizeFailed: _resize_failed,
}  # fmt: skip
