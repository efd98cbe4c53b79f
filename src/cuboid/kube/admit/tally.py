"""What the objects of each namespace take of its quotas, kept current in memory: a creation costs look-ups, no sums.

Only namespaces with quotas are counted, from the first time that somebody asks.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from cuboid.kube import kinds, quota_usage
from cuboid.kube.cache import Filter, decode
from cuboid.kube.kind import Kind
from cuboid.kube.quota_usage import Usage
from cuboid.kube.registry import Registry
from cuboid.kube.store import Event

Raw = Mapping[str, Any]
_QUOTA = kinds.builtin("ResourceQuota")
Place = tuple[str, str, str]  # group, plural, name


@dataclass
class _Space:
    """One namespace. `taken` is what each object takes of each quota, `used` the sum of it, both by quota name."""

    quotas: dict[str, Raw]
    taken: dict[Place, dict[str, Usage]] = field(default_factory=dict)
    used: dict[str, Usage] = field(default_factory=dict)


class Tally:
    def __init__(self, registry: Registry) -> None:
        self._registry = registry
        self._spaces: dict[str, _Space] = {}
        self._kinds: dict[tuple[str, str], Kind] = {}
        registry.cache.listen(self._saw)

    def quotas(self, namespace: str) -> Mapping[str, Raw]:
        """By name."""
        space = self._spaces.get(namespace)
        return (space or self._counted(namespace)).quotas

    def used(self, namespace: str, quota: str) -> Usage:
        return (self._spaces.get(namespace) or self._counted(namespace)).used.get(quota, {})

    def _saw(self, events: Sequence[Event]) -> None:
        for event in events:
            key = event.key
            if (key.group, key.resource) == _QUOTA.stored_as:
                self._spaces.pop(key.namespace, None)
            elif event.type == "DELETED" and (key.group, key.resource) == ("", "namespaces"):
                self._spaces.pop(key.name, None)
            space = self._spaces.get(key.namespace) if key.namespace else None
            if space is not None and space.quotas:
                kind = self._kind(key.group, key.resource)
                if kind is not None:
                    gone = event.type == "DELETED"
                    _count(space, kind, (key.group, key.resource, key.name), None if gone else decode(event.value))

    def _kind(self, group: str, plural: str) -> Kind | None:
        if (group, plural) not in self._kinds:
            self._kinds = {kind.stored_as: kind for kind in self._registry.kinds.stored()}
        return self._kinds.get((group, plural))

    def _counted(self, namespace: str) -> _Space:
        quotas: dict[str, Raw] = {
            entry.key.name: entry.object() for entry in self._registry.of(_QUOTA).select(Filter(namespace))
        }
        space = self._spaces[namespace] = _Space(quotas)
        if quotas:
            for kind in self._registry.kinds.stored():
                if kind.namespaced and any(_names(kind, quota) for quota in quotas.values()):
                    for entry in self._registry.of(kind).select(Filter(namespace)):
                        _count(space, kind, (*kind.stored_as, entry.key.name), entry.object())
        return space


def _names(kind: Kind, quota: Raw) -> bool:
    """Whether a quota may be about a kind."""
    group, plural = kind.stored_as
    counted = f"count/{plural}.{group}" if group else f"count/{plural}"
    hard = quota.get("spec", {}).get("hard") or {}
    return counted in hard or (not group)


def _count(space: _Space, kind: Kind, place: Place, document: Raw | None) -> None:
    for name, old in space.taken.pop(place, {}).items():
        total = space.used[name]
        for resource, amount in old.items():
            total[resource] -= amount
    if document is None:
        return
    taken = dict(usages(space.quotas, kind, document))
    if taken:
        space.taken[place] = taken
    for name, new in taken.items():
        total = space.used.setdefault(name, {})
        for resource, amount in new.items():
            total[resource] = total.get(resource, 0) + amount


def usages(quotas: Mapping[str, Raw], kind: Kind, document: Raw) -> Iterator[tuple[str, Usage]]:
    """(quota name, what the object takes of it) for each quota that it is counted by."""
    whole = quota_usage.usage(kind, document)
    for name, quota in quotas.items():
        if quota_usage.matches(quota, kind, document):
            part = quota_usage.constrained(quota.get("spec", {}).get("hard") or {}, whole)
            if part:
                yield name, part
