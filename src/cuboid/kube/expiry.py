"""Events are forgotten an hour after they last happened, as in Kubernetes: else they would fill the store."""

from __future__ import annotations

import asyncio
import time

from cuboid.kube import kinds
from cuboid.kube.cache import Entry
from cuboid.kube.registry import DeleteOptions, Registry
from cuboid.lib.clock import parse_rfc3339
from cuboid.lib.errors import CuboidError
from cuboid.lib.log import get_log

log = get_log(__name__)

LIFE = 3600.0
"""Seconds that an event is kept."""
INTERVAL = 60.0
MAX_EVENTS = 20_000
"""Events kept at most; the oldest go first."""
_EVENT = kinds.builtin("Event")


def expired(entries: list[Entry], now: float) -> list[Entry]:
    """Those that are too old, and the oldest of too many."""
    aged = sorted(((last_seen(entry), entry) for entry in entries), key=lambda pair: pair[0])
    surplus = max(0, len(aged) - MAX_EVENTS)
    return [entry for place, (seen, entry) in enumerate(aged) if place < surplus or now - seen > LIFE]


def last_seen(entry: Entry) -> float:
    """When it last happened, seconds since the epoch. A client can not put that further ahead than one life."""
    document = entry.object()
    created = parse_rfc3339(document["metadata"]["creationTimestamp"])
    stamp = document.get("series", {}).get("lastObservedTime") or document.get("lastTimestamp")
    return min(max(parse_rfc3339(stamp), created), created + LIFE) if stamp else created


async def keep(registry: Registry) -> None:
    """Runs for as long as the server does."""
    while True:
        await asyncio.sleep(INTERVAL)
        for entry in expired(list(registry.of(_EVENT)), time.time()):
            try:
                await registry.delete(_EVENT, entry.key.namespace, entry.key.name, DeleteOptions())
            except CuboidError as error:
                log.info("an old event was not removed", event=entry.key.name, error=str(error))
