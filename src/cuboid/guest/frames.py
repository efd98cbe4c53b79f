"""The frames of the agent channel, as bytes and back. Pure: no I/O, no clock. docs/design/0002-agent-channel.md."""

from __future__ import annotations

import enum
import mmap
import struct
import zlib
from collections.abc import Iterator
from typing import NamedTuple

from google.protobuf.message import DecodeError

from cuboid.guest import agent_pb2 as pb
from cuboid.lib.errors import HostileError, InvalidError

MAGIC = b"\xb1\xc0"
HEADER = struct.Struct("<2sBBIII")
MAX_PAYLOAD = 65_536  # bytes in one frame
MAX_MESSAGE = 8 << 20  # bytes of one Call or Reply over all its frames
MORE = 1  # flag of CALL and REPLY: the message goes on in the next frame of this type
WINDOW = 262_144  # bytes of DATA that each direction of a stream starts with
ZEROS = bytes(HEADER.size + MAX_PAYLOAD)  # completes whatever frame was left half-sent
MAX_HELLO = 64  # bytes; out of step nothing longer is believed to be a HELLO
MAX_ACK = 4096
MAX_EVENT = 16_384
# A guest whose host vanished may still send what all its streams had credit for before it reads the HELLO.
MAX_SKIPPED = 256 * (WINDOW + 64 * HEADER.size) + MAX_MESSAGE
BUFFER = 4 * (HEADER.size + MAX_PAYLOAD)


class Kind(enum.IntEnum):
    HELLO = 1
    HELLO_ACK = 2
    CALL = 3
    REPLY = 4
    DATA = 5
    CREDIT = 6
    END = 7
    RESET = 8
    EVENT = 9
    EVENT_ACK = 10
    PING = 11
    PONG = 12


KINDS = frozenset(int(kind) for kind in Kind)


class Frame(NamedTuple):
    kind: int
    flags: int
    stream: int
    payload: bytes


def encode(kind: int, stream: int, payload: bytes | memoryview = b"", flags: int = 0) -> bytes:
    """A frame in the host's form, with its CRC."""
    head = HEADER.pack(MAGIC, kind, flags, stream, len(payload), 0)[:12]
    crc = zlib.crc32(payload, zlib.crc32(head))
    return b"".join((head, crc.to_bytes(4, "little"), payload))


def encode_plain(kind: int, stream: int, payload: bytes | memoryview = b"", flags: int = 0) -> bytes:
    """A frame in the guest's form, without CRC."""
    return HEADER.pack(MAGIC, kind, flags, stream, len(payload), 0) + payload


def pieces(message: bytes) -> Iterator[tuple[int, memoryview]]:
    """(flags, payload) of each frame of one message. InvalidError if it is longer than MAX_MESSAGE."""
    if len(message) > MAX_MESSAGE:
        raise InvalidError(
            f"a message of {len(message)} bytes is too long for the guest, {MAX_MESSAGE} are allowed",
            hint="put large files into a volume or the image",
        )
    view = memoryview(message)
    for start in range(0, max(len(view), 1), MAX_PAYLOAD):
        yield MORE if start + MAX_PAYLOAD < len(view) else 0, view[start : start + MAX_PAYLOAD]


class _Buffer:
    """Bytes between `start` and `end` of a piece of memory: read into at the end, taken from the start, never grown."""

    def __init__(self, size: int = BUFFER) -> None:
        # Pages are given when they are first written to: a quiet guest costs two of them, not all.
        self.bytes = mmap.mmap(-1, size, flags=mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS)
        self.view = memoryview(self.bytes)
        self.start = 0
        self.end = 0

    def space(self) -> memoryview:
        """Where to read into; at least one frame fits, because whole frames are always taken out before."""
        if self.start == self.end:
            self.start = self.end = 0
        elif len(self.bytes) - self.end < MAX_PAYLOAD:
            rest = bytes(self.view[self.start : self.end])
            self.view[: len(rest)] = rest
            self.start, self.end = 0, len(rest)
        return self.view[self.end :]


class GuestDecoder:
    """What a guest sends. First all up to the HELLO_ACK with our nonce is dropped, then every frame must be right.

    Usage: read into `space()`, then iterate `received(count)`. HostileError ends the connection.
    """

    def __init__(self, nonce: bytes) -> None:
        self._buffer = _Buffer()
        self._nonce = nonce
        self._skipped = 0
        self._in_step = False

    def expect(self, nonce: bytes) -> None:
        """A HELLO with another nonce has been sent: only its answer counts."""
        self._nonce = nonce

    def space(self) -> memoryview:
        return self._buffer.space()

    def received(self, count: int) -> Iterator[Frame]:
        self._buffer.end += count
        if not self._in_step:
            ack = self._find_ack()
            if ack is None:
                return
            self._in_step = True
            yield ack
        while (frame := self._next()) is not None:
            yield frame

    def _next(self) -> Frame | None:
        buffer = self._buffer
        have = buffer.end - buffer.start
        if have < HEADER.size:
            return None
        magic, kind, flags, stream, length, _ = HEADER.unpack_from(buffer.bytes, buffer.start)
        if magic != MAGIC or kind not in KINDS or length > MAX_PAYLOAD:
            raise HostileError("the guest sent a frame that breaks the rules of the channel")
        if have < HEADER.size + length:
            return None
        begin = buffer.start + HEADER.size
        buffer.start = begin + length
        return Frame(kind, flags, stream, bytes(buffer.view[begin : begin + length]))

    def _find_ack(self) -> Frame | None:
        buffer = self._buffer
        begin = buffer.start
        found = self._scan()
        self._skipped += buffer.start - begin if found is None else 0
        if self._skipped > MAX_SKIPPED:
            raise HostileError("the guest sends without end and never answers the greeting")
        return found

    def _scan(self) -> Frame | None:
        """Look for the answer; leaves `start` at the first byte that may still belong to it."""
        buffer = self._buffer
        prefix = HEADER.pack(MAGIC, Kind.HELLO_ACK, 0, 0, 0, 0)[:8]
        while True:
            at = buffer.bytes.find(prefix, buffer.start, buffer.end)
            if at < 0:
                buffer.start = max(buffer.start, buffer.end - len(prefix) + 1)
                return None
            buffer.start = at
            if buffer.end - at < HEADER.size:
                return None
            length = HEADER.unpack_from(buffer.bytes, at)[4]
            if length <= MAX_ACK:
                if buffer.end - at < HEADER.size + length:
                    return None
                payload = bytes(buffer.view[at + HEADER.size : at + HEADER.size + length])
                if self._answers(payload):
                    buffer.start = at + HEADER.size + length
                    return Frame(Kind.HELLO_ACK, 0, 0, payload)
            buffer.start = at + 1

    def _answers(self, payload: bytes) -> bool:
        try:
            return bool(pb.HelloAck.FromString(payload).nonce == self._nonce)
        except DecodeError:
            return False


class HostDecoder:
    """What a host sends, as the guest takes it: out of step nothing is believed but a HELLO, found byte by byte.

    The agent's own decoder is the one in Rust; this one serves the fake agent and holds both to the same rules.
    """

    def __init__(self) -> None:
        self._bytes = bytearray()
        self._in_step = False

    def received(self, data: bytes) -> Iterator[Frame]:
        self._bytes += data
        while self._skip():
            magic, kind, flags, stream, length, crc = HEADER.unpack_from(self._bytes)
            size = HEADER.size + length
            if magic == MAGIC and self._believable(kind, length):
                if len(self._bytes) < size:
                    return
                if zlib.crc32(self._bytes[HEADER.size : size], zlib.crc32(self._bytes[:12])) == crc:
                    payload = bytes(self._bytes[HEADER.size : size])
                    del self._bytes[:size]
                    self._in_step = True
                    yield Frame(kind, flags, stream, payload)
                    continue
            self._in_step = False
            del self._bytes[0]

    def _skip(self) -> bool:
        if self._in_step:
            if self._bytes[:1] == b"\0":
                self._bytes = self._bytes.lstrip(b"\0")
        else:
            at = self._bytes.find(MAGIC[:1])
            del self._bytes[: len(self._bytes) if at < 0 else at]
        return len(self._bytes) >= HEADER.size

    def _believable(self, kind: int, length: int) -> bool:
        if self._in_step:
            return kind in KINDS and length <= MAX_PAYLOAD
        return kind == Kind.HELLO and length <= MAX_HELLO
