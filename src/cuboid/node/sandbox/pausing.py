"""Pausing: the VM stands still with all its memory, and goes on later as if nothing had been.

A VM is paused between two acts of ours and never amid one: a container that is being started, a hook or a stop is
waited for. While it stands still nothing is asked of its guest. Deadlines of the pod (activeDeadlineSeconds, the
init timeout) go on, as they are times of the wall.
"""

from __future__ import annotations

from cuboid.node.sandbox import instructions as do
from cuboid.node.sandbox.draft import Draft, backoff
from cuboid.node.sandbox.state import Hook, Pause, Run, RunStage, VmStage

RESUMES = 3  # attempts after which a VM that cannot be resumed is given up


def advance(draft: Draft) -> None:
    """Pause or resume as the pod wants it."""
    if not draft.state.plan.paused:
        wake(draft)
    elif _can_pause(draft) and draft.due(draft.state.machine.pause_retry_at):
        machine = draft.machine(pause=Pause.PAUSING)
        draft.emit(do.PauseVm(machine.attempt))


def wake(draft: Draft) -> None:
    """Resume a paused VM, also when the pod is to end or to stop: its containers get their grace period."""
    machine = draft.state.machine
    if machine.pause is Pause.PAUSED and draft.due(machine.pause_retry_at):
        draft.machine(pause=Pause.RESUMING)
        draft.emit(do.ResumeVm(machine.attempt))


def _can_pause(draft: Draft) -> bool:
    machine = draft.state.machine
    idle = not any(_busy(run) for run in draft.state.runs)
    return idle and machine.stage is VmStage.UP and machine.pause is Pause.NONE


def _busy(run: Run) -> bool:
    return run.stage is RunStage.STARTING or run.hook is Hook.RUNNING or run.stopping is not None


def paused(draft: Draft) -> None:
    draft.machine(pause=Pause.PAUSED, paused_at=draft.now, pause_failures=0, pause_retry_at=0.0)
    draft.note("Paused", "The pod's machine stands still; its memory is kept")


def pause_failed(draft: Draft, message: str) -> None:
    _later(draft, Pause.NONE)
    draft.note("FailedPause", f"The pod's machine cannot be paused: {message}", warning=True)


def resumed(draft: Draft) -> None:
    """It runs again: its agent is spoken with before anything else, as after an interruption."""
    machine = draft.machine(stage=VmStage.SETTING_UP, pause=Pause.NONE, pause_failures=0, pause_retry_at=0.0)
    draft.note("Resumed", f"The pod's machine goes on after {draft.now - machine.paused_at:.0f} s")
    draft.emit(do.Setup(machine.attempt))


def resume_failed(draft: Draft, message: str) -> bool:
    """Whether it will be tried again."""
    draft.note("FailedResume", f"The pod's machine cannot be resumed: {message}", warning=True)
    _later(draft, Pause.PAUSED)
    return draft.state.machine.pause_failures < RESUMES


def _later(draft: Draft, pause: Pause) -> None:
    rules, failures = draft.state.rules, draft.state.machine.pause_failures + 1
    wait = backoff(rules.retry, rules.backoff_max, failures)
    draft.machine(pause=pause, pause_failures=failures, pause_retry_at=draft.now + wait)
