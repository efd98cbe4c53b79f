from __future__ import annotations

import contextlib
import os
from collections.abc import Iterator
from pathlib import Path

import pytest
import zstandard
from hypothesis import given
from hypothesis import strategies as st

from cuboid.images.layers import Budget, ByteStream, gunzip, open_layer, unzstd
from cuboid.images.settings import Limits
from cuboid.lib.errors import HostileError
from tests.harness.images import gzipped


def unpack(path: Path, data: bytes, limits: Limits | None = None) -> bytes:
    path.write_bytes(data)
    fd = os.open(path, os.O_RDONLY)
    try:
        stream, out = open_layer(fd, Budget(limits or Limits())), b""
        while piece := stream.take(1 << 16):
            out += piece
        return out
    finally:
        os.close(fd)


@pytest.mark.parametrize("size", [0, 1, 511, 2_500_000])
def test_every_packing_gives_the_same_bytes(tmp_path: Path, size: int) -> None:
    data = os.urandom(size // 2) + bytes(size - size // 2)
    middle = size // 3
    packings = [
        data, gzipped(data), gzipped(data[:middle]) + gzipped(data[middle:]), gzipped(data) + bytes(512),
        zstandard.compress(data), zstandard.compress(data[:middle]) + zstandard.compress(data[middle:]),
    ]  # fmt: skip
    assert all(unpack(tmp_path / "layer", packed) == data for packed in packings)


def test_a_truncated_gzip_layer_is_refused(tmp_path: Path) -> None:
    packed = gzipped(os.urandom(100_000))
    for end in (4, 9, 11, len(packed) // 2, len(packed) - 1):
        with pytest.raises(HostileError, match=r"truncated|not valid"):
            unpack(tmp_path / "layer", packed[:end])


def test_damage_is_refused(tmp_path: Path) -> None:
    for packed in (gzipped(bytes(100_000)), zstandard.compress(os.urandom(100_000))):
        damaged = packed[: len(packed) // 2] + b"\xff\xff\xff" + packed[len(packed) // 2 + 3 :]
        with pytest.raises(HostileError):
            unpack(tmp_path / "layer", damaged + b"\x01garbage")


@pytest.mark.parametrize("pack", [gzipped, zstandard.compress])
def test_a_bomb_is_cut_off_while_it_streams(tmp_path: Path, pack: object) -> None:
    packed = pack(bytes(24 << 20))  # type: ignore[operator]
    path = tmp_path / "bomb"
    path.write_bytes(packed)
    fd = os.open(path, os.O_RDONLY)
    budget = Budget(Limits(ratio_free_bytes=4 << 20, ratio=100))
    try:
        with pytest.raises(HostileError, match="bomb"):
            open_layer(fd, budget).drain()
    finally:
        os.close(fd)
    assert budget.unpacked < 8 << 20


def test_the_sum_of_all_layers_is_limited(tmp_path: Path) -> None:
    with pytest.raises(HostileError, match="1 MiB"):
        unpack(tmp_path / "layer", os.urandom((1 << 20) + 1), Limits(unpacked_bytes=1 << 20))


@given(st.lists(st.binary(min_size=1, max_size=20), max_size=20), st.lists(st.integers(1, 50), max_size=20))
def test_a_stream_gives_what_is_asked_for_until_its_end(pieces: list[bytes], sizes: list[int]) -> None:
    stream, whole = ByteStream(iter(pieces)), b"".join(pieces)
    for size in sizes:
        expected, whole = whole[:size], whole[size:]
        assert stream.read(size) == expected
    stream.drain()
    assert stream.take(1) == b""


def one(data: bytes) -> Iterator[bytes]:
    yield data


@given(st.binary(max_size=300))
def test_any_bytes_unpack_or_are_refused(data: bytes) -> None:
    for unpacker, magic in ((gunzip, b"\x1f\x8b\x08\x00"), (unzstd, b"\x28\xb5\x2f\xfd")):
        for body in (data, magic + data):
            with contextlib.suppress(HostileError):
                assert all(unpacker(one(body)))
