"""The audit log: who wrote what and who entered which pod, one JSON line each, in the form of `audit.k8s.io/v1`.

At level Metadata: never a body, never a query (that of an exec holds its command). Lines are written by a thread in
batches and reach the disk within `FLUSH_SECONDS`: so much is lost when the process is killed, and no more.
When more come than the disk takes, `MOST` wait, and how many were left out is written instead; so it is when strangers
knock.
"""

from __future__ import annotations

import asyncio
import os
import threading
import time
from collections import deque
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import msgspec
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from cuboid.kube.births import new_uid
from cuboid.kube.identity import User
from cuboid.kube.rbac.attributes import Attributes
from cuboid.lib.clock import rfc3339_micro
from cuboid.lib.log import get_log

log = get_log(__name__)

FLUSH_SECONDS = 0.5
MOST = 20_000
"""Events that wait for the disk."""
STRANGERS = 5
"""Requests of nobody known that are told in `FLUSH_SECONDS`; more are counted. All that others did would be rotated
away within minutes by anybody who can reach the port."""
READS = ("get", "list", "watch", "head", "options")
STREAMS = ("exec", "attach", "portforward", "log", "proxy")
FILE = "audit.log"
_UNKNOWN = User("")


class AuditLog:
    """`size` in bytes of one file; `kept` older ones stay beside it as `audit-TIME.log`."""

    def __init__(self, folder: Path, *, size: int, kept: int) -> None:
        folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        self._folder, self._size, self._kept = folder, size, kept
        self._waiting: deque[bytes] = deque()
        self._lost = 0
        self._strangers = 0  # since the last flush
        self._wake = threading.Event()
        self._closed = False
        self._thread = threading.Thread(target=self._run, name="audit", daemon=True)
        self._thread.start()

    def add(self, event: dict[str, Any], *, stranger: bool = False) -> None:
        """Never waits. `stranger`: who asks is not known, and got nothing."""
        self._strangers += stranger
        if stranger and self._strangers > STRANGERS:
            return
        if len(self._waiting) >= MOST:
            self._lost += 1
        else:
            self._waiting.append(msgspec.json.encode(event))

    def close(self) -> None:
        """What waits is written."""
        self._closed = True
        self._wake.set()
        self._thread.join(timeout=10)

    async def keep(self) -> None:
        """Until cancelled: then what waits is written."""
        try:
            await asyncio.Event().wait()
        finally:
            self.close()

    def _run(self) -> None:
        while not self._closed:
            self._wake.wait(FLUSH_SECONDS)
            self._flush()
        self._flush()

    def _flush(self) -> None:
        lines = [self._waiting.popleft() for _ in range(len(self._waiting))]
        lost, self._lost = self._lost, 0
        strangers, self._strangers = max(0, self._strangers - STRANGERS), 0
        for word, count in (("lost", lost), ("strangers", strangers)):
            if count:
                lines.append(msgspec.json.encode({"kind": "Event", "apiVersion": "audit.k8s.io/v1", word: count}))
        if not lines:
            return
        try:
            self._append(b"\n".join(lines) + b"\n")
        except OSError as error:
            self._lost += lost + len(lines)
            log.error("the audit log can not be written", error=str(error), lost=self._lost)

    def _append(self, data: bytes) -> None:
        path = self._folder / FILE
        flags = os.O_WRONLY | os.O_CREAT | os.O_APPEND | os.O_CLOEXEC | os.O_NOFOLLOW
        descriptor = os.open(path, flags, 0o600)
        with os.fdopen(descriptor, "ab") as file:
            file.write(data)
            file.flush()
            os.fsync(file.fileno())
            full = file.tell() >= self._size
        if full:
            self._rotate(path)

    def _rotate(self, path: Path) -> None:
        stamp = time.strftime("%Y%m%dT%H%M%S", time.gmtime())
        path.rename(self._folder / f"audit-{stamp}-{time.time_ns() % 10**9:09}.log")
        older = sorted(self._folder.glob("audit-*.log"))
        for old in older[: max(0, len(older) - self._kept)]:
            old.unlink(missing_ok=True)


class Audited:
    """ASGI middleware around the whole server; what is asked and by whom it reads from the scope, behind the gate."""

    def __init__(self, app: ASGIApp, audit: AuditLog | None) -> None:
        self._app = app
        self._audit = audit

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if self._audit is None or scope["type"] not in ("http", "websocket"):
            await self._app(scope, receive, send)
            return
        with self._recorded(scope, self._audit) as seen:

            async def watched(message: Message) -> None:
                if message["type"] in _STARTS:
                    seen.started(message)
                await send(message)

            await self._app(scope, receive, watched)

    @contextmanager
    def _recorded(self, scope: Scope, audit: AuditLog) -> Iterator[_Seen]:
        seen = _Seen(scope, audit)
        try:
            yield seen
        finally:
            seen.ended()


_STARTS = ("http.response.start", "websocket.accept", "websocket.http.response.start")


class _Seen:
    """One request on its way through."""

    def __init__(self, scope: Scope, audit: AuditLog) -> None:
        self._scope = scope
        self._audit = audit
        self._received = time.time()
        self._code = 0
        self._id = ""

    def started(self, message: Message) -> None:
        self._code = int(message.get("status", 101))
        wanted: Attributes | None = self._scope.get("wanted")
        if self._code < 400 and wanted is not None and wanted.sub in STREAMS:
            self._audit.add(self._event("ResponseStarted", wanted))

    def ended(self) -> None:
        wanted: Attributes | None = self._scope.get("wanted")
        if wanted is None:
            return
        reads = wanted.verb in READS and wanted.sub not in STREAMS
        if reads and "caller" not in self._scope:  # who acts as somebody else is always written down
            return
        self._audit.add(self._event("ResponseComplete", wanted), stranger=self._code == 401)

    def _event(self, stage: str, wanted: Attributes) -> dict[str, Any]:
        scope = self._scope
        acting: User = scope.get("user", _UNKNOWN)
        caller: User = scope.get("caller", acting)
        self._id = self._id or new_uid()
        event: dict[str, Any] = {
            "kind": "Event",
            "apiVersion": "audit.k8s.io/v1",
            "level": "Metadata",
            "auditID": self._id,
            "stage": stage,
            "requestURI": scope["path"][:2048],
            "verb": wanted.verb,
            "user": _told(caller),
            "sourceIPs": [scope["client"][0]] if scope.get("client") and scope["client"][0] else [],
            "userAgent": _agent(scope),
            "responseStatus": {"metadata": {}, "code": self._code},
            "requestReceivedTimestamp": rfc3339_micro(self._received),
            "stageTimestamp": rfc3339_micro(time.time()),
            "annotations": {"authorization.k8s.io/decision": "forbid" if self._code in (401, 403) else "allow"},
        }
        if caller is not acting:
            event["impersonatedUser"] = _told(acting)
        if not wanted.path:
            event["objectRef"] = _object(wanted, scope.get("object", ""))
        return event


def _told(user: User) -> dict[str, Any]:
    row: dict[str, Any] = {"username": user.name, "uid": user.uid, "groups": list(user.groups)}
    row["extra"] = {key: list(values) for key, values in user.extra.items()}
    return {key: value for key, value in row.items() if value}


def _object(wanted: Attributes, made: str) -> dict[str, str]:
    row = {
        "resource": wanted.resource,
        "namespace": wanted.namespace if wanted.resource != "namespaces" else "",
        "name": wanted.name or made,
        "apiGroup": wanted.group,
        "apiVersion": wanted.version,
        "subresource": wanted.sub,
    }
    return {key: value for key, value in row.items() if value}


def _agent(scope: Scope) -> str:
    for key, value in scope["headers"]:
        if key == b"user-agent":
            return str(value[:256].decode("latin-1"))
    return ""
