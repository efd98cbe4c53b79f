"""Of which kinds objects may own others or be owned: all that one server serves, those that users define included."""

from __future__ import annotations

from collections.abc import Callable, Iterator

from cuboid.kube.client import Resource
from cuboid.kube.controller.instructions import Object
from cuboid.kube.kind import Kind
from cuboid.kube.kinds import Kinds
from cuboid.kube.registry import Registry

Suspects = Callable[[], Iterator[tuple[Resource, Object]]]
"""Objects to look at when nothing is known: of each owner one dependent, and what is being deleted."""
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


def suspects_of(registry: Registry) -> Suspects:
    """From the watch cache: nothing is decoded but what may be garbage. An object that is being deleted is known by its
    bytes."""

    def found() -> Iterator[tuple[Resource, Object]]:
        for kind in registry.kinds.stored():
            if not collected(kind):
                continue
            owners: set[str] = set()
            for entry in registry.of(kind):
                if not owners.issuperset(entry.owners) or b'"deletionTimestamp":"' in entry.value:
                    owners.update(entry.owners)
                    yield resource_of(kind), kind.from_storage(entry.object())

    return found
