"""A SPDY/3.1 connection inside binary WebSocket messages (`SPDY/3.1+portforward.k8s.io`), the server's side.

Clients of Kubernetes neither count SPDY's flow-control windows nor send WINDOW_UPDATE, so waiting for one would stop
every stream after 64 KiB. What limits the sender here is the WebSocket; what limits the client is that its messages are
read only while every stream keeps up within BUFFERED. Windows are still given back, for clients that do count.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import AsyncIterator, Awaitable, Callable

from cuboid.kube.streaming.socket import Socket
from cuboid.kube.streaming.spdy import (
    CANCEL,
    INTERNAL_ERROR,
    PROTOCOL_ERROR,
    REFUSED_STREAM,
    Data,
    Decoder,
    Encoder,
    Frame,
    GoAway,
    Headers,
    Ping,
    ProtocolError,
    Reset,
    SynReply,
    SynStream,
    WindowUpdate,
)

BUFFERED = 256 << 10  # bytes of one stream that wait for their reader
MAX_STREAMS = 512  # open at once: two for each forwarded connection
MAX_REFUSED = 10_000  # broken streams before the connection is given up


class ResetError(ConnectionError):
    """The peer reset this stream, or the connection is gone."""


class SpdyStream:
    """One stream that the client has opened."""

    def __init__(self, number: int, headers: dict[str, str], send: Callable[[Frame], Awaitable[None]]) -> None:
        self.id = number
        self.headers = headers
        self._send = send
        self._incoming: deque[bytes] = deque()
        self._buffered = 0
        self._changed = asyncio.Condition()
        self._ended = False  # the client sends no more
        self._closed = False  # we send no more
        self._broken = False
        self._deaf = False  # nobody takes what the client still sends

    @property
    def over(self) -> bool:
        return self._broken or (self._ended and self._closed)

    async def received(self) -> AsyncIterator[bytes]:
        """The client's bytes up to its FIN. ResetError."""
        while True:
            async with self._changed:
                await self._changed.wait_for(lambda: self._incoming or self._ended or self._broken)
                if self._broken:
                    raise ResetError("the client reset the stream")
                if not self._incoming:
                    return
                piece = self._incoming.popleft()
                self._buffered -= len(piece)
                self._changed.notify_all()
            yield piece
            if not self._ended and not self._broken:
                await self._send(WindowUpdate(self.id, len(piece)))

    async def send(self, data: bytes) -> None:
        """ResetError if the stream is over for sending."""
        if self._broken or self._closed:
            raise ResetError("the stream is closed")
        await self._send(Data(self.id, data))

    async def close(self) -> None:
        """Send nothing more. Idempotent."""
        if not self._closed and not self._broken:
            self._closed = True
            await self._send(Data(self.id, b"", fin=True))

    async def ignore(self) -> None:
        """Drop what came and comes from the client: nobody will take it, and it must not hold up other streams."""
        async with self._changed:
            self._deaf = True
            self._incoming.clear()
            self._buffered = 0
            self._changed.notify_all()

    async def reset(self, status: int = CANCEL) -> None:
        """End the stream both ways. Idempotent."""
        if not self.over:
            await self.on_broken()
            await self._send(Reset(self.id, status))

    # --- fed by the session -------------------------------------------------------------------------------------------

    async def on_data(self, payload: bytes, fin: bool) -> None:
        async with self._changed:
            if self._ended:
                raise ProtocolError("data on a stream after its end")
            await self._changed.wait_for(lambda: self._buffered <= BUFFERED or self._broken or self._deaf)
            if payload and not self._broken and not self._deaf:
                self._incoming.append(payload)
                self._buffered += len(payload)
            self._ended = fin
            self._changed.notify_all()

    async def on_broken(self) -> None:
        async with self._changed:
            self._broken = True
            self._incoming.clear()
            self._changed.notify_all()


Handler = Callable[[SpdyStream], Awaitable[None]]


class SpdySession:
    """`run` reads until the client is gone; `on_stream` is called for each new stream and must not block."""

    def __init__(self, socket: Socket, on_stream: Handler) -> None:
        self._socket = socket
        self._on_stream = on_stream
        self._decoder = Decoder()
        self._encoder = Encoder()
        self._streams: dict[int, SpdyStream] = {}
        self._last = 0
        self._refused = 0
        self._sending = asyncio.Lock()

    async def run(self) -> None:
        """DisconnectedError when the client is gone, ProtocolError (after a GOAWAY) when it broke the protocol."""
        try:
            while True:
                message = await self._socket.receive()
                if isinstance(message, str):
                    raise ProtocolError("a text message")
                for frame in self._decoder.feed(message):
                    await self._handle(frame)
        except ProtocolError:
            await self._send(GoAway(self._last, PROTOCOL_ERROR))
            raise
        finally:
            for stream in self._streams.values():
                await stream.on_broken()

    async def _send(self, frame: Frame) -> None:
        async with self._sending:  # the order of header blocks on the wire is that of their compression
            await self._socket.send(self._encoder.encode(frame))

    async def _handle(self, frame: Frame) -> None:
        match frame:
            case SynStream():
                await self._open(frame)
            case Data(stream, payload, fin):
                await self._data(stream, payload, fin)
            case Reset(stream, _):
                if found := self._streams.pop(stream, None):
                    await found.on_broken()
            case Ping(number):
                if number % 2:  # the client's own; ours would be even
                    await self._send(frame)
            case Headers(stream, _, fin):
                await self._data(stream, b"", fin)
            case SynReply():
                raise ProtocolError("a reply to a stream that was never opened")
            case _:  # GOAWAY: the client will close; SETTINGS, WINDOW_UPDATE: see above
                pass

    async def _open(self, frame: SynStream) -> None:
        if frame.stream % 2 == 0 or frame.stream <= self._last:
            raise ProtocolError("a stream number that is not the client's next")
        self._last = frame.stream
        self._forget_finished()
        if len(self._streams) >= MAX_STREAMS:
            await self._refuse(frame.stream, REFUSED_STREAM)
            return
        stream = SpdyStream(frame.stream, dict(frame.headers), self._send)
        self._streams[stream.id] = stream
        if frame.fin:
            await stream.on_data(b"", True)
        await self._send(SynReply(stream.id))
        try:
            await self._on_stream(stream)
        except ValueError:  # headers that say nothing useful
            await stream.reset(INTERNAL_ERROR)

    async def _data(self, number: int, payload: bytes, fin: bool) -> None:
        if stream := self._streams.get(number):
            await stream.on_data(payload, fin)
        elif number > self._last or number % 2 == 0:
            raise ProtocolError("data on a stream that was never opened")

    async def _refuse(self, number: int, status: int) -> None:
        self._refused += 1
        if self._refused > MAX_REFUSED:
            raise ProtocolError("too many refused streams")
        await self._send(Reset(number, status))

    def _forget_finished(self) -> None:
        for number in [n for n, stream in self._streams.items() if stream.over]:
            del self._streams[number]
