"""What the driver must know of a VM after a restart of this process: its shape, its user, and which disks are in it.

Kept beside the jail in a file of root's, because nothing that the VMM could be asked is to be trusted with it.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import msgspec

from cuboid.lib.errors import NotFoundError, UnavailableError
from cuboid.lib.paths import write_atomic
from cuboid.vmm.base import VmSpec
from cuboid.vmm.snapshots import Shape, Slot, shape_of

FILE = "firecracker.json"


class Record(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    uid: int
    shape: Shape
    template: bool
    shared_memory: bool
    spent: bool  # a template that has been snapshotted: it can only be killed
    disks: dict[str, str]  # serial -> path on the host, of the slots that are not empty
    vhost_user: tuple[str, ...]  # serials of the disks that another process serves

    @classmethod
    def of(cls, spec: VmSpec, uid: int) -> Record:
        paths = {disk.serial: disk.path for disk in spec.disks if disk.path is not None}
        return cls(
            uid=uid, shape=shape_of(spec), template=spec.template, shared_memory=spec.shared_memory, spent=False,
            disks={serial: str(path) for serial, path in paths.items()},
            vhost_user=tuple(serial for serial, path in paths.items() if path.is_socket()),
        )  # fmt: skip

    def slot(self, serial: str) -> tuple[int, Slot]:
        """Number of the device, and what it was made as. NotFoundError."""
        for number, slot in enumerate(self.shape.disks):
            if slot.serial == serial:
                return number, slot
        raise NotFoundError(f"the VM has no disk slot {serial}, and Firecracker adds none to a VM that is made")

    def with_disks(self, disks: Mapping[str, str]) -> Record:
        return msgspec.structs.replace(self, disks=dict(disks))

    def handed_over(self) -> Record:
        """After a snapshot."""
        return msgspec.structs.replace(self, spent=self.template)

    @property
    def writable(self) -> dict[str, str]:
        """Serial and path of the disks that the guest may have changed."""
        return {slot.serial: self.disks[slot.serial] for slot in self.shape.disks
                if not slot.read_only and slot.serial in self.disks}  # fmt: skip

    def save(self, folder: Path) -> None:
        write_atomic(folder / FILE, msgspec.json.encode(self), durable=False)

    @classmethod
    def load(cls, folder: Path) -> Record:
        """UnavailableError if it is not there or not whole."""
        try:
            return msgspec.json.decode((folder / FILE).read_bytes(), type=cls)
        except (OSError, msgspec.MsgspecError) as error:
            raise UnavailableError(f"what the VM of {folder.name} consists of is not on record") from error
