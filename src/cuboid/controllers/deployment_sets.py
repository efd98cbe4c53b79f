"""The ReplicaSets of a Deployment: which is the new one, their revisions, how one is made and resized.

Source: kubernetes/pkg/controller/deployment/util/deployment_util.go.
"""

from __future__ import annotations

import copy
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from cuboid.controllers import common
from cuboid.controllers.deployment_math import Fence, Size, fence
from cuboid.kube import objects
from cuboid.kube.client import REPLICA_SETS
from cuboid.kube.controller.instructions import Create, Instruction, Patch, Tell

Object = dict[str, Any]
Raw = Mapping[str, Any]
HASH = "pod-template-hash"
_NOTE = "deployment.kubernetes.io/"
REVISION = _NOTE + "revision"
HISTORY = _NOTE + "revision-history"
DESIRED = _NOTE + "desired-replicas"
MOST = _NOTE + "max-replicas"
_NOT_COPIED = (
    "kubectl.kubernetes.io/last-applied-configuration",
    REVISION,
    HISTORY,
    DESIRED,
    MOST,
    "deprecated.deployment.rollback.to",
)


@dataclass(frozen=True)
class Sets:
    """`new` has the Deployment's template. `old` are the others, oldest first."""

    new: Object | None
    old: tuple[Object, ...]

    @property
    def all(self) -> tuple[Object, ...]:
        return (*self.old, self.new) if self.new is not None else self.old

    @property
    def active_old(self) -> tuple[Object, ...]:
        return tuple(one for one in self.old if replicas(one))


def sort(deployment: Raw, sets: Sequence[Object]) -> Sets:
    """Of several with the same template the oldest is the new one, so that all who look agree.

    One under the name of the template's hash is the new one too: a template that got defaults of a newer server when
    it became a ReplicaSet must not be made again for ever.
    """
    by_age = sorted(sets, key=lambda one: (common.born(one), objects.name(one)))
    template = without_hash(deployment["spec"]["template"])
    same = [one for one in by_age if without_hash(one["spec"]["template"]) == template]
    named = [one for one in by_age if objects.name(one) == name_of(deployment)]
    new = next(iter([*same, *named]), None)
    return Sets(new, tuple(one for one in by_age if one is not new))


def without_hash(template: Raw) -> Object:
    made = copy.deepcopy(dict(template))
    labels = (made.get("metadata") or {}).get("labels")
    if labels:
        labels.pop(HASH, None)
    return made


def replicas(document: Raw) -> int:
    return int(document["spec"].get("replicas", 1))


def counted(document: Raw, key: str) -> int:
    """A number of its status."""
    return int((document.get("status") or {}).get(key, 0))


def rolling(deployment: Raw) -> bool:
    return bool((deployment["spec"].get("strategy") or {}).get("type", "RollingUpdate") == "RollingUpdate")


def fence_of(deployment: Raw) -> Fence:
    """Nothing above or below when pods are replaced all at once."""
    if not rolling(deployment):
        return Fence(0, 0)
    asked = (deployment["spec"].get("strategy") or {}).get("rollingUpdate") or {}
    return fence(asked.get("maxSurge", "25%"), asked.get("maxUnavailable", "25%"), replicas(deployment))


def size(one: Raw) -> Size:
    return Size(replicas(one), counted(one, "availableReplicas"), number(one, MOST))


def number(document: Raw, note: str) -> int:
    """An annotation; 0 if it is none."""
    text = objects.notes(document).get(note, "")
    return int(text) if text.isascii() and text.isdigit() and len(text) < 10 else 0


def sizes_noted(deployment: Raw) -> dict[str, str]:
    wanted = replicas(deployment)
    return {DESIRED: str(wanted), MOST: str(wanted + fence_of(deployment).surge)}


def next_revision(sets: Sets) -> int:
    return max((number(one, REVISION) for one in sets.old), default=0) + 1


def notes_of(deployment: Raw, sets: Sets) -> dict[str, str]:
    """Annotations that the new ReplicaSet has to have."""
    made = {key: value for key, value in objects.notes(deployment).items() if key not in _NOT_COPIED}
    made |= sizes_noted(deployment)
    revision, new = next_revision(sets), sets.new
    if new is None:
        return {**made, REVISION: str(revision)}
    known = number(new, REVISION)
    if known < revision:
        made[REVISION] = str(revision)
        if known:
            history = objects.notes(new).get(HISTORY, "")
            made[HISTORY] = f"{history},{known}" if history else str(known)
    return made


def creation(deployment: Raw, sets: Sets, count: int) -> Create:
    """Its name is made of the template's hash: whoever makes it twice, makes the same one."""
    spec = deployment["spec"]
    hashed = hash_of(deployment)
    template = copy.deepcopy(spec["template"])
    template.setdefault("metadata", {}).setdefault("labels", {})[HASH] = hashed
    selector = copy.deepcopy(spec["selector"])
    selector.setdefault("matchLabels", {})[HASH] = hashed
    body: Object = {
        "apiVersion": "apps/v1",
        "kind": "ReplicaSet",
        "metadata": {
            "name": name_of(deployment),
            "labels": dict(template["metadata"]["labels"]),
            "annotations": notes_of(deployment, sets),
            "ownerReferences": [objects.owner_reference(deployment)],
        },
        "spec": {"replicas": count, "selector": selector, "template": template},
    }
    if spec.get("minReadySeconds"):
        body["spec"]["minReadySeconds"] = spec["minReadySeconds"]
    told = _scaled(deployment, "{name}", 0, count) if count else None
    return Create(REPLICA_SETS, body, objects.namespace(deployment), tell=told)


def hash_of(deployment: Raw) -> str:
    return common.template_hash(deployment["spec"]["template"], collisions=counted(deployment, "collisionCount"))


def name_of(deployment: Raw) -> str:
    return f"{objects.name(deployment)}-{hash_of(deployment)}"


def resize(deployment: Raw, one: Raw, count: int) -> list[Instruction]:
    """Also writes down what it was resized for. Nothing when all of that is so already."""
    notes, before = sizes_noted(deployment), replicas(one)
    kept = objects.notes(one)
    if count == before and all(kept.get(key) == value for key, value in notes.items()):
        return []
    metadata = {"uid": objects.uid(one), "resourceVersion": one["metadata"]["resourceVersion"], "annotations": notes}
    body: Object = {"metadata": metadata, "spec": {"replicas": count}}
    patch = Patch(REPLICA_SETS, objects.name(one), body, objects.namespace(one))
    return [patch] if count == before else [patch, _scaled(deployment, objects.name(one), before, count)]


def _scaled(deployment: Raw, name: str, before: int, after: int) -> Tell:
    way = "up" if after > before else "down"
    text = f"Scaled {way} replica set {name} from {before} to {after}"
    return Tell(dict(deployment), "Normal", "ScalingReplicaSet", text)


def renew(deployment: Raw, sets: Sets) -> list[Instruction]:
    """Bring annotations and `minReadySeconds` of the new ReplicaSet in line."""
    new = sets.new
    if new is None:
        return []
    kept = objects.notes(new)
    notes = {key: value for key, value in notes_of(deployment, sets).items() if kept.get(key) != value}
    wait = deployment["spec"].get("minReadySeconds", 0)
    if not notes and new["spec"].get("minReadySeconds", 0) == wait:
        return []
    seen = {"uid": objects.uid(new), "resourceVersion": new["metadata"]["resourceVersion"]}
    body = {"metadata": {**seen, "annotations": notes}, "spec": {"minReadySeconds": wait}}
    return [Patch(REPLICA_SETS, objects.name(new), body, objects.namespace(new))]
