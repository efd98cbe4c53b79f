"""The client's side of a WebSocket (RFC 6455), for exec and attach: frames, without extensions. `Frames` is pure."""

from __future__ import annotations

import base64
import os
import select
import socket
import time
from collections.abc import Iterator

from cuboid.lib.errors import HostileError

GUID = b"258EAFA5-E914-47DA-95CA-C5AB0DC85B11"  # of the RFC
CONTINUATION, TEXT, BINARY, CLOSE, PING, PONG = 0x0, 0x1, 0x2, 0x8, 0x9, 0xA
MAX_MESSAGE = 16 << 20  # bytes
READ = 65_536
CLOSE_SECONDS = 2.0  # for a goodbye to be sent
ABNORMAL = 1006  # the connection ended without a close frame


def key() -> str:
    return base64.b64encode(os.urandom(16)).decode()


def accepted(sent: str) -> str:
    """What `Sec-WebSocket-Accept` must be for this key."""
    import hashlib  # loads OpenSSL: not before the request is on its way

    return base64.b64encode(hashlib.sha1(sent.encode() + GUID, usedforsecurity=False).digest()).decode()


def handshake(sent: str, protocol: str) -> dict[str, str]:
    return {
        "Connection": "Upgrade", "Upgrade": "websocket", "Sec-WebSocket-Version": "13", "Sec-WebSocket-Key": sent,
        "Sec-WebSocket-Protocol": protocol,
    }  # fmt: skip


def frame(kind: int, data: bytes) -> bytes:
    """One whole frame, masked as a client's must be."""
    size = len(data)
    if size < 126:
        length = bytes([0x80 | size])
    elif size < 1 << 16:
        length = b"\xfe" + size.to_bytes(2, "big")
    else:
        length = b"\xff" + size.to_bytes(8, "big")
    mask = os.urandom(4)
    return bytes([0x80 | kind]) + length + mask + _masked(data, mask)


def _masked(data: bytes, mask: bytes) -> bytes:
    """XOR with the mask over and over, as one large number: a loop in Python would be the slowest part of a copy."""
    pattern = (mask * (len(data) // 4 + 1))[: len(data)]
    return (int.from_bytes(data, "little") ^ int.from_bytes(pattern, "little")).to_bytes(len(data), "little")


class Frames:
    """What the server sends. `feed` gives whole messages; `answers` is what has to be sent back."""

    def __init__(self) -> None:
        self._rest = bytearray()
        self._message = bytearray()
        self._kind = -1  # of the message under way
        self.answers = bytearray()
        self.close_code: int | None = None

    def feed(self, data: bytes) -> Iterator[bytes]:
        """HostileError for what breaks the protocol."""
        self._rest += data
        while self.close_code is None and (found := self._frame()) is not None:
            final, kind, payload = found
            if kind >= CLOSE:
                self._control(kind, payload, final)
            elif (message := self._part(final, kind, payload)) is not None:
                yield message

    def eof(self) -> None:
        if self.close_code is None:
            self.close_code = ABNORMAL

    def _frame(self) -> tuple[bool, int, bytes] | None:
        rest = self._rest
        if len(rest) < 2:
            return None
        if rest[0] & 0x70 or rest[1] & 0x80:
            raise HostileError("the server sent a frame with an extension or a mask")
        size, start = rest[1], 2
        if size >= 126:
            start = 4 if size == 126 else 10
            if len(rest) < start:
                return None
            size = int.from_bytes(rest[2:start], "big")
        if size > MAX_MESSAGE:
            raise HostileError(f"the server sent a frame of {size} bytes")
        if len(rest) < start + size:
            return None
        payload = bytes(rest[start : start + size])
        final, kind = bool(rest[0] & 0x80), rest[0] & 0x0F
        del rest[: start + size]
        return final, kind, payload

    def _control(self, kind: int, payload: bytes, final: bool) -> None:
        if not final or len(payload) > 125 or kind > PONG:
            raise HostileError("the server sent a control frame that is none")
        if kind == PING:
            self.answers += frame(PONG, payload)
        elif kind == CLOSE:
            self.close_code = int.from_bytes(payload[:2], "big") if len(payload) >= 2 else 1005
            self.answers += frame(CLOSE, payload[:2])

    def _part(self, final: bool, kind: int, payload: bytes) -> bytes | None:
        if (kind == CONTINUATION) != (self._kind >= 0) or kind > BINARY:
            raise HostileError("the server sent a frame out of order")
        self._kind = kind or self._kind
        self._message += payload
        if len(self._message) > MAX_MESSAGE:
            raise HostileError(f"the server sent a message of more than {MAX_MESSAGE} bytes")
        if not final:
            return None
        message, self._kind = bytes(self._message), -1
        self._message.clear()
        return message


class Socket:
    """An open WebSocket that never waits: `receive` when it is readable, `flush` when it is writable.

    What cannot be sent at once is kept in `unsent`; who sends much waits until that is empty.
    """

    def __init__(self, wire: socket.socket, begun: bytes) -> None:
        """`begun` is what the server sent behind its answer to the handshake."""
        wire.setblocking(False)
        self._wire = wire
        self._frames = Frames()
        self._begun = begun
        self.unsent = bytearray()

    def fileno(self) -> int:
        return self._wire.fileno()

    @property
    def waiting(self) -> bool:
        """`receive` has something without the socket being readable."""
        return bool(self._begun)

    @property
    def over(self) -> bool:
        return self._frames.close_code is not None

    def receive(self) -> list[bytes]:
        """The messages that one read completes. HostileError; the end of the connection is `over`."""
        data, self._begun = self._begun, b""
        if not data:
            try:
                data = self._wire.recv(READ)
            except OSError as error:
                if _not_now(error):
                    return []
        if not data:
            self._frames.eof()
        messages = list(self._frames.feed(data))
        if self._frames.answers:
            self.unsent += self._frames.answers
            self._frames.answers.clear()
            self.flush()
        return messages

    def send(self, data: bytes) -> None:
        """A message of bytes, as far as it can be sent now."""
        self.unsent += frame(BINARY, data)
        self.flush()

    def flush(self) -> None:
        """A connection that broke is noticed by `receive`."""
        try:
            while self.unsent:
                del self.unsent[: self._wire.send(bytes(self.unsent[: 4 * READ]))]
        except OSError as error:
            if not _not_now(error):
                self.unsent.clear()

    def close(self) -> None:
        """Say goodbye, unless the server did, and let go."""
        if not self.over:
            self.unsent += frame(CLOSE, (1000).to_bytes(2, "big"))
        until = time.monotonic() + CLOSE_SECONDS
        self.flush()
        while self.unsent and (left := until - time.monotonic()) > 0:
            select.select([], [self._wire], [], left)
            self.flush()
        self._wire.close()


def _not_now(error: OSError) -> bool:
    """The socket would have to be waited for. TLS has words of its own for that; its module may not be imported."""
    return isinstance(error, BlockingIOError) or type(error).__name__ in ("SSLWantReadError", "SSLWantWriteError")
