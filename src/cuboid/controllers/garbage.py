"""The garbage collector: what is owned goes with its last owner, before it, or stays as an orphan.

It remembers no graph: the watch cache knows what an owner owns. Keys are `group/plural/name` of an object, `uid/…` of
an owner that went, and "" for everything, at the start. Source: kubernetes/pkg/controller/garbagecollector.
"""

from __future__ import annotations

import asyncio
from collections import OrderedDict
from collections.abc import Callable, Iterable, Sequence

from cuboid.controllers.garbage_judge import FOREGROUND, MOST, ORPHAN, Judge, arrange, finalizers, foreground, owners
from cuboid.controllers.garbage_kinds import CollectedKinds, Holdings
from cuboid.kube import objects
from cuboid.kube.client import NAMESPACES, Resource
from cuboid.kube.controller.instructions import NOTHING, Instruction, Object, Plan, Together
from cuboid.kube.controller.view import Change, Key, KeysOf, View, Watch
from cuboid.kube.kinds import Kinds
from cuboid.kube.objects import Raw

ALIVE = 4096
"""Owners that are known to exist: new objects of theirs need no look."""
NEW_KINDS = 1.0
"""Seconds between two looks for kinds that are newly served."""
_EVERYTHING = Key("", "")


class Garbage:
    """`kinds` may grow: `watch` then gives what is to be followed beside `watches`. Without `holdings` all objects are
    looked at when it starts."""

    name = "garbage-collector"

    def __init__(self, kinds: Kinds, holdings: Holdings | None = None) -> None:
        self.kinds = CollectedKinds(kinds)
        self._holdings = holdings
        self._alive: OrderedDict[str, tuple[Resource, str, str]] = OrderedDict()  # by uid, where it is
        everything = Watch(NAMESPACES, _everything, initial=True)
        self.watches = (*(self.watch(one) for one in self.kinds.resources()), *((everything,) if holdings else ()))

    def watch(self, resource: Resource) -> Watch:
        return Watch(resource, self._keys(resource), initial=self._holdings is None)

    # --- what wakes it -----------------------------------------------------------------------------------------------

    def _keys(self, resource: Resource) -> KeysOf:
        def keys(change: Change, view: View) -> Iterable[Key]:
            new, old = change.new, change.old
            if change.type == "DELETED":
                self._alive.pop(objects.uid(new), None)
                if self._holdings is None or self._holdings.owns(objects.uid(new)):
                    yield Key("", f"uid/{objects.uid(new)}")
                yield from self._held_up(new)
                return
            if objects.deleting(new):
                self._alive.pop(objects.uid(new), None)
                if ORPHAN in finalizers(new) or FOREGROUND in finalizers(new):
                    yield _key(resource, new)
            if old is not None and owners(old) != owners(new):
                yield from self._held_up(old)
            changed = old is None or owners(old) != owners(new)
            if owners(new) and changed and not self._owners_live(resource, new, view):
                yield _key(resource, new)

        return keys

    def _held_up(self, document: Raw) -> Iterable[Key]:
        """Owners that may have waited for this object."""
        for ref in owners(document):
            kind = self.kinds.find(ref["apiVersion"], ref["kind"])
            if kind is not None and ref.get("blockOwnerDeletion"):
                namespace = "" if kind.cluster else objects.namespace(document)
                yield Key(namespace, f"{kind.group}/{kind.plural}/{ref['name']}")

    def _owners_live(self, resource: Resource, document: Object, view: View) -> bool:
        """Cheap for the many objects of one owner. An owner that goes after this is heard of."""
        for ref in owners(document):
            kind = self.kinds.find(ref["apiVersion"], ref["kind"])
            if kind is None or (resource.cluster and not kind.cluster):
                return False
            place = (kind, "" if kind.cluster else objects.namespace(document), ref["name"])
            if self._alive.get(ref["uid"]) == place:
                continue
            owner = view.get(*place)
            if owner is None or objects.uid(owner) != ref["uid"] or objects.deleting(owner):
                return False
            self._alive[ref["uid"]] = place
            if len(self._alive) > ALIVE:
                self._alive.popitem(last=False)
        return True

    # --- what is to be done ------------------------------------------------------------------------------------------

    def plan(self, key: Key, view: View, now: float) -> Plan:
        group, _, rest = key.name.partition("/")
        if key == _EVERYTHING:
            self._alive.clear()  # the end of one of them may have been missed
            wanted = self._everything(Judge(self.kinds, view))
        elif group == "uid":
            judge = Judge(self.kinds, view, gone={rest})
            wanted = arrange(judge.judge(*one) for one in judge.dependents(rest))
        else:
            plural, _, name = rest.partition("/")
            resource = self.kinds.named(group, plural)
            document = None if resource is None else view.get(resource, key.namespace, name)
            if resource is None or document is None:
                return NOTHING
            wanted = _of_object(Judge(self.kinds, view), resource, document)
        return Plan(tuple(wanted), again=0.0 if _much(wanted) else None)

    def _everything(self, judge: Judge) -> list[Instruction]:
        """A suspect that has to go is one of many: the others of its owners are looked at as well."""
        ending: list[Instruction] = []
        found: dict[str, tuple[Resource, Object]] = {}
        for resource, document in self._holdings.suspects() if self._holdings is not None else ():
            if objects.deleting(document):
                ending += _of_object(judge, resource, document)
            elif judge.judge(resource, document).actions:
                for ref in owners(document):
                    found |= {objects.uid(one): (kind, one) for kind, one in judge.dependents(ref["uid"])}
            if len(ending) + len(found) > MOST:
                break
        return [*arrange(judge.judge(*one) for one in found.values()), *ending]


def _of_object(judge: Judge, resource: Resource, document: Object) -> list[Instruction]:
    if not objects.deleting(document):
        return arrange((judge.judge(resource, document),))
    if ORPHAN in finalizers(document):
        return judge.orphan(resource, document)
    return judge.end(resource, document) if foreground(document) else []


def _much(wanted: Sequence[Instruction]) -> bool:
    """There may be more than one plan touches."""
    return sum(len(item.instructions) if isinstance(item, Together) else 1 for item in wanted) >= MOST


def _key(resource: Resource, document: Raw) -> Key:
    return Key(objects.namespace(document), f"{resource.group}/{resource.plural}/{objects.name(document)}")


def _everything(change: Change, view: View) -> Iterable[Key]:
    """At the start, from time to time, and when changes may have been missed."""
    return (_EVERYTHING,) if change.old is None and change.type != "DELETED" else ()


async def follow_new_kinds(garbage: Garbage, follow: Callable[[Garbage, Watch], None]) -> None:
    """Until cancelled: what users define is looked after as well, from a second after it is served."""
    known = {watch.resource for watch in garbage.watches}
    while True:
        for resource in garbage.kinds.resources():
            if resource not in known:
                known.add(resource)
                follow(garbage, garbage.watch(resource))
        await asyncio.sleep(NEW_KINDS)
