"""HTTP/1.1 of uvicorn with what it lacks: limits on the size of request headers and on the time they take, also for
callers that nobody knows."""

from __future__ import annotations

import asyncio
import resource
from typing import cast

from starlette.types import Scope
from uvicorn.protocols.http.flow_control import FlowControl
from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol
from uvicorn.protocols.websockets.wsproto_impl import WSProtocol
from wsproto.events import Ping

from cuboid.server.authn.certificates import STATE, user_of

MAX_HEADERS = 64 * 1024
"""Bytes of a request before its body."""
HEADER_SECONDS = 20.0
"""Time from the connection, or the first byte of a later request, to the end of the headers."""

RESERVED_FILES = 256
"""Descriptors that no client over the network gets."""
MAX_UNREAD = 256 * 1024
"""Bytes that a client has not taken when its next ping ends the connection."""


_WIRE = "cuboid.wire"


class Wire:
    """The way to a client past ASGI, for what many clients are sent at once. Only between two parts of a chunked body
    that is under way: nothing else may be waiting to be sent."""

    def __init__(self, transport: asyncio.WriteTransport, flow: FlowControl) -> None:
        self._transport = transport
        self._flow = flow

    @property
    def paused(self) -> bool:
        """The client does not keep up: sending would wait."""
        return bool(self._flow.write_paused)

    def abort(self) -> None:
        """Hang up, and forget what the client has not taken."""
        self._transport.abort()

    def write(self, frame: bytes) -> bool:
        """One chunk with its frame. False, and nothing is sent, when the client does not keep up."""
        if self._flow.write_paused or self._transport.is_closing():
            return False
        self._transport.write(frame)
        return True


def frame(body: bytes) -> bytes:
    """A part of a chunked body as it is sent."""
    return b"%x\r\n%b\r\n" % (len(body), body)


def wire_of(scope: Scope) -> Wire | None:
    """None for a request that did not come over this module's HTTP."""
    found: Wire | None = scope.get(_WIRE)
    return found


def connection_limit() -> int:
    """Connections over the network at once: the rest of the descriptors is for everything else."""
    soft, _ = resource.getrlimit(resource.RLIMIT_NOFILE)
    return max(16, soft - RESERVED_FILES)


class LimitedProtocol(HttpToolsProtocol):
    """Answers 400 and closes when the headers go on for too long, in many fields or in one; hangs up on those that
    never come to an end: unfinished requests of strangers would use up the descriptors."""

    _refused = False
    _in_headers = False
    _header_bytes = 0
    _header_timer: asyncio.TimerHandle | None = None

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        if transport.get_extra_info("peername") and len(self.connections) >= connection_limit():
            self._refused = True
            transport.abort()  # clients of this machine's socket are let in all the same
            return
        super().connection_made(transport)
        user = user_of(transport.get_extra_info("ssl_object"))
        if user is not None:
            self.app_state = {**self.app_state, STATE: user}
        self._expect_headers()

    def connection_lost(self, exc: Exception | None) -> None:
        if not self._refused:
            self._headers_came()
            super().connection_lost(exc)

    def shutdown(self) -> None:
        """The server ends. A kept connection that is idle is let go of at once: a farewell over TLS waits for a client
        that does not listen, and the server with it."""
        idle = self.cycle is None or self.cycle.response_complete
        if idle and not self.transport.get_write_buffer_size():
            self.transport.abort()
        else:
            super().shutdown()

    def on_message_begin(self) -> None:
        self._in_headers = True
        self._header_bytes = 0
        self._expect_headers()
        super().on_message_begin()
        cast(Scope, self.scope)[_WIRE] = Wire(self.transport, self.flow)

    def on_headers_complete(self) -> None:
        self._in_headers = False
        self._headers_came()
        super().on_headers_complete()

    def data_received(self, data: bytes) -> None:
        super().data_received(data)
        if not self._in_headers or self.transport.is_closing():
            return
        self._header_bytes += len(data)
        if self._header_bytes > MAX_HEADERS:
            self.send_400_response(f"Request headers of more than {MAX_HEADERS} bytes.")

    def _expect_headers(self) -> None:
        if self._header_timer is None:
            self._header_timer = self.loop.call_later(HEADER_SECONDS, self.transport.abort)

    def _headers_came(self) -> None:
        if self._header_timer is not None:
            self._header_timer.cancel()
            self._header_timer = None


class LimitedWebSocket(WSProtocol):
    """Hangs up on a client that sends pings and does not read: their answers know no backpressure."""

    def handle_ping(self, event: Ping) -> None:
        if self.transport.get_write_buffer_size() > MAX_UNREAD:
            self.transport.abort()
        else:
            super().handle_ping(event)
