"""Taking a snapshot of one VM, and the files that it has."""

from __future__ import annotations

import asyncio
import errno
import fcntl
import os
from collections.abc import Callable, Mapping
from pathlib import Path

import msgspec

from cuboid.lib.aio import gather_all
from cuboid.lib.errors import ConflictError, UnavailableError, UnsupportedError
from cuboid.lib.threads import in_thread
from cuboid.vmm.qemu import descriptors, mapped
from cuboid.vmm.qemu.command import Memory
from cuboid.vmm.qemu.jail import Jail
from cuboid.vmm.qemu.migration import Migration
from cuboid.vmm.qemu.qmp import QmpRefusedError
from cuboid.vmm.snapshots import Draft, Shape, copy_sparse, disk_file, punch_zeros

STATE, MEMORY = "state", "memory"
FICLONE = 0x40049409

Facts = Callable[[], Mapping[str, str]]


class Made(msgspec.Struct, frozen=True):
    """What is on record of a VM, for whoever finds it again."""

    shape: Shape
    memory: Memory


class Snapshots:
    """Of one VM. A template's memory is a file already: it changes its name, and only device state is written."""

    def __init__(self, jail: Jail, made: Made, facts: Facts, migration: Migration, seconds: float) -> None:
        self._jail = jail
        self._shape = made.shape
        self._facts = facts
        self._migration = migration
        self._seconds = seconds
        self._one = asyncio.Lock()
        self._shared = made.memory is Memory.SHARED
        self._template = made.memory is Memory.TEMPLATE
        self.memory_is_gone = self._template and not jail.memory.exists()

    async def take(self, folder: Path) -> None:
        """Of a paused VM; all or nothing. UnsupportedError, ConflictError, AlreadyExistsError, UnavailableError."""
        if self._shared:
            raise UnsupportedError(
                f"VM {self._jail.id} shares its memory with other processes: no snapshot holds those"
            )
        if self.memory_is_gone:
            raise UnsupportedError(f"VM {self._jail.id} was a template: its memory is another snapshot's")
        async with self._one:
            with Draft(folder, self._jail.id) as draft:
                self._jail.note_draft(draft.path)
                try:
                    await self._fill(draft)
                    await in_thread(self._finish, draft)
                except QmpRefusedError as error:
                    if "previous migration" in error.message:
                        raise ConflictError(
                            f"VM {self._jail.id} has been snapshotted as it is",
                            hint="resume it before the next snapshot",
                        ) from error
                    raise UnavailableError(f"the VMM makes no snapshot: {error.message}") from error
                except OSError as error:
                    raise UnavailableError(f"the snapshot {folder} cannot be written: {error.strerror}") from error

    async def _fill(self, draft: Draft) -> None:
        saving = self._migration.save(draft.path / STATE, self._seconds, memory_stays=self._template)
        await gather_all(saving, in_thread(self._copy_disks, draft.path))

    def _copy_disks(self, folder: Path) -> None:
        """The VM is paused and its requests are done: what is in the files is what the guest has written."""
        disks = self._jail.noted_disks()
        for slot in self._shape.disks:
            path = disks.get(slot.serial)
            if path is not None and not slot.read_only:
                with descriptors.opened(path, os.O_RDONLY, "the disk") as source:
                    _copy(source, folder / disk_file(slot.serial))

    def _finish(self, draft: Draft) -> None:
        offset = 0
        if self._template:
            self.memory_is_gone = True
            memory = draft.path / MEMORY
            _hand_over(self._jail.memory, memory)
            os.chown(memory, 0, 0)
            punch_zeros(memory)
        else:
            memory = draft.path / STATE
            offset = mapped.leave_in_place(memory, self._shape.memory_mib << 20)
        memory.chmod(0o444)  # the folder is root's alone; a clone's VMM is shown this file and nothing else
        shared = self._template or offset > 0
        draft.finish(self._facts(), self._shape, shared_memory=shared, memory_offset=offset)


def _copy(source: int, target: Path) -> None:
    """Share the blocks where the file system can, else copy what is not zeros. OSError."""
    descriptor = os.open(target, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
    try:
        fcntl.ioctl(descriptor, FICLONE, source)
    except OSError:
        target.unlink()
        copy_sparse(source, target)
    finally:
        os.close(descriptor)


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
