"""The files that a VM boots, made fit for QEMU.

A distribution's kernel unpacks itself. Emulated, that is a third of a boot, so the host does it, once: QEMU enters an
ELF file with a PVH note directly (Linux `Documentation/arch/x86/boot.rst`, `include/xen/interface/elfnote.h`). The
minimal kernel is such a file from the start.

QEMU's microvm puts the initramfs at the end of guest memory and its ACPI tables in what is left of the last page: an
initramfs that does not fill its pages can lie over the tables, and the kernel hangs without a word. So each is padded
with zeros (which the kernel's unpacker skips) to whole pages. A jailed VMM must also be allowed to read it.
"""

from __future__ import annotations

import hashlib
import lzma
import mmap
import struct
import zlib
from pathlib import Path

import zstandard

from cuboid.lib.errors import InvalidError, NotFoundError
from cuboid.lib.paths import write_atomic

PAGE = 4096
EVERYBODY_READS = 0o004
KERNEL_LIMIT = 256 << 20  # bytes of an unpacked kernel; Debian's cloud kernel has 58 MB
ELF = b"\x7fELF"
HEAD_BYTES = 0x206  # of a kernel, up to the end of the magic number of its setup header
PT_NOTE, PVH_NOTE = 4, 18  # XEN_ELFNOTE_PHYS32_ENTRY


def kernel(path: Path) -> Path:
    """The kernel, checked to be one that QEMU can enter: an x86 boot image, or an ELF file with a PVH entry."""
    try:
        with path.open("rb") as file:
            head = file.read(HEAD_BYTES)
            if head.startswith(ELF):
                with mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as elf:
                    if has_pvh_entry(elf):
                        return path
                raise InvalidError(f"{path} is an ELF file without a PVH entry", hint="build it with CONFIG_PVH=y")
    except FileNotFoundError as error:
        raise NotFoundError(f"the kernel {path} does not exist", hint="tools/setup.sh fetches one") from error
    if head[0x202:0x206] != b"HdrS":
        raise InvalidError(f"{path} is not a Linux kernel image for x86-64")
    return path


def initramfs(path: Path, cache: Path) -> Path:
    """`path` itself if it fits, or a padded copy in `cache`, made once per content (by path, size and time)."""
    try:
        found = path.stat()
    except FileNotFoundError as error:
        raise NotFoundError(f"the initramfs {path} does not exist") from error
    if found.st_size == 0:
        raise InvalidError(f"the initramfs {path} is empty")
    if found.st_size % PAGE == 0 and found.st_mode & EVERYBODY_READS:
        return path
    copy = _copy_of(path, cache, "initramfs")
    if not copy.exists():
        cache.mkdir(mode=0o755, parents=True, exist_ok=True)
        write_atomic(copy, padded(path.read_bytes()), mode=0o644, durable=False)
    return copy


def _copy_of(path: Path, cache: Path, kind: str) -> Path:
    """Where the copy is of this content, known by path, size and time."""
    found = path.stat()
    name = hashlib.sha256(f"{path.resolve()} {found.st_size} {found.st_mtime_ns}".encode()).hexdigest()[:32]
    return cache / f"{name}.{kind}"


def unpacked(path: Path, cache: Path) -> Path:
    """The ELF kernel inside `path`, unpacked into `cache` once per content; `path` itself if it is or has none."""
    with path.open("rb") as file:
        if file.read(len(ELF)) == ELF:
            return path
    copy = _copy_of(path, cache, "kernel")
    if not copy.exists():
        inner = elf_inside(path.read_bytes())
        if inner is None or not has_pvh_entry(inner):
            return path
        cache.mkdir(mode=0o755, parents=True, exist_ok=True)
        write_atomic(copy, inner, mode=0o644, durable=False)
    return copy


def elf_inside(image: bytes) -> bytes | None:
    """What a bzImage unpacks when it boots, or None if it is packed in a way not known here.

    Boot protocol 2.08: the payload's place and length are at 0x248, counted from the end of the set-up sectors.
    """
    if len(image) < 0x250:
        return None
    offset, length = struct.unpack_from("<II", image, 0x248)
    begin = ((image[0x1F1] or 4) + 1) * 512 + offset
    inner = _decompressed(image[begin : begin + length])
    return inner if inner is not None and inner.startswith(ELF) else None


def _decompressed(packed: bytes) -> bytes | None:
    """At most KERNEL_LIMIT bytes. The kernel's build appends the size to what it packs: what follows is left out."""
    try:
        if packed.startswith(b"\x28\xb5\x2f\xfd"):
            with zstandard.ZstdDecompressor().stream_reader(packed, read_across_frames=False) as reader:
                return reader.read(KERNEL_LIMIT)
        if packed.startswith(b"\xfd7zXZ\x00"):
            return lzma.LZMADecompressor().decompress(packed, KERNEL_LIMIT)
        if packed.startswith(b"\x1f\x8b"):
            return zlib.decompressobj(zlib.MAX_WBITS | 16).decompress(packed, KERNEL_LIMIT)
    except (lzma.LZMAError, zlib.error, zstandard.ZstdError):
        return None
    return None


def has_pvh_entry(elf: bytes | mmap.mmap) -> bool:
    """Whether a 64-bit ELF file says in a note where a PVH start enters it."""
    try:
        table, size, count = *struct.unpack_from("<Q", elf, 0x20), *struct.unpack_from("<HH", elf, 0x36)
        headers = [struct.unpack_from("<IIQQQQQQ", elf, table + number * size) for number in range(count)]
        return any(
            _has_note(elf, offset, offset + length) for kind, _, offset, _, _, length, *_ in headers if kind == PT_NOTE
        )
    except struct.error:
        return False


def _has_note(elf: bytes | mmap.mmap, offset: int, end: int) -> bool:
    while offset + 12 <= end:
        name, data, kind = struct.unpack_from("<III", elf, offset)
        if kind == PVH_NOTE and elf[offset + 12 : offset + 16] == b"Xen\0":
            return True
        offset += 12 + -(-name // 4) * 4 + -(-data // 4) * 4
    return False


def padded(data: bytes) -> bytes:
    return data + bytes(-len(data) % PAGE)
