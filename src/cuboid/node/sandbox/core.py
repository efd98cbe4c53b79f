"""The one function of the core."""

from __future__ import annotations

from cuboid.node.limits import START_SECONDS
from cuboid.node.sandbox import containers, ending, facts, pausing, resizing, resources
from cuboid.node.sandbox import instructions as do
from cuboid.node.sandbox.draft import Draft, apps
from cuboid.node.sandbox.events import Event
from cuboid.node.sandbox.state import RunStage, Sandbox, VmStage


def step(state: Sandbox, event: Event) -> tuple[Sandbox, list[do.Instruction]]:
    """The state after `event`, and what is to be done. Make the state durable first, then act."""
    if state.gone:
        return state, [do.Forget()]  # also when the first one was interrupted
    draft = Draft(state, event.at)
    facts.apply(draft, event)
    _advance(draft)
    draft.finish(state)
    return draft.state, draft.out


def _advance(draft: Draft) -> None:
    _note_progress(draft)
    _confine(draft)
    ending.decide(draft)
    if not draft.ends():
        _live(draft)
        ending.decide(draft)
    if draft.ends():
        ending.advance(draft)


def _live(draft: Draft) -> None:
    if draft.state.plan.stopped:
        ending.stop_machine(draft)
        return
    pausing.advance(draft)
    if draft.state.frozen:
        return
    resources.advance(draft)
    if draft.state.machine.stage is VmStage.UP:
        containers.advance(draft)
        resizing.advance(draft)


def _confine(draft: Draft) -> None:
    """A start has the machine whole; what has started, or takes too long for it, has its limits."""
    machine = draft.state.machine
    if machine.confined or machine.stage is not VmStage.UP:
        return
    starting = any(run.stage in (RunStage.WAITING, RunStage.STARTING) for run in apps(draft.state))
    if not starting or draft.due(machine.up_at + START_SECONDS):
        draft.machine(confined=True)
        draft.emit(do.Confine(machine.attempt))


def _note_progress(draft: Draft) -> None:
    """Once all containers have started, and once they are ready: the receipt of this VM's start."""
    state = draft.state
    if state.machine.stage is not VmStage.UP or state.ending is not None:
        return
    mine = apps(state)
    if not state.began and all(run.started_at for run in mine):
        draft.set(began=True)
    if any(run.stage in (RunStage.WAITING, RunStage.STARTING) for run in mine):
        return
    attempt = state.machine.attempt
    ready = all(run.started and run.readiness_ok for run in mine)
    if state.receipt < attempt:
        draft.set(receipt=attempt)
        draft.emit(do.WriteReceipt(attempt, ready=ready))
    elif ready and state.receipt_ready < attempt:
        draft.emit(do.WriteReceipt(attempt, ready=True))
    if ready and draft.state.receipt_ready < attempt:
        draft.set(receipt_ready=attempt)
