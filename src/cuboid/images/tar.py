"""A tar reader for hostile input: ustar, GNU, PAX and old V7 archives as a stream of entries. Names are bytes.

Python's `tarfile` is neither bounded (it holds headers of any size) nor fast enough, and decodes names; this reads
what layers hold and refuses the rest. Sources: POSIX.1-2008 pax, GNU tar's manual on its formats and sparse files.
"""

from __future__ import annotations

import enum
import struct
from collections.abc import Iterator
from dataclasses import dataclass, field

from cuboid.images.layers import PIECE, ByteStream
from cuboid.images.settings import Limits
from cuboid.lib.errors import HostileError

BLOCK = 512
NAME_MAX, PATH_MAX = 255, 4096  # bytes, as Linux has them
_XATTR = b"SCHILY.xattr."
_MAX_SEGMENTS = 65536  # pieces of one sparse file
_HEADER = struct.Struct("100s8s8s8s12s12s8sc100s8s32s32s8s8s155s12s")
_ZERO = bytes(BLOCK)


class Kind(enum.IntEnum):
    FILE = 1
    DIRECTORY = 2
    CHARACTER = 3
    BLOCK = 4
    FIFO = 5
    SYMLINK = 7
    HARDLINK = 8


_KINDS = {
    b"0": Kind.FILE, b"\0": Kind.FILE, b"7": Kind.FILE, b"S": Kind.FILE, b"1": Kind.HARDLINK, b"2": Kind.SYMLINK,
    b"3": Kind.CHARACTER, b"4": Kind.BLOCK, b"5": Kind.DIRECTORY, b"6": Kind.FIFO,
}  # fmt: skip


@dataclass(slots=True)
class Entry:
    """One member. `size` is the apparent size; `segments` are (offset, length) of a sparse file's stored bytes."""

    name: bytes
    kind: Kind
    mode: int = 0o644
    uid: int = 0
    gid: int = 0
    mtime: int = 0
    mtime_ns: int = 0
    size: int = 0
    target: bytes = b""
    major: int = 0
    minor: int = 0
    xattrs: dict[bytes, bytes] = field(default_factory=dict)
    segments: list[tuple[int, int]] | None = None


class TarReader:
    """Iterate entries; while an entry is current, `data()` gives the pieces of what the archive stores for it."""

    def __init__(self, stream: ByteStream, limits: Limits) -> None:
        self._stream = stream
        self._limits = limits
        self._left = 0  # stored bytes of the current entry not read yet
        self._padding = 0
        self._globals: dict[bytes, bytes] = {}

    def __iter__(self) -> Iterator[Entry]:
        while (entry := self._next()) is not None:
            yield entry
            self._skip()

    def data(self) -> Iterator[bytes]:
        """Pieces of the current entry's stored bytes, in order, none empty."""
        while self._left:
            piece = self._stream.take(min(self._left, PIECE))
            if not piece:
                raise HostileError("a layer is truncated in the middle of a file")
            self._left -= len(piece)
            yield piece

    def _skip(self) -> None:
        for _ in self.data():
            pass
        if self._padding and len(self._stream.read(self._padding)) < self._padding:
            raise HostileError("a layer is truncated in the middle of a file")
        self._padding = 0

    def _next(self) -> Entry | None:
        pax: dict[bytes, bytes] = {}
        long: dict[bytes, bytes] = {}
        extensions = 0
        while (raw := self._header()) is not None:
            fields = _HEADER.unpack(raw)
            kind = fields[7]
            if kind not in b"xgXLKV":
                return self._entry(fields, raw, {**self._globals, **pax} if self._globals else pax, long)
            extensions += 1
            if extensions > 16:
                raise HostileError("a layer has a run of extended headers without a file")
            body = self._body(_number(fields[4], "size"))
            if kind in b"xX":
                pax = parse_pax(body)
            elif kind == b"g":
                self._globals.update(parse_pax(body))
                if len(self._globals) > 256:
                    raise HostileError("a layer has too many global headers")
            elif kind in b"LK":
                long[kind] = body.partition(b"\0")[0]
        if extensions:
            raise HostileError("a layer ends after an extended header")
        return None

    def _header(self) -> bytes | None:
        raw = self._stream.read(BLOCK)
        if not raw or raw == _ZERO:
            return None
        if len(raw) < BLOCK:
            raise HostileError("a layer is truncated in the middle of a header")
        stored = _number(raw[148:156], "checksum")
        total = sum(raw) - sum(raw[148:156]) + 256
        if stored != total and stored != total - 256 * sum(byte > 127 for byte in raw[:148] + raw[156:]):
            raise HostileError("a layer is not a valid tar archive: a header's checksum is wrong")
        return raw

    def _body(self, size: int) -> bytes:
        if not 0 <= size <= self._limits.pax_bytes:
            raise HostileError(f"an extended header has {size} bytes, more than {self._limits.pax_bytes}")
        padded = -(-size // BLOCK) * BLOCK
        body = self._stream.read(padded)
        if len(body) < padded:
            raise HostileError("a layer is truncated in the middle of an extended header")
        return body[:size]

    def _entry(self, fields: tuple[bytes, ...], raw: bytes, pax: dict[bytes, bytes], long: dict[bytes, bytes]) -> Entry:
        kind = _KINDS.get(fields[7])
        if kind is None:
            raise HostileError(f"a layer has an entry of the unknown type {fields[7]!r}")
        entry = Entry(
            _name(fields, raw, long, b"L"), kind,
            mode=_number(fields[1], "mode") & 0o7777, uid=_number(fields[2], "uid"), gid=_number(fields[3], "gid"),
            mtime=_number(fields[5], "mtime"), size=_number(fields[4], "size"),
            target=long.get(b"K", fields[8].partition(b"\0")[0]),
        )  # fmt: skip
        if kind in (Kind.CHARACTER, Kind.BLOCK):
            entry.major, entry.minor = _number(fields[12], "major"), _number(fields[13], "minor")
        stored = _apply_pax(entry, pax, self._limits) if pax else entry.size
        if kind is Kind.FILE and entry.name.endswith(b"/") and fields[7] in b"\x000":
            entry.kind = kind = Kind.DIRECTORY  # V7 archives have no type for directories
        self._start(entry, stored, kind)
        if kind is Kind.FILE:
            self._read_sparse(entry, raw, pax)
        _check(entry)
        return entry

    def _start(self, entry: Entry, stored: int, kind: Kind) -> None:
        if stored < 0 or stored > self._limits.unpacked_bytes:
            raise HostileError(f"a layer has a file of {stored} bytes, more than {self._limits.unpacked_bytes}")
        # Links and directories store nothing, whatever their size says; POSIX lets a hard link carry data: nobody does.
        self._left = stored if kind is Kind.FILE else 0
        self._padding = -self._left % BLOCK
        if kind is not Kind.FILE:
            entry.size = 0

    def _read_sparse(self, entry: Entry, raw: bytes, pax: dict[bytes, bytes]) -> None:
        if raw[156:157] == b"S":
            entry.size, segments = self._gnu_map(raw)
        elif pax.get(b"GNU.sparse.major") == b"1":
            entry.size, segments = _decimal(pax.get(b"GNU.sparse.realsize", b"")), self._map_in_data()
        elif b"GNU.sparse.map" in pax or b"GNU.sparse.size" in pax:
            numbers = [_decimal(part) for part in pax.get(b"GNU.sparse.map", b"").split(b",") if part]
            entry.size = _decimal(pax.get(b"GNU.sparse.size", b""))
            segments = list(zip(numbers[::2], numbers[1::2], strict=len(numbers) % 2 == 0))
        else:
            return
        _check_segments(segments, entry.size, self._left)
        entry.segments = [segment for segment in segments if segment[1]]

    def _gnu_map(self, raw: bytes) -> tuple[int, list[tuple[int, int]]]:
        segments = _pairs(raw[386:482])
        more = raw[482]
        while more:
            block = self._stream.read(BLOCK)
            if len(block) < BLOCK or len(segments) > _MAX_SEGMENTS:
                raise HostileError("a sparse file's map is truncated or too long")
            segments += _pairs(block[:504])
            more = block[504]
        return _number(raw[483:495], "real size"), segments

    def _map_in_data(self) -> list[tuple[int, int]]:
        """PAX sparse 1.0: decimal lines at the start of the data, padded to a block."""
        text, needed = b"", 1
        while text.count(b"\n") < needed:
            if self._left < BLOCK or len(text) > _MAX_SEGMENTS * 24:
                raise HostileError("a sparse file's map is truncated or too long")
            text += self._stream.read(BLOCK)
            self._left -= BLOCK
            if needed == 1 and b"\n" in text:
                needed += 2 * min(_decimal(text.partition(b"\n")[0]), _MAX_SEGMENTS + 1)
        numbers = [_decimal(line) for line in text.split(b"\n")[1:needed]]
        return list(zip(numbers[::2], numbers[1::2], strict=True))


def _name(fields: tuple[bytes, ...], raw: bytes, long: dict[bytes, bytes], key: bytes) -> bytes:
    if key in long:
        return long[key]
    name = fields[0].partition(b"\0")[0]
    prefix = fields[14].partition(b"\0")[0] if raw[257:263] == b"ustar\0" else b""  # GNU's magic has no prefix
    return prefix + b"/" + name if prefix else name


def _number(text: bytes, what: str) -> int:
    """Octal digits, or GNU's base 256 when the first bit is set."""
    if text and text[0] & 0x80:
        value = int.from_bytes(text, "big") & ((1 << (8 * len(text) - 1)) - 1)
        if text[0] & 0x40:
            value -= 1 << (8 * len(text) - 1)
        return value
    digits = text.partition(b"\0")[0].strip(b" ")
    if not digits:
        return 0
    try:
        return int(digits, 8)
    except ValueError as error:
        raise HostileError(f"a layer is not a valid tar archive: {what} is {digits!r}") from error


def _decimal(text: bytes) -> int:
    if not text.isdigit() or len(text) > 19:
        raise HostileError(f"an extended header has {text[:40]!r} where a number belongs")
    return int(text)


def parse_pax(body: bytes) -> dict[bytes, bytes]:
    """Records `LENGTH KEY=VALUE\\n`; the last of equal keys wins, an empty value removes the key's meaning."""
    records: dict[bytes, bytes] = {}
    at = 0
    while at < len(body) and body[at]:
        space = body.find(b" ", at, at + 20)
        length = _decimal(body[at:space]) if space > at else 0
        record = body[at : at + length]
        key, equals, value = record[space - at + 1 : -1].partition(b"=")
        if length < 5 or len(record) != length or record[-1:] != b"\n" or not equals or not key:
            raise HostileError("a layer has a malformed extended header")
        # GNU sparse 0.0 repeats two keys; gathered here as the map of 0.1.
        if key in (b"GNU.sparse.offset", b"GNU.sparse.numbytes"):
            records[b"GNU.sparse.map"] = records.get(b"GNU.sparse.map", b"") + b"," + value
        else:
            records[key] = value
        at += length
    return records


def _apply_pax(entry: Entry, pax: dict[bytes, bytes], limits: Limits) -> int:
    """Overlay what the extended header says; returns the stored size."""
    if pax.get(b"path"):
        entry.name = pax[b"path"]
    if pax.get(b"GNU.sparse.name"):
        entry.name = pax[b"GNU.sparse.name"]
    if pax.get(b"linkpath"):
        entry.target = pax[b"linkpath"]
    if pax.get(b"size"):
        entry.size = _decimal(pax[b"size"])
    if pax.get(b"uid"):
        entry.uid = _decimal(pax[b"uid"])
    if pax.get(b"gid"):
        entry.gid = _decimal(pax[b"gid"])
    if pax.get(b"mtime"):
        entry.mtime, entry.mtime_ns = _time(pax[b"mtime"])
    entry.xattrs = {key[len(_XATTR) :]: value for key, value in pax.items() if key.startswith(_XATTR)}
    if entry.xattrs and sum(len(key) + len(value) for key, value in entry.xattrs.items()) > limits.xattr_bytes:
        raise HostileError(f"a file has more than {limits.xattr_bytes} bytes of extended attributes")
    return entry.size


def _time(text: bytes) -> tuple[int, int]:
    """Seconds and nanoseconds of a decimal fraction, rounded down."""
    whole, _, fraction = text.partition(b".")
    negative = whole.startswith(b"-")
    seconds = _decimal(whole.lstrip(b"-") or b"0")
    nanoseconds = _decimal((fraction[:9] or b"0").ljust(9, b"0"))
    if negative:
        return (-seconds, 0) if not nanoseconds else (-seconds - 1, 1_000_000_000 - nanoseconds)
    return seconds, nanoseconds


def _pairs(area: bytes) -> list[tuple[int, int]]:
    found = []
    for at in range(0, len(area) - 23, 24):
        if not area[at] and not area[at + 12]:
            break
        found.append((_number(area[at : at + 12], "offset"), _number(area[at + 12 : at + 24], "length")))
    return found


def _check_segments(segments: list[tuple[int, int]], size: int, stored: int) -> None:
    end = total = 0
    for offset, length in segments:
        if offset < end or length < 0:
            raise HostileError("a sparse file's map is not in order")
        end, total = offset + length, total + length
    if end > size or total != stored or len(segments) > _MAX_SEGMENTS:
        raise HostileError("a sparse file's map does not fit its size")


def _check(entry: Entry) -> None:
    if len(entry.name) > PATH_MAX or len(entry.target) >= PATH_MAX:
        raise HostileError(f"a layer has a path of more than {PATH_MAX} bytes")
    if entry.kind is Kind.SYMLINK and not entry.target:
        raise HostileError("a layer has a symbolic link to nowhere")
    if b"\0" in entry.name or b"\0" in entry.target:
        raise HostileError("a layer has a path with a NUL byte in it")
    if not (0 <= entry.uid < 1 << 32 and 0 <= entry.gid < 1 << 32):
        raise HostileError("a layer has a file whose owner is not a 32-bit number")
    if not (0 <= entry.major < 1 << 12 and 0 <= entry.minor < 1 << 20):
        raise HostileError("a layer has a device whose number Linux cannot have")
    if not -(1 << 62) < entry.mtime < 1 << 62 or entry.size < 0:
        raise HostileError("a layer has a file whose time or size no file can have")
