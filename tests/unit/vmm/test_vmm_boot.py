"""Kernels that are ELF files already, as the minimal one is: entered as they are, or refused before a VM is made."""

from __future__ import annotations

import struct
from pathlib import Path

import pytest

from cuboid.lib.errors import InvalidError
from cuboid.vmm.qemu import boot

PVH = 18


def elf(kind: int = PVH, owner: bytes = b"Xen\0") -> bytes:
    """An ELF header, one program header of type NOTE, and one note of 8 bytes."""
    note = struct.pack("<III", 4, 8, kind) + owner + bytes(8)
    header = b"\x7fELF\2\1\1".ljust(16, b"\0") + struct.pack(
        "<HHIQQQIHHHHHH", 2, 62, 1, 0, 64, 0, 0, 64, 56, 1, 0, 0, 0
    )
    return header + struct.pack("<IIQQQQQQ", 4, 4, 120, 0, 0, len(note), len(note), 4) + note


def test_a_kernel_that_is_unpacked_already_is_entered_as_it_is(tmp_path: Path) -> None:
    kernel = tmp_path / "vmlinux"
    kernel.write_bytes(elf())
    assert boot.kernel(kernel) == kernel
    assert boot.unpacked(kernel, tmp_path / "cache") == kernel
    assert not (tmp_path / "cache").exists()


@pytest.mark.parametrize(
    "content",
    [elf(kind=17), elf(owner=b"GNU\0"), elf()[:125], elf()[:70], elf()[:4]],
    ids=["another note", "another owner", "cut in the note", "cut in the table", "the magic number alone"],
)
def test_an_elf_file_that_qemu_cannot_enter_is_refused(tmp_path: Path, content: bytes) -> None:
    kernel = tmp_path / "vmlinux"
    kernel.write_bytes(content)
    with pytest.raises(InvalidError, match="without a PVH entry"):
        boot.kernel(kernel)
