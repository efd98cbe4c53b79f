"""The watch cache: all objects in memory as the bytes that are stored, and every change told to those who watch.

Gets and lists never touch the disk. Fed by the store's batches, on one loop.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterator, Mapping

from cuboid.kube.entry import Change, Entry, FieldsOf, Filter, decode, encode, stored
from cuboid.kube.status import expired
from cuboid.kube.store import Event, Key, Store
from cuboid.kube.watchers import Audience, Backlog, Batch, Client, Watcher
from cuboid.lib.log import get_log

__all__ = [
    "Batch", "Cache", "Change", "Client", "Entry", "FieldsOf", "Filter", "ResourceCache", "ResourceId", "Watcher",
    "decode", "encode", "stored",
]  # fmt: skip

log = get_log(__name__)

WINDOW = 4_000
"""Events per resource that a watch can resume from."""
WINDOW_BYTES = 32 * 1024 * 1024
"""The same in stored bytes: one object of a megabyte that somebody writes all the time would fill the memory."""
ResourceId = tuple[str, str]  # group, resource
Place = tuple[str, str]  # namespace, name


def _name(entry: Entry) -> str:
    return entry.key.name


class ResourceCache:
    """The objects of one resource, by namespace and name."""

    def __init__(self, resource: ResourceId, fields_of: FieldsOf, backlog: Backlog) -> None:
        self.resource = resource
        self._fields_of = fields_of
        self._objects: dict[str, dict[str, Entry]] = {}
        self._owned: dict[str, set[Place]] = {}  # by uid of an owner
        self._orphans: dict[str, dict[str, Entry]] | None = None  # by namespace and name
        self._changes: deque[Change] = deque()
        self._size = 0  # of the changes, in stored bytes
        self._audience = Audience(backlog)
        self._oldest = 0  # changes up to this version are not in the window

    @property
    def count(self) -> int:
        return sum(len(found) for found in self._objects.values())

    def __iter__(self) -> Iterator[Entry]:
        """In no order. Nothing may be written in between."""
        for found in self._objects.values():
            yield from found.values()

    def get(self, namespace: str, name: str) -> Entry | None:
        found = self._objects.get(namespace)
        return None if found is None else found.get(name)

    def owned(self, uid: str) -> list[Entry]:
        """Those with an owner reference to this uid, in the order of namespace and name."""
        return [self._objects[namespace][name] for namespace, name in sorted(self._owned.get(uid, ()))]

    def select(self, wanted: Filter) -> list[Entry]:
        """In the order of namespace and name."""
        chosen: list[Entry] = []
        for namespace in (wanted.namespace,) if wanted.namespace else sorted(self._objects):
            found = self._objects.get(namespace, {})
            if wanted.name:
                entry = found.get(wanted.name)
                chosen += [] if entry is None else filter(wanted, (entry,))
            elif wanted.labels or wanted.fields:
                chosen += sorted(filter(wanted, found.values()), key=_name)
            else:
                chosen += [found[name] for name in sorted(found)]
        return chosen

    def orphans(self, namespace: str) -> Iterator[Entry]:
        """Those of a namespace without any owner, in no order. Indexed once somebody asks."""
        if self._orphans is None:
            self._orphans = {}
            for entry in self:
                self._note_orphan(entry)
        return iter(self._orphans.get(namespace, {}).values())

    def _note_orphan(self, entry: Entry, *, gone: bool = False) -> None:
        if self._orphans is None:
            return
        here = self._orphans.setdefault(entry.key.namespace, {})
        if entry.owners or gone:
            here.pop(entry.key.name, None)
        else:
            here[entry.key.name] = entry
        if not here:
            del self._orphans[entry.key.namespace]

    def watch(self, wanted: Filter, since: int) -> Watcher:
        """Changes after `since`, for a part of this process. GoneError when some of them are no longer known."""
        return self._audience.watch(wanted, self._since(since))

    def unwatch(self, watcher: Watcher) -> None:
        self._audience.unwatch(watcher)

    def join(self, wanted: Filter, since: int) -> Client:
        """Changes after `since` in batches that all clients with this filter share. GoneError as of `watch`."""
        return self._audience.join(wanted, self._since(since))

    def told(self, wanted: Filter, revision: int) -> int:
        """The version up to which clients with this filter know everything, when the cache is at `revision`."""
        return self._audience.told(wanted, revision)

    def leave(self, wanted: Filter, client: Client) -> None:
        self._audience.leave(wanted, client)

    def _since(self, version: int) -> list[Change]:
        if version < self._oldest:
            raise expired(version, self._oldest)
        newer: list[Change] = []
        for change in reversed(self._changes):
            if change.rv <= version:
                break
            newer.append(change)
        newer.reverse()
        return newer

    def wake(self) -> None:
        self._audience.wake()

    def end(self) -> None:
        """End every watch."""
        self._audience.end()

    def select_by(self, fields_of: FieldsOf) -> None:
        """Other fields can be selected by from now on."""
        self._fields_of = fields_of
        for entry in self:
            entry.select_by(fields_of)

    @property
    def watchers(self) -> int:
        return len(self._audience)

    def preload(self, key: Key, rv: int, value: bytes) -> None:
        self._put(Entry(key, rv, value, self._fields_of), None)

    def _put(self, entry: Entry, previous: Entry | None) -> None:
        key = entry.key
        if previous is not None and previous.owners != entry.owners:
            self._disown(previous)
        for uid in entry.owners:
            self._owned.setdefault(uid, set()).add((key.namespace, key.name))
        self._objects.setdefault(key.namespace, {})[key.name] = entry
        self._note_orphan(entry)

    def _remove(self, entry: Entry) -> None:
        found = self._objects[entry.key.namespace]
        del found[entry.key.name]
        if not found:
            del self._objects[entry.key.namespace]
        self._disown(entry)
        self._note_orphan(entry, gone=True)

    def _disown(self, entry: Entry) -> None:
        for uid in entry.owners:
            places = self._owned.get(uid, set())
            places.discard((entry.key.namespace, entry.key.name))
            if not places:
                self._owned.pop(uid, None)

    def remember(self, event: Event, before: dict[Place, Entry]) -> None:
        """At start: put a past event in the window without changing objects."""
        place = (event.key.namespace, event.key.name)
        entry = self.get(*place)
        if entry is None or entry.rv != event.rv:
            entry = Entry(event.key, event.rv, event.value, self._fields_of)
        self._record(Change(event.type, entry, before.get(place)))
        if event.type == "DELETED":
            before.pop(place, None)
        else:
            before[place] = entry

    def forget_before(self, rv: int) -> None:
        self._oldest = max(self._oldest, rv)

    def apply(self, event: Event) -> None:
        entry = Entry(event.key, event.rv, event.value, self._fields_of)
        previous = self.get(event.key.namespace, event.key.name)
        if event.type != "DELETED":
            self._put(entry, previous)
        elif previous is not None:
            self._remove(previous)
        change = Change(event.type, entry, previous)
        self._record(change)
        self._audience.tell(change)

    def _record(self, change: Change) -> None:
        self._changes.append(change)
        self._size += len(change.entry.value)
        while len(self._changes) > WINDOW or (self._size > WINDOW_BYTES and len(self._changes) > 1):
            gone = self._changes.popleft()
            self._size -= len(gone.entry.value)
            self._oldest = gone.rv


class Cache:
    """All resources, filled from a store and kept current by it."""

    def __init__(self, store: Store, resources: Mapping[ResourceId, FieldsOf]) -> None:
        self._backlog = Backlog()
        self._resources = {
            resource: ResourceCache(resource, fields_of, self._backlog) for resource, fields_of in resources.items()
        }
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
        made = self._resources[resource] = ResourceCache(resource, fields_of, self._backlog)
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
        before: dict[ResourceId, dict[Place, Entry]] = {}
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
                try:
                    cache.apply(event)
                except Exception:  # it must not take the others of its commit with it
                    log.exception("a change could not be taken in", resource=event.key.resource, name=event.key.name)
        for listener in self._listeners:
            listener(events)
