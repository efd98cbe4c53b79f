from __future__ import annotations

import os
import struct
from itertools import pairwise
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from cuboid.images.convert.erofs import BLOCK, ErofsWriter, _content, _folder_size, crc32c
from cuboid.images.flatten import Node, Tree
from cuboid.images.layers import ByteStream
from cuboid.images.settings import Limits
from cuboid.images.tar import Kind, TarReader
from cuboid.lib.errors import HostileError
from tests.harness.images import folder, gnu_sparse, make_tar

UUID = bytes(range(16))


def write(path: Path, *layers: bytes, limits: Limits | None = None) -> bytes:
    limits = limits or Limits()
    fd = os.open(path, os.O_RDWR | os.O_CREAT | os.O_TRUNC)
    try:
        tree, writer = Tree(limits), ErofsWriter(fd, limits)
        for layer in layers:
            tree.next_layer()
            reader = TarReader(ByteStream(iter([layer])), limits)
            for entry in reader:
                if node := tree.add(entry):
                    writer.store(node, reader.data(), entry.segments)
        size = writer.finish(tree.root, UUID)
    finally:
        os.close(fd)
    data = path.read_bytes()
    assert len(data) == size
    return data


def test_crc32c_is_castagnolis() -> None:
    assert crc32c(b"123456789") ^ 0xFFFFFFFF == 0xE3069283


def test_the_superblock_names_the_image(tmp_path: Path) -> None:
    data = write(tmp_path / "d", make_tar([("f", b"x")]))
    magic, checksum = struct.unpack_from("<II", data, 1024)
    assert magic == 0xE0F5E1E2
    assert data[1024 + 48 : 1024 + 64] == UUID
    assert checksum == crc32c(data[1024:1028] + bytes(4) + data[1032:BLOCK])
    assert struct.unpack_from("<I", data, 1024 + 36)[0] * BLOCK == len(data)


def test_the_same_layers_give_the_same_bytes(tmp_path: Path) -> None:
    layers = [make_tar([folder("d"), ("d/b", b"2" * 5000), ("d/a", b"1")]), make_tar([("d/.wh.a", b"")])]
    assert write(tmp_path / "one", *layers) == write(tmp_path / "two", *layers)


def test_the_order_of_names_in_a_layer_does_not_show_in_the_folders(tmp_path: Path) -> None:
    one = write(tmp_path / "one", make_tar([("a", b""), ("b", b"")]))
    two = write(tmp_path / "two", make_tar([("b", b""), ("a", b"")]))
    assert one == two


def test_images_with_equal_lower_layers_begin_alike(tmp_path: Path) -> None:
    base = make_tar([("base", os.urandom(100_000))])
    one = write(tmp_path / "one", base, make_tar([("x", b"1" * 9000)]))
    two = write(tmp_path / "two", base, make_tar([("y", b"2" * 5)]))
    assert one[BLOCK : BLOCK + 100_000] == two[BLOCK : BLOCK + 100_000]


def test_what_a_later_layer_removes_is_in_the_device_no_more(tmp_path: Path) -> None:
    secret = b"SECRET" * 4000
    path = tmp_path / "d"
    data = write(path, make_tar([("keep", b"k"), ("s", secret), ("t", b"t")]), make_tar([(".wh.s", b"")]))
    assert b"SECRET" not in data
    assert data.count(b"k" + bytes(4095)) == 1


def test_a_sparse_file_takes_no_space_for_its_holes(tmp_path: Path) -> None:
    path = tmp_path / "d"
    write(path, gnu_sparse(64 << 20, [(32 << 20, b"a" * 512)]))
    assert path.stat().st_size > 64 << 20
    assert path.stat().st_blocks * 512 < 1 << 20


def test_a_device_beyond_the_limit_is_refused(tmp_path: Path) -> None:
    with pytest.raises(HostileError, match="max_device_bytes"):
        write(tmp_path / "d", make_tar([("f", bytes(100_000))]), limits=Limits(device_bytes=50_000))


@given(st.sets(st.binary(min_size=1, max_size=255).filter(lambda n: not set(n) & {0, 47}), max_size=60))
def test_folders_hold_every_name_in_order_whatever_the_names(names: set[bytes]) -> None:
    names -= {b".", b".."}
    node = Node(Kind.DIRECTORY, 0)
    node.parent = node
    assert node.children is not None
    node.children.update({name: Node(Kind.FILE, 0) for name in names})
    data = _content(node)
    assert len(data) == _folder_size(node.children)
    assert read_folder(data) == sorted([*names, b".", b".."])


def read_folder(data: bytes) -> list[bytes]:
    """The names in a folder's content, read as the kernel does."""
    names = []
    for start in range(0, len(data), BLOCK):
        block = data[start : start + BLOCK]
        count = struct.unpack_from("<H", block, 8)[0] // 12
        offsets = [struct.unpack_from("<H", block, 12 * n + 8)[0] for n in range(count)] + [len(block)]
        for begin, end in pairwise(offsets):
            names.append(block[begin:end].partition(b"\0")[0])
    return names
