"""A watch that goes on: lists, watches, resumes, lists again when it fell behind; what the objects are now, kept.

`Informer.events()` yields ADDED, MODIFIED and DELETED for every difference between what was known and what is, so
that a consumer which handles these three misses nothing, whatever happened to the connection in between.
"""

from __future__ import annotations

import asyncio
import random
from collections.abc import AsyncGenerator
from contextlib import aclosing
from typing import Any

from cuboid.kube.client import Client, Listed, Resource
from cuboid.lib.errors import DeadlineError, ExhaustedError, GoneError, UnavailableError
from cuboid.lib.log import get_log

log = get_log(__name__)

Object = dict[str, Any]
Event = tuple[str, Object]
FIRST_DELAY = 0.1
MAX_DELAY = 5.0
"""Longest pause between attempts to reach the server, seconds."""
_PAGE = 500


class Informer:
    """`objects` is what is known now, by (namespace, name). One consumer of `events`."""

    def __init__(
        self, client: Client, resource: Resource, namespace: str = "", *, labels: str = "", fields: str = ""
    ) -> None:
        self._client = client
        self._resource = resource
        self._namespace = namespace
        self._labels = labels
        self._fields = fields
        self._version = ""
        self.objects: dict[tuple[str, str], Object] = {}
        self.synced = asyncio.Event()
        """Set when the first list was taken in, before its events are all handed out."""

    @property
    def reached(self) -> int:
        """The version up to which everything is known."""
        return int(self._version or 0)

    async def events(self) -> AsyncGenerator[Event, None]:
        """For ever; UnauthorizedError, ForbiddenError and the like end it, a server that is away does not."""
        delay, now = FIRST_DELAY, asyncio.get_running_loop().time
        while True:
            began = now()
            try:
                if not self._version:
                    for event in await self._relist():
                        yield event
                async with aclosing(self._follow()) as changes:
                    async for event in changes:
                        yield event
            except GoneError:
                self._version = ""
            except (UnavailableError, DeadlineError, ExhaustedError) as error:
                if now() - began > MAX_DELAY:  # it had been there for a while
                    delay = FIRST_DELAY
                log.info("watching again soon", resource=self._resource.plural, error=str(error))
                await asyncio.sleep(delay * random.uniform(0.5, 1.0))
                delay = min(delay * 2, MAX_DELAY)

    async def _relist(self) -> list[Event]:
        listed = await self._all()
        found = {_place(item): item for item in listed.items}
        events: list[Event] = []
        for place, old in self.objects.items():
            new = found.get(place)
            if new is None or _uid(new) != _uid(old):
                events.append(("DELETED", old))
        for place, new in found.items():
            known = self.objects.get(place)
            if known is None or _uid(known) != _uid(new):
                events.append(("ADDED", new))
            elif known["metadata"].get("resourceVersion") != new["metadata"].get("resourceVersion"):
                events.append(("MODIFIED", new))
        self.objects = found
        self._version = listed.resource_version
        self.synced.set()
        return events

    async def _all(self) -> Listed:
        items: list[Object] = []
        token = ""
        while True:
            page = await self._client.list(
                self._resource, self._namespace, labels=self._labels, fields=self._fields, limit=_PAGE, token=token
            )
            items += page.items
            token = page.token
            if not token:
                return Listed(items, page.resource_version)

    async def _follow(self) -> AsyncGenerator[Event, None]:
        watch = self._client.watch(
            self._resource, self._namespace, since=self._version, labels=self._labels, fields=self._fields
        )
        async with aclosing(watch) as events:
            async for kind, document in events:
                self._version = document["metadata"]["resourceVersion"]
                if kind == "BOOKMARK":
                    continue
                if kind == "DELETED":
                    self.objects.pop(_place(document), None)
                else:
                    self.objects[_place(document)] = document
                yield kind, document


def _place(item: Object) -> tuple[str, str]:
    metadata = item["metadata"]
    return metadata.get("namespace", ""), metadata["name"]


def _uid(item: Object) -> str:
    return str(item["metadata"].get("uid", ""))
