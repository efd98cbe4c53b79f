"""The history of a StatefulSet's or DaemonSet's template, as ControllerRevisions.

Source: kubernetes/pkg/controller/history/controller_history.go.
"""

from __future__ import annotations

import copy
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from cuboid.controllers import common
from cuboid.controllers.owning import claim
from cuboid.kube import objects
from cuboid.kube.client import REVISIONS, Resource
from cuboid.kube.controller.instructions import Create, Delete, Instruction, Patch
from cuboid.kube.controller.view import View

Object = dict[str, Any]
Raw = Mapping[str, Any]
HASH = "controller-revision-hash"
"""Label of pods and of revisions: the revision's name for a StatefulSet's pods, its hash for all else."""


@dataclass(frozen=True)
class History:
    """`all` in the order of their numbers. `update` is the one with the owner's template; when it is None, `changes`
    have to be carried out first."""

    all: tuple[Object, ...]
    update: Object | None
    changes: tuple[Instruction, ...] = ()

    def named(self, name: str) -> Object | None:
        return next((one for one in self.all if objects.name(one) == name), None)


def history(view: View, resource: Resource, owner: Raw) -> History:
    """Of an object that is not being deleted. Makes the revision of its template when there is none."""
    claimed = claim(view, REVISIONS, owner, objects.label_selector(owner["spec"]["selector"]))
    ordered = tuple(sorted(claimed.mine, key=lambda one: (number(one), common.born(one), objects.name(one))))
    if claimed.patches:
        return History(ordered, None, claimed.patches)
    data = _data(owner)
    same = [one for one in ordered if one.get("data") == data]
    if not same:
        return History(ordered, None, _made(view, resource, owner, data, ordered))
    if same[-1] is not ordered[-1]:
        body = {"metadata": {"uid": objects.uid(same[-1])}, "revision": number(ordered[-1]) + 1}
        return History(ordered, None, (Patch(REVISIONS, objects.name(same[-1]), body, objects.namespace(owner)),))
    return History(ordered, same[-1])


def number(revision: Raw) -> int:
    return int(revision.get("revision", 0))


def hash_of(revision: Raw) -> str:
    return objects.labels(revision).get(HASH, "")


def template(revision: Raw) -> Object:
    """The pod template that it keeps."""
    found = copy.deepcopy(revision["data"]["spec"]["template"])
    found.pop("$patch", None)
    return dict(found)


def _data(owner: Raw) -> Object:
    """A strategic merge patch that brings the template back: what clients apply to roll back."""
    return {"spec": {"template": {**copy.deepcopy(owner["spec"]["template"]), "$patch": "replace"}}}


def _made(
    view: View, resource: Resource, owner: Raw, data: Object, ordered: Sequence[Object]
) -> tuple[Instruction, ...]:
    collisions = int((owner.get("status") or {}).get("collisionCount", 0))
    hashed = common.template_hash(owner["spec"]["template"], collisions=collisions)
    name, namespace = f"{objects.name(owner)}-{hashed}", objects.namespace(owner)
    if view.get(REVISIONS, namespace, name) is not None:
        body = {"metadata": {"uid": objects.uid(owner)}, "status": {"collisionCount": collisions + 1}}
        return (Patch(resource, objects.name(owner), body, namespace, sub="status"),)
    labels = dict((owner["spec"]["template"].get("metadata") or {}).get("labels") or {})
    body = {
        "apiVersion": "apps/v1",
        "kind": "ControllerRevision",
        "metadata": {
            "name": name,
            "labels": {**labels, HASH: hashed},
            "annotations": dict(objects.notes(owner)),
            "ownerReferences": [objects.owner_reference(owner)],
        },
        "data": data,
        "revision": number(ordered[-1]) + 1 if ordered else 1,
    }
    return (Create(REVISIONS, body, namespace),)


def forgotten(owner: Raw, known: History, in_use: Collection[str]) -> Iterable[Delete]:
    """Revisions beyond the history that is kept, oldest first; `in_use` are names."""
    limit = int(owner["spec"].get("revisionHistoryLimit", 10))
    idle = [one for one in known.all if objects.name(one) not in in_use and not objects.deleting(one)]
    for one in idle[: max(len(idle) - limit, 0)]:
        yield Delete(REVISIONS, objects.name(one), objects.namespace(one), objects.uid(one))
