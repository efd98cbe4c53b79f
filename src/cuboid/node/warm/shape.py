"""What a machine is restored from: everything about a VM that a template fixes. Pure."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from dataclasses import dataclass

from cuboid.vmm.base import Boot, Disk

MTU = 1500  # of a template's network device; a clone's may be smaller, not larger
READ_ONLY_CLASSES = (1, 2, 4, 8)  # slots for images
SPARE = 1  # empty slot for the image of an ephemeral container
WRITABLE_CLASSES = (1, 2, 4)  # the pod's own disk and named volumes
VERSION = "1"  # of how templates are made: a new one retires all that exist


@dataclass(frozen=True)
class Shape:
    """`read_only` and `writable` count the disk slots."""

    boot: Boot
    vcpus: int
    memory_mib: int
    read_only: int = 1
    writable: int = 1

    @property
    def slots(self) -> tuple[Disk, ...]:
        """Empty ones, in the order of the devices."""
        return (
            *(Disk(read_only_serial(number), None, read_only=True) for number in range(self.read_only)),
            *(Disk(writable_serial(number), None, read_only=False) for number in range(self.writable)),
        )

    def filled(self, disks: tuple[Disk, ...]) -> tuple[Disk, ...]:
        """The slots with these disks in theirs."""
        given = {disk.serial: disk for disk in disks}
        return tuple(given.get(slot.serial, slot) for slot in self.slots)


def read_only_serial(number: int) -> str:
    return f"ro{number}"


def writable_serial(number: int) -> str:
    return f"rw{number}"


def shape_of(boot: Boot, *, vcpus: int, memory_mib: int, images: int, writable: int) -> Shape | None:
    """The smallest shape that holds so many disks; None if there is none, and the machine has to boot."""
    read_only = next((count for count in READ_ONLY_CLASSES if count >= images), None)
    disks = next((count for count in WRITABLE_CLASSES if count >= writable), None)
    if read_only is None or disks is None:
        return None
    return Shape(boot, vcpus, memory_mib, read_only, disks)


def key(shape: Shape, facts: Mapping[str, str], contents: Mapping[str, str]) -> str:
    """The template's name: changes with everything that it depends on. `contents` are digests of what is booted."""
    parts = {
        "version": VERSION, "facts": dict(facts), "contents": dict(contents), "cmdline": shape.boot.cmdline,
        "vcpus": shape.vcpus, "memory": shape.memory_mib, "slots": [shape.read_only, shape.writable], "mtu": MTU,
    }  # fmt: skip
    return hashlib.sha256(json.dumps(parts, sort_keys=True).encode()).hexdigest()[:32]
