"""What becomes of an object because of those that own it, and of what an object owns when it goes.

Source: kubernetes/pkg/controller/garbagecollector, attemptToDeleteItem and attemptToOrphanWorker.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable
from dataclasses import dataclass, field

from cuboid.controllers.garbage_kinds import CollectedKinds
from cuboid.kube import objects
from cuboid.kube.client import Resource
from cuboid.kube.controller.instructions import Absent, Delete, Instruction, Object, Patch, Tell, Together
from cuboid.kube.controller.view import View
from cuboid.kube.objects import Raw

ORPHAN = "orphan"
FOREGROUND = "foregroundDeletion"
Owned = tuple[Resource, Object]
MOST = 500
"""Objects that one plan touches."""


def finalizers(document: Raw) -> list[str]:
    found: list[str] = document["metadata"].get("finalizers") or []
    return found


def owners(document: Raw) -> list[Object]:
    found: list[Object] = document["metadata"].get("ownerReferences") or []
    return found


def foreground(document: Raw) -> bool:
    """It goes when what it owns has gone."""
    return objects.deleting(document) and FOREGROUND in finalizers(document)


@dataclass
class _Refs:
    """An object's owner references. `absent` are to be confirmed by the server."""

    solid: list[Object] = field(default_factory=list)
    dangling: list[Object] = field(default_factory=list)
    waiting: list[Object] = field(default_factory=list)
    absent: list[Absent] = field(default_factory=list)
    misplaced: list[Object] = field(default_factory=list)


@dataclass(frozen=True)
class Verdict:
    """On one object: what has to be confirmed, told and done, the last in this order."""

    absent: tuple[Absent, ...] = ()
    told: tuple[Tell, ...] = ()
    actions: tuple[Patch | Delete, ...] = ()


LEFT_ALONE = Verdict()


class Judge:
    """`gone` are uids of objects that are known to be deleted."""

    def __init__(self, kinds: CollectedKinds, view: View, gone: Collection[str] = ()) -> None:
        self._kinds = kinds
        self._view = view
        self._gone = gone
        self._owners: dict[tuple[Resource, str, str], Object | None] = {}

    def dependents(self, uid: str) -> list[Owned]:
        """All that call this one their owner, rightly or not."""
        return [(one, found) for one in self._kinds.resources() for found in self._view.owned(one, uid)]

    def _below(self, resource: Resource, document: Object) -> list[Owned]:
        """What an object owns. Nobody in another namespace can hold it up."""
        found = self.dependents(objects.uid(document))
        if resource.cluster:
            return found
        return [one for one in found if objects.namespace(one[1]) == objects.namespace(document)]

    def judge(self, resource: Resource, document: Object) -> Verdict:
        """What is to be done to an object because of its owners."""
        if objects.deleting(document) or not owners(document):
            return LEFT_ALONE
        refs = self._classify(resource, document)
        told = tuple(_misplaced(document, ref) for ref in refs.misplaced)
        if not refs.dangling and not refs.waiting:
            return Verdict(told=told)
        actions: tuple[Patch | Delete, ...] = (_delete(resource, document, _policy(document)),)
        if refs.solid:
            actions = (_patch(resource, document, ownerReferences=refs.solid),)
        elif refs.waiting and (below := self._below(resource, document)):
            actions = _foreground(resource, document, below)
        return Verdict(tuple(refs.absent), told, actions)

    def _classify(self, resource: Resource, document: Object) -> _Refs:
        refs, namespace = _Refs(), objects.namespace(document)
        for ref in owners(document):
            kind = self._kinds.find(ref["apiVersion"], ref["kind"])
            if kind is not None and resource.cluster and not kind.cluster:
                refs.solid.append(ref)
                refs.misplaced.append(ref)
            elif ref["uid"] in self._gone:
                refs.dangling.append(ref)
            elif kind is None:  # of a kind that is not served: nobody can say whether it exists
                refs.solid.append(ref)
            else:
                self._look(kind, "" if kind.cluster else namespace, ref, refs)
        return refs

    def _look(self, kind: Resource, namespace: str, ref: Object, refs: _Refs) -> None:
        owner = self._owner(kind, namespace, ref["name"])
        if owner is None or objects.uid(owner) != ref["uid"]:
            refs.dangling.append(ref)
            refs.absent.append(Absent(kind, ref["name"], namespace, ref["uid"]))
            if owner is None and not kind.cluster and self._elsewhere(kind, ref):
                refs.misplaced.append(ref)
        elif foreground(owner):
            refs.waiting.append(ref)
        else:
            refs.solid.append(ref)

    def _owner(self, kind: Resource, namespace: str, name: str) -> Object | None:
        """Asked for once in a round: many objects have the same."""
        place = (kind, namespace, name)
        if place not in self._owners:
            self._owners[place] = self._view.get(kind, namespace, name)
        return self._owners[place]

    def _elsewhere(self, kind: Resource, ref: Object) -> bool:
        spaces = self._kinds.find("v1", "Namespace")
        names = [objects.name(one) for one in self._view.select(spaces)] if spaces else []
        found = (self._owner(kind, name, ref["name"]) for name in names)
        return any(owner is not None and objects.uid(owner) == ref["uid"] for owner in found)

    # --- what an object owns -----------------------------------------------------------------------------------------

    def orphan(self, resource: Resource, document: Object) -> list[Instruction]:
        """Those that it owns are told so, and then it may go."""
        uid, wanted = objects.uid(document), list[Patch]()
        for kind, found in self._below(resource, document):
            kept = [ref for ref in owners(found) if ref["uid"] != uid]
            wanted.append(_patch(kind, found, ownerReferences=kept or None))
        told: list[Instruction] = [Together(tuple(wanted[:MOST]))] if wanted else []
        return told if len(wanted) > MOST else [*told, _without(resource, document, ORPHAN)]

    def end(self, resource: Resource, document: Object) -> list[Instruction]:
        """What it owns goes first; none of those that hold it up is left when it may go itself."""
        uid, below = objects.uid(document), self._below(resource, document)
        if not any(_blocks(found, uid) for _, found in below):
            return [_without(resource, document, FOREGROUND)]
        return arrange(self.judge(*one) for one in below)


def arrange(verdicts: Iterable[Verdict]) -> list[Instruction]:
    """Confirmations first, then what is told, then the first action on each object, then the second."""
    absent: dict[Absent, None] = {}
    told: list[Tell] = []
    waves: list[list[Patch | Delete]] = [[], []]
    for verdict in verdicts:
        told += verdict.told
        if len(waves[0]) < MOST:
            absent.update(dict.fromkeys(verdict.absent))
            for wave, action in zip(waves, verdict.actions, strict=False):
                wave.append(action)
    return [*absent, *told, *(Together(tuple(wave)) for wave in waves if wave)]


def _blocks(document: Raw, uid: str) -> bool:
    return any(ref["uid"] == uid and ref.get("blockOwnerDeletion") for ref in owners(document))


def _policy(document: Raw) -> str:
    found = finalizers(document)
    return "Orphan" if ORPHAN in found else "Foreground" if FOREGROUND in found else "Background"


def _foreground(resource: Resource, document: Object, below: Iterable[Owned]) -> tuple[Patch | Delete, ...]:
    gone = _delete(resource, document, "Foreground")
    if any(foreground(found) for _, found in below) and any(ref.get("blockOwnerDeletion") for ref in owners(document)):
        # Perhaps a circle, in which each would wait for the other.
        free = [{**ref, "blockOwnerDeletion": False} for ref in owners(document)]
        return _patch(resource, document, ownerReferences=free), gone
    return (gone,)


def _delete(resource: Resource, document: Raw, policy: str) -> Delete:
    place = (objects.name(document), objects.namespace(document), objects.uid(document))
    return Delete(resource, *place, propagation=policy)


def _without(resource: Resource, document: Raw, finalizer: str) -> Patch:
    left = [item for item in finalizers(document) if item != finalizer]
    return _patch(resource, document, finalizers=left or None)


def _patch(resource: Resource, document: Raw, **metadata: object) -> Patch:
    seen = {"uid": objects.uid(document), "resourceVersion": document["metadata"]["resourceVersion"]}
    return Patch(resource, objects.name(document), {"metadata": {**seen, **metadata}}, objects.namespace(document))


def _misplaced(document: Object, ref: Raw) -> Tell:
    namespace = objects.namespace(document)
    what = f"[{ref['apiVersion']}/{ref['kind']}, namespace: {namespace}, name: {ref['name']}, uid: {ref['uid']}]"
    message = f'ownerRef {what} does not exist in namespace "{namespace}"'
    return Tell(document, "Warning", "OwnerRefInvalidNamespace", message)
