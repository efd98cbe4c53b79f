"""HTTP/1.1 over asyncio's streams for one server: kept connections, whole answers and endless ones.

A general client costs more than the API it calls (several milliseconds per request, and more with every connection in
its pool); this does what a Kubernetes client needs: one origin, TLS, no redirects, no cookies, no compression.
"""

from __future__ import annotations

import asyncio
import contextlib
import ssl
import time
from collections.abc import AsyncGenerator, AsyncIterator, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass
from urllib.parse import urlsplit

import httptools

from cuboid.lib.errors import UnavailableError

CONNECT_SECONDS = 10.0
IDLE_SECONDS = 60.0
"""A connection that was unused for longer is not trusted to be alive."""
MAX_IDLE = 16
MAX_ANSWER = 256 * 1024 * 1024
"""Largest whole answer, bytes."""
_READ = 256 * 1024
_LOOK_SECONDS = 0.2


@dataclass(frozen=True)
class Answer:
    status: int
    content: bytes


class _StaleError(Exception):
    """A kept connection was closed by the server before it took the request."""


class _Connection:
    """One request at a time."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._reader = reader
        self._writer = writer
        self._parser = httptools.HttpResponseParser(self)
        self._body: list[bytes] = []
        self._headers_done = self._done = False
        self._used = self._keep = False
        self._status = 0
        self.idle_since = 0.0

    # callbacks of the parser

    def on_headers_complete(self) -> None:
        self._headers_done = True
        self._status = int(self._parser.get_status_code())
        self._keep = bool(self._parser.should_keep_alive())  # the parser forgets it with the end of the message

    def on_body(self, data: bytes) -> None:
        self._body.append(data)

    def on_message_complete(self) -> None:
        self._done = True

    async def usable(self) -> bool:
        """Not too old and not closed by the server; the loop gets to see a close that waits in the socket."""
        if time.monotonic() - self.idle_since > _LOOK_SECONDS:
            for _ in range(3):
                await asyncio.sleep(0)
        return (
            not self._writer.is_closing()
            and not self._reader.at_eof()
            and time.monotonic() - self.idle_since < IDLE_SECONDS
        )

    async def send(self, head: bytes, body: bytes) -> int:
        """Returns the status. _StaleError when a kept connection turned out to be closed."""
        self._headers_done = self._done = False
        self._body.clear()
        reused, self._used = self._used, True
        try:
            self._writer.write(head + body)
            await self._writer.drain()
            while not self._headers_done:
                await self._feed()
        except (OSError, EOFError) as error:
            if reused and not self._headers_done:
                raise _StaleError from error
            raise
        return self._status

    async def _feed(self) -> None:
        data = await self._reader.read(_READ)
        if not data:
            raise EOFError("the connection was closed in the middle of an answer")
        self._parser.feed_data(data)

    async def body(self) -> AsyncIterator[bytes]:
        while True:
            if self._body:
                data = b"".join(self._body)
                self._body.clear()
                yield data
            if self._done:
                return
            await self._feed()

    @property
    def reusable(self) -> bool:
        return self._done and self._keep and not self._writer.is_closing()

    def close(self) -> None:
        self._writer.close()

    async def closed(self) -> None:
        await self._writer.wait_closed()


class Transport:
    """`headers` go with every request. Safe for many tasks; UnavailableError when the server is not there.

    The URL is `https://host:port`, or `unix:/path` for a server on this machine: a socket that only root may open needs
    no TLS, which is half of the cost of a small request.
    """

    def __init__(self, base_url: str, context: ssl.SSLContext | None, headers: Mapping[str, str]) -> None:
        parts = urlsplit(base_url)
        self.base_url = base_url
        self._host = parts.hostname or ""
        self._port = parts.port or (443 if parts.scheme == "https" else 80)
        self._context = context if parts.scheme == "https" else None
        self._socket = parts.path if parts.scheme == "unix" else ""
        self._prefix = "" if self._socket else parts.path.rstrip("/")
        fixed = {"Host": parts.netloc or "localhost", **headers}
        self._headers = "".join(f"{key}: {value}\r\n" for key, value in fixed.items())
        self._idle: list[_Connection] = []

    async def request(self, method: str, target: str, *, body: bytes | None = None, media: str = "") -> Answer:
        """The whole answer."""
        async with self.stream(method, target, body=body, media=media) as (status, chunks):
            parts, size = [], 0
            async for chunk in chunks:
                size += len(chunk)
                if size > MAX_ANSWER:
                    raise UnavailableError(f"the API server's answer is larger than {MAX_ANSWER} bytes")
                parts.append(chunk)
            return Answer(status, b"".join(parts))

    @asynccontextmanager
    async def stream(
        self, method: str, target: str, *, body: bytes | None = None, media: str = ""
    ) -> AsyncGenerator[tuple[int, AsyncIterator[bytes]], None]:
        """The status, and the body as it comes. Leaving early closes the connection."""
        connection: _Connection | None = None
        head = self._head(method, target, body, media)
        try:
            connection, status = await self._sent(method, head, body or b"")
            yield status, connection.body()
        except (OSError, EOFError, httptools.HttpParserError) as error:
            raise self._unreachable(error) from error
        finally:
            if connection is not None:
                self._release(connection)

    def _head(self, method: str, target: str, body: bytes | None, media: str) -> bytes:
        content = f"Content-Type: {media}\r\nContent-Length: {len(body)}\r\n" if body is not None else ""
        return f"{method} {self._prefix}{target} HTTP/1.1\r\n{self._headers}{content}\r\n".encode("latin-1")

    async def _sent(self, method: str, head: bytes, body: bytes) -> tuple[_Connection, int]:
        """A kept connection that was closed meanwhile is replaced, if asking twice changes nothing."""
        while True:
            connection = await self._connection()
            try:
                return connection, await connection.send(head, body)
            except _StaleError as error:
                connection.close()
                if method != "GET":
                    raise EOFError(
                        "the server closed the connection; the request may or may not have been done"
                    ) from error
            except BaseException:
                connection.close()
                raise

    async def _connection(self) -> _Connection:
        while self._idle:
            connection = self._idle.pop()
            if await connection.usable():
                return connection
            connection.close()
        name = self._host if self._context else None
        async with asyncio.timeout(CONNECT_SECONDS):
            if self._socket:
                return _Connection(*await asyncio.open_unix_connection(self._socket, limit=_READ))
            return _Connection(
                *await asyncio.open_connection(
                    self._host, self._port, ssl=self._context, server_hostname=name, limit=_READ
                )
            )

    def _release(self, connection: _Connection) -> None:
        if connection.reusable and len(self._idle) < MAX_IDLE:
            connection.idle_since = time.monotonic()
            self._idle.append(connection)
        else:
            connection.close()

    def _unreachable(self, error: Exception) -> UnavailableError:
        text = str(error) or type(error).__name__
        return UnavailableError(f"the API server {self.base_url} does not answer: {text}", hint="is it running?")

    async def close(self) -> None:
        while self._idle:
            connection = self._idle.pop()
            connection.close()
            with contextlib.suppress(OSError, TimeoutError):
                async with asyncio.timeout(1):
                    await connection.closed()
