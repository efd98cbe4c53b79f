"""ReplicaSets: as many pods of a template as asked for.

Source of the behaviour: kubernetes/pkg/controller/replicaset.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from cuboid.controllers import common
from cuboid.controllers.owning import claim, controlled, owner_or_choosers
from cuboid.controllers.replicaset_rank import first_to_go
from cuboid.kube import objects, selectors
from cuboid.kube.client import PODS, REPLICA_SETS
from cuboid.kube.controller.instructions import NOTHING, Create, Delete, Draft, Instruction, Plan, Tell, Together
from cuboid.kube.controller.view import Key, View, Watch, itself
from cuboid.lib.errors import CuboidError

Object = dict[str, Any]
Raw = Mapping[str, Any]
FAILURE = "ReplicaFailure"


class ReplicaSets:
    name = "replicaset"
    watches = (
        Watch(REPLICA_SETS, itself, initial=True),
        Watch(PODS, owner_or_choosers("ReplicaSet", REPLICA_SETS)),
    )

    def plan(self, key: Key, view: View, now: float) -> Plan:
        found = view.get(REPLICA_SETS, key.namespace, key.name)
        if found is None:
            return NOTHING
        claimed = claim(view, PODS, found, objects.label_selector(found["spec"]["selector"]), objects.active)
        if claimed.patches:
            return Plan((Together(claimed.patches),))
        draft = Draft()
        active = [pod for pod in claimed.mine if objects.active(pod)]
        if not objects.deleting(found):
            _manage(found, active, view, now, draft)
        if draft.instructions:
            draft.failed = lambda error: _failed(found, claimed.mine, now, error)
        else:
            draft.add(*common.status_patch(REPLICA_SETS, found, status_of(found, claimed.mine, now)))
        wait = common.soonest(active, found["spec"].get("minReadySeconds", 0), now)
        if wait is not None:
            draft.look_again(wait)
        return draft.plan()


def _manage(found: Raw, active: Sequence[Object], view: View, now: float, draft: Draft) -> None:
    missing = int(found["spec"].get("replicas", 1)) - len(active)
    if missing > 0:
        draft.add(Together(tuple(_creation(found) for _ in range(min(missing, common.MANY)))))
    elif missing < 0:
        going = first_to_go(active, _related(found, active, view), now)[: min(-missing, common.MANY)]
        draft.add(Together(tuple(_deletion(found, pod) for pod in going)))


def _creation(found: Raw) -> Create:
    told = Tell(dict(found), "Normal", "SuccessfulCreate", "Created pod: {name}")
    return Create(PODS, common.pod_from(found["spec"]["template"], found), objects.namespace(found), tell=told)


def _deletion(found: Raw, pod: Raw) -> Delete:
    told = Tell(dict(found), "Normal", "SuccessfulDelete", "Deleted pod: {name}")
    return Delete(PODS, objects.name(pod), objects.namespace(pod), objects.uid(pod), tell=told)


def _related(found: Raw, active: Sequence[Object], view: View) -> Sequence[Object]:
    """Active pods of all ReplicaSets that the same owner controls: those of a rollout."""
    ref = objects.controller(found)
    if ref is None:
        return active
    above = {"metadata": {"uid": ref["uid"], "namespace": objects.namespace(found)}}
    sets = controlled(view, REPLICA_SETS, above)
    return [pod for other in sets for pod in controlled(view, PODS, other) if objects.active(pod)]


def status_of(found: Raw, mine: Sequence[Raw], now: float) -> Object:
    """Without a failure: one is written down when it happens."""
    spec, old = found["spec"], found.get("status") or {}
    active = [pod for pod in mine if objects.active(pod)]
    labels = objects.label_selector({"matchLabels": (spec["template"].get("metadata") or {}).get("labels")}) or ()
    ready = [pod for pod in active if objects.ready(pod)]
    counts = {
        "fullyLabeledReplicas": sum(selectors.matches(labels, objects.labels(pod)) for pod in active),
        "readyReplicas": len(ready),
        "availableReplicas": sum(common.available(pod, spec.get("minReadySeconds", 0), now) for pod in ready),
        "conditions": common.without_condition(old.get("conditions", ()), FAILURE),
        "observedGeneration": common.generation(found),
    }
    leaving = sum(objects.deleting(pod) and not objects.finished(pod) for pod in mine)
    return {"replicas": len(active), "terminatingReplicas": leaving, **common.spread(counts)}


def _failed(found: Raw, mine: Sequence[Raw], now: float, error: CuboidError) -> tuple[Instruction, ...]:
    missing = int(found["spec"].get("replicas", 1)) > sum(objects.active(pod) for pod in mine)
    word, doing = ("FailedCreate", "creating") if missing else ("FailedDelete", "deleting")
    status = status_of(found, mine, now)
    told = common.condition(FAILURE, "True", word, error.message, now)
    old = (found.get("status") or {}).get("conditions", ())
    status["conditions"] = common.with_condition(old, told)
    event = Tell(dict(found), "Warning", word, f"Error {doing}: {error.message}")
    return (event, *common.status_patch(REPLICA_SETS, found, status))
