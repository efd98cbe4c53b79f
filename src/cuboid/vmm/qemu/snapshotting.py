"""Taking a snapshot of one VM, and the files that it has."""

from __future__ import annotations

import errno
import os
from collections.abc import Callable, Mapping
from pathlib import Path

from cuboid.lib.errors import UnavailableError, UnsupportedError
from cuboid.lib.threads import in_thread
from cuboid.vmm.qemu.jail import Jail
from cuboid.vmm.qemu.migration import Migration
from cuboid.vmm.snapshots import Draft, Shape, copy_sparse

STATE, MEMORY = "state", "memory"
SAVE_SECONDS = 20.0  # device state alone is some hundred kilobytes

Facts = Callable[[], Mapping[str, str]]


class Snapshots:
    """Of one VM. A template's memory is a file already: it changes its name, and only device state is written."""

    def __init__(self, jail: Jail, shape: Shape, facts: Facts, migration: Migration) -> None:
        self._jail = jail
        self._shape = shape
        self._facts = facts
        self._migration = migration
        self._template = jail.memory.exists()
        self.memory_is_gone = False

    async def take(self, folder: Path) -> None:
        """Of a paused VM. UnsupportedError, AlreadyExistsError, UnavailableError; then there is no snapshot."""
        if not self._template or self.memory_is_gone:
            raise UnsupportedError("only a VM made as a template is snapshotted, and only once")
        with Draft(folder, self._jail.id) as draft:
            self._jail.note_draft(draft.path)
            try:
                await self._migration.save(draft.path / STATE, SAVE_SECONDS)
                self.memory_is_gone = True
                await in_thread(self._finish, draft)
            except OSError as error:
                raise UnavailableError(f"the snapshot {folder} cannot be written: {error.strerror}") from error

    def _finish(self, draft: Draft) -> None:
        memory = draft.path / MEMORY
        _hand_over(self._jail.memory, memory)
        os.chown(memory, 0, 0)
        memory.chmod(0o444)  # the folder is root's alone; a clone's VMM is shown this file and nothing else
        draft.finish(self._facts(), self._shape, shared_memory=True)


def _hand_over(source: Path, target: Path) -> None:
    """Move a file; where the two are on different file systems its data is copied."""
    try:
        source.rename(target)
    except OSError as error:
        if error.errno != errno.EXDEV:
            raise
        with source.open("rb") as file:
            copy_sparse(file.fileno(), target)
        source.unlink()
