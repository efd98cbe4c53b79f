"""What a pod needs on the host before its containers can start: network, disk, images, then the VM."""

from __future__ import annotations

from cuboid.node.sandbox import instructions as do
from cuboid.node.sandbox import resizing
from cuboid.node.sandbox.containers import lost
from cuboid.node.sandbox.draft import Draft, backoff, changed
from cuboid.node.sandbox.plan import Role
from cuboid.node.sandbox.state import Hook, Part, Pause, Run, Stage, VmStage

PULL_NOTICE = 1.0  # seconds that ErrImagePull is shown before ImagePullBackOff


def advance(draft: Draft) -> None:
    """Ask for everything at once; the VM as soon as all of it is there."""
    if _wanted(draft, draft.state.network):
        draft.set(network=changed(draft.state.network, stage=Stage.ASKED))
        draft.emit(do.AttachNetwork())
    if _wanted(draft, draft.state.disk):
        draft.set(disk=changed(draft.state.disk, stage=Stage.ASKED))
        draft.emit(do.CreateDisk())
    for run in draft.state.runs:
        _advance_image(draft, run)
    _advance_machine(draft)


def _wanted(draft: Draft, part: Part) -> bool:
    return part.stage is Stage.ABSENT and draft.due(part.retry_at)


def _advance_image(draft: Draft, run: Run) -> None:
    if run.image.stage is not Stage.ABSENT:
        return
    if draft.due(run.image.retry_at):
        draft.image(run.name, stage=Stage.ASKED)
        draft.emit(do.PullImage(run.name))
    elif run.image.reason == "ErrImagePull" and draft.due(run.image.failed_at + PULL_NOTICE):
        image = draft.state.container(run.name).image
        draft.image(
            run.name, reason="ImagePullBackOff", message=f'Back-off pulling image "{image}": {run.image.message}'
        )
        draft.note("BackOff", f'Back-off pulling image "{image}"')


def _advance_machine(draft: Draft) -> None:
    state = draft.state
    if state.machine.stage is VmStage.ABSENT:
        if state.plan.paused:
            return  # it would have nothing to do; what its memory held is lost already
        images = (run.image for container, run in state.pairs if container.role is not Role.DEBUG)
        parts = (state.network, state.disk, *images)
        if all(part.stage is Stage.PRESENT for part in parts) and draft.due(state.machine.retry_at):
            _create(draft)
    elif _setup_due(draft):
        draft.machine(setup_retry_at=0.0)
        draft.emit(do.Setup(state.machine.attempt))


def _setup_due(draft: Draft) -> bool:
    machine = draft.state.machine
    return machine.stage is VmStage.SETTING_UP and bool(machine.setup_retry_at) and draft.due(machine.setup_retry_at)


def _create(draft: Draft) -> None:
    """A new VM, of the size that the pod asks for now: init containers and sidecars run again in it."""
    resizing.anew(draft)
    for container, run in draft.state.pairs:
        if container.role in (Role.INIT, Role.SIDECAR):
            draft.run(run.name, done=False, retry_at=0.0, hook=Hook.NONE)
    machine = draft.machine(
        stage=VmStage.CREATING, attempt=draft.state.machine.attempt + 1, up_at=0.0, paused_at=0.0, confined=False
    )
    draft.set(initialized=False)
    draft.emit(do.CreateVm(machine.attempt))


def end_machine(draft: Draft, *, clean: bool) -> None:
    """End the VM; `VmGone` says when nothing of it is left."""
    machine = draft.machine(
        stage=VmStage.ENDING, setup_retry_at=0.0, pause=Pause.NONE, pause_failures=0, pause_retry_at=0.0
    )
    draft.emit(do.KillVm(machine.attempt, clean))


def machine_failed(draft: Draft, reason: str, message: str) -> None:
    """It could not be made or set up, or it died. The first new one at once, later ones after a back-off."""
    rules, machine = draft.state.rules, draft.state.machine
    long = bool(machine.up_at) and draft.now - machine.up_at >= rules.backoff_reset
    failures = 1 if long else machine.failures + 1
    wait = backoff(rules.backoff, rules.backoff_max, failures - 1)
    draft.machine(failures=failures, retry_at=draft.now + wait, reason=reason, message=message)


def machine_gone(draft: Draft) -> None:
    """Nothing is left of the VM. What still ran was ended with it."""
    lost(draft, "Error", "the pod's machine was ended")
    draft.machine(stage=VmStage.ABSENT)
