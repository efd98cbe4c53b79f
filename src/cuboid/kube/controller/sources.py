"""Two views of the API: the watch cache of the server's own process, and informers over HTTP.

Both tell changes to those who registered for a resource, and both let a writer wait until its own write is seen.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterable
from typing import Any, Protocol

from cuboid.kube import objects, selectors
from cuboid.kube.cache import Entry, Filter, ResourceCache
from cuboid.kube.client import Client, Resource
from cuboid.kube.controller.view import Change, View
from cuboid.kube.informer import Informer
from cuboid.kube.kind import Kind
from cuboid.kube.registry import Registry
from cuboid.kube.selectors import Selector
from cuboid.lib.aio import TaskSet
from cuboid.lib.errors import DeadlineError, GoneError, NotFoundError
from cuboid.lib.log import get_log

log = get_log(__name__)

Object = dict[str, Any]
Listener = Callable[[Change], None]


class Source(View, Protocol):
    """A view that tells its changes."""

    def follow(self, resource: Resource, listener: Listener) -> None:
        """Before `run`. The listener is called on the loop and must not block."""
        ...

    async def run(self, tasks: TaskSet) -> None:
        """Start following; returns when everything that exists is seen. What exists is told as ADDED."""
        ...

    async def seen(self, resource: Resource, written: Object, seconds: float) -> bool:
        """Wait until the view has this object at its version or a later one; False after `seconds`."""
        ...


class LocalSource:
    """Reads the server's watch cache: nothing is kept twice."""

    def __init__(self, registry: Registry) -> None:
        self._registry = registry
        self._listeners: dict[Resource, list[Listener]] = {}

    def _cache(self, resource: Resource) -> tuple[Kind, ResourceCache]:
        kind = self._registry.kinds.find(resource.group, resource.version, resource.plural)
        if kind is None:
            raise NotFoundError(f"{resource.plural} of {resource.group or 'the core group'} are not served")
        return kind, self._registry.of(kind)

    def get(self, resource: Resource, namespace: str, name: str) -> Object | None:
        kind, cache = self._cache(resource)
        entry = cache.get(namespace, name)
        return None if entry is None else _object(kind, entry)

    def select(self, resource: Resource, namespace: str = "", labels: Selector = ()) -> list[Object]:
        kind, cache = self._cache(resource)
        return [_object(kind, entry) for entry in cache.select(Filter(namespace, labels))]

    def owned(self, resource: Resource, uid: str) -> list[Object]:
        kind, cache = self._cache(resource)
        return [_object(kind, entry) for entry in cache.owned(uid)]

    def follow(self, resource: Resource, listener: Listener) -> None:
        self._listeners.setdefault(resource, []).append(listener)

    async def run(self, tasks: TaskSet) -> None:
        for resource, listeners in self._listeners.items():
            tasks.start(self._watch(resource, listeners), name=f"watch-{resource.plural}")
            kind, cache = self._cache(resource)
            for entry in cache.select(Filter()):
                change = Change("ADDED", _object(kind, entry))
                for listener in listeners:
                    listener(change)

    async def _watch(self, resource: Resource, listeners: Iterable[Listener]) -> None:
        kind, cache = self._cache(resource)
        since = self._registry.cache.revision
        while True:
            watcher = cache.watch(Filter(), since)
            try:
                while True:
                    for type_, changed in await watcher.take(3600.0):
                        since = changed.rv
                        old = None if changed.previous is None else _object(kind, changed.previous)
                        change = Change(type_, _object(kind, changed.entry), old)
                        for listener in listeners:
                            listener(change)
            except (DeadlineError, GoneError):
                log.warning("fell behind, looking at everything again", resource=resource.plural)
                since = self._registry.cache.revision
                for entry in cache.select(Filter()):
                    for listener in listeners:
                        listener(Change("MODIFIED", _object(kind, entry)))
            finally:
                cache.unwatch(watcher)

    async def seen(self, resource: Resource, written: Object, seconds: float) -> bool:
        return True  # a write returns when the cache has it


def _object(kind: Kind, entry: Entry) -> Object:
    return kind.from_storage(entry.object())


class RemoteSource:
    """Informers, one per resource."""

    def __init__(self, client: Client) -> None:
        self._client = client
        self._informers: dict[Resource, Informer] = {}
        self._listeners: dict[Resource, list[Listener]] = {}
        self._owned: dict[Resource, dict[str, dict[tuple[str, str], Object]]] = {}
        self._known: dict[Resource, dict[tuple[str, str], Object]] = {}
        self._moved = asyncio.Event()

    def follow(self, resource: Resource, listener: Listener) -> None:
        self._listeners.setdefault(resource, []).append(listener)
        if resource not in self._informers:
            self._informers[resource] = Informer(self._client, resource)

    def get(self, resource: Resource, namespace: str, name: str) -> Object | None:
        return self._known.get(resource, {}).get((namespace, name))

    def select(self, resource: Resource, namespace: str = "", labels: Selector = ()) -> list[Object]:
        found = self._known.get(resource, {})
        return [
            found[place]
            for place in sorted(found)
            if (not namespace or place[0] == namespace) and selectors.matches(labels, objects.labels(found[place]))
        ]

    def owned(self, resource: Resource, uid: str) -> list[Object]:
        found = self._owned.get(resource, {}).get(uid, {})
        return [found[place] for place in sorted(found)]

    async def run(self, tasks: TaskSet) -> None:
        for resource, informer in self._informers.items():
            tasks.start(self._watch(resource, informer), name=f"watch-{resource.plural}")
        for informer in self._informers.values():
            await informer.synced.wait()

    async def _watch(self, resource: Resource, informer: Informer) -> None:
        known = self._known.setdefault(resource, {})
        async for type_, document in informer.events():
            place = (objects.namespace(document), objects.name(document))
            old = known.pop(place, None)
            if old is not None:
                self._index(resource, place, old, present=False)
            if type_ != "DELETED":
                known[place] = document
                self._index(resource, place, document, present=True)
            for listener in self._listeners[resource]:
                listener(Change(type_, document, old))
            self._moved.set()

    def _index(self, resource: Resource, place: tuple[str, str], document: Object, *, present: bool) -> None:
        owned = self._owned.setdefault(resource, {})
        for ref in document["metadata"].get("ownerReferences", []):
            if present:
                owned.setdefault(ref["uid"], {})[place] = document
            else:
                owned.get(ref["uid"], {}).pop(place, None)

    async def seen(self, resource: Resource, written: Object, seconds: float) -> bool:
        if resource not in self._informers:
            return True
        end = asyncio.get_running_loop().time() + seconds
        while not self._has(resource, written):
            left = end - asyncio.get_running_loop().time()
            if left <= 0:
                return False
            self._moved.clear()
            try:
                async with asyncio.timeout(left):
                    await self._moved.wait()
            except TimeoutError:
                return False
        return True

    def _has(self, resource: Resource, written: Object) -> bool:
        found = self.get(resource, objects.namespace(written), objects.name(written))
        return found is not None and _version(found) >= _version(written)


def _version(document: Object) -> int:
    """Kubernetes compares them too where it has to: they are numbers that grow."""
    return int(document["metadata"].get("resourceVersion") or 0)
