"""A snapshot of a paused VM: device state and memory by Firecracker, disks by us, one folder of it all."""

from __future__ import annotations

import os
from collections.abc import Awaitable, Callable, Mapping
from contextlib import suppress
from pathlib import Path

from cuboid.lib.errors import ConflictError, UnavailableError
from cuboid.lib.threads import in_thread
from cuboid.vmm.firecracker import requests
from cuboid.vmm.firecracker.mounts import Binding, Jailed
from cuboid.vmm.firecracker.record import Record
from cuboid.vmm.qemu.jail import Jail
from cuboid.vmm.snapshots import Draft, copy_sparse, disk_file

STATE, MEMORY = "state", "memory"
RAW = ".raw"  # what the VMM writes, before the copy that it cannot have open any more
READ_ONLY = 0o400

Write = Callable[[], Awaitable[None]]  # has Firecracker write into the two files


async def save(
    jail: Jail, jailed: Jailed, record: Record, facts: Mapping[str, str], folder: Path, write: Write
) -> None:
    """AlreadyExistsError, UnavailableError, errors of `write`; then there is no snapshot."""
    with Draft(folder, jail.id) as draft:
        jail.note_draft(draft.path)
        try:
            await _written(draft.path, jailed, write)
            await in_thread(_complete, draft, record, facts)
        except OSError as error:
            raise UnavailableError(f"the snapshot {folder} cannot be written: {error.strerror}") from error


async def _written(path: Path, jailed: Jailed, write: Write) -> None:
    bindings = []
    for name, inside in ((STATE, requests.STATE), (MEMORY, requests.MEMORY)):
        (path / f"{name}{RAW}").touch(mode=0o600)
        bindings.append(Binding(path / f"{name}{RAW}", inside, read_only=False))
    await jailed.bind(bindings)
    try:
        await write()
    finally:
        with suppress(ConflictError):  # it has ended, and its mounts with it
            await jailed.release([binding.inside for binding in bindings])


def _complete(draft: Draft, record: Record, facts: Mapping[str, str]) -> None:
    """Firecracker writes zeros as zeros; the copies have holes. And they are files that no VMM has ever opened."""
    for name in (STATE, MEMORY):
        raw = draft.path / f"{name}{RAW}"
        _copy(raw, draft.path / name, READ_ONLY)
        raw.unlink()
    for serial, path in record.writable.items():
        _copy(Path(path), draft.path / disk_file(serial), 0o600)
    draft.finish(facts, record.shape, shared_memory=True)


def _copy(source: Path, target: Path, mode: int) -> None:
    descriptor = os.open(source, os.O_RDONLY | os.O_NOFOLLOW | os.O_CLOEXEC)
    try:
        copy_sparse(descriptor, target, mode=mode)
    finally:
        os.close(descriptor)
