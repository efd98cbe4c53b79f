"""Network namespaces: made, named by a file, entered by a short-lived thread. Needs CAP_SYS_ADMIN.

A namespace is kept by a bind mount of its nsfs file, in a folder of the caller's and not in `ip netns`' global one.
A namespace belongs to a thread, so nothing here touches the one of the caller's thread.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import TypeVar

from cuboid.lib.aio import to_the_end
from cuboid.lib.linux import mount

T = TypeVar("T")
_UMOUNT_NOFOLLOW = 8


async def in_new_thread(function: Callable[[], T]) -> T:
    """Run `function` in a thread that ends with it: what it does to its namespaces harms nobody."""
    executor = ThreadPoolExecutor(1, thread_name_prefix="netns")
    try:
        return await to_the_end(asyncio.get_running_loop().run_in_executor(executor, function))
    finally:
        executor.shutdown(wait=False)


async def run_in(path: Path | None, function: Callable[[], T]) -> T:
    """Run `function` inside the namespace at `path` (None: the caller's own). OSError if it cannot be entered."""

    def work() -> T:
        if path is not None:
            mount.enter_namespace(str(path))
        return function()

    return await in_new_thread(work)


async def create(path: Path) -> None:
    """Make a namespace and keep it at `path`. Does nothing if it exists; a left-over plain file is used again."""
    if exists(path):
        return
    path.parent.mkdir(mode=0o711, parents=True, exist_ok=True)
    path.touch(mode=0o444)

    def make() -> None:
        mount.unshare(mount.CLONE_NEWNET)
        mount.mount("/proc/thread-self/ns/net", str(path), "", mount.MS_BIND)

    await in_new_thread(make)


def exists(path: Path) -> bool:
    """Whether a namespace is mounted at `path`: all nsfs files are on one device of their own."""
    try:
        return path.stat().st_dev == Path("/proc/self/ns/net").stat().st_dev
    except FileNotFoundError:
        return False


def remove(path: Path) -> None:
    """Unmount and delete. The namespace itself ends with its last process. Idempotent."""
    while exists(path):
        mount.unmount(str(path), mount.MNT_DETACH | _UMOUNT_NOFOLLOW)
    path.unlink(missing_ok=True)
