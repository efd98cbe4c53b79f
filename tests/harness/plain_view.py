"""A view of plain dictionaries that carries plans out on itself: replays of a controller without a server.

No strategies, no validation: for tables of cases, and for stopping behind every single instruction.
"""

from __future__ import annotations

import copy
import itertools
from collections.abc import Callable, Iterable, Iterator
from typing import Any

from cuboid.kube import objects, selectors
from cuboid.kube.client import Resource
from cuboid.kube.controller.instructions import Absent, Create, Delete, Instruction, Patch, Plan, Tell, Together, Update
from cuboid.kube.controller.view import Bytes, Controller, Key
from cuboid.kube.patch import merge
from cuboid.kube.selectors import Selector

Object = dict[str, Any]
ROUNDS = 50
"""Plans of one key after which it should have nothing left to ask for."""


class PlainView:
    """`told` are the events as `reason: message`; `log` the writes as `verb plural name`."""

    def __init__(self) -> None:
        self._objects: dict[Resource, dict[tuple[str, str], Object]] = {}
        self._numbers = itertools.count(1)
        self.told: list[str] = []
        self.log: list[str] = []

    # --- View --------------------------------------------------------------------------------------------------------

    def get(self, resource: Resource, namespace: str, name: str) -> Object | None:
        return copy.deepcopy(self._objects.get(resource, {}).get((namespace, name)))

    def select(self, resource: Resource, namespace: str = "", labels: Selector = ()) -> list[Object]:
        found = self._objects.get(resource, {})
        return [
            copy.deepcopy(found[place])
            for place in sorted(found)
            if (not namespace or place[0] == namespace) and selectors.matches(labels, objects.labels(found[place]))
        ]

    def glance(self, resource: Resource, namespace: str = "") -> list[Object]:
        return self.select(resource, namespace)

    def owned(self, resource: Resource, uid: str, maybe: Bytes | None = None) -> list[Object]:
        every = self.select(resource)
        return [one for one in every if any(r["uid"] == uid for r in one["metadata"].get("ownerReferences") or [])]

    def orphans(self, resource: Resource, namespace: str, labels: Selector) -> list[Object]:
        return [one for one in self.select(resource, namespace, labels) if not one["metadata"].get("ownerReferences")]

    # --- writing -----------------------------------------------------------------------------------------------------

    def put(self, resource: Resource, *documents: Object) -> None:
        """As it is; uid and resourceVersion are given where they are missing."""
        for document in documents:
            held = copy.deepcopy(document)
            held["metadata"].setdefault("uid", f"uid-{next(self._numbers)}")
            held["metadata"]["resourceVersion"] = str(next(self._numbers))
            self._objects.setdefault(resource, {})[objects.namespace(held), objects.name(held)] = held

    def drop(self, resource: Resource, namespace: str, name: str) -> None:
        self._objects.get(resource, {}).pop((namespace, name), None)

    def carry_out(self, instruction: Instruction) -> None:
        if isinstance(instruction, Tell):
            self.told.append(f"{instruction.reason}: {instruction.message}")
            return
        assert not isinstance(instruction, Together | Absent), "not for this view"
        self.log.append(f"{type(instruction).__name__.lower()} {instruction.resource.plural} {_name(instruction)}")
        if isinstance(instruction, Create):
            place = (instruction.namespace, objects.name(instruction.body))
            if place in self._objects.get(instruction.resource, {}):
                assert instruction.exists_is_fine, f"{place} exists"
                return
            self.put(instruction.resource, instruction.body)
        elif isinstance(instruction, Delete):
            self._delete(instruction)
        else:
            self._change(instruction)

    def _delete(self, gone: Delete) -> None:
        found = self._objects.get(gone.resource, {}).get((gone.namespace, gone.name))
        if found is None or (gone.uid and objects.uid(found) != gone.uid):
            return
        if found["metadata"].get("finalizers"):
            found["metadata"].setdefault("deletionTimestamp", "2026-01-01T00:00:00Z")
        else:
            self.drop(gone.resource, gone.namespace, gone.name)

    def _change(self, change: Update | Patch) -> None:
        if isinstance(change, Update):
            place = (objects.namespace(change.body), objects.name(change.body))
        else:
            place = (change.namespace, change.name)
        found = self._objects.get(change.resource, {}).get(place)
        assert found is not None, f"{place} does not exist"
        meta = change.body.get("metadata", {})
        for key in ("uid", "resourceVersion"):
            assert meta.get(key) in (None, found["metadata"][key]), f"{key} of {place} is another"
        new = merge(found, change.body) if isinstance(change, Patch) else copy.deepcopy(change.body)
        if change.sub == "status":
            new = {**found, "status": new.get("status", {})}
        elif "status" in found:
            new["status"] = found["status"]
        new["metadata"]["uid"] = objects.uid(found)
        self.put(change.resource, new)
        if objects.deleting(new) and not new["metadata"].get("finalizers"):
            self.drop(change.resource, *place)

    def contents(self) -> dict[str, Object]:
        """All objects but for what differs from run to run."""
        found = {}
        for resource, held in self._objects.items():
            for place, document in held.items():
                meta = {k: v for k, v in document["metadata"].items() if k not in ("uid", "resourceVersion")}
                found[f"{resource.plural}/{'/'.join(place)}"] = {**document, "metadata": meta}
        return found


def _name(item: Create | Update | Patch | Delete) -> str:
    return item.name if isinstance(item, Patch | Delete) else objects.name(item.body)


def each(instructions: Iterable[Instruction]) -> Iterator[Instruction]:
    for instruction in instructions:
        if isinstance(instruction, Together):
            yield from each(instruction.instructions)
        else:
            yield instruction


def settle(controller: Controller, key: Key, view: PlainView, now: float = 0.0) -> Plan:
    """Plan until nothing is left to be done at this time. The last plan."""
    for _ in range(ROUNDS):
        plan = controller.plan(key, view, now)
        steps = list(each(plan.instructions))
        if not steps:
            return plan
        for step in steps:
            view.carry_out(step)
        if all(isinstance(step, Tell) for step in steps):
            return plan
    raise AssertionError(f"{controller.name} never has enough: {view.log[-5:]}")


def replay(make: Callable[[], Controller], key: Key, scenario: Callable[[], PlainView], now: float = 0.0) -> PlainView:
    """Cut the first plan off behind every instruction, go on with a new controller: always the same end. That end."""
    whole = scenario()
    settle(make(), key, whole, now)
    count = len(list(each(make().plan(key, scenario(), now).instructions)))
    for stop in range(count):
        view = scenario()
        for step in list(each(make().plan(key, view, now).instructions))[:stop]:
            view.carry_out(step)
        settle(make(), key, view, now)
        assert view.contents() == whole.contents(), f"another end when stopped behind instruction {stop}"
    return whole
