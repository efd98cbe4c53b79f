"""A layer blob as one stream of unpacked bytes: plain, gzip (any number of members) or zstd, recognised by its magic.

Everything is bounded while it streams: packed size, unpacked size, and the ratio of both.
"""

from __future__ import annotations

import os
import zlib
from collections.abc import Callable, Iterator
from typing import IO, cast

import zstandard

from cuboid.images.settings import Limits
from cuboid.lib.errors import HostileError

PIECE = 1 << 20  # bytes read, and given on, at once
GZIP_MAGIC, ZSTD_MAGIC = b"\x1f\x8b", b"\x28\xb5\x2f\xfd"
_ZSTD_WINDOW = 128 << 20  # bytes; zstd's own default cap


class Budget:
    """Counts what the layers of one image unpack to. Shared by all layers of the image."""

    def __init__(self, limits: Limits) -> None:
        self._limits = limits
        self.packed = 0
        self.unpacked = 0

    def took(self, packed: int) -> None:
        self.packed += packed

    def gave(self, unpacked: int) -> None:
        self.unpacked += unpacked
        if self.unpacked > self._limits.unpacked_bytes:
            raise HostileError(
                f"the layers unpack to more than {self._limits.unpacked_bytes >> 20} MiB",
                hint="[images] max_unpacked_bytes",
            )
        if self.unpacked > self._limits.ratio_free_bytes and self.unpacked > self.packed * self._limits.ratio:
            raise HostileError(
                f"the layers unpack to more than {self._limits.ratio} times their size: a compression bomb",
                hint="[images] max_ratio",
            )


def open_layer(fd: int, budget: Budget, *, hasher: Callable[[bytes], object] | None = None) -> ByteStream:
    """The unpacked bytes of the blob behind `fd`, read from its start; `hasher` gets all of them that are read."""
    return ByteStream(_unpacked(fd, budget, hasher))


def _unpacked(fd: int, budget: Budget, hasher: Callable[[bytes], object] | None) -> Iterator[bytes]:
    magic = os.pread(fd, 4, 0)
    packed = _packed(fd, budget)
    if magic.startswith(GZIP_MAGIC):
        pieces = gunzip(packed)
    elif magic == ZSTD_MAGIC or (len(magic) == 4 and magic[1:] == b"\x2a\x4d\x18" and magic[0] & 0xF0 == 0x50):
        pieces = unzstd(packed)
    else:
        pieces = packed
    for piece in pieces:
        budget.gave(len(piece))
        if hasher:
            hasher(piece)
        yield piece


def _packed(fd: int, budget: Budget) -> Iterator[bytes]:
    offset = 0
    while piece := os.pread(fd, PIECE, offset):
        offset += len(piece)
        budget.took(len(piece))
        yield piece


def gunzip(packed: Iterator[bytes]) -> Iterator[bytes]:
    """RFC 1952 members one after the other; zero padding after the last is ignored, as gzip does."""
    unpacker = zlib.decompressobj(wbits=31)
    started = False
    for data in packed:
        while data:
            if unpacker.eof:
                data = data.lstrip(b"\0")
                if not data:
                    break
                unpacker, started = zlib.decompressobj(wbits=31), False
            try:
                piece = unpacker.decompress(data, PIECE)
            except zlib.error as error:
                raise HostileError(f"a layer is not valid gzip: {error}") from error
            started = True
            if piece:
                yield piece
            data = unpacker.unused_data if unpacker.eof else unpacker.unconsumed_tail
    while started and not unpacker.eof:
        piece = unpacker.decompress(unpacker.unconsumed_tail, PIECE)
        if not piece:
            raise HostileError("a layer is truncated: its gzip stream has no end")
        yield piece


def unzstd(packed: Iterator[bytes]) -> Iterator[bytes]:
    """RFC 8878 frames one after the other. A missing end shows in the tar stream or in the digest of the layer."""
    source = cast("IO[bytes]", _Readable(packed))
    reader = zstandard.ZstdDecompressor(max_window_size=_ZSTD_WINDOW).stream_reader(source, read_across_frames=True)
    try:
        while piece := reader.read(PIECE):
            yield piece
    except zstandard.ZstdError as error:
        raise HostileError(f"a layer is not valid zstd: {error}") from error


class _Readable:
    """An iterator of pieces with the `read` that zstandard wants."""

    def __init__(self, pieces: Iterator[bytes]) -> None:
        self._stream = ByteStream(pieces)

    def read(self, size: int = -1) -> bytes:
        return self._stream.take(size if size > 0 else PIECE)


class ByteStream:
    """Pieces of any size, read in the sizes that the reader wants."""

    def __init__(self, pieces: Iterator[bytes]) -> None:
        self._pieces = pieces
        self._piece = b""
        self._at = 0

    def take(self, most: int) -> bytes:
        """At least one byte and at most `most`; empty only at the end."""
        if self._at >= len(self._piece):
            self._piece, self._at = next(self._pieces, b""), 0
        start = self._at
        self._at = min(start + most, len(self._piece))
        return self._piece[start : self._at]

    def read(self, size: int) -> bytes:
        """Exactly `size` bytes, fewer only at the end."""
        data = self.take(size)
        if len(data) == size:
            return data
        parts, have = [data], len(data)
        while have < size and (data := self.take(size - have)):
            parts.append(data)
            have += len(data)
        return b"".join(parts)

    def drain(self) -> None:
        while self.take(PIECE):
            pass
