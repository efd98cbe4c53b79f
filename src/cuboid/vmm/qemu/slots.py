"""Disks that come and go while a VM lives: a virtio-blk device stays, what is behind it is exchanged.

The microvm machine has no bus on which devices could be added, but QEMU lets the drive of a device be set at any time
(`qom-set … drive`). An empty slot has a drive of zeros. A guest reads a device's capacity when it finds it, and again
when told that it has changed; QEMU tells it only when a node is resized, which a read-only one cannot be: so for a
moment a writable one, the gauge, stands in the slot and is given the disk's size. It has no content: a disk is in its
slot before the guest, if it runs, can have read what its new size is for.
"""

from __future__ import annotations

import asyncio
import os
from collections.abc import Awaitable, Callable, Iterable
from contextlib import suppress
from pathlib import Path
from typing import Any

from cuboid.lib.errors import ConflictError, CuboidError, NotFoundError, UnavailableError
from cuboid.vmm.base import Disk
from cuboid.vmm.qemu import command, descriptors
from cuboid.vmm.qemu.jail import Jail
from cuboid.vmm.qemu.qmp import Command, Qmp, QmpRefusedError
from cuboid.vmm.snapshots import Slot

FDSETS = 1000  # the sets of late disks begin here; lower numbers are those of the command line

Undo = Callable[[], Awaitable[object]]


class Slots:
    """The disk devices of one VM. Calls follow each other."""

    def __init__(self, qmp: Qmp, jail: Jail, slots: tuple[Slot, ...]) -> None:
        self._qmp = qmp
        self._jail = jail
        self._vm_id = jail.id
        self._slots = slots
        noted = jail.noted_disks()
        self._filled = {index for index, slot in enumerate(slots) if slot.serial in noted}
        self._one = asyncio.Lock()

    async def attach(self, disk: Disk) -> None:
        """ConflictError, NotFoundError, UnavailableError; the slot is empty then."""
        index, slot = self._find(disk.serial)
        if disk.path is None:
            raise ConflictError(f"disk {disk.serial} has no path: there is nothing to attach")
        if slot.read_only != disk.read_only:
            kinds = ("writable", "read-only")
            raise ConflictError(
                f"slot {disk.serial} of {self._vm_id} is {kinds[slot.read_only]}, the disk {kinds[disk.read_only]}"
            )
        async with self._one:
            if index in self._filled:
                raise ConflictError(f"slot {disk.serial} of {self._vm_id} is taken")
            undo: list[Undo] = []
            try:
                self._note(index, disk.path)
                await self._fill(index, disk, undo)
            except BaseException as error:
                for step in reversed(undo):
                    with suppress(CuboidError):
                        await step()
                self._note(index, None)
                if isinstance(error, QmpRefusedError):
                    raise UnavailableError(f"the disk {disk.path} cannot be attached: {error.message}") from error
                raise

    def _find(self, serial: str) -> tuple[int, Slot]:
        for index, slot in enumerate(self._slots):
            if slot.serial == serial:
                return index, slot
        raise NotFoundError(f"VM {self._vm_id} has no disk slot {serial}")

    def _note(self, index: int, path: Path | None) -> None:
        self._jail.note_disk(self._slots[index].serial, path)
        (self._filled.discard if path is None else self._filled.add)(index)

    async def _fill(self, index: int, disk: Disk, undo: list[Undo]) -> None:
        fdset = FDSETS + index
        limits = command.throttle(index, disk)
        commands: list[Command] = [("object-add", limits)] if limits else []
        commands.append(("blockdev-add", command.disk_node(index, disk, fdset)))
        with descriptors.disk(disk.path, read_only=disk.read_only) as descriptor:
            commands += self._exchange(index, os.lseek(descriptor, 0, os.SEEK_END))
            undo.append(lambda: self._qmp.take_back(fdset))
            if limits:
                undo.append(lambda: self._execute("object-del", id=command.throttle_id(index)))
            undo.append(lambda: self._execute("blockdev-del", **{"node-name": command.node_name(index)}))
            undo.append(lambda: self._set_drive(index, command.stub_node(index)))
            await self._qmp.give(descriptor, fdset, *commands)

    async def detach(self, serial: str) -> None:
        index, slot = self._find(serial)
        async with self._one:
            if index not in self._filled:
                return
            with suppress(QmpRefusedError):  # it is there if the slot was empty once
                await self._qmp.execute("blockdev-add", command.stub(index, slot.read_only))
            await self._set_drive(index, command.stub_node(index))
            await self._execute("blockdev-del", **{"node-name": command.node_name(index)})
            with suppress(QmpRefusedError):  # where there was no limit
                await self._execute("object-del", id=command.throttle_id(index))
            await self._qmp.take_back(FDSETS + index)
            self._note(index, None)

    async def tell_capacities(self, disks: Iterable[Disk]) -> None:
        """Have the guest read the capacities anew of the slots that these disks are in."""
        commands: list[Command] = []
        for disk in disks:
            index, _ = self._find(disk.serial)
            with descriptors.disk(disk.path, read_only=True) as descriptor:
                if descriptor >= 0:
                    commands += self._exchange(index, os.lseek(descriptor, 0, os.SEEK_END))
        async with self._one:
            await self._qmp.execute_all(*commands)

    def _exchange(self, index: int, size: int) -> list[Command]:
        """Put the disk's node into its slot and have the guest told of its size."""
        return [
            self._drive_is(index, command.GAUGE),
            ("block_resize", {"node-name": command.GAUGE, "size": size}),
            self._drive_is(index, command.node_name(index)),
        ]

    def _drive_is(self, index: int, node: str) -> Command:
        path = f"/machine/peripheral/{command.device_id(index)}"
        return "qom-set", {"path": path, "property": "drive", "value": node}

    async def _set_drive(self, index: int, node: str) -> None:
        name, arguments = self._drive_is(index, node)
        await self._qmp.execute(name, arguments)

    async def _execute(self, name: str, **arguments: Any) -> Any:
        return await self._qmp.execute(name, arguments)
