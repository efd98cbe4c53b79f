"""What a controller sees: the objects as the watch last told. In the server's process it is the watch cache itself,
elsewhere informers; both give fresh copies that may be changed."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Any, Protocol

from cuboid.kube import objects
from cuboid.kube.client import Resource
from cuboid.kube.controller.instructions import Plan
from cuboid.kube.selectors import Selector

Object = dict[str, Any]
Bytes = Callable[[bytes], bool]


class View(Protocol):
    def get(self, resource: Resource, namespace: str, name: str) -> Object | None: ...

    def select(self, resource: Resource, namespace: str = "", labels: Selector = ()) -> list[Object]:
        """In the order of namespace and name; "" for all namespaces."""
        ...

    def glance(self, resource: Resource, namespace: str = "") -> list[Object]:
        """As `select`, for who only reads: the objects are shared and must not be changed. What is looked at for every
        change of something else (the services of a pod's namespace) is not decoded each time."""
        ...

    def owned(self, resource: Resource, uid: str, maybe: Bytes | None = None) -> list[Object]:
        """Those of which an owner reference (controller or not) names this uid. Indexed.

        `maybe` sees the stored bytes, where there are such, and leaves out what need not be decoded.
        """
        ...

    def orphans(self, resource: Resource, namespace: str, labels: Selector) -> list[Object]:
        """Those of a namespace that have no owner at all and are chosen, in the order of names. Others cost nothing."""
        ...


@dataclass(frozen=True, order=True)
class Key:
    """What a controller works on, one at a time: an object's place, or whatever else a controller names so."""

    namespace: str
    name: str


@dataclass(frozen=True)
class Change:
    """`type` is ADDED, MODIFIED or DELETED; `old` is what it was before, where that is known."""

    type: str
    new: Object
    old: Object | None = None


KeysOf = Callable[[Change, View], Iterable[Key]]


@dataclass(frozen=True)
class Watch:
    """Changes of `resource` wake the keys that `keys` names. With `initial`, what exists at the start does as well:
    for the kind that the controller is about; the others are looked up when a key is worked on."""

    resource: Resource
    keys: KeysOf
    initial: bool = False


def itself(change: Change, view: View) -> Iterable[Key]:
    """The changed object is the key."""
    return (Key(objects.namespace(change.new), objects.name(change.new)),)


def its_controller(kind: str, group: str = "") -> KeysOf:
    """The key is the controlling owner of this kind, before and after the change."""

    def keys(change: Change, view: View) -> Iterable[Key]:
        for document in (change.old, change.new):
            ref = objects.controller(document) if document else None
            if document and ref and ref["kind"] == kind and ref["apiVersion"].rpartition("/")[0] == group:
                yield Key(objects.namespace(document), ref["name"])

    return keys


class Controller(Protocol):
    """One kind's caretaker. `plan` is pure: it reads the view and the time and asks for instructions; called again for
    a key until there is nothing left to ask for, and again from the start after any interruption."""

    @property
    def name(self) -> str: ...

    @property
    def watches(self) -> tuple[Watch, ...]: ...

    def plan(self, key: Key, view: View, now: float) -> Plan:
        """`now` in seconds since the epoch."""
        ...
