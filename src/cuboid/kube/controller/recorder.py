"""Events about objects: written in the background, counted instead of repeated, and bounded.

Source of the idea: k8s.io/client-go/tools/record (aggregation after ten similar ones, 25 at once about one object, then
one in five minutes).
"""

from __future__ import annotations

import asyncio
import time
from collections import OrderedDict, deque
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

from cuboid.kube import objects
from cuboid.kube.client import EVENTS, MERGE, Client
from cuboid.lib.clock import rfc3339
from cuboid.lib.errors import CuboidError, NotFoundError
from cuboid.lib.log import get_log

log = get_log(__name__)

Object = dict[str, Any]
SAME_SECONDS = 600.0
"""The same event within this time is counted."""
SIMILAR = 10
"""Different messages with one reason about one object within that time; then they become one event."""
BURST = 25
REFILL_SECONDS = 300.0
"""An object has this many events at once, and one more in so many seconds."""
WAITING = 1_000
KNOWN = 4_096
"""Objects that are remembered, least recently used forgotten first."""


@dataclass
class _Event:
    """One that was told; `count` grows."""

    about: Object
    type: str
    reason: str
    message: str
    first: float
    last: float
    name: str = ""
    count: int = 1
    waits: bool = True


@dataclass
class _About:
    """What was told about one object lately, by reason and message."""

    events: dict[tuple[str, str, str], _Event] = field(default_factory=dict)
    tokens: float = BURST
    seen: float = 0.0


class Recorder:
    """`component` is who tells; `clock` gives seconds since the epoch. `run` writes what `tell` took."""

    def __init__(self, client: Client, component: str = "cuboid", clock: Callable[[], float] = time.time) -> None:
        self._client = client
        self._component = component
        self._clock = clock
        self._known: OrderedDict[str, _About] = OrderedDict()
        self._waiting: deque[_Event] = deque()
        self._wake = asyncio.Event()
        self._number = 0
        self.lost = 0
        """Events that were not written: too many at once, or refused."""

    def tell(self, about: Object, type_: str, reason: str, message: str) -> None:
        """Never waits. What is beyond a bound is counted as lost."""
        now, known = self._clock(), self._about(about)
        _forget(known, now)
        message = message[:1023]
        key = (type_, reason, message)
        if key not in known.events and sum(one[:2] == key[:2] for one in known.events) >= SIMILAR:
            message = f"(combined from similar events): {message}"[:1023]
            combined = next((one for one in known.events if one[:2] == key[:2] and one[2].startswith("(comb")), None)
            key = combined or (type_, reason, message)
        if (event := known.events.get(key)) is not None:
            event.count += 1
            event.last, event.message = now, message
            self._put(event, known, now)
        elif self._may(known, now):
            event = known.events[key] = _Event(_reference(about), type_, reason, message, now, now, waits=False)
            self._put(event, known, now)
        else:
            self.lost += 1

    def _about(self, about: Object) -> _About:
        uid = objects.uid(about) or f"{about.get('kind')}/{objects.namespace(about)}/{objects.name(about)}"
        known = self._known.setdefault(uid, _About())
        self._known.move_to_end(uid)
        if len(self._known) > KNOWN:
            self._known.popitem(last=False)
        return known

    @staticmethod
    def _may(known: _About, now: float) -> bool:
        known.tokens = min(known.tokens + (now - known.seen) / REFILL_SECONDS, BURST)
        known.seen = now
        if known.tokens < 1:
            return False
        known.tokens -= 1
        return True

    def _put(self, event: _Event, known: _About, now: float) -> None:
        if event.waits:
            return  # it goes out with the new count
        if len(self._waiting) >= WAITING or (event.count > 1 and not self._may(known, now)):
            self.lost += 1
            return
        event.waits = True
        self._waiting.append(event)
        self._wake.set()

    async def run(self) -> None:
        """Write until cancelled."""
        while True:
            while not self._waiting:
                self._wake.clear()
                await self._wake.wait()
            event = self._waiting.popleft()
            event.waits = False
            try:
                await self._write(event)
            except CuboidError as error:
                self.lost += 1
                log.debug("an event was not written", reason=event.reason, error=str(error))

    async def _write(self, event: _Event) -> None:
        namespace = event.about.get("namespace") or "default"
        if event.name:
            body = {"count": event.count, "lastTimestamp": rfc3339(event.last), "message": event.message}
            try:
                await self._client.patch(EVENTS, event.name, body, namespace, form=MERGE)
                return
            except NotFoundError:
                event.name = ""  # it has expired
        self._number += 1
        name = f"{event.about['name'][:200]}.{int(event.first * 1e6):x}{self._number:x}"
        await self._client.create(EVENTS, self._body(event, name, namespace), namespace)
        event.name = name

    def _body(self, event: _Event, name: str, namespace: str) -> Object:
        return {
            "apiVersion": "v1",
            "kind": "Event",
            "metadata": {"name": name, "namespace": namespace},
            "involvedObject": event.about,
            "reason": event.reason,
            "message": event.message,
            "type": event.type,
            "count": event.count,
            "firstTimestamp": rfc3339(event.first),
            "lastTimestamp": rfc3339(event.last),
            "source": {"component": self._component},
            "reportingComponent": self._component,
            "reportingInstance": "",
        }


def _forget(known: _About, now: float) -> None:
    for key in [key for key, event in known.events.items() if now - event.last > SAME_SECONDS]:
        del known.events[key]


def _reference(about: Object) -> Object:
    metadata = about["metadata"]
    found = {key: metadata[key] for key in ("namespace", "name", "uid", "resourceVersion") if metadata.get(key)}
    return {"apiVersion": about.get("apiVersion", ""), "kind": about.get("kind", ""), **found}
