"""The table of kinds: adding one is a row in `cuboid.kube.groups` and, where it behaves specially, a strategy."""

from __future__ import annotations

from collections.abc import Iterable, Iterator

from cuboid.kube.groups import (
    apiextensions,
    apps,
    autoscaling,
    batch,
    coordination,
    core,
    cuboid,
    discovery,
    events,
    networking,
    node,
    policy,
    rbac,
    scheduling,
    storage,
)
from cuboid.kube.kind import VERBS, Kind, Subresource

__all__ = ["KINDS", "VERBS", "Kind", "Kinds", "Subresource", "builtin"]

KINDS: tuple[Kind, ...] = (
    *core.ROWS,
    *cuboid.ROWS,
    *apiextensions.ROWS,
    *apps.ROWS,
    *autoscaling.ROWS,
    *batch.ROWS,
    *coordination.ROWS,
    *discovery.ROWS,
    *events.ROWS,
    *networking.ROWS,
    *node.ROWS,
    *policy.ROWS,
    *rbac.ROWS,
    *scheduling.ROWS,
    *storage.ROWS,
)
_BY_NAME = {(kind.group, kind.kind): kind for kind in reversed(KINDS)}


def builtin(kind: str, group: str = "") -> Kind:
    """The row of a kind that every server has; KeyError for another."""
    return _BY_NAME[group, kind]


class Kinds:
    """What one server serves: the built-in kinds and those that were added since."""

    def __init__(self, rows: Iterable[Kind] = KINDS) -> None:
        self._rows = {(kind.group, kind.version, kind.plural): kind for kind in rows}
        self.changes = 0
        """Grows with every kind that comes or goes."""

    def __iter__(self) -> Iterator[Kind]:
        return iter(tuple(self._rows.values()))

    def find(self, group: str, version: str, plural: str) -> Kind | None:
        return self._rows.get((group, version, plural))

    def stored(self) -> tuple[Kind, ...]:
        """One row per storage."""
        return tuple(kind for kind in self if not kind.storage[1])

    def add(self, kind: Kind) -> None:
        """Serve a kind, in place of what was served there."""
        self._rows[kind.group, kind.version, kind.plural] = kind
        self.changes += 1

    def remove(self, kind: Kind) -> None:
        self._rows.pop((kind.group, kind.version, kind.plural), None)
        self.changes += 1
