"""What /proc says about processes."""

from __future__ import annotations

from collections.abc import Container
from contextlib import suppress
from pathlib import Path

from cuboid.lib import proc


def of_users(users: Container[int]) -> set[int]:
    """Pids of all processes whose effective user is one of `users`."""
    found = set()
    for entry in Path("/proc").iterdir():
        if entry.name.isdigit():
            with suppress(FileNotFoundError, ProcessLookupError):
                if entry.stat().st_uid in users:
                    found.add(int(entry.name))
    return living(found)


def living(pids: set[int]) -> set[int]:
    """Those that still run; a zombie does not, however long its parent takes to notice."""
    return {pid for pid in pids if proc.start_time(pid) is not None}
