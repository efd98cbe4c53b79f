"""SPDY/3.1 frames, as far as Kubernetes' port forwarding uses them: bytes to frames and back, without I/O.

Strict: a length, version, type or header block that breaks a rule or a limit raises ProtocolError, and the connection
is over. Source: "SPDY Protocol - Draft 3.1", sections 2 and 3.
"""

from __future__ import annotations

import struct
import zlib
from collections.abc import Iterable
from dataclasses import dataclass

VERSION = 3
SYN_STREAM, SYN_REPLY, RST_STREAM, SETTINGS, PING, GOAWAY, HEADERS, WINDOW_UPDATE = 1, 2, 3, 4, 6, 7, 8, 9
FIN = 0x01
UNIDIRECTIONAL = 0x02
PROTOCOL_ERROR, REFUSED_STREAM, CANCEL, INTERNAL_ERROR, STREAM_IN_USE = 1, 3, 5, 6, 8  # of RST_STREAM

MAX_DATA = 1 << 20  # bytes of a data frame; clients send 32 KiB
MAX_CONTROL = 64 << 10  # bytes of a control frame
MAX_HEADER_BLOCK = 64 << 10  # bytes of a header block after decompression
MAX_HEADERS = 64
STREAM_MASK = 0x7FFFFFFF

_NAMES = (
    "options head post put delete trace accept accept-charset accept-encoding accept-language accept-ranges age allow "
    "authorization cache-control connection content-base content-encoding content-language content-length "
    "content-location content-md5 content-range content-type date etag expect expires from host if-match "
    "if-modified-since if-none-match if-range if-unmodified-since last-modified location max-forwards pragma "
    "proxy-authenticate proxy-authorization range referer retry-after server te trailer transfer-encoding upgrade "
    "user-agent vary via warning www-authenticate method get status"
)
_WORDS = (*_NAMES.split(), "200 OK", "version", "HTTP/1.1", "url", "public", "set-cookie", "keep-alive", "origin")
_TAIL = (
    "100101201202205206300302303304305306307402405406407408409410411412413414415416417502504505"
    "203 Non-Authoritative Information204 No Content301 Moved Permanently400 Bad Request401 Unauthorized403 Forbidden"
    "404 Not Found500 Internal Server Error501 Not Implemented503 Service Unavailable"
    "Jan Feb Mar Apr May Jun Jul Aug Sept Oct Nov Dec 00:00:00 Mon, Tue, Wed, Thu, Fri, Sat, Sun, GMT"
    "chunked,text/html,image/png,image/jpg,image/gif,application/xml,application/xhtml+xml,text/plain,text/javascript,"
    "publicprivatemax-age=gzip,deflate,sdchcharset=utf-8charset=iso-8859-1,utf-,*,enq=0."
)
DICTIONARY = b"".join(struct.pack("!I", len(word)) + word.encode() for word in _WORDS) + _TAIL.encode()
"""Both sides of a connection start their header compression with this text (section 2.6.10.1); Adler-32 e3c6a7c2."""


class ProtocolError(ValueError):
    """The peer broke SPDY."""


@dataclass(frozen=True)
class Data:
    stream: int
    payload: bytes
    fin: bool = False


@dataclass(frozen=True)
class SynStream:
    stream: int
    headers: tuple[tuple[str, str], ...]
    fin: bool = False
    unidirectional: bool = False


@dataclass(frozen=True)
class SynReply:
    stream: int
    headers: tuple[tuple[str, str], ...] = ()
    fin: bool = False


@dataclass(frozen=True)
class Headers:
    stream: int
    headers: tuple[tuple[str, str], ...]
    fin: bool = False


@dataclass(frozen=True)
class Reset:
    stream: int
    status: int


@dataclass(frozen=True)
class Ping:
    id: int


@dataclass(frozen=True)
class GoAway:
    last_stream: int
    status: int = 0


@dataclass(frozen=True)
class WindowUpdate:
    stream: int
    delta: int


@dataclass(frozen=True)
class Settings:
    entries: tuple[tuple[int, int], ...]  # (id, value)


Frame = Data | SynStream | SynReply | Headers | Reset | Ping | GoAway | WindowUpdate | Settings


class Decoder:
    """Takes bytes as they come, gives whole frames. After a ProtocolError it must not be used again."""

    def __init__(self) -> None:
        self._buffer = bytearray()
        self._inflate = zlib.decompressobj(zdict=DICTIONARY)

    def feed(self, data: bytes) -> list[Frame]:
        self._buffer += data
        frames = []
        while (frame := self._next()) is not None:
            frames.append(frame)
        return frames

    def _next(self) -> Frame | None:
        if len(self._buffer) < 8:
            return None
        first, second = struct.unpack_from("!II", self._buffer)
        flags, length = second >> 24, second & 0xFFFFFF
        control = bool(first >> 31)
        if length > (MAX_CONTROL if control else MAX_DATA):
            raise ProtocolError("a frame that is too long")
        if control and (first >> 16) & 0x7FFF != VERSION:
            raise ProtocolError("another version of SPDY")
        if len(self._buffer) < 8 + length:
            return None
        payload = bytes(self._buffer[8 : 8 + length])
        del self._buffer[: 8 + length]
        if control:
            return self._control(first & 0xFFFF, flags, payload)
        return Data(_stream(first), payload, bool(flags & FIN))

    def _control(self, kind: int, flags: int, payload: bytes) -> Frame:
        fin = bool(flags & FIN)
        if kind == SYN_STREAM:
            stream, _, _ = _unpack("!IIH", payload[:10])
            return SynStream(_stream(stream), self._headers(payload[10:]), fin, bool(flags & UNIDIRECTIONAL))
        if kind == SYN_REPLY:
            return SynReply(_stream(*_unpack("!I", payload[:4])), self._headers(payload[4:]), fin)
        if kind == HEADERS:
            return Headers(_stream(*_unpack("!I", payload[:4])), self._headers(payload[4:]), fin)
        return _plain_control(kind, payload)

    def _headers(self, block: bytes) -> tuple[tuple[str, str], ...]:
        try:
            plain = self._inflate.decompress(block, MAX_HEADER_BLOCK + 1)
        except zlib.error as error:
            raise ProtocolError("a header block that cannot be decompressed") from error
        if len(plain) > MAX_HEADER_BLOCK or self._inflate.unconsumed_tail or self._inflate.eof:
            raise ProtocolError("a header block that is too long")
        return parse_headers(plain)


def _plain_control(kind: int, payload: bytes) -> Frame:
    """The control frames without a header block."""
    if kind == RST_STREAM:
        stream, status = _unpack("!II", payload)
        return Reset(_stream(stream), status)
    if kind == PING:
        return Ping(*_unpack("!I", payload))
    if kind == GOAWAY:
        last, status = _unpack("!II", payload)
        return GoAway(last & STREAM_MASK, status)
    if kind == WINDOW_UPDATE:
        stream, delta = _unpack("!II", payload)
        return WindowUpdate(stream & STREAM_MASK, delta & STREAM_MASK)
    if kind == SETTINGS:
        (count,) = _unpack("!I", payload[:4])
        if len(payload) != 4 + 8 * count:
            raise ProtocolError("settings of a wrong length")
        return Settings(tuple((key & 0xFFFFFF, value) for key, value in struct.iter_unpack("!II", payload[4:])))
    raise ProtocolError(f"a control frame of the unknown type {kind}")


def _unpack(layout: str, payload: bytes) -> tuple[int, ...]:
    if len(payload) != struct.calcsize(layout):
        raise ProtocolError("a control frame of a wrong length")
    return struct.unpack(layout, payload)


def _stream(number: int) -> int:
    number &= STREAM_MASK
    if number == 0:
        raise ProtocolError("stream 0")
    return number


def parse_headers(block: bytes) -> tuple[tuple[str, str], ...]:
    """Names and values of a decompressed block; names in lower case, values with NUL between several of one name."""
    fields = []
    (count,) = _unpack("!I", block[:4])
    if count > MAX_HEADERS:
        raise ProtocolError("too many headers")
    position = 4
    for _ in range(count * 2):
        (length,) = _unpack("!I", block[position : position + 4])
        text = block[position + 4 : position + 4 + length]
        if len(text) != length:
            raise ProtocolError("a header that is cut off")
        fields.append(text)
        position += 4 + length
    if position != len(block):
        raise ProtocolError("bytes behind the last header")
    try:
        texts = [field.decode() for field in fields]
    except UnicodeDecodeError as error:
        raise ProtocolError("a header that is not text") from error
    return tuple((name.lower(), value) for name, value in zip(texts[::2], texts[1::2], strict=True))


class Encoder:
    """Frames to bytes. One per connection: header compression remembers."""

    def __init__(self) -> None:
        self._deflate = zlib.compressobj(zdict=DICTIONARY)

    def encode(self, frame: Frame) -> bytes:
        match frame:
            case Data(stream, payload, fin):
                return struct.pack("!II", stream, (FIN if fin else 0) << 24 | len(payload)) + payload
            case SynStream(stream, headers, fin, unidirectional):
                flags = (FIN if fin else 0) | (UNIDIRECTIONAL if unidirectional else 0)
                return _control(SYN_STREAM, flags, struct.pack("!IIH", stream, 0, 0) + self._block(headers))
            case SynReply(stream, headers, fin):
                return _control(SYN_REPLY, FIN if fin else 0, struct.pack("!I", stream) + self._block(headers))
            case Headers(stream, headers, fin):
                return _control(HEADERS, FIN if fin else 0, struct.pack("!I", stream) + self._block(headers))
            case Reset(stream, status):
                return _control(RST_STREAM, 0, struct.pack("!II", stream, status))
            case Ping(number):
                return _control(PING, 0, struct.pack("!I", number))
            case GoAway(last, status):
                return _control(GOAWAY, 0, struct.pack("!II", last, status))
            case WindowUpdate(stream, delta):
                return _control(WINDOW_UPDATE, 0, struct.pack("!II", stream, delta))
            case Settings(entries):
                rows = b"".join(struct.pack("!II", key, value) for key, value in entries)
                return _control(SETTINGS, 0, struct.pack("!I", len(entries)) + rows)

    def _block(self, headers: Iterable[tuple[str, str]]) -> bytes:
        pairs = [(name.lower().encode(), value.encode()) for name, value in headers]
        plain = struct.pack("!I", len(pairs))
        for pair in pairs:
            for text in pair:
                plain += struct.pack("!I", len(text)) + text
        return self._deflate.compress(plain) + self._deflate.flush(zlib.Z_SYNC_FLUSH)


def _control(kind: int, flags: int, payload: bytes) -> bytes:
    return struct.pack("!HHI", 0x8000 | VERSION, kind, flags << 24 | len(payload)) + payload
