"""Writes a tree as an uncompressed EROFS image, deterministically: same tree and contents, same bytes.

Layout, in blocks of 4096 bytes: superblock; file contents in the order they arrive, each file from a block of its own;
folders too big to sit beside their inode; then all inodes, each followed by its attributes and, where it fits, by its
folder or symlink content. Contents come first so that layers stream straight to the device, and so that images with
the same lower layers begin with the same bytes. What a later layer replaced is punched out and reads as zeros.

Source: Linux, fs/erofs/erofs_fs.h; kernels since 5.4 read everything that is used here.
"""

from __future__ import annotations

import ctypes
import errno
import os
import struct
from collections.abc import Iterator

from cuboid.images.flatten import Node
from cuboid.images.settings import Limits
from cuboid.images.tar import Kind
from cuboid.lib.errors import HostileError

BLOCK = 4096
_MAGIC = 0xE0F5E1E2
_COMPAT = 0x1 | 0x2  # superblock checksum; each inode has its own mtime
_SUPER = struct.Struct("<IIIBBHQQIIII16s16sIHHHBBIQB23x")
_SUPER_AT = 1024
_INODE = struct.Struct("<HHHHQIIIIQII16x")
_DIRENT = struct.Struct("<QHBB")
_PLAIN, _INLINE = 0 << 1 | 1, 2 << 1 | 1  # data layouts, of extended inodes
_FIRST_NID = 2  # the root; 0 would be an inode number that readdir(3) hides
_TYPES = {Kind.FILE: 1, Kind.DIRECTORY: 2, Kind.CHARACTER: 3, Kind.BLOCK: 4, Kind.FIFO: 5, Kind.SYMLINK: 7}
_MODES = {
    Kind.FILE: 0o100000, Kind.DIRECTORY: 0o040000, Kind.CHARACTER: 0o020000, Kind.BLOCK: 0o060000,
    Kind.FIFO: 0o010000, Kind.SYMLINK: 0o120000,
}  # fmt: skip
_PREFIXES = ((b"user.", 1), (b"trusted.", 4), (b"security.", 6))
_ACLS = {b"system.posix_acl_access": 2, b"system.posix_acl_default": 3}
_PUNCH = 0x1 | 0x2  # FALLOC_FL_KEEP_SIZE | FALLOC_FL_PUNCH_HOLE
_libc = ctypes.CDLL(None, use_errno=True)


class ErofsWriter:
    """`store` contents while layers stream in; `finish` with the merged tree. `fd` is an empty file."""

    def __init__(self, fd: int, limits: Limits) -> None:
        self._fd = fd
        self._limits = limits
        self._next = 1  # block

    def store(self, node: Node, pieces: Iterator[bytes], segments: list[tuple[int, int]] | None = None) -> None:
        """Take a file's bytes; `segments` says where in the file they belong if it is sparse."""
        if node.size == 0:
            return
        node.start = self._allocate(node.size)
        for offset, piece in _placed(pieces, segments):
            _write(self._fd, piece, node.start * BLOCK + offset)

    def _allocate(self, size: int) -> int:
        start = self._next
        self._next += -(-size // BLOCK)
        if self._next * BLOCK > self._limits.device_bytes:
            raise HostileError(
                f"the image needs a device of more than {self._limits.device_bytes >> 20} MiB",
                hint="[images] max_device_bytes",
            )
        return start

    def finish(self, root: Node, uuid: bytes) -> int:
        """Write everything but the contents; returns the size of the device in bytes."""
        nodes = _number(root)
        end_of_contents = self._next
        placed = _Layout(nodes)
        for node, size in placed.outside:
            node.start = self._allocate(size)
        self._punch(_dead(nodes, end_of_contents))
        self._write_outside(placed.outside)
        inodes_at = self._allocate(max(placed.end, 1))
        self._write_inodes(placed, inodes_at)
        blocks = self._next
        os.ftruncate(self._fd, blocks * BLOCK)
        _write(self._fd, _superblock(blocks, inodes_at, len(nodes), uuid), 0)
        return blocks * BLOCK

    def _punch(self, holes: list[tuple[int, int]]) -> None:
        for start, blocks in holes:
            if _libc.fallocate(self._fd, _PUNCH, ctypes.c_long(start * BLOCK), ctypes.c_long(blocks * BLOCK)):
                if ctypes.get_errno() != errno.EOPNOTSUPP:
                    raise OSError(ctypes.get_errno(), os.strerror(ctypes.get_errno()))
                for block in range(start, start + blocks):
                    _write(self._fd, bytes(BLOCK), block * BLOCK)

    def _write_outside(self, outside: list[tuple[Node, int]]) -> None:
        for node, _ in outside:
            _write(self._fd, _content(node), node.start * BLOCK)

    def _write_inodes(self, placed: _Layout, first_block: int) -> None:
        buffer, flushed = bytearray(), 0
        for number, node in enumerate(placed.nodes, 1):
            at = node.nid * 32
            buffer += bytes(at - flushed - len(buffer))
            inline = node.nid in placed.inline
            buffer += _inode(node, number, inline)
            if inline:
                buffer += _content(node)
            if len(buffer) > 1 << 20:
                _write(self._fd, buffer, first_block * BLOCK + flushed)
                flushed += len(buffer)
                buffer.clear()
        _write(self._fd, buffer, first_block * BLOCK + flushed)


class _Layout:
    """Gives every node its place: `nid` is its offset from the first inode block, in units of 32 bytes."""

    def __init__(self, nodes: list[Node]) -> None:
        self.nodes = nodes
        self.inline: set[int] = set()
        self.outside: list[tuple[Node, int]] = []
        self.end = _FIRST_NID * 32
        for node in nodes:
            self._place(node)

    def _place(self, node: Node) -> None:
        head = 64 + _xattr_size(node.xattrs)
        tail = node.size if node.kind in (Kind.DIRECTORY, Kind.SYMLINK) else 0
        if tail and head + tail > BLOCK:
            self.outside.append((node, tail))
            tail = 0
        at = -(-self.end // 32) * 32
        if at % BLOCK + 64 > BLOCK or (tail and at // BLOCK != (at + head + tail - 1) // BLOCK):
            at = -(-at // BLOCK) * BLOCK
        node.nid = at // 32
        if tail:
            self.inline.add(node.nid)
        self.end = at + head + tail


def _number(root: Node) -> list[Node]:
    """All nodes once, folder by folder, names in byte order; counts links and sizes folders and symlinks on the way."""
    nodes, folders = [root], [root]
    root.links, root.parent = 2, root
    for folder in folders:
        assert folder.children is not None
        folder.size = _folder_size(folder.children)
        for name in sorted(folder.children):
            child = folder.children[name]
            child.links += 1
            if child.links > 1:
                continue
            nodes.append(child)
            if child.kind is Kind.DIRECTORY:
                child.links, child.parent = 2, folder
                folder.links += 1
                folders.append(child)
            elif child.kind is Kind.SYMLINK:
                child.size = len(child.target)
    return nodes


def _placed(pieces: Iterator[bytes], segments: list[tuple[int, int]] | None) -> Iterator[tuple[int, bytes]]:
    """Pieces with their offsets in the file."""
    if segments is None:
        offset = 0
        for piece in pieces:
            yield offset, piece
            offset += len(piece)
        return
    rest = b""
    for offset, length in segments:
        while length:
            rest = rest or next(pieces)
            piece, rest = rest[:length], rest[length:]
            yield offset, piece
            offset, length = offset + len(piece), length - len(piece)


def _write(fd: int, data: bytes | bytearray, offset: int) -> None:
    view = memoryview(data)
    while view:
        written = os.pwrite(fd, view, offset)
        view, offset = view[written:], offset + written


def _dead(nodes: list[Node], end: int) -> list[tuple[int, int]]:
    """(start, blocks) of what was stored below block `end` and belongs to no file any more."""
    live = sorted((node.start, -(-node.size // BLOCK)) for node in nodes if node.kind is Kind.FILE and node.size)
    holes, at = [], 1
    for start, blocks in [*live, (end, 0)]:
        if start > at:
            holes.append((at, start - at))
        at = start + blocks
    return holes


def _folder_entries(folder: Node) -> list[tuple[bytes, Node]]:
    assert folder.children is not None and folder.parent is not None
    return sorted([*folder.children.items(), (b".", folder), (b"..", folder.parent)], key=lambda entry: entry[0])


def _folder_blocks(names: list[bytes]) -> list[int]:
    """How many of the sorted names go into each block."""
    counts, used = [0], 0
    for name in names:
        need = _DIRENT.size + len(name)
        if used + need > BLOCK:
            counts.append(0)
            used = 0
        counts[-1] += 1
        used += need
    return counts


def _folder_size(children: dict[bytes, Node]) -> int:
    names = sorted([*children, b".", b".."])
    counts = _folder_blocks(names)
    last = names[len(names) - counts[-1] :]
    return (len(counts) - 1) * BLOCK + sum(_DIRENT.size + len(name) for name in last)


def _content(node: Node) -> bytes:
    """The bytes of a symlink or of a folder: per block the entries, then their names."""
    if node.kind is Kind.SYMLINK:
        return node.target
    entries = _folder_entries(node)
    data, first = b"", 0
    for count in _folder_blocks([name for name, _ in entries]):
        data = data.ljust(-(-len(data) // BLOCK) * BLOCK, b"\0")
        data += _folder_block(entries[first : first + count])
        first += count
    return data


def _folder_block(entries: list[tuple[bytes, Node]]) -> bytes:
    head, names = bytearray(), bytearray()
    for name, node in entries:
        head += _DIRENT.pack(node.nid, len(entries) * _DIRENT.size + len(names), _TYPES[node.kind], 0)
        names += name
    return bytes(head + names)


def _inode(node: Node, number: int, inline: bool) -> bytes:
    xattrs = _xattrs(node.xattrs)
    layout = _INLINE if inline else _PLAIN
    xattr_count = (len(xattrs) - 12) // 4 + 1 if xattrs else 0
    return (
        _INODE.pack(
            layout, xattr_count, _MODES[node.kind] | node.mode, 0, node.size, _where(node, inline), number,
            node.uid, node.gid, node.mtime & (1 << 64) - 1, node.mtime_ns, node.links,
        )
        + xattrs
    )  # fmt: skip


def _where(node: Node, inline: bool) -> int:
    """Block of the content, or the number of a device (the kernel's new_encode_dev)."""
    if node.kind in (Kind.CHARACTER, Kind.BLOCK):
        major, minor = node.rdev
        return minor & 0xFF | major << 8 | (minor & ~0xFF) << 12
    return 0 if inline else node.start


def _known_xattrs(xattrs: dict[bytes, bytes]) -> list[tuple[int, bytes, bytes]]:
    """(prefix number, rest of the name, value) of those that EROFS can hold; the kernel has no use for others."""
    known = []
    for name, value in xattrs.items():
        if name in _ACLS:
            known.append((_ACLS[name], b"", value))
        for prefix, index in _PREFIXES:
            if name.startswith(prefix) and len(prefix) < len(name) <= 255 and len(value) <= 0xFFFF:
                known.append((index, name[len(prefix) :], value))
    return sorted(known)


def _xattr_size(xattrs: dict[bytes, bytes]) -> int:
    if not xattrs:
        return 0
    known = _known_xattrs(xattrs)
    return 12 + sum(-(-(4 + len(name) + len(value)) // 4) * 4 for _, name, value in known) if known else 0


def _xattrs(xattrs: dict[bytes, bytes]) -> bytes:
    known = _known_xattrs(xattrs) if xattrs else []
    if not known:
        return b""
    data = bytearray(12)  # header: no filter, none shared
    for index, name, value in known:
        data += struct.pack("<BBH", len(name), index, len(value)) + name + value
        data += bytes(-len(data) % 4)
    return bytes(data)


def _superblock(blocks: int, inodes_at: int, inodes: int, uuid: bytes) -> bytes:
    """The first block, its first 1024 bytes left to boot loaders."""

    def pack(checksum: int) -> bytes:
        return _SUPER.pack(
            _MAGIC, checksum, _COMPAT, 12, 0, _FIRST_NID, inodes, 0, 0, blocks, inodes_at, 0, uuid, bytes(16),
            0, 0, 0, 0, 0, 0, 0, 0, 0,
        )  # fmt: skip

    whole = pack(0).ljust(BLOCK - _SUPER_AT, b"\0")
    return bytes(_SUPER_AT) + pack(crc32c(whole)).ljust(BLOCK - _SUPER_AT, b"\0")


def _crc_table() -> list[int]:
    table = []
    for value in range(256):
        for _ in range(8):
            value = value >> 1 ^ (0x82F63B78 if value & 1 else 0)
        table.append(value)
    return table


_CRC = _crc_table()


def crc32c(data: bytes) -> int:
    """Castagnoli's CRC as the kernel computes it: all ones at the start, not inverted at the end."""
    crc = 0xFFFFFFFF
    for byte in data:
        crc = crc >> 8 ^ _CRC[(crc ^ byte) & 0xFF]
    return crc
