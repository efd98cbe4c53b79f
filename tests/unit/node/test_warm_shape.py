"""What a template is for: its slots, and everything that makes it another one."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

from cuboid.node.warm.shape import Shape, key, shape_of
from cuboid.vmm.base import Boot, Disk

BOOT = Boot(Path("/kernel"), Path("/initramfs"))
SHAPE = Shape(BOOT, vcpus=1, memory_mib=160, read_only=2, writable=1)
FACTS = {"driver": "qemu", "version": "10.0.2"}
CONTENTS = {"kernel": "a", "initramfs": "b"}


def test_slots_are_told_apart_by_serial_and_by_whether_they_can_be_written() -> None:
    assert [(slot.serial, slot.read_only, slot.path) for slot in SHAPE.slots] == [
        ("ro0", True, None), ("ro1", True, None), ("rw0", False, None),
    ]  # fmt: skip


def test_filling_slots_leaves_the_others_empty_and_in_their_order() -> None:
    image, disk = Disk("ro0", Path("/image"), True), Disk("rw0", Path("/disk"), False)
    assert SHAPE.filled((disk, image)) == (image, SHAPE.slots[1], disk)


@pytest.mark.parametrize(
    ("images", "writable", "found"),
    [(1, 1, (1, 1)), (2, 1, (2, 1)), (3, 2, (4, 2)), (5, 3, (8, 4)), (8, 4, (8, 4)), (9, 1, None), (1, 5, None)],
)
def test_a_pod_gets_the_smallest_shape_that_holds_its_disks(
    images: int, writable: int, found: tuple[int, int] | None
) -> None:
    shape = shape_of(BOOT, vcpus=1, memory_mib=160, images=images, writable=writable)
    assert (None if shape is None else (shape.read_only, shape.writable)) == found


def test_a_template_of_anything_else_has_another_name() -> None:
    names = {
        key(SHAPE, FACTS, CONTENTS),
        key(SHAPE, FACTS | {"version": "10.0.3"}, CONTENTS),
        key(SHAPE, FACTS | {"cpu": "another"}, CONTENTS),
        key(SHAPE, FACTS, CONTENTS | {"kernel": "c"}),
        key(SHAPE, FACTS, CONTENTS | {"initramfs": "c"}),
        key(replace(SHAPE, vcpus=2), FACTS, CONTENTS),
        key(replace(SHAPE, memory_mib=192), FACTS, CONTENTS),
        key(replace(SHAPE, read_only=4), FACTS, CONTENTS),
        key(replace(SHAPE, writable=2), FACTS, CONTENTS),
        key(replace(SHAPE, boot=replace(BOOT, cmdline="debug")), FACTS, CONTENTS),
    }
    assert len(names) == 10


def test_the_name_does_not_depend_on_where_the_kernel_lies() -> None:
    moved = replace(SHAPE, boot=Boot(Path("/elsewhere/kernel"), Path("/elsewhere/initramfs")))
    assert key(moved, FACTS, CONTENTS) == key(SHAPE, FACTS, CONTENTS)
