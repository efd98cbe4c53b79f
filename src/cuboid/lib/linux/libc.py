"""libc through ctypes, with errno turned into OSError. Light: a VM launcher imports it under `python -I -S`."""

from __future__ import annotations

import ctypes
import os

_libc = ctypes.CDLL(None, use_errno=True)


def call(name: str, *arguments: int | bytes | None) -> int:
    """Call a libc function that returns -1 on failure; raises OSError with errno and the function's name."""
    converted = [ctypes.c_long(value) if isinstance(value, int) else value for value in arguments]
    result = int(getattr(_libc, name)(*converted))
    if result == -1:
        number = ctypes.get_errno()
        raise OSError(number, f"{name}: {os.strerror(number)}")
    return result


def syscall(number: int, *arguments: int | bytes | None) -> int:
    """A system call that libc has no wrapper for, by its number (x86-64)."""
    return call("syscall", number, *arguments)
