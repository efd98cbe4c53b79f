"""Kubernetes events about pods: repeated ones become a count, a flood is cut off, and no caller ever waits."""

from __future__ import annotations

import asyncio
from collections import OrderedDict, deque
from dataclasses import dataclass, field
from typing import Any, Literal, Protocol

from cuboid.kube.types import Pod
from cuboid.lib.aio import within
from cuboid.lib.clock import Clock, SystemClock, rfc3339
from cuboid.lib.errors import (
    AlreadyExistsError,
    CuboidError,
    DeadlineError,
    ExhaustedError,
    NotFoundError,
    UnavailableError,
)
from cuboid.lib.log import get_log

log = get_log(__name__)
COMPONENT = "cuboid"
QUEUE_LIMIT = 1000  # events waiting; the oldest are dropped, with a line in the log
KNOWN_LIMIT = 4096  # different events whose counts are remembered
BURST = 25  # events of one pod at once, then one per REFILL_SECONDS
REFILL_SECONDS = 10.0
MESSAGE_LIMIT = 1024  # bytes, the API's own limit
CALL_SECONDS = 10.0
ATTEMPTS = 5
RETRY_SECONDS = 1.0
PATIENCE = 0.2  # seconds that an event may wait: what a start needs of the API goes first

Type = Literal["Normal", "Warning"]


class EventSink(Protocol):
    """Where events go: the API server."""

    async def create_event(self, namespace: str, event: dict[str, Any]) -> None: ...

    async def patch_event(self, namespace: str, name: str, changes: dict[str, Any]) -> None:
        """A merge patch. NotFoundError if the event has expired."""
        ...


@dataclass(frozen=True)
class _Key:
    uid: str
    type: Type
    reason: str
    message: str
    field_path: str


@dataclass
class _Known:
    """An event that was sent, or waits to be."""

    name: str
    pod: Pod
    first: float
    last: float
    count: int = 1
    sent: int = 0  # the count that the API server has


@dataclass
class _Bucket:
    tokens: float
    at: float


@dataclass
class _Flood:
    """A token bucket per pod: a container that fails ten times a second must not fill the store."""

    buckets: OrderedDict[str, _Bucket] = field(default_factory=OrderedDict)

    def allows(self, uid: str, now: float) -> bool:
        bucket = self.buckets.setdefault(uid, _Bucket(BURST, now))
        self.buckets.move_to_end(uid)
        while len(self.buckets) > KNOWN_LIMIT:
            self.buckets.popitem(last=False)
        bucket.tokens = min(BURST, bucket.tokens + (now - bucket.at) / REFILL_SECONDS)
        bucket.at = now
        if bucket.tokens < 1:
            return False
        bucket.tokens -= 1
        return True


class EventRecorder:
    """`normal` and `warning` return at once; `run` sends, for ever."""

    def __init__(self, client: EventSink, node: str, *, clock: Clock | None = None) -> None:
        self._client = client
        self._node = node
        self._clock = clock or SystemClock()
        self._known: OrderedDict[_Key, _Known] = OrderedDict()
        self._queue: deque[_Key] = deque()
        self._wake = asyncio.Event()
        self._idle = asyncio.Event()
        self._idle.set()
        self._flood = _Flood()
        self._serial = 0

    def normal(self, pod: Pod, reason: str, message: str, *, container: str = "") -> None:
        self._record("Normal", pod, reason, message, container)

    def warning(self, pod: Pod, reason: str, message: str, *, container: str = "") -> None:
        self._record("Warning", pod, reason, message, container)

    async def flush(self, *, timeout: float) -> bool:
        """Whether everything recorded so far was sent (or given up) within `timeout` seconds."""
        try:
            async with asyncio.timeout(timeout):
                return await self._idle.wait()
        except TimeoutError:
            return False

    def _record(self, kind: Type, pod: Pod, reason: str, message: str, container: str) -> None:
        now = self._clock.now()
        if not self._flood.allows(pod.metadata.uid, self._clock.monotonic()):
            return
        key = _Key(pod.metadata.uid, kind, reason, _shortened(message), _field_path(pod, container))
        known = self._known.get(key)
        if known is None:
            self._known[key] = _Known(self._name(pod, now), pod, now, now)
        else:
            known.count += 1
            known.last = now
        self._known.move_to_end(key)
        while len(self._known) > KNOWN_LIMIT:
            self._known.popitem(last=False)
        self._put(key)

    def _put(self, key: _Key) -> None:
        if key not in self._queue:
            self._queue.append(key)
        if len(self._queue) > QUEUE_LIMIT:
            log.warning("event dropped, too many wait", reason=self._queue.popleft().reason)
        self._idle.clear()
        self._wake.set()

    def _name(self, pod: Pod, now: float) -> str:
        """Unique over restarts of the node agent: object name, then time and serial number in hexadecimal."""
        self._serial += 1
        return f"{pod.metadata.name[:220]}.{(int(now * 1_000_000) << 8) + self._serial % 256:x}"

    async def run(self) -> None:
        while True:
            await self._wake.wait()
            await asyncio.sleep(PATIENCE)
            self._wake.clear()
            while self._queue:
                await self._send(self._queue.popleft())
            self._idle.set()

    async def _send(self, key: _Key) -> None:
        known = self._known.get(key)
        if known is None:
            return
        for attempt in range(ATTEMPTS):
            count = known.count
            try:
                await within(CALL_SECONDS, self._deliver(key, known), "sending an event")
                known.sent = count
                return
            except (CuboidError, OSError) as error:
                log.debug("event not sent", reason=key.reason, error=str(error), attempt=attempt)
                if not _worth_retrying(error):
                    break
                await asyncio.sleep(RETRY_SECONDS * 2**attempt)
        log.warning("event given up", reason=key.reason, pod=known.pod.metadata.name)

    async def _deliver(self, key: _Key, known: _Known) -> None:
        namespace = known.pod.metadata.namespace
        if known.sent:
            try:
                changes = {"count": known.count, "lastTimestamp": rfc3339(known.last)}
                return await self._client.patch_event(namespace, known.name, changes)
            except NotFoundError:  # it has expired at the API server: a new one
                known.name = self._name(known.pod, self._clock.now())
        try:
            await self._client.create_event(namespace, self._document(key, known))
        except AlreadyExistsError:  # an attempt whose answer was lost
            log.debug("event was there already", name=known.name)

    def _document(self, key: _Key, known: _Known) -> dict[str, Any]:
        metadata = known.pod.metadata
        involved = {
            "kind": "Pod",
            "apiVersion": "v1",
            "namespace": metadata.namespace,
            "name": metadata.name,
            "uid": metadata.uid,
            "resourceVersion": metadata.resource_version,
        }
        return {
            "apiVersion": "v1",
            "kind": "Event",
            "metadata": {"name": known.name, "namespace": metadata.namespace},
            "involvedObject": involved | ({"fieldPath": key.field_path} if key.field_path else {}),
            "reason": key.reason,
            "message": key.message,
            "type": key.type,
            "count": known.count,
            "firstTimestamp": rfc3339(known.first),
            "lastTimestamp": rfc3339(known.last),
            "source": {"component": COMPONENT, "host": self._node},
            "reportingComponent": COMPONENT,
            "reportingInstance": self._node,
        }


def _worth_retrying(error: Exception) -> bool:
    """A refused event (its namespace is being deleted, say) will be refused again."""
    return isinstance(error, OSError | UnavailableError | DeadlineError | ExhaustedError)


def _field_path(pod: Pod, container: str) -> str:
    if not container:
        return ""
    kinds = (("initContainers", pod.spec.init_containers), ("ephemeralContainers", pod.spec.ephemeral_containers))
    for kind, members in kinds:
        if any(member.name == container for member in members):
            return f"spec.{kind}{{{container}}}"
    return f"spec.containers{{{container}}}"


def _shortened(message: str) -> str:
    encoded = message.encode()
    return message if len(encoded) <= MESSAGE_LIMIT else encoded[: MESSAGE_LIMIT - 3].decode(errors="ignore") + "..."
