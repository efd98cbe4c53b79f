"""A view of an API server elsewhere: one informer per resource."""

from __future__ import annotations

import asyncio
import copy
from collections.abc import Iterator
from contextlib import suppress
from typing import Any

from cuboid.kube import objects, selectors
from cuboid.kube.client import Client, Resource
from cuboid.kube.controller.sources import Follower, tell
from cuboid.kube.controller.view import Bytes, Change
from cuboid.kube.informer import Informer
from cuboid.kube.selectors import Selector
from cuboid.lib.aio import TaskSet
from cuboid.lib.errors import CuboidError
from cuboid.lib.log import get_log

log = get_log(__name__)

Object = dict[str, Any]
Place = tuple[str, str]
APPEARS_SECONDS = 10.0
"""Between two attempts at a kind that is not served, or that may not be read."""
BLIND_SECONDS = 5.0
"""How long a write is waited for whose kind can not be watched now."""
LOOK_SECONDS = 1.0
"""A list may have come that shows nothing new: so often is looked."""


class RemoteSource:
    """Every resource that is followed is kept whole, as Python dictionaries. Answers are copies."""

    def __init__(self, client: Client) -> None:
        self._client = client
        self._followers: dict[Resource, list[Follower]] = {}
        self._known: dict[Resource, dict[Place, Object]] = {}
        self._owned: dict[Resource, dict[str, dict[Place, Object]]] = {}
        self._ready: dict[Resource, asyncio.Event] = {}
        self._whole: dict[Resource, Informer] = {}  # those whose first list is taken in
        self._tasks: TaskSet | None = None
        self._moved = asyncio.Event()

    def follow(self, resource: Resource, follower: Follower) -> None:
        known = resource in self._followers
        self._followers.setdefault(resource, []).append(follower)
        if self._tasks is None:
            return
        if not known:
            self._start(self._tasks, resource)
        elif follower.initial:
            for document in self.every(resource):
                follower.listener(Change("ADDED", document))

    def get(self, resource: Resource, namespace: str, name: str) -> Object | None:
        return copy.deepcopy(self._known.get(resource, {}).get(("" if resource.cluster else namespace, name)))

    def select(self, resource: Resource, namespace: str = "", labels: Selector = ()) -> list[Object]:
        found = self._known.get(resource, {})
        places = [
            place
            for place, document in found.items()
            if (not namespace or place[0] == namespace) and selectors.matches(labels, objects.labels(document))
        ]
        return [copy.deepcopy(found[place]) for place in sorted(places)]

    def glance(self, resource: Resource, namespace: str = "") -> list[Object]:
        found = self._known.get(resource, {})
        return [found[place] for place in sorted(found) if not namespace or place[0] == namespace]

    def orphans(self, resource: Resource, namespace: str, labels: Selector) -> list[Object]:
        found = self._known.get(resource, {})
        places = [
            place
            for place, document in found.items()
            if place[0] == namespace
            and not document["metadata"].get("ownerReferences")
            and selectors.matches(labels, objects.labels(document))
        ]
        return [copy.deepcopy(found[place]) for place in sorted(places)]

    def owned(self, resource: Resource, uid: str, maybe: Bytes | None = None) -> list[Object]:
        found = self._owned.get(resource, {}).get(uid, {})
        return [copy.deepcopy(found[place]) for place in sorted(found)]

    def every(self, resource: Resource) -> Iterator[Object]:
        for document in self._known.get(resource, {}).values():
            yield copy.deepcopy(document)

    async def run(self, tasks: TaskSet) -> None:
        self._tasks = tasks
        for resource in self._followers:
            self._start(tasks, resource)
        for ready in tuple(self._ready.values()):
            await ready.wait()

    def _start(self, tasks: TaskSet, resource: Resource) -> None:
        self._ready[resource] = asyncio.Event()
        tasks.start(self._keep(tasks, resource), name=f"watch-{resource.plural}")

    async def _keep(self, tasks: TaskSet, resource: Resource) -> None:
        while True:
            informer = Informer(self._client, resource)
            syncing = tasks.start(self._synced(resource, informer), name=f"sync-{resource.plural}")
            try:
                async for type_, document in informer.events():
                    self._take_whole(resource, informer)
                    self._take_in(resource, type_, document)
            except CuboidError as error:
                log.warning("can not be watched now", resource=resource.plural, error=str(error))
            finally:
                syncing.cancel()
            self._ready[resource].set()  # who needs the others is not kept waiting
            self._whole.pop(resource, None)
            await asyncio.sleep(APPEARS_SECONDS)

    async def _synced(self, resource: Resource, informer: Informer) -> None:
        await informer.synced.wait()
        self._take_whole(resource, informer)

    def _take_whole(self, resource: Resource, informer: Informer) -> None:
        """The first list of an informer, in one piece: nobody may plan on half of it."""
        if resource in self._whole:
            return
        self._whole[resource] = informer
        first, known = resource not in self._known, self._known.setdefault(resource, {})
        changes = [("DELETED", known[place]) for place in known if place not in informer.objects]
        changes += [("ADDED", document) for document in informer.objects.values()]
        told = [one for one in self._followers[resource] if one.initial or not first]
        made = [change for type_, document in changes if (change := self._noted(resource, type_, document))]
        for change in made:
            tell(change, told)
        self._ready[resource].set()
        self._moved.set()

    def _take_in(self, resource: Resource, type_: str, document: Object) -> None:
        if change := self._noted(resource, type_, document):
            tell(change, self._followers[resource])
            self._moved.set()

    def _noted(self, resource: Resource, type_: str, document: Object) -> Change | None:
        """None for what is known already."""
        known, place = self._known[resource], (objects.namespace(document), objects.name(document))
        old = known.get(place)
        if type_ == "DELETED":
            if old is None:
                return None
            del known[place]
        elif old is not None and _version(old) == _version(document):
            return None
        else:
            known[place] = document
        if old is not None:
            self._index(resource, place, old, present=False)
        if type_ != "DELETED":
            self._index(resource, place, document, present=True)
        return Change(type_, copy.deepcopy(document), copy.deepcopy(old))

    def _index(self, resource: Resource, place: Place, document: Object, *, present: bool) -> None:
        owned = self._owned.setdefault(resource, {})
        for ref in document["metadata"].get("ownerReferences", []):
            if present:
                owned.setdefault(ref["uid"], {})[place] = document
            elif places := owned.get(ref["uid"]):
                places.pop(place, None)
                if not places:
                    del owned[ref["uid"]]

    async def seen(self, resource: Resource, written: Object, seconds: float) -> bool:
        if resource not in self._ready:
            return True
        began = asyncio.get_running_loop().time()
        while not self._has(resource, written):
            waited = asyncio.get_running_loop().time() - began
            if waited >= (seconds if resource in self._whole else min(seconds, BLIND_SECONDS)):
                return False
            self._moved.clear()
            with suppress(TimeoutError):
                async with asyncio.timeout(min(seconds - waited, LOOK_SECONDS)):
                    await self._moved.wait()
        return True

    def _has(self, resource: Resource, written: Object) -> bool:
        """Also what is not there any more: it was seen, or went unseen, when everything since is known."""
        found = self._known.get(resource, {}).get((objects.namespace(written), objects.name(written)))
        if objects.deleting(written):
            return found is None or objects.uid(found) != objects.uid(written) or objects.deleting(found)
        informer = self._whole.get(resource)
        reached = informer.reached if informer is not None else 0
        return max(_version(found) if found is not None else 0, reached) >= _version(written)


def _version(document: Object) -> int:
    """Kubernetes compares them too where it has to: they are numbers that grow."""
    return int(document["metadata"].get("resourceVersion") or 0)
