"""Of which kinds objects may own others or be owned: all that one server serves, those that users define included."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Protocol

from cuboid.kube.client import Resource
from cuboid.kube.controller.instructions import Object
from cuboid.kube.kind import Kind
from cuboid.kube.kinds import Kinds
from cuboid.kube.registry import Registry


class Holdings(Protocol):
    """What a cache of all objects can say cheaply."""

    def suspects(self) -> Iterator[tuple[Resource, Object]]:
        """Objects to look at when nothing is known: of each owner one dependent, and what is being deleted."""
        ...

    def owns(self, uid: str) -> bool:
        """Whether some object names this one as its owner."""
        ...


_UNCOLLECTED = frozenset((("", "events"),))


def resource_of(kind: Kind) -> Resource:
    return Resource(kind.group, kind.version, kind.plural, cluster=not kind.namespaced)


class CollectedKinds:
    """Follows `kinds` as it changes."""

    def __init__(self, kinds: Kinds) -> None:
        self._kinds = kinds
        self._seen = -1
        self._rows: dict[tuple[str, str], Resource] = {}
        self._by_plural: dict[tuple[str, str], Resource] = {}

    def _refresh(self) -> None:
        if self._seen == self._kinds.changes:
            return
        self._seen = self._kinds.changes
        rows = [kind for kind in self._kinds.stored() if collected(kind)]
        self._rows = {(kind.group, kind.kind): resource_of(kind) for kind in rows}
        self._by_plural = {(kind.group, kind.plural): resource_of(kind) for kind in rows}

    def resources(self) -> tuple[Resource, ...]:
        self._refresh()
        return tuple(self._rows.values())

    def find(self, api_version: str, kind: str) -> Resource | None:
        """As an owner reference names it; None for a kind that is not served."""
        self._refresh()
        return self._rows.get((api_version.rpartition("/")[0], kind))

    def named(self, group: str, plural: str) -> Resource | None:
        self._refresh()
        return self._by_plural.get((group, plural))


def collected(kind: Kind) -> bool:
    return "delete" in kind.verbs and kind.stored_as not in _UNCOLLECTED


class CachedObjects:
    """Of the watch cache: nothing is decoded but what may be garbage. What is being deleted is known by its bytes."""

    def __init__(self, registry: Registry) -> None:
        self._registry = registry

    def suspects(self) -> Iterator[tuple[Resource, Object]]:
        for kind in self._registry.kinds.stored():
            if not collected(kind):
                continue
            owners: set[str] = set()
            for entry in self._registry.of(kind):
                if not owners.issuperset(entry.owners) or b'"deletionTimestamp":"' in entry.value:
                    owners.update(entry.owners)
                    yield resource_of(kind), kind.from_storage(entry.object())

    def owns(self, uid: str) -> bool:
        return any(cache.owned(uid) for cache in self._registry.cache)
