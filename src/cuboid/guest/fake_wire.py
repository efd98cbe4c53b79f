"""The guest's end of the channel for the fake agent: frames, credit, events, and faults on demand.

The agent's own is in Rust (`guest/agent/src/channel`); both are held to docs/design/0002-agent-channel.md by one suite.
"""

from __future__ import annotations

import asyncio
import time
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass, field

from cuboid.guest import agent_pb2 as pb
from cuboid.guest.frames import MAX_PAYLOAD, MORE, WINDOW, Frame, HostDecoder, Kind, encode_plain, pieces

OnCall = Callable[[pb.Call, "FakeStream"], None]
AGENT_VERSION = "0.0.0-fake"


@dataclass
class Faults:
    """What goes wrong, set and unset by a test at any time."""

    no_greeting: bool = False  # connects, never answers HELLO
    garbage_greeting: bool = False  # answers HELLO with noise without end
    never_answer: set[str] = field(default_factory=set)  # names of calls (fields of pb.Call) that get no reply
    cut_after: int | None = None  # bytes written on this connection after which it is cut, in the middle of a frame


class FakeGone(Exception):
    """The host's end of a stream is gone."""


class FakeStream:
    """A call's stream as its handler sees it, like `StreamHandle` in the agent."""

    def __init__(self, stream_id: int, wire: FakeWire) -> None:
        self.id = stream_id
        self.over = False
        self._wire = wire
        self._incoming: deque[tuple[int, bytes | None]] = deque()
        self._changed = asyncio.Event()
        self._window = WINDOW
        self._credit = WINDOW
        self._taken = 0

    async def receive(self) -> tuple[int, bytes | None]:
        """(channel, bytes), or (channel, None) at the channel's end. FakeGone after a reset."""
        while not self._incoming:
            if self.over:
                raise FakeGone
            self._changed.clear()
            await self._changed.wait()
        channel, data = self._incoming.popleft()
        self._taken += len(data or b"")
        if self._taken >= WINDOW // 4:
            self._window += self._taken
            self._wire.send(Kind.CREDIT, self.id, self._taken.to_bytes(4, "little"))
            self._taken = 0
        return channel, data

    async def send(self, data: bytes, channel: int = 0) -> None:
        view = memoryview(data)
        while len(view):
            if self.over:
                raise FakeGone
            if self._credit <= 0:
                self._changed.clear()
                await self._changed.wait()
                continue
            count = min(len(view), self._credit, MAX_PAYLOAD)
            self._credit -= count
            self._wire.send(Kind.DATA, self.id, view[:count], channel)
            await self._wire.drain()
            view = view[count:]

    async def gone(self) -> None:
        """Returns when the host has let go of the stream. For a handler that waits for something else meanwhile."""
        while not self.over:
            self._changed.clear()
            await self._changed.wait()

    def end(self, channel: int) -> None:
        if not self.over:
            self._wire.send(Kind.END, self.id, flags=channel)

    def reply(self, reply: pb.Reply) -> None:
        if not self.over:
            self.reset()
            self._wire.streams.pop(self.id, None)
            for flags, payload in pieces(reply.SerializeToString()):
                self._wire.send(Kind.REPLY, self.id, payload, flags)

    def take(self, frame: Frame) -> None:
        """A frame of this stream from the host."""
        if frame.kind == Kind.DATA:
            self._window -= len(frame.payload)
            assert self._window >= 0, "the host sent more than its credit"
            self._incoming.append((frame.flags, frame.payload))
        elif frame.kind == Kind.END:
            self._incoming.append((frame.flags, None))
        elif frame.kind == Kind.CREDIT:
            self._credit += int.from_bytes(frame.payload, "little")
        self._changed.set()

    def reset(self) -> None:
        self.over = True
        self._changed.set()


class FakeWire:
    """Serves one host after another on a Unix socket, as a virtio-serial port does."""

    def __init__(self, on_call: OnCall, faults: Faults) -> None:
        self.streams: dict[int, FakeStream] = {}
        self.greetings = 0
        self.boot_id = ""  # what HELLO is answered with
        self._on_call = on_call
        self._faults = faults
        self._events: deque[pb.Event] = deque()
        self.last_event = 0
        self._writer: asyncio.StreamWriter | None = None
        self._greeted = False
        self._partial = bytearray()
        self._turn = asyncio.Lock()
        self._written = 0

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        """One connection. A second host waits until the first has gone."""
        async with self._turn:
            self._writer, self._written = writer, 0
            decoder = HostDecoder()
            try:
                while data := await reader.read(1 << 18):
                    for frame in decoder.received(data):
                        self._handle(frame)
                    await self.drain()
            except (ConnectionError, FakeGone):
                pass
            finally:
                self._disconnect()
                self._writer = None
                writer.close()

    def cut(self) -> None:
        """End the connection at once, as a host that was killed would see it from its side."""
        if self._writer is not None:
            self._writer.transport.abort()

    def push(self, event: pb.Event) -> None:
        """Number, stamp and keep an event, and send it if a host is there."""
        assert len(self._events) < 1024, "a guest stops making events at 1,024"
        self.last_event += 1
        event.number, event.unix_ns = self.last_event, time.time_ns()
        self._events.append(event)
        if self._greeted:
            self.send(Kind.EVENT, 0, event.SerializeToString())

    @property
    def unacknowledged(self) -> int:
        return len(self._events)

    def send(self, kind: int, stream: int, payload: bytes | memoryview = b"", flags: int = 0) -> None:
        self.send_raw(encode_plain(kind, stream, payload, flags))

    def send_raw(self, data: bytes) -> None:
        """Any bytes, also wrong ones."""
        if self._writer is None or self._writer.is_closing():
            return
        limit = self._faults.cut_after
        if limit is not None and self._written + len(data) > limit:
            self._faults.cut_after = None
            self._writer.write(data[: max(0, limit - self._written)])
            self._writer.close()
            return
        self._written += len(data)
        self._writer.write(data)

    async def drain(self) -> None:
        if self._writer is not None:
            try:
                await self._writer.drain()
            except ConnectionError as error:
                raise FakeGone from error

    def _disconnect(self) -> None:
        self._greeted = False
        self._partial.clear()
        streams, self.streams = self.streams, {}
        for stream in streams.values():
            stream.reset()

    def _handle(self, frame: Frame) -> None:
        if frame.kind == Kind.HELLO:
            self._hello(pb.Hello.FromString(frame.payload))
        elif frame.kind == Kind.CALL:
            self._call(frame)
        elif frame.kind == Kind.PING:
            self.send(Kind.PONG, 0, frame.payload)
        elif frame.kind == Kind.EVENT_ACK:
            number = int.from_bytes(frame.payload, "little")
            while self._events and self._events[0].number <= number:
                self._events.popleft()
        elif frame.kind == Kind.RESET:
            if stream := self.streams.pop(frame.stream, None):
                stream.reset()
        elif stream := self.streams.get(frame.stream):
            stream.take(frame)

    def _hello(self, hello: pb.Hello) -> None:
        self._disconnect()
        if self._faults.no_greeting:
            return
        if self._faults.garbage_greeting:
            self.send_raw(bytes(range(256)) * 64)
            return
        self._greeted = True
        self.greetings += 1
        first = self._events[0].number if self._events else 0
        ack = pb.HelloAck(version=1, nonce=hello.nonce, agent_version=AGENT_VERSION, boot_id=self.boot_id)
        ack.first_event = first
        self.send(Kind.HELLO_ACK, 0, ack.SerializeToString())
        for event in self._events:
            self.send(Kind.EVENT, 0, event.SerializeToString())

    def _call(self, frame: Frame) -> None:
        self._partial += frame.payload
        if frame.flags & MORE:
            return
        call = pb.Call.FromString(bytes(self._partial))
        self._partial.clear()
        assert frame.stream not in self.streams, "the host used a stream id twice"
        stream = self.streams[frame.stream] = FakeStream(frame.stream, self)
        if call.WhichOneof("call") not in self._faults.never_answer:
            self._on_call(call, stream)
