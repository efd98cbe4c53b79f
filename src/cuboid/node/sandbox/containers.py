"""Containers within a VM that is up: in which order they start, whether they start again, how they are stopped."""

from __future__ import annotations

from cuboid.node.sandbox import instructions as do
from cuboid.node.sandbox.draft import Draft, backoff, changed
from cuboid.node.sandbox.events import FoundContainer, HookPoint
from cuboid.node.sandbox.plan import ContainerPlan, Role
from cuboid.node.sandbox.state import Ended, Hook, Run, RunStage, Stage, Stopping, Why

HOOK_LIMIT = 600.0  # seconds that a postStart hook may take
KILLED = 137  # exit code of what SIGKILL ended


def advance(draft: Draft) -> None:
    """Start what is to start; go on with stops that have begun."""
    for container in draft.state.plan.containers:
        if container.role is Role.DEBUG and _run(draft, container.name).image.stage is Stage.PRESENT:
            _progress(draft, container)
    if not draft.state.initialized:
        draft.set(initialized=_initialize(draft))
        if not draft.state.initialized:
            _go_on_stopping(draft)
            return
    for container in draft.state.plan.containers:
        if container.role is not Role.DEBUG:
            _progress(draft, container)


def _initialize(draft: Draft) -> bool:
    """Init containers one after the other, sidecars as soon as the one before is through; True when all are."""
    for container in draft.state.plan.containers:
        if container.role in (Role.APP, Role.DEBUG):
            continue
        _progress(draft, container)
        if draft.ends():
            return False
        run = _run(draft, container.name)
        through = run.started if container.role is Role.SIDECAR else bool(run.done and run.ended and not run.ended.code)
        if not through:
            return False
    return True


def _run(draft: Draft, name: str) -> Run:
    return next(run for run in draft.state.runs if run.name == name)


def _go_on_stopping(draft: Draft) -> None:
    for run in draft.state.runs:
        if run.stopping is not None:
            _advance_stop(draft, run)


def _progress(draft: Draft, container: ContainerPlan) -> None:
    run = _run(draft, container.name)
    if run.stopping is not None:
        _advance_stop(draft, run)
    elif not run.alive and not run.done and draft.due(run.retry_at):
        start(draft, run)


def start(draft: Draft, run: Run) -> None:
    attempt = run.attempt + 1
    draft.run(
        run.name, stage=RunStage.STARTING, attempt=attempt, last=run.ended or run.last, ended=None, reason="",
        message="", hook=Hook.NONE, startup_ok=False, readiness_ok=False, retry_at=0.0,
    )  # fmt: skip
    draft.emit(do.StartContainer(run.name, attempt, run.keep_root))


def started(draft: Draft, container: ContainerPlan, run: Run, started_at: float) -> None:
    hook = Hook.RUNNING if container.post_start else Hook.DONE
    draft.run(
        run.name, stage=RunStage.RUNNING, started_at=started_at, startup_ok=not container.startup,
        readiness_ok=not container.readiness, hook=hook, keep_root=False,
    )  # fmt: skip
    draft.note("Started", f"Started container {run.name}")
    if hook is Hook.RUNNING:
        draft.emit(do.RunHook(run.name, run.attempt, HookPoint.POST_START, HOOK_LIMIT))


def start_failed(draft: Draft, run: Run, code: int, reason: str, message: str) -> None:
    draft.note("Failed", f"Error: {message}", warning=True)
    if code == 0:  # nothing was tried: the attempt is still free
        draft.run(
            run.name, stage=RunStage.WAITING, attempt=run.attempt - 1, stopping=None, reason=reason, message=message,
            retry_at=draft.now + draft.state.rules.retry,
        )  # fmt: skip
        return
    ended(draft, run, Ended(code=code, reason=reason, message=message, finished_at=draft.now, attempt=run.attempt))


def ended(draft: Draft, run: Run, end: Ended) -> None:
    """A container has ended: whether and when it starts again."""
    why = run.stopping.why if run.stopping else None
    draft.run(run.name, stage=RunStage.EXITED, ended=end, stopping=None, startup_ok=False, readiness_ok=False)
    if draft.state.ending is not None or why is Why.ENDING:
        draft.run(run.name, done=True)
    elif why in (Why.STOPPED, Why.RESTART):
        draft.run(run.name, keep_root=True, retry_at=0.0)
    elif why is Why.RESIZE:
        draft.run(run.name, retry_at=0.0)
    elif starts_again(draft.state.container(run.name), draft.state.plan.restart_policy, end.code):
        _back_off(draft, run, end)
    else:
        draft.run(run.name, done=True)


def starts_again(container: ContainerPlan, policy: str, code: int) -> bool:
    if container.role is Role.SIDECAR:
        return True
    if container.role is Role.DEBUG:
        return False
    if container.role is Role.INIT:
        return code != 0 and policy != "Never"
    return policy == "Always" or (policy == "OnFailure" and code != 0)


def _back_off(draft: Draft, run: Run, end: Ended) -> None:
    """Kubernetes' way: the first restart at once, then 10 s, 20 s… until it has run for long enough."""
    rules = draft.state.rules
    ran = end.finished_at - end.started_at if end.started_at else 0.0
    failures = 1 if ran >= rules.backoff_reset else run.failures + 1
    wait = backoff(rules.backoff, rules.backoff_max, failures - 1)
    text = f"back-off {wait:g}s restarting failed container={run.name} pod={draft.state.plan.name}" if wait else ""
    draft.run(
        run.name, failures=failures, retry_at=draft.now + wait, reason="CrashLoopBackOff" if wait else "", message=text
    )
    if wait:
        draft.note("BackOff", text, warning=True)


def lost(draft: Draft, reason: str, message: str) -> None:
    """The VM is gone with everything that ran in it. Not the container's failure: it has no back-off of its own."""
    for run in [run for run in draft.state.runs if run.alive]:
        why = run.stopping.why if run.stopping else None
        end = Ended(
            code=KILLED, reason=reason, message=message, finished_at=draft.now, attempt=run.attempt,
            started_at=run.started_at if run.stage is RunStage.RUNNING else 0.0,
        )  # fmt: skip
        draft.run(run.name, stage=RunStage.EXITED, ended=end, stopping=None, startup_ok=False, readiness_ok=False)
        if draft.state.ending is not None or why is Why.ENDING:
            draft.run(run.name, done=True)
        elif why in (Why.STOPPED, Why.RESTART):
            draft.run(run.name, keep_root=True)
        elif not starts_again(draft.state.container(run.name), draft.state.plan.restart_policy, KILLED):
            draft.run(run.name, done=True)


# --- stopping --------------------------------------------------------------------------------------------------------


def stop(draft: Draft, run: Run, why: Why, deadline: float, message: str = "") -> None:
    """Begin to stop a container, or hurry a stop that has begun."""
    if run.stage is not RunStage.RUNNING:
        return  # its start is under way: the answer comes first
    if run.stopping is None:
        run = _begin_stop(draft, run, why, deadline, message)
    else:
        stopping = changed(run.stopping, why=why, deadline=min(run.stopping.deadline, deadline))
        run = draft.run(run.name, stopping=stopping)
    _advance_stop(draft, run)


def _begin_stop(draft: Draft, run: Run, why: Why, deadline: float, message: str) -> Run:
    seconds = deadline - draft.now
    hook = Hook.NONE if draft.state.container(run.name).pre_stop and seconds > 0 else Hook.DONE
    draft.note("Killing", message or f"Stopping container {run.name}")
    return draft.run(run.name, stopping=Stopping(why, deadline, hook), readiness_ok=False)


def _advance_stop(draft: Draft, run: Run) -> None:
    stopping = run.stopping
    if stopping is None or run.stage is not RunStage.RUNNING or draft.state.frozen:
        return
    if stopping.hook is Hook.NONE:
        stopping = _begin_hook(draft, run, stopping)
    if stopping.hook is Hook.RUNNING:
        if not draft.due(stopping.deadline):
            return
        late = draft.now + draft.state.rules.min_grace if not stopping.term_sent else stopping.deadline
        stopping = changed(stopping, hook=Hook.DONE, deadline=late)
    if not stopping.term_sent:
        if stopping.deadline > draft.now:
            draft.emit(do.StopSignal(run.name, run.attempt))
        stopping = changed(stopping, term_sent=True)
    if not stopping.kill_sent and draft.due(stopping.deadline):
        draft.emit(do.StopSignal(run.name, run.attempt, kill=True))
        stopping = changed(stopping, kill_sent=True)
    draft.run(run.name, stopping=stopping)


def _begin_hook(draft: Draft, run: Run, stopping: Stopping) -> Stopping:
    seconds = max(stopping.deadline - draft.now, 0.0)
    draft.emit(do.RunHook(run.name, run.attempt, HookPoint.PRE_STOP, seconds))
    stopping = changed(stopping, hook=Hook.RUNNING)
    draft.run(run.name, stopping=stopping)
    return stopping


def hook_done(draft: Draft, run: Run, point: HookPoint, ok: bool, message: str) -> None:
    if point is HookPoint.PRE_STOP:
        if not ok:
            draft.note("FailedPreStopHook", f"PreStopHook failed: {message}", warning=True)
        if run.stopping is not None:
            draft.run(run.name, stopping=changed(run.stopping, hook=Hook.DONE))
        return
    draft.run(run.name, hook=Hook.DONE)
    if not ok:
        draft.note("FailedPostStartHook", f"PostStartHook failed: {message}", warning=True)
        unhealthy(draft, _run(draft, run.name), None, "FailedPostStartHook")


def unhealthy(draft: Draft, run: Run, grace: int | None, what: str) -> None:
    if run.stopping is None and run.stage is RunStage.RUNNING:
        seconds = draft.state.plan.grace if grace is None else grace
        text = f"Container {run.name} failed {what}, will be restarted"
        stop(draft, run, Why.UNHEALTHY, draft.now + seconds, text)


def stop_all(draft: Draft, why: Why, deadline: float) -> bool:
    """Stop every container: first all but sidecars, then these in reverse. True when none runs any more."""
    others = [run for container, run in draft.state.pairs if run.alive and container.role is not Role.SIDECAR]
    for run in others:
        stop(draft, run, why, deadline)
    if others:
        return False
    for container, run in reversed(draft.state.pairs):
        if run.alive and container.role is Role.SIDECAR:
            stop(draft, run, why, max(deadline, draft.now + draft.state.rules.min_grace))
            return False
    return True


# --- after an interruption -------------------------------------------------------------------------------------------


def reconcile(draft: Draft, found: tuple[FoundContainer, ...]) -> None:
    """Bring what we know in line with what the guest tells."""
    known = {item.name: item for item in found}
    for container, run in draft.state.pairs:
        if run.alive:
            _reconcile(draft, container, run, known.get(run.name))


def _reconcile(draft: Draft, container: ContainerPlan, run: Run, item: FoundContainer | None) -> None:
    if item is None or item.attempt < run.attempt:
        draft.run(run.name, stage=RunStage.STARTING, stopping=None)
        draft.emit(do.StartContainer(run.name, run.attempt, run.keep_root))
        return
    if not item.running:
        ended(draft, run, exit_of(item, run.attempt))
        return
    if run.stage is RunStage.STARTING:
        started(draft, container, run, item.started_at)
    elif run.hook is Hook.RUNNING:
        draft.emit(do.RunHook(run.name, run.attempt, HookPoint.POST_START, HOOK_LIMIT))
    _resume_stop(draft, run.name)
    draft.run(
        run.name,
        startup_ok=not container.startup or item.startup_ok,
        readiness_ok=not container.readiness or item.readiness_ok,
    )
    if container.liveness and not item.liveness_ok:
        unhealthy(draft, _run(draft, run.name), container.liveness_grace, "liveness probe")


def _resume_stop(draft: Draft, name: str) -> None:
    """A hook or a signal may have been lost with us: ask again. The time of a pause does not count."""
    stopping = _run(draft, name).stopping
    if stopping is None:
        return
    paused_at = draft.state.machine.paused_at
    deadline = stopping.deadline + (draft.now - paused_at if paused_at else 0.0)
    hook = Hook.NONE if stopping.hook is Hook.RUNNING else stopping.hook
    draft.run(name, stopping=changed(stopping, hook=hook, deadline=deadline, term_sent=False, kill_sent=False))


def exit_of(item: FoundContainer, attempt: int) -> Ended:
    return Ended(
        code=item.code, signal=item.signal, reason=exit_reason(item.code, item.oom), message=item.message,
        started_at=item.started_at, finished_at=item.finished_at, attempt=attempt,
    )  # fmt: skip


def exit_reason(code: int, oom: bool) -> str:
    return "OOMKilled" if oom else "Completed" if code == 0 else "Error"
