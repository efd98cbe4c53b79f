"""The end of a pod: what brings it about, and that nothing is left."""

from __future__ import annotations

from cuboid.node.sandbox import instructions as do
from cuboid.node.sandbox import pausing
from cuboid.node.sandbox.containers import stop_all
from cuboid.node.sandbox.draft import Draft, apps, changed
from cuboid.node.sandbox.plan import Role
from cuboid.node.sandbox.resources import end_machine
from cuboid.node.sandbox.state import Cause, Ending, Part, Sandbox, Stage, VmStage, Why

VANISHED_GRACE = 1.0  # seconds: the API has let go of it already
DEADLINE_TEXT = "Pod was active on the node longer than the specified deadline"


def begin(draft: Draft, cause: Cause, grace: float) -> None:
    """End the pod, or shorten the grace of an end that has begun."""
    deadline = draft.now + max(grace, 0.0)
    ending = draft.state.ending
    if ending is None:
        draft.set(ending=Ending(cause, deadline, grace <= 0))
    elif deadline < ending.deadline:
        draft.set(ending=changed(ending, deadline=deadline, at_once=grace <= 0))


def fail(draft: Draft, reason: str, message: str) -> None:
    """Phase Failed at once; containers get their grace period."""
    draft.set(phase="Failed", reason=reason, message=message)
    if reason:
        draft.note(reason, message, warning=True)
    begin(draft, Cause.FAILED, draft.state.plan.grace)


def decide(draft: Draft) -> None:
    """Whether the pod has come to its end."""
    state, plan = draft.state, draft.state.plan
    if state.ending is not None:
        return
    if plan.refusal is not None:
        fail(draft, *plan.refusal)
    elif plan.active_deadline is not None and draft.due(state.admitted_at + plan.active_deadline):
        fail(draft, "DeadlineExceeded", DEADLINE_TEXT)
    elif _init_late(draft):
        waiting = ", ".join(run.name for run in state.runs if not run.started_at)
        fail(draft, "InitTimeout", f"not started {plan.init_timeout:g} s after binding: {waiting}{_obstacle(state)}")
    elif _init_failed(state):
        draft.set(phase="Failed")
        begin(draft, Cause.FAILED, plan.grace)
    elif all(run.done for run in apps(state)):
        good = all(run.ended is not None and run.ended.code == 0 for run in apps(state))
        draft.set(phase="Succeeded" if good else "Failed")
        begin(draft, Cause.COMPLETED, plan.grace)


def _init_late(draft: Draft) -> bool:
    state = draft.state
    timeout = state.plan.init_timeout
    return timeout is not None and not state.began and draft.due(state.admitted_at + timeout)


def _obstacle(state: Sandbox) -> str:
    """The last thing that went wrong, for the message."""
    parts = [state.network, state.disk, *(run.image for run in state.runs)]
    texts = [part.message for part in parts if part.message] + [state.machine.message]
    texts += [run.message for run in state.runs]
    return next((f" ({text})" for text in texts if text), "")


def _init_failed(state: Sandbox) -> bool:
    return any(
        container.role is Role.INIT and run.done and run.ended is not None and run.ended.code != 0
        for container, run in state.pairs
    )


def advance(draft: Draft) -> None:
    """Containers, VM, then all that the pod has on the host, then the API's object."""
    for run in draft.state.runs:
        if run.image.stage is Stage.ASKED:
            draft.image(run.name, stage=Stage.ABSENT)
            draft.emit(do.CancelPull(run.name))
    _advance_machine(draft)
    if draft.state.machine.stage is VmStage.ABSENT:
        _release(draft)


def _advance_machine(draft: Draft) -> None:
    ending, machine = draft.state.ending, draft.state.machine
    if ending is None or machine.stage in (VmStage.ABSENT, VmStage.ENDING):
        return
    _end_within(draft, Why.ENDING, ending.deadline, at_once=ending.at_once)


def stop_machine(draft: Draft) -> None:
    """`cuboid stop`: containers and VM end, everything else stays."""
    if draft.state.machine.stage in (VmStage.ABSENT, VmStage.ENDING):
        return
    if not draft.state.stop_deadline:
        draft.set(stop_deadline=draft.now + draft.state.plan.stop_grace)
    _end_within(draft, Why.STOPPED, draft.state.stop_deadline, at_once=False)


def _end_within(draft: Draft, why: Why, deadline: float, *, at_once: bool) -> None:
    """Stop the containers until `deadline`, then end the VM; whatever hangs, some seconds later."""
    unused = not draft.state.machine.up_at and not any(run.alive for run in draft.state.runs)
    if at_once or draft.state.machine.stage is VmStage.CREATING:
        end_machine(draft, clean=False)
    elif draft.state.frozen:
        pausing.wake(draft)
        _end_hanging(draft, deadline)
    elif draft.state.machine.stage is VmStage.UP and stop_all(draft, why, deadline):
        end_machine(draft, clean=True)
    elif unused:
        end_machine(draft, clean=False)
    else:
        _end_hanging(draft, deadline)


def _end_hanging(draft: Draft, deadline: float) -> None:
    if draft.due(deadline + draft.state.rules.kill_patience):
        end_machine(draft, clean=False)


def _release(draft: Draft) -> None:
    """Let go of everything, also of what we only may have; wait for what is still under way."""
    state = draft.state
    if state.network.stage in (Stage.ABSENT, Stage.PRESENT):
        draft.set(network=Part(Stage.REMOVING))
        draft.emit(do.DetachNetwork())
    if state.disk.stage in (Stage.ABSENT, Stage.PRESENT):
        draft.set(disk=Part(Stage.REMOVING))
        draft.emit(do.RemoveDisk())
    if state.images is Stage.PRESENT:
        draft.set(images=Stage.REMOVING)
        draft.emit(do.ReleaseImages())
    if {draft.state.network.stage, draft.state.disk.stage, draft.state.images} == {Stage.REMOVED}:
        _leave(draft)


def _leave(draft: Draft) -> None:
    if draft.state.vanished:
        draft.set(gone=True)
    elif draft.state.deleted and not draft.state.finalizing:
        if not draft.state.phase:
            done = [run.ended is not None and run.ended.code == 0 for run in apps(draft.state)]
            draft.set(phase="Succeeded" if all(done) else "Failed")
        draft.set(finalizing=True)
        draft.emit(do.DeletePod())
