"""Addresses that the plugin host-local holds for pods of which nothing else is left, as after a power cut.

One file per address, named by it, with the container's id in its first line; the plugin works under an flock on `lock`.
"""

from __future__ import annotations

import fcntl
import ipaddress
import os
from collections.abc import Callable
from pathlib import Path


def free_unknown(folder: Path, known: Callable[[str], bool]) -> list[str]:
    """Free the addresses of containers that are not `known`; returns them. Must not be called for another's folder."""
    if not folder.is_dir():
        return []
    lock = os.open(folder / "lock", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW, 0o600)
    try:
        fcntl.flock(lock, fcntl.LOCK_EX)
        freed = [path for path in folder.iterdir() if _is_address(path.name) and not known(_holder(path))]
        for path in freed:
            path.unlink()
        return sorted(path.name for path in freed)
    finally:
        os.close(lock)


def _is_address(name: str) -> bool:
    try:
        ipaddress.ip_address(name)
    except ValueError:  # last_reserved_ip.0, lock
        return False
    return True


def _holder(path: Path) -> str:
    """The id of the container; "" for a file that a power cut left empty."""
    return path.read_text(errors="replace").partition("\n")[0].strip()
