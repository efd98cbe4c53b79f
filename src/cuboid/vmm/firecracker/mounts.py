"""What a VM may have, put into the jail of its running VMM: mounts in its namespace that look like its own files.

Disks are root's and shared between VMs, so they are neither moved, linked nor given away: a detached clone of the
file's mount shows root's files as the VMM's (an idmapped mount, Linux 5.12), and is attached in the mount namespace of
the VMM. The host's own mount table never sees it, and it is gone with the VMM.
"""

from __future__ import annotations

import asyncio
import errno
import os
import struct
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

from cuboid.lib import proc
from cuboid.lib.aio import deadline
from cuboid.lib.errors import ConflictError, InvalidError, NotFoundError, UnavailableError, UnsupportedError
from cuboid.lib.linux import libc, mount, netns

_OPEN_TREE, _MOVE_MOUNT, _MOUNT_SETATTR = 428, 429, 442  # x86-64
_AT_FDCWD, _AT_EMPTY_PATH, _AT_SYMLINK_NOFOLLOW = -100, 0x1000, 0x100
_OPEN_TREE_CLONE, _MOVE_MOUNT_F_EMPTY_PATH = 1, 4
_RDONLY, _NOSUID, _NODEV, _NOEXEC, _IDMAP = 0x1, 0x2, 0x4, 0x8, 0x00100000
_CLONE_FS = 0x200
_UMOUNT_NOFOLLOW = 8
MAP_SECONDS = 5.0

_Work = Callable[[], None]


@dataclass(frozen=True)
class Binding:
    """A host file and the path in the jail at which the VMM finds it. The path exists there, as an empty file."""

    source: Path
    inside: str
    read_only: bool


async def owner_map(uid: int) -> int:
    """A descriptor of a user namespace in which `uid` is root: what an idmapped mount is made with."""
    async with proc.spawn(
        ["unshare", "--user", "--", "cat"], stdin=asyncio.subprocess.PIPE, stdout=asyncio.subprocess.PIPE
    ) as process:
        assert process.stdin is not None
        assert process.stdout is not None
        async with deadline(MAP_SECONDS, "making a user namespace"):
            process.stdin.write(b"x")
            if await process.stdout.read(1) != b"x":
                raise UnsupportedError("this host makes no user namespaces", hint="sysctl user.max_user_namespaces")
        folder = Path(f"/proc/{process.pid}")
        for name in ("uid_map", "gid_map"):
            (folder / name).write_text(f"0 {uid} 1\n")
        return os.open(folder / "ns/user", os.O_RDONLY | os.O_CLOEXEC)


def clone(binding: Binding, owners: int) -> int:
    """A descriptor of a mount of that one file, attached nowhere. NotFoundError, InvalidError, UnsupportedError."""
    source = _checked(binding.source)
    try:
        flags = _OPEN_TREE_CLONE | os.O_CLOEXEC | _AT_SYMLINK_NOFOLLOW
        tree = libc.syscall(_OPEN_TREE, _AT_FDCWD, os.fsencode(source), flags)
    except OSError as error:
        raise UnavailableError(f"{binding.source} cannot be given to a VM: {error.strerror}") from error
    flags = _IDMAP | _NOSUID | _NODEV | _NOEXEC | (_RDONLY if binding.read_only else 0)
    try:
        libc.syscall(_MOUNT_SETATTR, tree, b"", _AT_EMPTY_PATH, struct.pack("4Q", flags, 0, 0, owners), 32)
    except OSError as error:
        os.close(tree)
        if error.errno not in (errno.EINVAL, errno.ENOSYS):
            raise UnavailableError(f"{binding.source} cannot be given to a VM: {error.strerror}") from error
        raise UnsupportedError(
            f"the file system of {binding.source} cannot show its files as another user's",
            hint="ext4, xfs or btrfs on Linux 5.15 or later",
        ) from error
    return tree


def _checked(path: Path) -> Path:
    """The file itself, where the path is a link to it."""
    if not path.exists():
        raise NotFoundError(f"the disk {path} does not exist")
    if not (path.is_file() or path.is_socket()):
        raise InvalidError(f"{path} is neither a file nor a socket")
    return path.resolve()


class Jailed:
    """The mount namespace of the VMM with this pid, which the caller knows to be alive."""

    def __init__(self, pid: int, uid: int) -> None:
        self._uid = uid
        self._owners = -1
        self._namespace = os.open(f"/proc/{pid}/ns/mnt", os.O_RDONLY | os.O_CLOEXEC)

    async def prepare(self) -> None:
        """Make what every `bind` needs, once."""
        if self._owners >= 0:
            return
        owners = await owner_map(self._uid)
        if self._namespace < 0:  # closed meanwhile
            os.close(owners)
            raise ConflictError("the VM has ended")
        self._owners = owners

    async def bind(self, bindings: Sequence[Binding]) -> None:
        """All of them or none. Errors as `clone`; ConflictError if the VMM is gone."""
        if not bindings:
            return
        await self.prepare()
        trees: list[int] = []
        try:
            for binding in bindings:
                trees.append(clone(binding, self._owners))
            await self._inside(lambda: _attach(list(zip(trees, bindings, strict=True))))
        finally:
            for tree in trees:
                os.close(tree)

    async def release(self, inside: Sequence[str]) -> None:
        """Take the newest mount off each of these paths; one that has none is left alone."""
        await self._inside(lambda: _detach(inside))

    async def _inside(self, work: _Work) -> None:
        def enter_and_work() -> None:
            mount.unshare(_CLONE_FS)  # the thread's own root and working folder, which setns() changes
            libc.call("setns", self._namespace, mount.CLONE_NEWNS)
            work()

        try:
            await netns.in_new_thread(enter_and_work)
        except OSError as error:
            raise ConflictError(f"the jail of the VM cannot be changed: {error.strerror}") from error

    def close(self) -> None:
        for descriptor in (self._namespace, self._owners):
            if descriptor >= 0:
                os.close(descriptor)
        self._namespace = self._owners = -1


def _attach(rows: Sequence[tuple[int, Binding]]) -> None:
    done: list[str] = []
    try:
        for tree, binding in rows:
            target = binding.inside.encode()
            libc.syscall(_MOVE_MOUNT, tree, b"", _AT_FDCWD, target, _MOVE_MOUNT_F_EMPTY_PATH)
            done.append(binding.inside)
    except OSError:
        _detach(done)
        raise


def _detach(paths: Sequence[str]) -> None:
    for path in paths:
        try:
            mount.unmount(path, mount.MNT_DETACH | _UMOUNT_NOFOLLOW)
        except OSError as error:
            if error.errno not in (errno.EINVAL, errno.ENOENT):  # not a mount point (any more)
                raise
