"""A WebSocket client for the node's endpoint, on wsproto.

Kubernetes names one of its sub-protocols `SPDY/3.1+portforward.k8s.io`; the slash makes it no token of RFC 6455, and
the `websockets` package refuses it on both sides. wsproto passes it on, so it speaks here and under uvicorn.
"""

from __future__ import annotations

import asyncio
import ssl
from collections.abc import Sequence
from urllib.parse import SplitResult, urlsplit

import msgspec
from wsproto import ConnectionType, WSConnection
from wsproto.events import (
    AcceptConnection,
    BytesMessage,
    CloseConnection,
    Event,
    Ping,
    RejectConnection,
    RejectData,
    Request,
    TextMessage,
)
from wsproto.utilities import ProtocolError

from cuboid.kube.status import from_status
from cuboid.lib.aio import deadline
from cuboid.lib.errors import CuboidError, HostileError, UnavailableError
from cuboid.lib.log import get_log

log = get_log(__name__)

MAX_MESSAGE = 4 * 1024 * 1024
"""Largest message, bytes."""
_READ = 65_536
_MAX_REFUSAL = 65_536
_CLOSE_SECONDS = 2.0


class Upstream:
    """An open WebSocket. `recv` by one task, `send` by another; each waits when its side is full."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._reader = reader
        self._writer = writer
        self._ws = WSConnection(ConnectionType.CLIENT)
        self._events: list[Event] = []
        self.subprotocol: str | None = None
        self.close_code: int | None = None
        self.close_reason = ""

    @classmethod
    async def open(
        cls,
        url: str,
        context: ssl.SSLContext | None,
        subprotocols: Sequence[str],
        seconds: float,
        *,
        answer_seconds: float = 0.0,
        local: str = "",
        headers: Sequence[tuple[bytes, bytes]] = (),
    ) -> Upstream:
        """The node's refusal as the error that its Status names; UnavailableError when it does not answer.

        Connecting has `seconds`, and so has the answer if it has no `answer_seconds` of its own. `local` is a Unix
        socket on which the same node answers: it is spoken to without TLS, unless nobody is there.
        """
        parts = urlsplit(url)
        try:
            async with deadline(seconds, "connecting to the node"):
                reader, writer = await _connected(parts, context, local)
        except OSError as error:
            raise UnavailableError(f"the node does not answer: {error}") from error
        upstream = cls(reader, writer)
        try:
            async with deadline(answer_seconds or seconds, "the node's answer"):
                request = Request(
                    host=parts.netloc,
                    target=url.partition(parts.netloc)[2],
                    subprotocols=list(subprotocols),
                    extra_headers=list(headers),
                )
                await upstream._handshake(request)
        except BaseException:
            writer.close()
            raise
        return upstream

    async def _handshake(self, request: Request) -> None:
        await self._write(self._ws.send(request))
        event = await self._event()
        if isinstance(event, AcceptConnection):
            self.subprotocol = event.subprotocol
            return
        if isinstance(event, RejectConnection):
            raise await self._refusal(event)
        raise HostileError("the node answered a WebSocket request with something else")

    async def _refusal(self, event: RejectConnection) -> CuboidError:
        body = b""
        more = event.has_body
        while more and len(body) < _MAX_REFUSAL:
            part = await self._event()
            if not isinstance(part, RejectData):
                break
            body, more = body + part.data, not part.body_finished
        try:
            status = msgspec.json.decode(body)
        except msgspec.DecodeError:
            status = {}
        return from_status(max(event.status_code, 400), status if isinstance(status, dict) else {})

    async def recv(self) -> bytes | str | None:
        """The next message; None at the end, then `close_code` is set."""
        parts: list[bytes] | list[str] = []
        size = 0
        while self.close_code is None:
            event = await self._event()
            if isinstance(event, BytesMessage | TextMessage):
                parts.append(bytes(event.data) if isinstance(event, BytesMessage) else event.data)  # type: ignore[arg-type]
                size += len(event.data)
                if size > MAX_MESSAGE:
                    raise HostileError(f"the node sent a message of more than {MAX_MESSAGE} bytes")
                if event.message_finished:
                    return (b"" if isinstance(event, BytesMessage) else "").join(parts)  # type: ignore[arg-type]
            elif isinstance(event, Ping):
                await self._write(self._ws.send(event.response()))
            elif isinstance(event, CloseConnection):
                self.close_code, self.close_reason = event.code, event.reason or ""
        return None

    async def send(self, data: bytes | str) -> None:
        """ConnectionError when the node is gone."""
        event = BytesMessage(data=data) if isinstance(data, bytes) else TextMessage(data=data)
        await self._write(self._ws.send(event))

    async def close(self, code: int = 1000, reason: str = "") -> None:
        """Say goodbye if that is still possible, and let go. Idempotent."""
        if not self._writer.is_closing():
            try:
                async with deadline(_CLOSE_SECONDS, "closing a stream to the node"):
                    await self._write(self._ws.send(CloseConnection(code=code, reason=reason[:100])))
            except (OSError, ProtocolError, CuboidError):
                pass  # the other side closed first
            self._writer.close()

    async def _event(self) -> Event:
        """ProtocolError of the peer as HostileError; the end of the connection as an abnormal close."""
        while not self._events:
            try:
                data = await self._reader.read(_READ)
                self._ws.receive_data(data or None)
                self._events = list(self._ws.events())
            except ProtocolError as error:
                if not data:
                    return CloseConnection(code=1006)
                raise HostileError(f"the node broke the WebSocket protocol: {error}") from error
            except OSError:
                return CloseConnection(code=1006)
        return self._events.pop(0)

    async def _write(self, data: bytes) -> None:
        self._writer.write(data)
        await self._writer.drain()


async def _connected(
    parts: SplitResult, context: ssl.SSLContext | None, local: str
) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
    if local:
        try:
            return await asyncio.open_unix_connection(local)
        except OSError:  # of an agent that was killed
            log.info("a node's local socket does not answer", path=local)
    name = parts.hostname if context else None
    return await asyncio.open_connection(parts.hostname, parts.port, ssl=context, server_hostname=name)
