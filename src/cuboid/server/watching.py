"""The watch as HTTP: an endless body of JSON lines."""

from __future__ import annotations

import random
import time
from collections.abc import AsyncIterator, Iterator
from dataclasses import dataclass
from itertools import chain

from starlette.requests import Request
from starlette.responses import StreamingResponse

from cuboid.kube import status, versions
from cuboid.kube.cache import Batch, Client, Filter, ResourceCache, encode
from cuboid.kube.kinds import Kind
from cuboid.kube.status import to_status
from cuboid.kube.watchers import Seen
from cuboid.lib.errors import DeadlineError, GoneError
from cuboid.server.context import Context, flag, number
from cuboid.server.protocol import Wire, frame, wire_of
from cuboid.server.render import JSON, Renderer, line, pieces


def watch(request: Request, context: Context, kind: Kind, wanted: Filter, render: Renderer) -> StreamingResponse:
    """From a version, or with none (or "0") everything that exists as ADDED and then what changes."""
    query = request.query_params
    registry = context.registry
    version = registry.parse_version(query.get("resourceVersion", ""))
    initial = flag(query, "sendInitialEvents")
    asked = initial if "sendInitialEvents" in query else None
    versions.check_watch(query.get("resourceVersionMatch", ""), query.get("continue", ""), asked)
    cache = registry.of(kind)
    first: Iterator[bytes] = iter(())
    since = version
    if initial or not version:
        since = registry.cache.revision
        first = (line("ADDED", render.entry(entry)) for entry in cache.select(wanted))
    if initial and flag(query, "allowWatchBookmarks"):
        first = chain(first, (render.bookmark(since, initial_end=True),))
    seconds = number(query.get("timeoutSeconds") or 0, "timeoutSeconds")
    life = float(seconds) if seconds > 0 else context.settings.watch_seconds * random.uniform(1, 2)
    bookmarks = flag(query, "allowWatchBookmarks")
    stream = _Stream(context, cache, wanted, render, since, time.monotonic() + life, bookmarks, wire_of(request.scope))
    return StreamingResponse(stream.lines(first), media_type=JSON)


@dataclass
class _Stream:
    """The watcher lives as long as the generator runs: a client that is gone before the first line leaves none."""

    context: Context
    cache: ResourceCache
    wanted: Filter
    render: Renderer
    since: int
    until: float
    bookmarks: bool
    wire: Wire | None

    async def lines(self, first: Iterator[bytes]) -> AsyncIterator[bytes]:
        client: Client | None = None
        try:
            newest = self.context.registry.cache.revision
            if self.since > newest:  # of a store that was replaced: waiting for that version would lose events
                raise status.expired(self.since, newest)
            client = self.cache.join(self.wanted, self.since)
            for piece in pieces(first):
                yield piece
            async for chunk in self._changes(client):
                yield chunk
        except (DeadlineError, GoneError) as error:
            if client is not None and client.ended:
                return  # the kind is served no more: as in Kubernetes the stream just ends
            yield line("ERROR", encode(to_status(GoneError(str(error), reason="Expired"))[1]))
        finally:
            if client is not None:
                self.cache.leave(self.wanted, client)

    async def _changes(self, client: Client) -> AsyncIterator[bytes]:
        interval = self.context.settings.bookmark_seconds
        marked = time.monotonic()
        client.direct = self._direct
        while not self.context.stopping and (left := self.until - time.monotonic()) > 0:
            batch = await client.take(min(left, interval))
            if batch is not None:
                yield batch.rendered(self.render.same, self.render.events)
            elif self.bookmarks and time.monotonic() - marked >= interval:
                marked = time.monotonic()
                yield self.render.bookmark(self.cache.told(self.wanted, self.context.registry.cache.revision))

    def _direct(self, batch: Batch) -> bool:
        """Called instead of a turn of this task when nothing else is to be sent."""
        if self.wire is None:
            return False
        return self.wire.write(batch.rendered((self.render.same, "framed"), self._framed))

    def _framed(self, changes: list[Seen]) -> bytes:
        return frame(self.render.events(changes))
