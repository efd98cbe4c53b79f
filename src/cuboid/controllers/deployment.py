"""Deployments: rollouts from one template to the next, by ReplicaSets that grow and shrink.

One step per plan; the next is made when its effect is seen. Source: kubernetes/pkg/controller/deployment.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

from cuboid.controllers import common, deployment_math, deployment_sets, deployment_status
from cuboid.controllers.deployment_sets import REVISION, Sets, counted, fence_of, replicas, resize, rolling, size
from cuboid.controllers.owning import claim, controlled, owner_or_choosers
from cuboid.kube import objects
from cuboid.kube.client import DEPLOYMENTS, PODS, REPLICA_SETS
from cuboid.kube.controller.instructions import NOTHING, Delete, Draft, Instruction, Patch, Plan, Tell, Together
from cuboid.kube.controller.view import Change, Key, View, Watch, itself
from cuboid.lib.errors import CuboidError

Object = dict[str, Any]
Raw = Mapping[str, Any]


def _of_a_gone_pod(change: Change, view: View) -> Iterable[Key]:
    """A Deployment that replaces all pods at once waits for the last old one to end."""
    ref = objects.controller(change.new)
    if ref is None or ref["kind"] != "ReplicaSet" or not (change.type == "DELETED" or objects.finished(change.new)):
        return
    owner = view.get(REPLICA_SETS, objects.namespace(change.new), ref["name"])
    above = objects.controller(owner) if owner else None
    if owner is not None and above is not None and above["kind"] == "Deployment":
        yield Key(objects.namespace(owner), above["name"])


class Deployments:
    name = "deployment"
    watches = (
        Watch(DEPLOYMENTS, itself, initial=True),
        Watch(REPLICA_SETS, owner_or_choosers("Deployment", DEPLOYMENTS)),
        Watch(PODS, _of_a_gone_pod),
    )

    def plan(self, key: Key, view: View, now: float) -> Plan:
        found = view.get(DEPLOYMENTS, key.namespace, key.name)
        if found is None:
            return NOTHING
        if not found["spec"].get("selector"):
            return NOTHING
        claimed = claim(view, REPLICA_SETS, found, objects.label_selector(found["spec"]["selector"]))
        if claimed.patches:
            return Plan((Together(claimed.patches),))
        return _plan(found, deployment_sets.sort(found, claimed.mine), view, now)


def _plan(found: Raw, sets: Sets, view: View, now: float) -> Plan:
    if objects.deleting(found):
        return _resting(found, sets, now, Draft())
    if found["spec"].get("paused") or _resized(found, sets):
        steps = _scaled(found, sets)
    elif sets.new is None:
        if not rolling(found) and (steps := _shrunk(found, sets.active_old)):
            return _stepping(found, steps)
        if not rolling(found) and _still_running(sets.old, view):
            return _resting(found, sets, now, Draft())
        return _creation(found, sets, view, now)
    else:
        steps = deployment_sets.renew(found, sets) or _noted(found, sets.new)
        steps = steps or (_rolled(found, sets) if rolling(found) else _recreated(found, sets, view))
    if steps:
        return _stepping(found, steps)
    draft = Draft()
    status = deployment_status.status_of(found, sets, now)
    if found["spec"].get("paused") or deployment_status.complete(found, status):
        draft.add(*_forgotten(found, sets))
    return _resting(found, sets, now, draft)


def _stepping(found: Raw, steps: list[Instruction]) -> Plan:
    """What comes next follows when these are seen: the ReplicaSets' changes wake this key, and so does its own."""
    return Plan(tuple(steps))


def _resting(found: Raw, sets: Sets, now: float, draft: Draft) -> Plan:
    status = deployment_status.status_of(found, sets, now)
    draft.add(*common.status_patch(DEPLOYMENTS, found, status))
    wait = deployment_status.look_again(status, deployment_status.deadline(found), now)
    if wait is not None and not objects.deleting(found):
        draft.look_again(wait)
    return draft.plan()


# --- scaling ---------------------------------------------------------------------------------------------------------


def _resized(found: Raw, sets: Sets) -> bool:
    """Somebody changed the number of pods since the ReplicaSets were last scaled."""
    wanted = str(replicas(found))
    return any(replicas(one) and objects.notes(one).get(deployment_sets.DESIRED, wanted) != wanted for one in sets.all)


def _scaled(found: Raw, sets: Sets) -> list[Instruction]:
    active = [one for one in sets.all if replicas(one)]
    if len(active) <= 1:
        only = active[0] if active else sets.new or (sets.old[-1] if sets.old else None)
        return resize(found, only, replicas(found)) if only is not None else []
    if sets.new is not None and _saturated(found, sets.new):
        return _shrunk(found, sets.active_old)
    if not rolling(found):
        return [] if found["spec"].get("paused") else _shrunk(found, sets.active_old)
    surge = fence_of(found).surge
    growing = replicas(found) + surge > sum(replicas(one) for one in active)
    by_age = {objects.uid(one): index for index, one in enumerate(sets.all)}  # the new one is last: the youngest
    active.sort(key=lambda one: (-replicas(one), by_age[objects.uid(one)] * (-1 if growing else 1)))
    sizes = deployment_math.shared([size(one) for one in active], replicas(found), surge)
    return [step for one, count in zip(active, sizes, strict=True) for step in resize(found, one, count)]


def _saturated(found: Raw, new: Raw) -> bool:
    wanted = replicas(found)
    return (
        replicas(new) == wanted
        and deployment_sets.number(new, deployment_sets.DESIRED) == wanted
        and counted(new, "availableReplicas") == wanted
    )


def _shrunk(found: Raw, sets: Iterable[Object]) -> list[Instruction]:
    return [step for one in sets for step in resize(found, one, 0)]


# --- rollouts --------------------------------------------------------------------------------------------------------


def _creation(found: Raw, sets: Sets, view: View, now: float) -> Plan:
    """The ReplicaSet of a new template, under a name that nobody else has."""
    taken = view.get(REPLICA_SETS, objects.namespace(found), deployment_sets.name_of(found))
    if taken is not None:
        collisions = counted(found, "collisionCount") + 1
        body = {"metadata": {"uid": objects.uid(found)}, "status": {"collisionCount": collisions}}
        patch = Patch(DEPLOYMENTS, objects.name(found), body, objects.namespace(found), sub="status")
        return Plan((patch,))
    others = sum(replicas(one) for one in sets.old)
    count = replicas(found)
    if rolling(found):
        count = deployment_math.new_size(0, others, count, fence_of(found).surge)
    draft = Draft([deployment_sets.creation(found, sets, count)])
    if deployment_status.deadline(found) is not None:
        text = f'Created new replica set "{deployment_sets.name_of(found)}"'
        draft.add(*_progress(found, "True", "NewReplicaSetCreated", text, now))
        draft.failed = lambda error: _failed(found, now, error)
    return draft.plan()


def _progress(found: Raw, status: str, reason: str, message: str, now: float) -> tuple[Patch, ...]:
    old = found.get("status") or {}
    told = deployment_status.set_condition(
        list(old.get("conditions", ())), deployment_status.PROGRESSING, status, reason, message, now
    )
    return common.status_patch(DEPLOYMENTS, found, {**old, "conditions": told})


def _failed(found: Raw, now: float, error: CuboidError) -> tuple[Instruction, ...]:
    text = f'Failed to create new replica set "{deployment_sets.name_of(found)}": {error.message}'
    event = Tell(dict(found), "Warning", "ReplicaSetCreateError", text)
    return (event, *_progress(found, "False", "ReplicaSetCreateError", text, now))


def _noted(found: Raw, new: Raw) -> list[Instruction]:
    """The Deployment itself says which revision it is at."""
    revision = objects.notes(new).get(REVISION, "")
    if not revision or objects.notes(found).get(REVISION) == revision:
        return []
    body = {"metadata": {"uid": objects.uid(found), "annotations": {REVISION: revision}}}
    return [Patch(DEPLOYMENTS, objects.name(found), body, objects.namespace(found))]


def _rolled(found: Raw, sets: Sets) -> list[Instruction]:
    assert sets.new is not None
    bounds, wanted = fence_of(found), replicas(found)
    others = sum(replicas(one) for one in sets.old)
    count = deployment_math.new_size(replicas(sets.new), others, wanted, bounds.surge)
    if count != replicas(sets.new):
        return resize(found, sets.new, count)
    old = sets.active_old
    sizes = deployment_math.old_sizes(size(sets.new), [size(one) for one in old], wanted, bounds.unavailable)
    return [
        step
        for one, count in zip(old, sizes, strict=True)
        if count != replicas(one)
        for step in resize(found, one, count)
    ]


def _recreated(found: Raw, sets: Sets, view: View) -> list[Instruction]:
    assert sets.new is not None
    if steps := _shrunk(found, sets.active_old):
        return steps
    if replicas(sets.new) == replicas(found) or _still_running(sets.old, view):
        return []
    return resize(found, sets.new, replicas(found))


def _still_running(old: Iterable[Raw], view: View) -> bool:
    return any(not objects.finished(pod) for one in old for pod in controlled(view, PODS, one))


def _forgotten(found: Raw, sets: Sets) -> list[Instruction]:
    """Old ReplicaSets beyond the history that is kept, oldest revision first."""
    limit = found["spec"].get("revisionHistoryLimit", 10)
    empty = [one for one in sets.old if not objects.deleting(one)]
    empty.sort(key=lambda one: deployment_sets.number(one, REVISION))
    return [
        Delete(REPLICA_SETS, objects.name(one), objects.namespace(one), objects.uid(one))
        for one in empty[: max(len(empty) - limit, 0)]
        if _empty(one)
    ]


def _empty(one: Raw) -> bool:
    current = counted(one, "observedGeneration") >= common.generation(one)
    return current and not replicas(one) and not counted(one, "replicas")
