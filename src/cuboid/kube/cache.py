"""The watch cache: all objects in memory as the bytes that go out, and every change fanned out to watchers.

Gets and lists never touch the disk. An event is encoded once, however many watchers it has. A watcher that does not
keep up is cut off (its client lists again); the others never wait for it. Fed by the store's batches, on one loop.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Mapping
from typing import Any

import msgspec

from cuboid.kube import selectors
from cuboid.kube.selectors import Selector
from cuboid.kube.status import expired
from cuboid.kube.store import Event, Key, Store
from cuboid.lib.errors import DeadlineError, GoneError

WINDOW = 1_000
"""Events per resource that a watch can resume from."""
BACKLOG = 1_000
"""Events a watcher may lag behind before it is cut off."""
encode = msgspec.json.encode
decode = msgspec.json.decode
ResourceId = tuple[str, str]  # group, resource
FieldsOf = Callable[[Mapping[str, Any]], dict[str, str]]


class Entry:
    """One object: its bytes, and what selectors ask for."""

    __slots__ = ("fields", "key", "labels", "owners", "raw", "rv")

    def __init__(self, key: Key, rv: int, value: bytes, fields_of: FieldsOf) -> None:
        document = decode(value)
        metadata = document["metadata"]
        metadata["resourceVersion"] = str(rv)
        self.key = key
        self.rv = rv
        self.raw = encode(document)
        self.labels: dict[str, str] = metadata.get("labels") or {}
        self.owners: tuple[str, ...] = tuple(ref.get("uid", "") for ref in metadata.get("ownerReferences") or ())
        self.fields = fields_of(document)

    def object(self) -> dict[str, Any]:
        """A fresh copy."""
        document: dict[str, Any] = decode(self.raw)
        return document


class Filter:
    """What of a resource is wanted: a namespace ("" for all) and selectors."""

    __slots__ = ("fields", "labels", "namespace")

    def __init__(self, namespace: str = "", labels: Selector = (), fields: Selector = ()) -> None:
        self.namespace = namespace
        self.labels = labels
        self.fields = fields

    def __call__(self, entry: Entry) -> bool:
        return (
            (not self.namespace or entry.key.namespace == self.namespace)
            and selectors.matches(self.labels, entry.labels)
            and selectors.match_fields(self.fields, entry.fields)
        )


class Change:
    """One event of one resource, with the state before it. Its line on the wire is made at most once per type."""

    __slots__ = ("_lines", "entry", "previous", "rv", "type")

    def __init__(self, kind: str, entry: Entry, previous: Entry | None) -> None:
        self.type = kind
        self.entry = entry
        self.previous = previous
        self.rv = entry.rv
        self._lines: dict[str, bytes] = {}

    def seen_by(self, wanted: Filter) -> str:
        """The type for a watcher with this filter, "" for no event: leaving a selection is a deletion."""
        now = self.type != "DELETED" and wanted(self.entry)
        before = wanted(self.previous) if self.previous is not None else self.type != "ADDED" and wanted(self.entry)
        if now:
            return "MODIFIED" if before else "ADDED"
        return "DELETED" if before else ""

    def line(self, kind: str) -> bytes:
        if kind not in self._lines:
            self._lines[kind] = b'{"type":"%s","object":%s}\n' % (kind.encode(), self.entry.raw)
        return self._lines[kind]


class Watcher:
    """A bounded queue of changes. `take` waits for the next ones; SlowWatcher ends it."""

    def __init__(self, wanted: Filter, backlog: Iterable[Change]) -> None:
        self.wanted = wanted
        self._pending: deque[tuple[str, Change]] = deque()
        self._wake = asyncio.Event()
        self.lost = False
        self.ended = False
        for change in backlog:
            self.offer(change)

    def offer(self, change: Change) -> None:
        kind = change.seen_by(self.wanted)
        if not kind or self.lost:
            return
        if len(self._pending) >= BACKLOG:
            self.lost = True
            self._pending.clear()
        else:
            self._pending.append((kind, change))
        self._wake.set()

    def wake(self) -> None:
        """Let `take` return now, though nothing is pending."""
        self._wake.set()

    def end(self) -> None:
        """What is watched is no longer served: `take` gives what is pending and raises GoneError from then on."""
        self.ended = True
        self._wake.set()

    async def take(self, timeout: float) -> list[tuple[str, Change]]:
        """All that is pending; empty when nothing came in `timeout` seconds.

        DeadlineError when it was cut off, GoneError when the resource is no longer served."""
        if not self._pending and self.ended:
            raise GoneError("what this watch was for is no longer served", reason="Expired")
        if not self._pending and not self.lost:
            self._wake.clear()
            try:
                async with asyncio.timeout(timeout):
                    await self._wake.wait()
            except TimeoutError:
                return []
        if self.lost:
            raise DeadlineError("this watch was too slow and is cut off", hint="list again and watch from there")
        taken = list(self._pending)
        self._pending.clear()
        return taken


class ResourceCache:
    """The objects of one resource. `revision` is the newest version that the whole cache has seen."""

    def __init__(self, resource: ResourceId, fields_of: FieldsOf) -> None:
        self.resource = resource
        self._fields_of = fields_of
        self.objects: dict[tuple[str, str], Entry] = {}
        self._owned: dict[str, set[tuple[str, str]]] = {}  # by uid of an owner
        self._changes: deque[Change] = deque(maxlen=WINDOW)
        self._watchers: set[Watcher] = set()
        self._oldest = 0  # changes up to this version are not in the window

    def get(self, namespace: str, name: str) -> Entry | None:
        return self.objects.get((namespace, name))

    def owned(self, uid: str) -> list[Entry]:
        """Those with an owner reference to this uid, in the order of namespace and name."""
        return [self.objects[place] for place in sorted(self._owned.get(uid, ()))]

    def select(self, wanted: Filter) -> list[Entry]:
        """In the order of namespace and name."""
        found = [entry for entry in self.objects.values() if wanted(entry)]
        found.sort(key=lambda entry: (entry.key.namespace, entry.key.name))
        return found

    def watch(self, wanted: Filter, since: int) -> Watcher:
        """Changes after `since`. GoneError when some of them are no longer known."""
        if since < self._oldest:
            raise expired(since, self._oldest)
        watcher = Watcher(wanted, (change for change in self._changes if change.rv > since))
        self._watchers.add(watcher)
        return watcher

    def unwatch(self, watcher: Watcher) -> None:
        self._watchers.discard(watcher)

    def wake(self) -> None:
        for watcher in self._watchers:
            watcher.wake()

    def end(self) -> None:
        """End every watch."""
        for watcher in self._watchers:
            watcher.end()

    def select_by(self, fields_of: FieldsOf) -> None:
        """Other fields can be selected by from now on."""
        self._fields_of = fields_of
        for entry in self.objects.values():
            entry.fields = fields_of(entry.object())

    @property
    def watchers(self) -> int:
        return len(self._watchers)

    def preload(self, key: Key, rv: int, value: bytes) -> None:
        self._put(Entry(key, rv, value, self._fields_of), None)

    def _put(self, entry: Entry, previous: Entry | None) -> None:
        place = (entry.key.namespace, entry.key.name)
        if previous is not None and previous.owners != entry.owners:
            self._disown(place, previous)
        for uid in entry.owners:
            self._owned.setdefault(uid, set()).add(place)
        self.objects[place] = entry

    def _disown(self, place: tuple[str, str], entry: Entry) -> None:
        for uid in entry.owners:
            places = self._owned.get(uid, set())
            places.discard(place)
            if not places:
                self._owned.pop(uid, None)

    def remember(self, event: Event, before: dict[tuple[str, str], Entry]) -> None:
        """At start: put a past event in the window without changing objects."""
        place = (event.key.namespace, event.key.name)
        entry = Entry(event.key, event.rv, event.value, self._fields_of)
        self._record(Change(event.type, entry, before.get(place)))
        if event.type == "DELETED":
            before.pop(place, None)
        else:
            before[place] = entry

    def forget_before(self, rv: int) -> None:
        self._oldest = max(self._oldest, rv)

    def apply(self, event: Event) -> None:
        place = (event.key.namespace, event.key.name)
        entry = Entry(event.key, event.rv, event.value, self._fields_of)
        previous = self.objects.get(place)
        if event.type == "DELETED":
            if self.objects.pop(place, None) is not None and previous is not None:
                self._disown(place, previous)
        else:
            self._put(entry, previous)
        change = Change(event.type, entry, previous)
        self._record(change)
        for watcher in tuple(self._watchers):
            watcher.offer(change)

    def _record(self, change: Change) -> None:
        if len(self._changes) == WINDOW:
            self._oldest = self._changes[0].rv
        self._changes.append(change)


class Cache:
    """All resources, filled from a store and kept current by it."""

    def __init__(self, store: Store, resources: Mapping[ResourceId, FieldsOf]) -> None:
        self._resources = {resource: ResourceCache(resource, fields_of) for resource, fields_of in resources.items()}
        self._listeners: list[Callable[[list[Event]], None]] = []
        self.revision = store.revision
        self._load(store)
        store.listen(self.apply)

    def __getitem__(self, resource: ResourceId) -> ResourceCache:
        return self._resources[resource]

    def __iter__(self) -> Iterator[ResourceCache]:
        return iter(self._resources.values())

    def listen(self, listener: Callable[[list[Event]], None]) -> None:
        """Called with every batch of events once it is in the cache, before those who wrote it go on."""
        self._listeners.append(listener)

    def add(self, resource: ResourceId, fields_of: FieldsOf) -> None:
        """Keep another resource, of which nothing is stored yet; of one that is kept, select by other fields."""
        if resource in self._resources:
            self._resources[resource].select_by(fields_of)
            return
        made = self._resources[resource] = ResourceCache(resource, fields_of)
        made.forget_before(self.revision)

    def remove(self, resource: ResourceId) -> None:
        """Forget a resource and end its watches."""
        if (gone := self._resources.pop(resource, None)) is not None:
            gone.end()

    def _load(self, store: Store) -> None:
        for key, rv, value in store.objects():
            if cache := self._resources.get((key.group, key.resource)):
                cache.preload(key, rv, value)
        for cache in self._resources.values():
            cache.forget_before(store.compacted)
        before: dict[ResourceId, dict[tuple[str, str], Entry]] = {}
        for event in store.events():
            resource = (event.key.group, event.key.resource)
            if cache := self._resources.get(resource):
                cache.remember(event, before.setdefault(resource, {}))

    def wake(self) -> None:
        """Let every watcher look at what its owner has to say (the server ends)."""
        for cache in self._resources.values():
            cache.wake()

    def apply(self, events: list[Event]) -> None:
        for event in events:
            self.revision = event.rv
            if cache := self._resources.get((event.key.group, event.key.resource)):
                cache.apply(event)
        for listener in self._listeners:
            listener(events)
