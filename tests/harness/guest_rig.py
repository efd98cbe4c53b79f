"""A guest agent to test against, wherever it runs: its channel, and a Setup that fits it."""

from __future__ import annotations

import shutil
import subprocess
from collections.abc import Sequence
from contextlib import AsyncExitStack
from dataclasses import dataclass
from pathlib import Path

import pytest

from cuboid.guest import agent_pb2 as pb
from cuboid.guest.assets import guest_assets
from cuboid.lib.errors import UnsupportedError
from cuboid.vmm.base import Boot, Disk
from cuboid.vmm.qemu.vm import QemuVm
from tests.harness.vms import Vms, needs_vms

SETUP = pb.Setup(hostname="pod", images=[pb.Device(name="image", serial="image")])
PROGRAMS = ("sh", "sleep", "echo", "cat", "true", "false", "seq", "head")


@dataclass(frozen=True)
class Rig:
    path: Path
    setup: pb.Setup
    boot_seconds: float
    vm: QemuVm | None = None


async def real_guest(
    folder: Path, stack: AsyncExitStack, *, memory_mib: int = 160, kind: str = "", programs: Sequence[str] = ()
) -> Rig:
    """A VM with the real agent and a small image; skipped in words where none can run.

    The image has `programs` beside the usual ones; `kind` is the guest kernel's: minimal, general, or what pods get.
    """
    if needs_vms.args[0]:
        pytest.skip(str(needs_vms.kwargs["reason"]))
    try:
        assets = guest_assets(kind=kind)
    except UnsupportedError as missing:
        pytest.skip(str(missing))
    vms = await stack.enter_async_context(Vms("guest", initramfs=assets.initramfs))
    disk = Disk("image", image(vms.folder, (*PROGRAMS, *programs)), read_only=True)
    vm = await vms.create(vms.spec(boot=Boot(assets.kernel, assets.initramfs), disks=(disk,), memory_mib=memory_mib))
    await vm.start()
    return Rig(vm.channel_path, SETUP, boot_seconds=45.0, vm=vm)


def image(folder: Path, programs: Sequence[str] = PROGRAMS) -> Path:
    """An EROFS image of a few of this machine's programs and their libraries."""
    tree, target = folder / "tree", folder / "image.erofs"
    for name in ("bin", "dev", "proc", "sys", "tmp", "etc"):
        (tree / name).mkdir(parents=True, exist_ok=True)
    for program in programs:
        source = Path(shutil.which(program, path="/usr/bin:/bin:/usr/sbin:/sbin") or program).resolve()
        shutil.copy2(source, tree / "bin" / Path(program).name)
        for library in _libraries(source):
            place = tree / library.relative_to("/")
            place.parent.mkdir(parents=True, exist_ok=True)
            shutil.copy2(library.resolve(), place)
    subprocess.run(["mkfs.erofs", "--quiet", target, tree], check=True, timeout=30, stdout=subprocess.DEVNULL)
    shutil.rmtree(tree)
    return target


def _libraries(program: Path) -> list[Path]:
    text = subprocess.run(["ldd", program], check=True, timeout=10, capture_output=True, text=True).stdout
    return [Path(word) for word in text.split() if word.startswith("/")]
