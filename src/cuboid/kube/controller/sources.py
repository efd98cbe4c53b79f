"""What controllers look at and are woken by: here the watch cache of the server's own process.

A source tells changes to those who follow a resource, and lets a writer wait until its own write is seen.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any, Protocol

from cuboid.kube import selectors
from cuboid.kube.cache import Change as Cached
from cuboid.kube.cache import Entry, Filter, ResourceCache, Watcher
from cuboid.kube.client import Resource
from cuboid.kube.controller.view import Bytes, Change, View
from cuboid.kube.kind import Kind
from cuboid.kube.registry import Registry
from cuboid.kube.selectors import Selector
from cuboid.kube.store import Key as StoreKey
from cuboid.lib.aio import TaskSet
from cuboid.lib.errors import DeadlineError, GoneError
from cuboid.lib.log import get_log

log = get_log(__name__)

Object = dict[str, Any]
Listener = Callable[[Change], None]
Lost = Callable[[], None]
APPEARS_SECONDS = 1.0
"""Between two looks for a kind that is not served yet."""
_IDLE_SECONDS = 3600.0
GLANCED = 1_000
"""Objects that are kept decoded for those who only look."""
GLANCED_BYTES = 8 * 1024
"""Larger ones are not kept: whoever writes them chooses their size."""
SLICE = 64
"""Changes that are told in one turn of the loop; what else waits for it gets its turn in between."""


@dataclass(frozen=True)
class Follower:
    """`initial`: what exists at the start is told as ADDED. `lost` is called when changes may have been missed."""

    listener: Listener
    initial: bool
    lost: Lost


class Source(View, Protocol):
    """A view that tells its changes."""

    def follow(self, resource: Resource, follower: Follower) -> None:
        """Also while it runs. Listeners are called on the loop and must not block."""
        ...

    async def run(self, tasks: TaskSet) -> None:
        """Start following; returns when everything that exists is seen and told."""
        ...

    def every(self, resource: Resource) -> Iterator[Object]:
        """All objects, decoded one after the other."""
        ...

    async def seen(self, resource: Resource, written: Object, seconds: float) -> bool:
        """Wait until the view has this object at its version or a later one; False after `seconds`."""
        ...


class LocalSource:
    """Reads the server's watch cache: nothing is kept twice. A kind that is not served (yet) has no objects."""

    def __init__(self, registry: Registry) -> None:
        self._registry = registry
        self._followers: dict[Resource, list[Follower]] = {}
        self._glanced: dict[StoreKey, tuple[Entry, Kind, Object]] = {}
        self._tasks: TaskSet | None = None

    def _cache(self, resource: Resource) -> tuple[Kind, ResourceCache] | None:
        kind = self._registry.kinds.find(resource.group, resource.version, resource.plural)
        return None if kind is None else (kind, self._registry.of(kind))

    def get(self, resource: Resource, namespace: str, name: str) -> Object | None:
        if (found := self._cache(resource)) is None:
            return None
        kind, cache = found
        entry = cache.get("" if resource.cluster else namespace, name)
        return None if entry is None else _object(kind, entry)

    def select(self, resource: Resource, namespace: str = "", labels: Selector = ()) -> list[Object]:
        if (found := self._cache(resource)) is None:
            return []
        kind, cache = found
        return [_object(kind, entry) for entry in cache.select(Filter(namespace, labels))]

    def glance(self, resource: Resource, namespace: str = "") -> list[Object]:
        if (found := self._cache(resource)) is None:
            return []
        kind, cache = found
        return [self._decoded(kind, entry) for entry in cache.select(Filter(namespace))]

    def _decoded(self, kind: Kind, entry: Entry) -> Object:
        if len(entry.value) > GLANCED_BYTES:
            return _object(kind, entry)
        known = self._glanced.get(entry.key)
        if known is None or known[0] is not entry or known[1] is not kind:
            if len(self._glanced) >= GLANCED:
                self._glanced.clear()
            known = self._glanced[entry.key] = (entry, kind, _object(kind, entry))
        return known[2]

    def owned(self, resource: Resource, uid: str, maybe: Bytes | None = None) -> list[Object]:
        if (found := self._cache(resource)) is None:
            return []
        kind, cache = found
        return [_object(kind, entry) for entry in cache.owned(uid) if maybe is None or maybe(entry.value)]

    def orphans(self, resource: Resource, namespace: str, labels: Selector) -> list[Object]:
        if (found := self._cache(resource)) is None:
            return []
        kind, cache = found
        key, value = _an_equality(labels)
        chosen = [
            entry
            for entry in cache.orphans(namespace)
            if (not key or entry.labels.get(key) == value) and selectors.matches(labels, entry.labels)
        ]
        return [_object(kind, entry) for entry in sorted(chosen, key=lambda entry: entry.key.name)]

    def every(self, resource: Resource) -> Iterator[Object]:
        if (found := self._cache(resource)) is None:
            return
        kind, cache = found
        for entry in cache:
            yield _object(kind, entry)

    def follow(self, resource: Resource, follower: Follower) -> None:
        known = resource in self._followers
        self._followers.setdefault(resource, []).append(follower)
        if self._tasks is not None:
            if known:
                self._tell_all(resource, (follower,))
            else:
                self._start(self._tasks, resource)

    async def run(self, tasks: TaskSet) -> None:
        self._tasks = tasks
        for resource in self._followers:
            self._start(tasks, resource)

    def _start(self, tasks: TaskSet, resource: Resource) -> None:
        watcher = self.begin(resource)
        tasks.start(self._watch(resource, watcher), name=f"watch-{resource.plural}")

    def begin(self, resource: Resource) -> Watcher | None:
        """Tell what exists, and watch what comes after; None for a kind that is not served."""
        if (found := self._cache(resource)) is None:
            return None
        watcher = found[1].watch(Filter(), self._registry.cache.revision)
        self._tell_all(resource, tuple(self._followers[resource]))
        return watcher

    def _tell_all(self, resource: Resource, followers: tuple[Follower, ...]) -> None:
        wanted = [follower.listener for follower in followers if follower.initial]
        if not wanted:
            return
        for document in self.every(resource):
            change = Change("ADDED", document)
            for listener in wanted:
                listener(change)

    async def _watch(self, resource: Resource, watcher: Watcher | None) -> None:
        while True:
            while watcher is None:
                await asyncio.sleep(APPEARS_SECONDS)
                watcher = self.begin(resource)
            try:
                while True:
                    await self._hand_out_all(resource, await watcher.take(_IDLE_SECONDS))
            except (DeadlineError, GoneError):
                log.warning("fell behind, looking at everything again", resource=resource.plural)
            finally:
                self.end(resource, watcher)
            watcher = self.begin(resource)
            for follower in tuple(self._followers[resource]):
                follower.lost()

    def end(self, resource: Resource, watcher: Watcher) -> None:
        if (found := self._cache(resource)) is not None:
            found[1].unwatch(watcher)

    async def _hand_out_all(self, resource: Resource, changes: list[tuple[str, Cached]]) -> None:
        for start in range(0, len(changes), SLICE):
            if start:
                await asyncio.sleep(0)
            self.hand_out(resource, changes[start : start + SLICE])

    def hand_out(self, resource: Resource, changes: list[tuple[str, Cached]]) -> None:
        """Tell the followers; a listener that fails does not keep it from the others."""
        if not changes or (found := self._cache(resource)) is None:
            return
        kind = found[0]
        for type_, changed in changes:
            old = None if changed.previous is None else _object(kind, changed.previous)
            tell(Change(type_, _object(kind, changed.entry), old), self._followers[resource])

    async def seen(self, resource: Resource, written: Object, seconds: float) -> bool:
        return True  # a write returns when the cache has it


def tell(change: Change, followers: list[Follower]) -> None:
    for follower in tuple(followers):
        try:
            follower.listener(change)
        except Exception:
            log.exception("a change could not be taken in", kind=change.new.get("kind"))


def _an_equality(labels: Selector) -> tuple[str, str]:
    """A label that has to have a value, the cheapest of all questions; "" where there is none."""
    return next(((one.key, next(iter(one.values))) for one in labels if one.operator == "="), ("", ""))


def _object(kind: Kind, entry: Entry) -> Object:
    return kind.from_storage(entry.object())
