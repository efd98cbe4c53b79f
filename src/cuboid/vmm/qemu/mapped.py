"""The memory in a saved state, for restored VMs to map instead of reading it.

With `mapped-ram` QEMU gives each block of memory a header, a bitmap of the pages that are there, and the pages at their
own places (docs/devel/migration/mapped-ram.rst). On restore it reads the pages of the bitmap. Where none are
marked it reads none: then the guest's memory may be a private mapping of that part of the file, and a restore takes as
long for a large guest as for a small one.

The file comes from a VMM that may be in its guest's hands: what is found is checked against the file's own size, and
nothing but that file is written to.
"""

from __future__ import annotations

import os
import struct
from dataclasses import dataclass
from pathlib import Path

HEAD = 1 << 20  # bytes; the headers of the first block, the guest's memory, come before any page
BLOCKS = (b"ram", b"/objects/ram")  # the names that QEMU may give to the memory of our command line
PAGE = 4096
VERSION = 1
_HEADER = struct.Struct(">IQQQ")  # version, page size, where the bitmap is, where the pages are


@dataclass(frozen=True)
class Block:
    """Where the guest's memory is in the file: bytes."""

    bitmap: int
    bitmap_size: int
    pages: int


def find(head: bytes, memory: int, size: int) -> Block | None:
    """The block of `memory` bytes in a file of `size` bytes that begins with `head`; None if it is not there. Pure."""
    for name in BLOCKS:
        label = bytes([len(name)]) + name + struct.pack(">Q", memory)
        at = head.find(label)
        if at < 0 or len(head) < at + len(label) + _HEADER.size:
            continue
        version, page, bitmap, pages = _HEADER.unpack_from(head, at + len(label))
        block = Block(bitmap, -(-memory // page // 64) * 8 if page else 0, pages)
        fits = at < bitmap and bitmap + block.bitmap_size <= pages and pages + memory <= size
        if (version, page) == (VERSION, PAGE) and fits and pages % PAGE == 0:
            return block
    return None


def leave_in_place(path: Path, memory: int) -> int:
    """Unmark all pages of the guest's memory; the place of their content in the file, or 0 if QEMU has to read it.

    OSError.
    """
    descriptor = os.open(path, os.O_RDWR | os.O_CLOEXEC | os.O_NOFOLLOW)
    try:
        block = find(os.pread(descriptor, HEAD, 0), memory, os.fstat(descriptor).st_size)
        if block is None:
            return 0
        os.pwrite(descriptor, bytes(block.bitmap_size), block.bitmap)
        return block.pages
    finally:
        os.close(descriptor)
