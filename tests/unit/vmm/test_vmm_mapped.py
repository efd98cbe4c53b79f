"""Where the guest's memory is in a state that QEMU saved: found, or left for QEMU to read."""

from __future__ import annotations

import struct
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from cuboid.vmm.qemu import mapped

MEMORY = 1 << 21  # 512 pages: a bitmap of 64 bytes
PAGES = 1 << 20
SIZE = PAGES + MEMORY + 100


def head(
    *, name: bytes = b"ram", memory: int = MEMORY, version: int = 1, page: int = 4096, bitmap: int = 8192,
    pages: int = PAGES,
) -> bytes:  # fmt: skip
    label = bytes([len(name)]) + name + struct.pack(">Q", memory)
    return b"QEVM and what else comes first" + label + struct.pack(">IQQQ", version, page, bitmap, pages)


@pytest.mark.parametrize("name", [b"ram", b"/objects/ram"])
def test_the_memory_is_found_by_its_name_and_size(name: bytes) -> None:
    assert mapped.find(head(name=name), MEMORY, SIZE) == mapped.Block(8192, 64, PAGES)


@pytest.mark.parametrize(
    "changes",
    [
        {"name": b"rom"}, {"memory": MEMORY * 2}, {"version": 2}, {"page": 0}, {"page": 1 << 21}, {"bitmap": 3},
        {"bitmap": PAGES - 63}, {"pages": PAGES + 1}, {"pages": PAGES + 4096}, {"pages": 1 << 63},
    ],
    ids=str,
)  # fmt: skip
def test_what_does_not_fit_is_left_alone(changes: dict[str, Any]) -> None:
    assert mapped.find(head(**changes), MEMORY, SIZE) is None


@given(st.binary(max_size=200), st.binary(max_size=40), st.integers(0, 1 << 40))
def test_whatever_a_vmm_wrote_is_inside_the_file_or_not_used(before: bytes, fields: bytes, size: int) -> None:
    label = b"\x03ram" + struct.pack(">Q", MEMORY)
    block = mapped.find(before + label + fields, MEMORY, size)
    assert block is None or (0 < block.bitmap <= block.pages - block.bitmap_size and block.pages + MEMORY <= size)


def test_only_the_marks_are_removed(tmp_path: Path) -> None:
    path = tmp_path / "state"
    content = bytearray(head().ljust(SIZE, b"x"))
    path.write_bytes(content)
    assert mapped.leave_in_place(path, MEMORY) == PAGES
    content[8192 : 8192 + 64] = bytes(64)
    assert path.read_bytes() == content
    path.write_bytes(b"something else")
    assert mapped.leave_in_place(path, MEMORY) == 0
    assert path.read_bytes() == b"something else"
