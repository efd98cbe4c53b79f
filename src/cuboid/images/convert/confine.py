"""How a converter gives up everything it does not need, before it reads one byte of an image.

After `confine` the process has an unprivileged uid of its own, an empty root folder, namespaces of its own (mounts,
network, IPC, host name), no way to gain privileges, limits on memory, processor time and file size, and a seccomp
filter that leaves it reading and writing the descriptors it was given. Opening a file, a socket or a process fails.
"""

from __future__ import annotations

import ctypes
import os
import resource
import signal
import struct
from dataclasses import dataclass

_libc = ctypes.CDLL(None, use_errno=True)
_PR_SET_PDEATHSIG, _PR_SET_DUMPABLE, _PR_SET_SECCOMP, _PR_SET_NO_NEW_PRIVS = 1, 4, 22, 38
_SECCOMP_MODE_FILTER = 2
_NAMESPACES = 0x00020000 | 0x40000000 | 0x08000000 | 0x04000000  # mount, network, IPC, UTS
_AUDIT_ARCH_X86_64 = 0xC000003E
_EPERM = 1
_ALLOW, _FAIL, _KILL = 0x7FFF0000, 0x00050000 | _EPERM, 0x80000000
_LOAD, _JUMP_EQUAL, _JUMP_GREATER_EQUAL, _RETURN = 0x20, 0x15, 0x35, 0x06

# x86-64 numbers of what an interpreter needs to compute, and to read and write open files.
_SYSCALLS = {
    "read": 0, "write": 1, "close": 3, "fstat": 5, "lseek": 8, "mmap": 9, "mprotect": 10, "munmap": 11, "brk": 12,
    "rt_sigaction": 13, "rt_sigprocmask": 14, "rt_sigreturn": 15, "pread64": 17, "pwrite64": 18, "sched_yield": 24,
    "mremap": 25, "madvise": 28, "getpid": 39, "exit": 60, "fsync": 74, "fdatasync": 75, "ftruncate": 77,
    "sigaltstack": 131, "gettid": 186, "futex": 202, "restart_syscall": 219, "clock_gettime": 228,
    "exit_group": 231, "fallocate": 285, "getrandom": 318,
}  # fmt: skip


@dataclass(frozen=True)
class Confinement:
    """`root`: an empty folder to be the root; the process's uid and gid are `uid_base` plus its pid. Both unused
    when not started by root."""

    root: str
    uid_base: int
    memory_bytes: int
    cpu_seconds: int
    file_bytes: int
    files: int


def confine(to: Confinement) -> None:
    """Irrevocable. OSError if any part of it fails: then nothing may be read."""
    if os.geteuid() == 0:
        _check(_libc.unshare(_NAMESPACES))
        os.chroot(to.root)
        os.chdir("/")
    _limit(to)
    if os.geteuid() == 0:
        own = to.uid_base + os.getpid()
        os.setgroups([])
        os.setresgid(own, own, own)
        os.setresuid(own, own, own)
    _prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)  # after the change of uid, which would clear it
    _prctl(_PR_SET_DUMPABLE, 0)
    _prctl(_PR_SET_NO_NEW_PRIVS, 1)
    _filter_syscalls()


def _limit(to: Confinement) -> None:
    for which, soft, hard in (
        (resource.RLIMIT_AS, to.memory_bytes, to.memory_bytes),
        (resource.RLIMIT_CPU, to.cpu_seconds, to.cpu_seconds + 5),  # SIGXCPU first: it says why
        (resource.RLIMIT_FSIZE, to.file_bytes, to.file_bytes),
        (resource.RLIMIT_NOFILE, to.files, to.files),
        (resource.RLIMIT_CORE, 0, 0),
    ):
        most = resource.getrlimit(which)[1]
        if most != resource.RLIM_INFINITY:
            soft, hard = min(soft, most), min(hard, most)
        resource.setrlimit(which, (soft, hard))


def _filter_syscalls() -> None:
    program = _program(sorted(_SYSCALLS.values()))
    code = ctypes.create_string_buffer(program, len(program))

    class Filter(ctypes.Structure):
        _fields_ = (("length", ctypes.c_ushort), ("code", ctypes.c_void_p))

    header = Filter(len(program) // 8, ctypes.addressof(code))
    _prctl(_PR_SET_SECCOMP, _SECCOMP_MODE_FILTER, ctypes.addressof(header))


def _program(allowed: list[int]) -> bytes:
    """Classic BPF: kill another architecture (32 bit, x32), allow the list, fail all else with EPERM."""

    def op(code: int, value: int, if_true: int = 0, if_false: int = 0) -> bytes:
        return struct.pack("<HBBI", code, if_true, if_false, value)

    checks = [op(_JUMP_EQUAL, number, if_true=len(allowed) - at) for at, number in enumerate(allowed)]
    return b"".join((
        op(_LOAD, 4), op(_JUMP_EQUAL, _AUDIT_ARCH_X86_64, if_true=1), op(_RETURN, _KILL),
        op(_LOAD, 0), op(_JUMP_GREATER_EQUAL, 0x40000000, if_false=1), op(_RETURN, _KILL),
        *checks, op(_RETURN, _FAIL), op(_RETURN, _ALLOW),
    ))  # fmt: skip


def _prctl(option: int, value: int, more: int = 0) -> None:
    _check(_libc.prctl(option, ctypes.c_ulong(value), ctypes.c_ulong(more), ctypes.c_ulong(0), ctypes.c_ulong(0)))


def _check(result: int) -> None:
    if result:
        raise OSError(ctypes.get_errno(), os.strerror(ctypes.get_errno()))
