"""The folder of a snapshot: what it was made of, and whether it still is that. The same for every driver.

A folder holds the files of its VMM and `snapshot.json`, which names their sizes and digests, the shape of the VM and
the facts of the host it was made on. It is filled under another name and renamed when it is whole: a folder that
has its name is complete. Files may be sparse; a digest does not change when holes become zeros or zeros holes.
"""

from __future__ import annotations

import errno
import hashlib
import os
import re
import shutil
from collections.abc import Iterator, Mapping
from pathlib import Path
from types import TracebackType

import msgspec

from cuboid.lib.errors import AlreadyExistsError, ConflictError, NotFoundError
from cuboid.lib.linux import libc
from cuboid.lib.paths import sync_folder
from cuboid.vmm.base import VmSpec

FORMAT = 1
MANIFEST = "snapshot.json"
MANIFEST_LIMIT = 1 << 20  # bytes
BLOCK = 1 << 16  # bytes; the unit in which zeros are left out of digests and copies
KEEP_SIZE, PUNCH_HOLE = 1, 2  # modes of fallocate(2)
_ZEROS = bytes(BLOCK)
_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,99}")
INCOMPATIBLE, CORRUPT = "SnapshotIncompatible", "SnapshotCorrupt"


class Slot(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """A disk device, whatever is in it."""

    serial: str
    read_only: bool


class Shape(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """What a VM must have in common with the one that was snapshotted."""

    vcpus: int
    memory_mib: int
    disks: tuple[Slot, ...]
    nics: int


class Part(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    size: int  # bytes, holes included
    digest: str


class Manifest(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    format: int
    shared_memory: bool  # clones map the memory file; otherwise its content is copied into each
    facts: dict[str, str]
    shape: Shape
    files: dict[str, Part]
    memory_offset: int = 0  # bytes; not 0: the memory is at this place in the file of the state


def shape_of(spec: VmSpec) -> Shape:
    slots = tuple(Slot(disk.serial, disk.read_only) for disk in spec.disks)
    return Shape(spec.vcpus, spec.memory_mib, slots, len(spec.nics))


def disk_file(serial: str) -> str:
    """The name of the copy of a writable disk."""
    return f"disk-{serial}"


def corrupt(folder: Path, why: str) -> ConflictError:
    return ConflictError(f"the snapshot {folder} is damaged: {why}", hint="make it again", reason=CORRUPT)


def incompatible(folder: Path, why: str) -> ConflictError:
    return ConflictError(f"the snapshot {folder} cannot be restored: {why}", reason=INCOMPATIBLE)


class Draft:
    """A snapshot in the making, in a folder beside its final one; without `finish` nothing of it stays.

    AlreadyExistsError if the snapshot is there already.
    """

    def __init__(self, folder: Path, owner: str) -> None:
        """`owner` is the VM's id: one VM makes one snapshot at a time, so what a crash left is simply replaced."""
        self.folder = folder
        self.path = folder.with_name(f".{folder.name}.{owner}.partial")

    def __enter__(self) -> Draft:
        if self.folder.exists():
            raise AlreadyExistsError(f"the snapshot {self.folder} exists already")
        self.folder.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        shutil.rmtree(self.path, ignore_errors=True)
        self.path.mkdir(mode=0o700)
        return self

    def __exit__(self, kind: type[BaseException] | None, _: object, __: TracebackType | None) -> None:
        shutil.rmtree(self.path, ignore_errors=True)

    def finish(self, facts: Mapping[str, str], shape: Shape, *, shared_memory: bool, memory_offset: int = 0) -> None:
        """Digest and sync every file, write the manifest, give the folder its name. Blocks; OSError."""
        files = {}
        for path in sorted(self.path.iterdir()):
            files[path.name] = Part(path.stat().st_size, digest(path))
            _sync(path)
        manifest = Manifest(FORMAT, shared_memory, dict(facts), shape, files, memory_offset)
        path = self.path / MANIFEST
        path.write_bytes(msgspec.json.format(msgspec.json.encode(manifest)))
        _sync(path)
        sync_folder(self.path)
        self.path.rename(self.folder)
        sync_folder(self.folder.parent)


def _sync(path: Path) -> None:
    descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def load(folder: Path) -> Manifest:
    """The manifest, and every file it names is there in its size. NotFoundError, ConflictError (SnapshotCorrupt)."""
    try:
        with (folder / MANIFEST).open("rb") as file:
            manifest = msgspec.json.decode(file.read(MANIFEST_LIMIT), type=Manifest)
    except FileNotFoundError as error:
        raise NotFoundError(f"there is no snapshot in {folder}") from error
    except (msgspec.MsgspecError, UnicodeDecodeError) as error:
        raise corrupt(folder, f"{MANIFEST} cannot be read ({error})") from error
    if manifest.format != FORMAT:
        raise incompatible(folder, f"its format is {manifest.format}, this version reads {FORMAT}")
    for name, part in manifest.files.items():
        _check_size(folder, name, part)
    return manifest


def _check_size(folder: Path, name: str, part: Part) -> None:
    if not _NAME.fullmatch(name):
        raise corrupt(folder, f"{name!r:.40} is no name of a file")
    try:
        size = (folder / name).lstat().st_size
    except FileNotFoundError as error:
        raise corrupt(folder, f"its file {name} is gone") from error
    if size != part.size:
        raise corrupt(folder, f"its file {name} has {size} bytes instead of {part.size}")


def check_facts(folder: Path, manifest: Manifest, facts: Mapping[str, str]) -> None:
    """ConflictError (SnapshotIncompatible) that names the first fact that differs."""
    for key in sorted({*manifest.facts, *facts}):
        theirs, ours = manifest.facts.get(key, "unknown"), facts.get(key, "unknown")
        if theirs != ours:
            raise incompatible(folder, f"it was made with {key} {theirs}, and this host has {ours}")


def check_shape(folder: Path, manifest: Manifest, shape: Shape) -> None:
    theirs = manifest.shape
    if (theirs.vcpus, theirs.memory_mib) != (shape.vcpus, shape.memory_mib):
        raise incompatible(
            folder,
            f"it has {theirs.vcpus} vCPUs and {theirs.memory_mib} MiB, not {shape.vcpus} and {shape.memory_mib} MiB",
        )
    if theirs.disks != shape.disks:
        raise incompatible(folder, f"its disks are {_words(theirs)}, not {_words(shape)}")
    if theirs.nics != shape.nics:
        raise incompatible(folder, f"it has {theirs.nics} network devices, not {shape.nics}")


def _words(shape: Shape) -> str:
    return ", ".join(f"{disk.serial} ({'ro' if disk.read_only else 'rw'})" for disk in shape.disks) or "none"


def check_digest(folder: Path, manifest: Manifest, name: str) -> None:
    """ConflictError (SnapshotCorrupt) unless the file is what it was. Blocks: reads all of its data."""
    part = manifest.files.get(name)
    if part is None:
        raise corrupt(folder, f"{MANIFEST} names no file {name}")
    try:
        found = digest(folder / name)
    except OSError as error:
        raise corrupt(folder, f"its file {name} cannot be read ({error.strerror})") from error
    if found != part.digest:
        raise corrupt(folder, f"its file {name} has changed")


def digest(path: Path) -> str:
    """BLAKE2b over the place and content of each block that is not all zeros, and the size."""
    state = hashlib.blake2b(digest_size=32)
    with path.open("rb", buffering=0) as file:
        for offset, block in blocks(file.fileno()):
            state.update(offset.to_bytes(8))
            state.update(block)
        state.update(os.fstat(file.fileno()).st_size.to_bytes(8))
    return f"blake2b:{state.hexdigest()}"


def blocks(descriptor: int) -> Iterator[tuple[int, bytes]]:
    """Offset and content of each BLOCK of a file that is not all zeros; holes are not even read."""
    for begin, end in _extents(descriptor):
        for offset in range(begin, end, BLOCK):
            block = os.pread(descriptor, BLOCK, offset)
            if block and block != _ZEROS[: len(block)]:
                yield offset, block


def _extents(descriptor: int) -> Iterator[tuple[int, int]]:
    """Where a file has data, in whole BLOCKs that do not overlap."""
    position, size = 0, os.fstat(descriptor).st_size
    while position < size:
        try:
            begin = os.lseek(descriptor, position, os.SEEK_DATA)
        except OSError as error:
            if error.errno == errno.ENXIO:
                return
            raise
        begin = max(position, begin // BLOCK * BLOCK)
        end = -(-os.lseek(descriptor, max(begin, position), os.SEEK_HOLE) // BLOCK) * BLOCK
        yield begin, min(max(end, begin + BLOCK), -(-size // BLOCK) * BLOCK)
        position = max(end, begin + BLOCK)


def punch_zeros(path: Path) -> None:
    """Make holes of a file's blocks of zeros: neither disk nor page cache holds those then. OSError."""
    descriptor = os.open(path, os.O_RDWR | os.O_CLOEXEC)
    try:
        position = 0
        for offset, block in blocks(descriptor):
            _punch(descriptor, position, offset)
            position = offset + len(block)
        _punch(descriptor, position, os.fstat(descriptor).st_size)
    finally:
        os.close(descriptor)


def _punch(descriptor: int, begin: int, end: int) -> None:
    if begin < end:
        libc.call("fallocate", descriptor, PUNCH_HOLE | KEEP_SIZE, begin, end - begin)


def copy_sparse(source: int, target: Path, *, mode: int = 0o600) -> None:
    """Copy what is in an open file to a new one; zeros become holes. OSError."""
    descriptor = os.open(target, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, mode)
    try:
        for offset, block in blocks(source):
            os.pwrite(descriptor, block, offset)
        os.ftruncate(descriptor, os.fstat(source).st_size)
    finally:
        os.close(descriptor)


def host_cpu() -> str:
    """The host's CPU: guests see its model and features as they are."""
    first = Path("/proc/cpuinfo").read_text().partition("\n\n")[0]
    rows = {key.strip(): value.strip() for key, _, value in (line.partition(":") for line in first.splitlines())}
    features = hashlib.sha256(rows.get("flags", "").encode()).hexdigest()[:16]
    return f"{rows.get('model name', 'unknown')} (features {features}, microcode {rows.get('microcode', 'unknown')})"
