"""One connection to an agent: greeting, frames, streams, keepalive. A guest that breaks a rule is cut off."""

from __future__ import annotations

import asyncio
import secrets
import socket
from collections import deque
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import TypeVar, cast

from google.protobuf.message import DecodeError

from cuboid.guest import agent_pb2 as pb
from cuboid.guest.errors import GuestLostError
from cuboid.guest.frames import MAX_EVENT, MAX_MESSAGE, MORE, ZEROS, Frame, GuestDecoder, Kind, encode, pieces
from cuboid.guest.stream import GuestStream, reset_error
from cuboid.lib.errors import CuboidError, DeadlineError, ExhaustedError, HostileError, UnsupportedError

VERSION = 1
MAX_STREAMS = 256
MAX_UNACKNOWLEDGED = 1024  # events
GREETING_SECONDS = 5.0  # until HELLO is said again

Message = TypeVar("Message", pb.HelloAck, pb.Reply, pb.Event)
Lost = Callable[[CuboidError], None]
Opener = Callable[[], Awaitable[socket.socket]]
"""A new connection to the agent, for channels that need more than a `connect(2)` (Firecracker's vsock)."""
Way = Path | Opener


class Connection(asyncio.BufferedProtocol):
    """From an open socket to its end. `on_event` is called for each event, `on_lost` once at the end.

    All methods belong to one event loop. After the end every call raises what ended it.
    """

    def __init__(self, on_event: Callable[[pb.Event], None], on_lost: Lost) -> None:
        self._on_event = on_event
        self._on_lost = on_lost
        self._nonce = secrets.token_bytes(16)
        self._decoder = GuestDecoder(self._nonce)
        self._transport: asyncio.Transport | None = None
        self._streams: dict[int, GuestStream] = {}
        self._last_stream = 0
        self._last_event = 0
        self._unacknowledged: deque[int] = deque()
        self._partial: tuple[int, bytearray] | None = None
        self._can_write = asyncio.Event()
        self._greeted: asyncio.Future[pb.HelloAck] = asyncio.get_running_loop().create_future()
        self._end: CuboidError | None = None
        self.heard = 0.0  # loop time of the last bytes from the guest
        self.open = False

    # --- asyncio's side --------------------------------------------------------------------------------------------

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast(asyncio.Transport, transport)
        self._can_write.set()

    def get_buffer(self, sizehint: int) -> memoryview:
        return self._decoder.space()

    def buffer_updated(self, nbytes: int) -> None:
        self.heard = asyncio.get_running_loop().time()
        try:
            for frame in self._decoder.received(nbytes):
                self._handle(frame)
        except HostileError as error:
            self.cut(error)

    def eof_received(self) -> bool:
        return False

    def connection_lost(self, exc: Exception | None) -> None:
        self.cut(GuestLostError("the channel to the guest was closed"))

    def pause_writing(self) -> None:
        self._can_write.clear()

    def resume_writing(self) -> None:
        self._can_write.set()

    # --- greeting --------------------------------------------------------------------------------------------------

    async def greet(self, timeout: float) -> pb.HelloAck:
        """Say HELLO until the guest answers. DeadlineError, GuestLostError, HostileError, UnsupportedError."""
        loop = asyncio.get_running_loop()
        end = loop.time() + timeout
        while (left := end - loop.time()) > 0:
            self._say_hello()
            done, _ = await asyncio.wait([self._greeted], timeout=min(GREETING_SECONDS, left))
            if done:
                return self._greeted.result()
        raise DeadlineError(f"the guest agent did not answer within {timeout:g} s")

    def _say_hello(self) -> None:
        if self._end is not None:
            raise self._end
        self._nonce = secrets.token_bytes(16)
        self._decoder.expect(self._nonce)
        hello = pb.Hello(version=VERSION, nonce=self._nonce).SerializeToString()
        self._write(ZEROS + encode(Kind.HELLO, 0, hello))

    def _on_ack(self, payload: bytes) -> None:
        ack = _parse(pb.HelloAck, payload)
        if self.open:
            raise HostileError("the guest answered one greeting twice")
        if ack.version != VERSION:
            self.cut(UnsupportedError(f"the guest agent speaks version {ack.version} of the contract, not {VERSION}"))
            return
        self.open = True
        if not self._greeted.done():
            self._greeted.set_result(ack)

    # --- frames from the guest -------------------------------------------------------------------------------------

    def _handle(self, frame: Frame) -> None:
        if self._end is not None:
            return
        match frame.kind:
            case Kind.DATA | Kind.CREDIT | Kind.END | Kind.RESET | Kind.REPLY:
                self._on_stream(frame)
            case Kind.EVENT:
                self._take_event(frame.payload)
            case Kind.PONG:
                pass  # that bytes came is what counts
            case Kind.HELLO_ACK:
                self._on_ack(frame.payload)
            case _:
                raise HostileError(f"the guest sent a frame of type {frame.kind}, which only the host sends")

    def _on_stream(self, frame: Frame) -> None:
        if not 0 < frame.stream <= self._last_stream:
            raise HostileError("the guest sent a frame of a stream that does not exist")
        stream = self._streams.get(frame.stream)
        if frame.kind == Kind.REPLY:
            self._on_reply(frame, stream)
        elif stream is None:
            return  # it was under way when we gave the stream up
        elif frame.kind == Kind.DATA:
            stream.on_data(frame.flags, frame.payload)
        elif frame.kind == Kind.CREDIT:
            if len(frame.payload) != 4:
                raise HostileError("the guest sent a malformed credit")
            stream.on_credit(int.from_bytes(frame.payload, "little"))
        elif frame.kind == Kind.RESET:
            self.forget(frame.stream)
            stream.fail(reset_error(frame.payload))

    def _on_reply(self, frame: Frame, stream: GuestStream | None) -> None:
        number, message = self._partial or (frame.stream, bytearray())
        if number != frame.stream:
            raise HostileError("the guest mixed the frames of two replies")
        message += frame.payload
        if len(message) > MAX_MESSAGE:
            raise HostileError("the guest sent a reply that is too long")
        if frame.flags & MORE:
            self._partial = (number, message)
            return
        self._partial = None
        reply = _parse(pb.Reply, bytes(message))
        if stream is not None:
            self.forget(frame.stream)
            stream.on_reply(reply)

    def _take_event(self, payload: bytes) -> None:
        if len(payload) > MAX_EVENT:
            raise HostileError("the guest sent an event that is too long")
        event = _parse(pb.Event, payload)
        if event.number <= self._last_event:
            raise HostileError("the guest's events do not count upwards")
        self._last_event = event.number
        self._unacknowledged.append(event.number)
        if len(self._unacknowledged) > MAX_UNACKNOWLEDGED:
            raise HostileError("the guest sent more events than it may before the first is acknowledged")
        self._on_event(event)

    # --- for the client --------------------------------------------------------------------------------------------

    def call(self, call: pb.Call) -> GuestStream:
        """Open a stream with a call. InvalidError if it is too long, ExhaustedError if too many streams are open."""
        if self._end is not None:
            raise self._end
        if len(self._streams) >= MAX_STREAMS:
            raise ExhaustedError("too many calls to this guest are open", hint="wait for some of them to end")
        frames = list(pieces(call.SerializeToString()))
        self._last_stream += 1
        stream = GuestStream(self._last_stream, self)
        self._streams[stream.id] = stream
        for flags, payload in frames:
            self.send(Kind.CALL, stream.id, payload, flags)
        return stream

    def acknowledge(self, number: int) -> None:
        """Every event up to this number is safe with us."""
        while self._unacknowledged and self._unacknowledged[0] <= number:
            self._unacknowledged.popleft()
        self.send(Kind.EVENT_ACK, 0, number.to_bytes(8, "little"))

    def ping(self) -> None:
        self.send(Kind.PING, 0)

    def send(self, kind: Kind, stream: int, payload: bytes | memoryview = b"", flags: int = 0) -> None:
        if self._end is None:
            self._write(encode(kind, stream, payload, flags))

    async def writable(self) -> None:
        await self._can_write.wait()
        if self._end is not None:
            raise self._end

    def forget(self, stream: int) -> None:
        self._streams.pop(stream, None)

    def cut(self, error: CuboidError) -> None:
        """End the connection for this reason. Safe to repeat: the first reason stands."""
        if self._end is not None:
            return
        self._end = error
        self.open = False
        if self._transport is not None:
            self._transport.abort()
        self._can_write.set()
        for stream in self._streams.values():
            stream.fail(error)
        self._streams.clear()
        if not self._greeted.done():
            self._greeted.set_exception(error)
            self._greeted.exception()  # whoever greets has it; nobody may be greeting any more
        self._on_lost(error)

    def _write(self, data: bytes) -> None:
        if self._transport is not None:
            self._transport.write(data)


def _parse(kind: type[Message], payload: bytes) -> Message:
    try:
        return kind.FromString(payload)
    except DecodeError as error:
        raise HostileError("the guest sent a message that cannot be decoded") from error


async def open_connection(way: Way, on_event: Callable[[pb.Event], None], on_lost: Lost) -> Connection:
    """Connect to the guest's socket (OSError as `connect(2)`), or take a connection from whoever opens it."""
    loop = asyncio.get_running_loop()
    if isinstance(way, Path):
        _, connection = await loop.create_unix_connection(lambda: Connection(on_event, on_lost), str(way))
    else:
        opened = await way()
        _, connection = await loop.create_unix_connection(lambda: Connection(on_event, on_lost), sock=opened)
    return connection
