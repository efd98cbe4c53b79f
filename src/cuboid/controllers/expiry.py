"""Events are forgotten an hour after they last happened, as in Kubernetes: else they would fill the store.

Each namespace by itself: one whose events flood does not push out those of others.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from cuboid.controllers.common import born, moment
from cuboid.kube import objects
from cuboid.kube.client import EVENTS, NAMESPACES
from cuboid.kube.controller.instructions import NOTHING, Delete, Object, Plan, Together
from cuboid.kube.controller.view import Key, View, Watch, itself
from cuboid.kube.objects import Raw

LIFE = 3600.0
"""Seconds that an event is kept."""
INTERVAL = 60.0
"""Seconds between two looks at a namespace."""
MAX_EVENTS = 5_000
"""Events of one namespace that are kept at most; the oldest go first."""
_MOST = 500


class EventExpiry:
    """Keys are namespaces."""

    name = "event-expiry"
    watches = (Watch(NAMESPACES, itself, initial=True),)

    def plan(self, key: Key, view: View, now: float) -> Plan:
        if view.get(NAMESPACES, "", key.name) is None:
            return NOTHING
        old = expired(view.select(EVENTS, key.name), now)
        gone = tuple(Delete(EVENTS, objects.name(one), key.name, objects.uid(one)) for one in old[:_MOST])
        return Plan((Together(gone),) if gone else (), again=0.0 if len(old) > _MOST else INTERVAL)


def expired(events: Iterable[Object], now: float) -> Sequence[Object]:
    """Those that are too old, and the oldest of too many."""
    aged = sorted(((last_seen(event), event) for event in events), key=lambda pair: pair[0])
    surplus = max(0, len(aged) - MAX_EVENTS)
    return [event for place, (seen, event) in enumerate(aged) if place < surplus or now - seen > LIFE]


def last_seen(event: Raw) -> float:
    """When it last happened, seconds since the epoch. A client can not put that further ahead than one life."""
    created = born(event)
    said = moment((event.get("series") or {}).get("lastObservedTime") or event.get("lastTimestamp"))
    return created if said is None else min(max(said, created), created + LIFE)
