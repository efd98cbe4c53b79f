"""What is in a namespace that ends: how much of each kind, and some of it to delete next."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from typing import Protocol

from cuboid.controllers.garbage_kinds import resource_of
from cuboid.kube import objects
from cuboid.kube.cache import Filter
from cuboid.kube.client import Resource
from cuboid.kube.controller.instructions import Object
from cuboid.kube.controller.view import View
from cuboid.kube.kinds import Kinds
from cuboid.kube.objects import Raw
from cuboid.kube.registry import Registry

MOST = 500
"""Objects that one plan deletes, and those of which it says what holds them."""


@dataclass
class Part:
    """Of one kind. `fresh` are not asked to end yet, MOST at most; `held` counts finalizers."""

    resource: Resource
    total: int = 0
    fresh: list[Object] = field(default_factory=list)
    held: Counter[str] = field(default_factory=Counter)

    def take(self, document: Object) -> None:
        if not objects.deleting(document):
            self.fresh.append(document)
        self.held.update(finalizers(document))


def finalizers(document: Raw) -> Iterable[str]:
    return document["metadata"].get("finalizers") or ()


class Content(Protocol):
    def parts(self, view: View, namespace: str) -> Iterator[Part]:
        """Kinds of which there is something."""
        ...


class SeenContent:
    """By looking at everything."""

    def __init__(self, kinds: Kinds) -> None:
        self._kinds = kinds

    def parts(self, view: View, namespace: str) -> Iterator[Part]:
        for resource in resources(self._kinds):
            found = view.select(resource, namespace)
            part = Part(resource, len(found))
            for document in found:
                part.take(document)
            del part.fresh[MOST:]
            if found:
                yield part


class CachedContent:
    """Of the watch cache: no more is decoded than one plan has use for, however much there is."""

    def __init__(self, registry: Registry) -> None:
        self._registry = registry

    def parts(self, view: View, namespace: str) -> Iterator[Part]:
        for kind in self._registry.kinds.stored():
            if not kind.namespaced or "delete" not in kind.verbs:
                continue
            found = self._registry.of(kind).select(Filter(namespace))
            part, ending = Part(resource_of(kind), len(found)), 0
            for entry in found:
                is_ending = b'"deletionTimestamp":"' in entry.value
                ending += is_ending
                if len(part.fresh) < MOST and (not is_ending or ending < MOST):
                    part.take(kind.from_storage(entry.object()))
            if found:
                yield part


def resources(kinds: Kinds) -> Iterator[Resource]:
    for kind in kinds.stored():
        if kind.namespaced and "delete" in kind.verbs:
            yield resource_of(kind)
