"""Mounts and mount namespaces. Needs CAP_SYS_ADMIN; every function raises OSError with what the kernel said.

Imports nothing slow: a launcher of VMs pays for it.
"""

from __future__ import annotations

import os

from cuboid.lib.linux import libc

MS_NOSUID, MS_NODEV, MS_NOEXEC = 2, 4, 8
MS_BIND, MS_REC, MS_PRIVATE = 4096, 16384, 1 << 18
MNT_DETACH = 2
CLONE_NEWNS, CLONE_NEWUTS, CLONE_NEWIPC = 0x00020000, 0x04000000, 0x08000000
CLONE_NEWPID, CLONE_NEWNET = 0x20000000, 0x40000000

_FSOPEN, _FSCONFIG, _FSMOUNT = 430, 431, 432  # x86-64 numbers; glibc wraps them only from 2.36 on
_FSCONFIG_SET_STRING, _FSCONFIG_CMD_CREATE = 1, 6


def unshare(flags: int) -> None:
    libc.call("unshare", flags)


def enter_namespace(path: str) -> None:
    """Move this thread into the namespace that `path` names (`/run/netns/x`, `/proc/PID/ns/net`)."""
    descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    try:
        libc.call("setns", descriptor, 0)
    finally:
        os.close(descriptor)


def mount(source: str, target: str, kind: str, flags: int = 0, options: str = "") -> None:
    libc.call("mount", source.encode(), target.encode(), kind.encode(), flags, options.encode() or None)


def make_private() -> None:
    """Nothing mounted or unmounted in this mount namespace reaches another one, nor the other way."""
    mount("none", "/", "", MS_REC | MS_PRIVATE)


def unmount(target: str, flags: int = MNT_DETACH) -> None:
    libc.call("umount2", target.encode(), flags)


class DetachedTmpfs:
    """A tmpfs of at most `size` bytes that is mounted nowhere: its files live while somebody has them open.

    A bound on what a hostile process can write, and nothing to unmount. Needs Linux 5.2.
    """

    def __init__(self, size: int, *, inodes: int = 16) -> None:
        context = libc.syscall(_FSOPEN, b"tmpfs", 1)
        try:
            for key, value in ((b"size", size), (b"nr_inodes", inodes), (b"mode", 700)):
                libc.syscall(_FSCONFIG, context, _FSCONFIG_SET_STRING, key, str(value).encode(), 0)
            libc.syscall(_FSCONFIG, context, _FSCONFIG_CMD_CREATE, None, None, 0)
            self._descriptor = libc.syscall(_FSMOUNT, context, 1, MS_NOSUID | MS_NODEV | MS_NOEXEC)
        finally:
            os.close(context)

    def open(self, name: str, flags: int, mode: int = 0o600) -> int:
        return os.open(name, flags | os.O_CLOEXEC, mode, dir_fd=self._descriptor)

    def __enter__(self) -> DetachedTmpfs:
        return self

    def __exit__(self, *_: object) -> None:
        os.close(self._descriptor)
