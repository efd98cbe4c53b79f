"""Definitions put into effect: their kinds are served from the moment that they are stored, and end with them.

What is served changes in the same turn of the event loop in which a definition gets into the watch cache; its status
is written after that. A definition that is deleted takes its objects along first (its finalizer waits for them).
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Iterator, Mapping
from typing import Any

from cuboid.kube import kinds
from cuboid.kube.cache import Filter, decode
from cuboid.kube.crd import custom, names
from cuboid.kube.crd.custom import CustomStrategy
from cuboid.kube.crd.definition import FINALIZER
from cuboid.kube.kind import Kind
from cuboid.kube.kinds import Kinds
from cuboid.kube.registry import DeleteOptions, Registry
from cuboid.kube.store import Event, Store
from cuboid.kube.strategy import Object
from cuboid.lib.aio import TaskSet
from cuboid.lib.clock import rfc3339
from cuboid.lib.errors import ConflictError, CuboidError, NotFoundError
from cuboid.lib.log import get_log

log = get_log(__name__)

RECHECK = 0.5
"""Seconds after which a definition whose objects are ending is looked at again."""
_KIND = kinds.builtin("CustomResourceDefinition", "apiextensions.k8s.io")
_TERMINATING = ("Terminating", "True", "InstanceDeletionInProgress", "CustomResource deletion is in progress")


def restore(store: Store, served: Kinds) -> None:
    """At start, before the watch cache is filled: serve what was served, so that its objects are in the cache."""
    documents = [decode(value) for value in store.values(*_KIND.stored_as)]
    documents.sort(key=lambda document: not names.established(document))
    for document in documents:
        group = document["spec"]["group"]
        taken = [_names_of(kind) for kind in served if kind.group == group]
        if not names.established(document) and names.conflict(document["spec"]["names"], taken)[0]:
            continue
        try:
            for kind in custom.rows(document):
                served.add(kind)
        except (CuboidError, KeyError, StopIteration) as error:
            log.error("a definition can not be served", name=document["metadata"]["name"], error=str(error))


class Definitions:
    """Made once the watch cache is filled; `keep` runs for as long as the server does."""

    def __init__(self, registry: Registry) -> None:
        self._registry = registry
        self._rows: dict[str, list[Kind]] = {}  # by the name of the definition
        self._versions: dict[str, Any] = {}  # what of a definition decides how it is served
        self._dirty: dict[str, None] = {}
        self._wake = asyncio.Event()
        registry.cache.listen(self._apply)
        for entry in registry.of(_KIND):
            self._take(entry.object())

    # --- what is served ----------------------------------------------------------------------------------------------

    def _apply(self, events: list[Event]) -> None:
        for event in events:
            if (event.key.group, event.key.resource) != _KIND.stored_as:
                continue
            try:
                if event.type == "DELETED":
                    self._withdraw(event.key.name)
                else:
                    self._take(decode(event.value))
            except Exception:  # the cache must go on; the definition says that it is not established
                log.exception("a definition can not be served", name=event.key.name)

    def _take(self, document: Object) -> None:
        name = document["metadata"]["name"]
        self._mark(name)
        free = not names.conflict(document["spec"]["names"], self._taken(document))[0]
        if free or names.established(document):
            self._serve(name, document)
        if document["metadata"].get("deletionTimestamp"):
            for kind in self._rows.get(name, ()):
                if isinstance(kind.strategy, CustomStrategy):
                    kind.strategy.ending = True

    def _taken(self, document: Object) -> Iterator[Mapping[str, Any]]:
        """Names of others in its group."""
        group, mine = document["spec"]["group"], document["metadata"]["name"]
        for name, rows in self._rows.items():
            if name != mine and rows and rows[0].group == group:
                yield from map(_names_of, rows[:1])
        custom_ones = {id(kind) for rows in self._rows.values() for kind in rows}
        for kind in self._registry.kinds:
            if kind.group == group and id(kind) not in custom_ones and kind.custom_schema is None:
                yield _names_of(kind)

    def _serve(self, name: str, document: Object) -> None:
        decisive = (document["spec"], document["metadata"].get("generation", 1) > 1)
        if self._versions.get(name) == decisive:
            return
        registry, made = self._registry, custom.rows(document)
        gone = {(kind.version, kind.plural): kind for kind in self._rows.get(name, ())}
        if made:
            registry.cache.add(made[0].stored_as, custom.fields_of(made))
        for kind in made:
            registry.kinds.add(kind)
            gone.pop((kind.version, kind.plural), None)
        for kind in gone.values():
            registry.kinds.remove(kind)
        self._rows[name], self._versions[name] = made, decisive

    def _withdraw(self, name: str) -> None:
        rows = self._rows.pop(name, [])
        self._versions.pop(name, None)
        for kind in rows:
            self._registry.kinds.remove(kind)
        if rows:
            self._registry.cache.remove(rows[0].stored_as)
        for entry in self._registry.of(_KIND):  # whose names may be free now
            self._mark(entry.key.name)

    def _mark(self, name: str) -> None:
        self._dirty[name] = None
        self._wake.set()

    # --- what is written ---------------------------------------------------------------------------------------------

    async def keep(self) -> None:
        async with TaskSet("definitions") as tasks:
            busy: set[str] = set()
            while True:
                await self._wake.wait()
                self._wake.clear()
                waiting, self._dirty = self._dirty, {}
                for name in waiting:
                    if name not in busy:
                        busy.add(name)
                        tasks.start(self._settle(name, busy), name=name)

    async def _settle(self, name: str, busy: set[str]) -> None:
        """Until its status says what is, or it is gone. What fails (a full disk) is tried again."""
        try:
            while True:
                self._dirty.pop(name, None)
                try:
                    if await self._settled(name):
                        break
                except Exception:
                    log.exception("a definition is not settled", name=name)
                await asyncio.sleep(RECHECK)
        finally:
            busy.discard(name)
            if name in self._dirty:  # changed behind the last look
                self._wake.set()

    async def _settled(self, name: str) -> bool:
        """Do what there is to do; False to be asked again later."""
        while (entry := self._registry.of(_KIND).get("", name)) is not None:
            document = entry.object()
            if document["metadata"].get("deletionTimestamp"):
                new, done = await self._ended(name, document)
            else:
                status = names.judged(document, self._taken(document), rfc3339(time.time()))
                new, done = {**document, "status": status}, True
            if new == document:
                return done
            try:
                await self._registry.replace(_KIND, entry, new)
            except (ConflictError, NotFoundError):
                continue  # somebody else wrote it in between
        return True

    async def _ended(self, name: str, document: Object) -> tuple[Object, bool]:
        """What a definition that is deleted should look like, and whether that is all."""
        metadata, status = document["metadata"], document.get("status", {})
        if FINALIZER not in metadata.get("finalizers", ()):
            return document, True
        if await self._emptied(name):
            kept = [item for item in metadata["finalizers"] if item != FINALIZER]
            return {**document, "metadata": {**metadata, "finalizers": kept}}, True
        conditions = names.with_condition(status.get("conditions", []), _TERMINATING, rfc3339(time.time()))
        return {**document, "status": {**status, "conditions": conditions}}, False

    async def _emptied(self, name: str) -> bool:
        """Delete its objects; whether none is left."""
        rows = self._rows.get(name)
        if not rows:
            return True
        kind = rows[0]
        try:
            await self._registry.delete_collection(kind, Filter(), DeleteOptions())
        except CuboidError as error:
            log.warning("objects of a definition are not deleted", name=name, error=str(error))
        return not self._registry.of(kind).count


def _names_of(kind: Kind) -> Mapping[str, Any]:
    return {
        "plural": kind.plural,
        "singular": kind.singular,
        "shortNames": kind.short_names,
        "kind": kind.kind,
        "listKind": kind.list_kind,
    }
