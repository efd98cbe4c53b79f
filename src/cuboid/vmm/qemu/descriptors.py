"""Files that are opened for the VMM, and closed here when it has its own copies."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from cuboid.lib.errors import ConflictError, NotFoundError


@contextmanager
def opened(path: Path, flags: int, what: str) -> Iterator[int]:
    """A descriptor for the length of a block. NotFoundError, ConflictError."""
    try:
        descriptor = os.open(path, flags | os.O_CLOEXEC)
    except FileNotFoundError as error:
        raise NotFoundError(f"{what} {path} does not exist") from error
    except OSError as error:
        raise ConflictError(f"{what} {path} cannot be opened: {error.strerror}") from error
    try:
        yield descriptor
    finally:
        os.close(descriptor)


@contextmanager
def disk(path: Path | None, *, read_only: bool) -> Iterator[int]:
    """The descriptor of a disk; -1 for an empty slot."""
    if path is None:
        yield -1
        return
    with opened(path, os.O_RDONLY if read_only else os.O_RDWR, "the disk") as descriptor:
        yield descriptor


@contextmanager
def memory(name: str) -> Iterator[int]:
    """An empty file in memory that no path leads to."""
    descriptor = os.memfd_create(name, os.MFD_CLOEXEC)
    try:
        yield descriptor
    finally:
        os.close(descriptor)
