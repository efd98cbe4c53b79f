"""The files that a VM boots, made fit for QEMU.

QEMU's microvm puts the initramfs at the end of guest memory and its ACPI tables in what is left of the last page: an
initramfs that does not fill its pages can lie over the tables, and the kernel hangs without a word. So each is padded
with zeros (which the kernel's unpacker skips) to whole pages. A jailed VMM must also be allowed to read it.
"""

from __future__ import annotations

import hashlib
from pathlib import Path

from cuboid.lib.errors import InvalidError, NotFoundError
from cuboid.lib.paths import write_atomic

PAGE = 4096
EVERYBODY_READS = 0o004


def kernel(path: Path) -> Path:
    """The kernel, checked to be an x86 boot image (the magic number of its setup header)."""
    try:
        with path.open("rb") as file:
            header = file.read(0x206)
    except FileNotFoundError as error:
        raise NotFoundError(f"the kernel {path} does not exist", hint="tools/setup.sh fetches one") from error
    if header[0x202:0x206] != b"HdrS":
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
    name = hashlib.sha256(f"{path.resolve()} {found.st_size} {found.st_mtime_ns}".encode()).hexdigest()[:32]
    copy = cache / f"{name}.initramfs"
    if not copy.exists():
        cache.mkdir(mode=0o755, parents=True, exist_ok=True)
        write_atomic(copy, padded(path.read_bytes()), mode=0o644, durable=False)
    return copy


def padded(data: bytes) -> bytes:
    return data + bytes(-len(data) % PAGE)
