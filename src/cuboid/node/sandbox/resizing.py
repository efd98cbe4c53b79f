"""Other resources for containers that run: given if the machine has them, refused or put off if it has not.

What a container has been given is in the plan of the sandbox, what it had before is held until it has been told. As in
Kubernetes it is all of a pod's containers or none: each change of the pod object is one decision.
"""

from __future__ import annotations

from cuboid.kube.types import ResourceRequirements
from cuboid.node.sandbox import containers
from cuboid.node.sandbox import instructions as do
from cuboid.node.sandbox.draft import Draft, changed
from cuboid.node.sandbox.plan import ContainerPlan
from cuboid.node.sandbox.state import Held, Resize, RunStage, VmStage, Why


def decide(draft: Draft, wanted: tuple[ContainerPlan, ...], refusal: tuple[str, str] | None) -> None:
    """The pod object asks for these; `refusal` (reason, message) says why its machine cannot give them."""
    asked = {container.name: container for container in wanted}
    mine = draft.state.plan.containers
    news = {c.name: asked[c.name] for c in mine if c.name in asked and _differ(c.resources, asked[c.name].resources)}
    if not news:
        draft.set(resize=changed(draft.state.resize, wanted={}, reason="", message=""))
    elif refusal is not None:
        _put_off(draft, news, refusal)
    else:
        _give(draft, news)


def _differ(had: ResourceRequirements | None, wanted: ResourceRequirements | None) -> bool:
    return had is not None and had != wanted


def _put_off(draft: Draft, news: dict[str, ContainerPlan], refusal: tuple[str, str]) -> None:
    reason, message = refusal
    before = draft.state.resize
    draft.set(resize=changed(before, wanted=dict(news), reason=reason, message=message))
    if (before.reason, before.message) != refusal:
        draft.note(f"Resize{reason}", message, warning=True)


def _give(draft: Draft, news: dict[str, ContainerPlan]) -> None:
    held = dict(draft.state.resize.held)
    restart = set(draft.state.resize.restart)
    for container, run in draft.state.pairs:
        if container.name in news and run.alive and container.resources is not None:
            held.setdefault(run.name, Held(run.attempt, container.resources))
            if _restarts(container.resources, news[run.name]):
                restart.add(run.name)
    _adopt(draft, news)
    draft.set(resize=Resize(held=held, restart=tuple(sorted(restart)), due=True))


def _restarts(had: ResourceRequirements, wanted: ContainerPlan) -> bool:
    now = wanted.resources or ResourceRequirements()
    return any(
        (had.limits.get(name), had.requests.get(name)) != (now.limits.get(name), now.requests.get(name))
        for name in wanted.restart_on
    )


def _adopt(draft: Draft, news: dict[str, ContainerPlan]) -> None:
    plan = draft.state.plan
    given = tuple(
        changed(c, resources=news[c.name].resources, restart_on=news[c.name].restart_on) if c.name in news else c
        for c in plan.containers
    )
    draft.set(plan=changed(plan, containers=given))


def anew(draft: Draft) -> None:
    """A new machine is made for what the pod asks for now."""
    _adopt(draft, draft.state.resize.wanted)
    draft.set(resize=Resize())


def advance(draft: Draft) -> None:
    """Go on with what has been given. Only while the machine is up and does not stand still."""
    _drop_ended(draft)
    resize = draft.state.resize
    for name in resize.restart:
        run = draft.state.run(name)
        if run is not None and run.stage is RunStage.RUNNING and run.stopping is None:
            text = f"Container {name} resize requires restart"
            containers.stop(draft, run, Why.RESIZE, draft.now + draft.state.plan.grace, text)
    if not resize.due or resize.asked or draft.state.machine.stage is not VmStage.UP or not draft.due(resize.retry_at):
        return
    live = [name for name in resize.held if name not in resize.restart]
    if any(run.name in live and run.stage is RunStage.STARTING for run in draft.state.runs):
        return  # it is being started with what it had before
    draft.set(resize=changed(resize, asked=True))
    draft.emit(do.ApplyResources(draft.state.machine.attempt, tuple(sorted(live))))


def _drop_ended(draft: Draft) -> None:
    """A later attempt of a container has had its new resources from its start."""
    resize = draft.state.resize
    runs = {run.name: run for run in draft.state.runs}
    held = {n: h for n, h in resize.held.items() if runs[n].alive and runs[n].attempt == h.attempt}
    if held != resize.held:
        restart = tuple(name for name in resize.restart if name in held)
        draft.set(resize=changed(resize, held=held, restart=restart))


def applied(draft: Draft, names: tuple[str, ...]) -> None:
    resize = draft.state.resize
    held = {name: kept for name, kept in resize.held.items() if name not in names}
    draft.set(resize=changed(resize, held=held, due=False, asked=False, failure="", retry_at=0.0))
    draft.note("ResizeCompleted", "The resources of the pod's containers have been changed")


def failed(draft: Draft, message: str) -> None:
    """It is tried again: a container may use less memory later."""
    wait = draft.state.rules.retry
    if message != draft.state.resize.failure:
        draft.note(
            "ResizeError", f"The resources of the pod's containers cannot be changed yet: {message}", warning=True
        )
    draft.set(resize=changed(draft.state.resize, asked=False, failure=message, retry_at=draft.now + wait))
