"""Empty ext4 file systems in sparse files: made by an unprivileged mkfs.ext4, copied without their holes."""

from __future__ import annotations

import errno
import fcntl
import os
from pathlib import Path

from cuboid.lib import proc
from cuboid.lib.aio import in_thread
from cuboid.lib.errors import ExhaustedError, InvalidError

MIB = 1 << 20
MIN_BYTES = 16 * MIB  # below, ext4's own tables are most of it
MAX_BYTES = 16 << 40
_NOBODY = 65534
_FICLONE = 0x40049409  # linux/fs.h

_COMMON = ("-q", "-F", "-t", "ext4", "-b", "4096", "-m", "0")
# The metadata of new file systems is zeroes in a sparse file already, so nothing is written for it.
_EXTENDED = "root_owner=0:0,discard,lazy_journal_init=1"
# Lasting: with the usual backups, and room to grow.
LASTING = (*_COMMON, "-E", _EXTENDED)


def ephemeral(size_bytes: int) -> tuple[str, ...]:
    """Options for a device that ends with its pod: no backups, no room to grow, all tables in one place.

    With a journal all the same: a killed VM's device is mounted again by the pod's next VM. It is small, because what
    goes round in it takes space on the host.
    """
    journal = ("-J", "size=32") if size_bytes >= 1 << 30 else ()  # MiB; below, mkfs itself takes less
    extended = f"{_EXTENDED},num_backup_sb=0,packed_meta_blocks=1"
    return (*_COMMON, "-O", "^resize_inode,sparse_super2", "-E", extended, *journal)


def rounded(size_bytes: int) -> int:
    """Up to whole MiB. InvalidError outside 16 MiB to 16 TiB."""
    if not MIN_BYTES <= size_bytes <= MAX_BYTES:
        raise InvalidError(
            f"a disk of {size_bytes} bytes is not within {MIN_BYTES // MIB} MiB and {MAX_BYTES >> 40} TiB"
        )
    return -(-size_bytes // MIB) * MIB


async def make(path: Path, size_bytes: int, options: tuple[str, ...], *, deadline: float, durable: bool) -> None:
    """A new file with an empty file system, owned by us, mode 0600; whole or not there at all.

    `discard` in the options makes mkfs mark the inode tables as zeroed, which they are in a new sparse file; else the
    guest's kernel would write zeros into all of them later and fill the host's disk with those.
    """
    new = path.with_name(f".{path.name}.new")
    descriptor = os.open(new, os.O_RDWR | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC | os.O_NOFOLLOW, 0o600)
    try:
        os.truncate(descriptor, size_bytes)
        os.fchown(descriptor, _NOBODY, _NOBODY)
        await proc.run(_command(descriptor, options), timeout=deadline, pass_fds=(descriptor,))
        os.fchown(descriptor, os.getuid(), os.getgid())
        if durable:
            await in_thread(lambda: os.fsync(descriptor))
        new.replace(path)
    except BaseException:
        new.unlink(missing_ok=True)
        raise
    finally:
        os.close(descriptor)


def _command(descriptor: int, options: tuple[str, ...]) -> list[str]:
    """mkfs.ext4 as nobody, without capabilities; it sees the file by its descriptor only."""
    drop = (
        "--reuid=65534",
        "--regid=65534",
        "--clear-groups",
        "--no-new-privs",
        "--inh-caps=-all",
        "--bounding-set=-all",
    )
    mkfs = proc.find("mkfs.ext4", package="e2fsprogs")
    return ["setpriv", *drop, mkfs, *options, f"/proc/self/fd/{descriptor}"]


def copy_sparse(source: Path, target: Path) -> None:
    """Copy a sparse file: as shared extents where the disk can, else its data without the holes. ExhaustedError."""
    reading = os.open(source, os.O_RDONLY | os.O_CLOEXEC)
    try:
        writing = os.open(target, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC | os.O_NOFOLLOW, 0o600)
        try:
            if not _clone(reading, writing):
                _copy_extents(reading, writing)
        finally:
            os.close(writing)
    except OSError as error:
        if error.errno in (errno.ENOSPC, errno.EDQUOT):
            raise ExhaustedError(f"no space left on the disk of {target.parent}") from error
        raise
    finally:
        os.close(reading)


def _clone(reading: int, writing: int) -> bool:
    try:
        fcntl.ioctl(writing, _FICLONE, reading)
    except OSError as error:
        if error.errno in (errno.EOPNOTSUPP, errno.EINVAL, errno.EXDEV, errno.ENOTTY):
            return False
        raise
    return True


def _copy_extents(reading: int, writing: int) -> None:
    size = os.fstat(reading).st_size
    os.truncate(writing, size)
    end = 0
    while end < size:
        try:
            start = os.lseek(reading, end, os.SEEK_DATA)
        except OSError as error:
            if error.errno == errno.ENXIO:  # only a hole is left
                return
            raise
        end = os.lseek(reading, start, os.SEEK_HOLE)
        _copy_range(reading, writing, start, end)


def _copy_range(reading: int, writing: int, start: int, end: int) -> None:
    while start < end:
        copied = os.copy_file_range(reading, writing, end - start, start, start)
        if copied == 0:
            raise OSError(errno.EIO, "the file became shorter while it was copied")
        start += copied
