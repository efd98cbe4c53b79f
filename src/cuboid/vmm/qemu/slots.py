"""Disks that come and go while a VM lives: a virtio-blk device stays, what is behind it is exchanged.

The microvm machine has no bus on which devices could be added, but QEMU lets the drive of a device be set at any time
(`qom-set … drive`). An empty slot has a drive of zeros. A guest reads a device's capacity when it finds it, and again
when told that it has changed; QEMU tells it only when a node is resized, which a read-only one cannot be: so for a
moment a writable node of the right size stands in (`_tell_capacity`).
"""

from __future__ import annotations

import asyncio
import os
from collections.abc import Awaitable, Callable
from contextlib import suppress
from typing import Any

from cuboid.lib.errors import ConflictError, CuboidError, NotFoundError, UnavailableError
from cuboid.vmm.base import Disk
from cuboid.vmm.qemu import command, descriptors
from cuboid.vmm.qemu.jail import Jail
from cuboid.vmm.qemu.qmp import Qmp, QmpRefusedError
from cuboid.vmm.snapshots import Slot

FDSETS = 1000  # the sets of late disks begin here; lower numbers are those of the command line
GAUGE = "gauge"

Undo = Callable[[], Awaitable[object]]


class Slots:
    """The disk devices of one VM. Calls follow each other."""

    def __init__(self, qmp: Qmp, jail: Jail, slots: tuple[Slot, ...]) -> None:
        self._qmp = qmp
        self._jail = jail
        self._vm_id = jail.id
        self._slots = slots
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
            if await self._drive(index) != command.stub_node(index):
                raise ConflictError(f"slot {disk.serial} of {self._vm_id} is taken")
            undo: list[Undo] = []
            try:
                self._jail.note_disk(disk.serial, disk.path)
                await self._fill(index, disk, undo)
            except BaseException as error:
                for step in reversed(undo):
                    with suppress(CuboidError):
                        await step()
                self._jail.note_disk(disk.serial, None)
                if isinstance(error, QmpRefusedError):
                    raise UnavailableError(f"the disk {disk.path} cannot be attached: {error.message}") from error
                raise

    def _find(self, serial: str) -> tuple[int, Slot]:
        for index, slot in enumerate(self._slots):
            if slot.serial == serial:
                return index, slot
        raise NotFoundError(f"VM {self._vm_id} has no disk slot {serial}")

    async def _fill(self, index: int, disk: Disk, undo: list[Undo]) -> None:
        fdset = FDSETS + index
        with descriptors.disk(disk.path, read_only=disk.read_only) as descriptor:
            size = os.lseek(descriptor, 0, os.SEEK_END)
            undo.append(lambda: self._qmp.take_back(fdset))
            await self._qmp.give(descriptor, fdset)
        if limits := command.throttle(index, disk):
            undo.append(lambda: self._execute("object-del", id=command.throttle_id(index)))
            await self._qmp.execute("object-add", limits)
        undo.append(lambda: self._execute("blockdev-del", **{"node-name": command.node_name(index)}))
        await self._qmp.execute("blockdev-add", command.disk_node(index, disk, fdset))
        undo.append(lambda: self._set_drive(index, command.stub_node(index)))
        await self._exchange(index, command.node_name(index), size)

    async def detach(self, serial: str) -> None:
        index, slot = self._find(serial)
        async with self._one:
            if await self._drive(index) == command.stub_node(index):
                return
            with suppress(QmpRefusedError):  # it is there if the slot was empty once
                await self._qmp.execute("blockdev-add", command.stub(index, slot.read_only))
            await self._set_drive(index, command.stub_node(index))
            await self._execute("blockdev-del", **{"node-name": command.node_name(index)})
            with suppress(QmpRefusedError):  # where there was no limit
                await self._execute("object-del", id=command.throttle_id(index))
            await self._qmp.take_back(FDSETS + index)
            self._jail.note_disk(serial, None)

    async def tell_capacity(self, disk: Disk) -> None:
        """Have the guest read the capacity anew of a slot that this disk is in."""
        index, _ = self._find(disk.serial)
        with descriptors.disk(disk.path, read_only=True) as descriptor:
            size = os.lseek(descriptor, 0, os.SEEK_END)
        async with self._one:
            await self._exchange(index, command.node_name(index), size)

    async def _exchange(self, index: int, node: str, size: int) -> None:
        """Put `node` into a slot and have the guest told of its size."""
        fdset = FDSETS + command.MAX_DISKS
        gauge = os.memfd_create("gauge", os.MFD_CLOEXEC)
        try:
            os.ftruncate(gauge, size)
            await self._qmp.give(gauge, fdset)
        finally:
            os.close(gauge)
        stand_in = {"driver": "raw", "node-name": GAUGE, "file": {"driver": "file", "filename": f"/dev/fdset/{fdset}"}}
        try:
            await self._qmp.execute("blockdev-add", stand_in)
            await self._set_drive(index, GAUGE)
            await self._execute("block_resize", **{"node-name": GAUGE, "size": size})
            await self._set_drive(index, node)
        finally:
            with suppress(QmpRefusedError):
                await self._execute("blockdev-del", **{"node-name": GAUGE})
            await self._qmp.take_back(fdset)

    async def _drive(self, index: int) -> str:
        path = f"/machine/peripheral/{command.device_id(index)}"
        return str(await self._execute("qom-get", path=path, property="drive"))

    async def _set_drive(self, index: int, node: str) -> None:
        path = f"/machine/peripheral/{command.device_id(index)}"
        await self._execute("qom-set", path=path, property="drive", value=node)

    async def _execute(self, name: str, **arguments: Any) -> Any:
        return await self._qmp.execute(name, arguments)
