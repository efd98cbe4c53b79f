"""One streaming call as its caller sees it: bytes both ways under credit, then the guest's reply."""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import AsyncIterator
from typing import Protocol

from cuboid.guest import agent_pb2 as pb
from cuboid.guest.errors import GuestError, GuestLostError, from_pb
from cuboid.guest.frames import MAX_PAYLOAD, WINDOW, Kind
from cuboid.lib.errors import CuboidError, HostileError

CREDIT_STEP = WINDOW // 4  # credit goes back in pieces of this size
MAX_CREDIT = 1 << 40  # more than this is no credit but an attempt to overflow something


class Link(Protocol):
    """What a stream needs of its connection."""

    def send(self, kind: Kind, stream: int, payload: bytes | memoryview = b"", flags: int = 0) -> None: ...

    async def writable(self) -> None:
        """Wait until the socket takes more. GuestLostError."""
        ...

    def forget(self, stream: int) -> None:
        """The stream is over."""
        ...


class GuestStream:
    """Implements `base.Stream`. The connection feeds it; whatever breaks a rule there raises HostileError."""

    def __init__(self, stream_id: int, link: Link) -> None:
        self._id = stream_id
        self.ignored: frozenset[int] = frozenset()  # channels whose data the caller does not want
        self._link = link
        self._incoming: deque[tuple[int, bytes]] = deque()
        self._window = WINDOW  # bytes that the guest may still send
        self._taken = 0  # bytes that the caller took and whose credit is not given back yet
        self._credit = WINDOW  # bytes that we may still send
        self._changed = asyncio.Event()
        self._reply: pb.Reply | None = None
        self._failure: CuboidError | None = None
        self._dropping = False

    @property
    def id(self) -> int:
        return self._id

    @property
    def over(self) -> bool:
        return self._reply is not None or self._failure is not None

    # --- fed by the connection -------------------------------------------------------------------------------------

    def on_data(self, channel: int, payload: bytes) -> None:
        self._window -= len(payload)
        if self._window < 0:
            raise HostileError("the guest sent more data than it had credit for")
        if self._dropping or channel in self.ignored:
            self._give_credit(len(payload))
        elif payload:
            self._incoming.append((channel, payload))
            self._changed.set()

    def on_credit(self, count: int) -> None:
        self._credit += count
        if self._credit > MAX_CREDIT:
            raise HostileError("the guest gave more credit than makes sense")
        self._changed.set()

    def on_reply(self, reply: pb.Reply) -> None:
        self._reply = reply
        self._changed.set()

    def fail(self, error: CuboidError) -> None:
        if not self.over:
            self._failure = error
        self._changed.set()

    # --- for the caller --------------------------------------------------------------------------------------------

    async def send(self, data: bytes, channel: int = 0) -> None:
        view = memoryview(data)
        while len(view):
            await self._link.writable()
            self._check_open()
            if self._credit <= 0:
                await self._change()
                continue
            count = min(len(view), self._credit, MAX_PAYLOAD)
            self._credit -= count
            self._link.send(Kind.DATA, self._id, view[:count], channel)
            view = view[count:]

    async def send_end(self, channel: int = 0) -> None:
        self._check_open()
        self._link.send(Kind.END, self._id, flags=channel)

    async def received(self) -> AsyncIterator[tuple[int, bytes]]:
        while True:
            while self._incoming:
                channel, payload = self._incoming.popleft()
                yield channel, payload
                self._give_credit(len(payload))
            if self._failure is not None:
                raise self._failure
            if self._reply is not None:
                return
            await self._change()

    async def reply(self) -> pb.Reply:
        self._dropping = True
        while self._incoming:
            self._give_credit(len(self._incoming.popleft()[1]))
        while not self.over:
            await self._change()
        if self._failure is not None:
            raise self._failure
        assert self._reply is not None
        if self._reply.WhichOneof("reply") == "error":
            raise from_pb(self._reply.error)
        return self._reply

    async def __aenter__(self) -> GuestStream:
        return self

    async def __aexit__(self, *details: object) -> None:
        self.abandon("the caller left")

    def abandon(self, reason: str) -> None:
        """Reset the stream if it is not over. Safe to repeat."""
        if not self.over:
            self._link.send(Kind.RESET, self._id, reason.encode()[:1024])
            self.fail(GuestLostError("the stream was given up by its own caller"))
            self._link.forget(self._id)

    async def _change(self) -> None:
        self._changed.clear()
        await self._changed.wait()

    def _give_credit(self, count: int) -> None:
        self._taken += count
        if self._taken >= CREDIT_STEP and not self.over:
            self._window += self._taken
            self._link.send(Kind.CREDIT, self._id, self._taken.to_bytes(4, "little"))
            self._taken = 0

    def _check_open(self) -> None:
        if self._failure is not None:
            raise self._failure
        if self._reply is not None:
            raise GuestLostError("the guest has ended the call and takes no more data")


def reset_error(payload: bytes) -> GuestError:
    """A RESET by the guest, as an error."""
    return from_pb(pb.Error(code=pb.Error.FAILED, message=payload.decode(errors="replace")))
