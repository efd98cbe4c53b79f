"""The floors: QEMU with the same kernel and no Cuboid, that ends at once (`Bare`) or answers (`bench.clones`).

Machine, CPU, memory and kernel command line are those of the product. `packed` boots the kernel as its file is
(`qemu -kernel bzImage`); `unpacked` as the product enters it, so that only what Cuboid adds is left.
"""

from __future__ import annotations

import json
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

from cuboid.guest.assets import GuestAssets
from cuboid.guest.initramfs import Member, cpio
from cuboid.vmm.base import Boot, VmSpec
from cuboid.vmm.qemu import boot, command, tsc

SOURCE = Path(__file__).resolve().parent / "floor.c"
SHARED = Path(__file__).resolve().parents[2] / "shared/floor/floor.py"
"""A program that measures the floor of this machine independently of this tree, where there is one."""
UNPACKED = """
import gzip, runpy, sys
gzip.compress = lambda data, level=9: data
del sys.argv[0]
runpy.run_path(sys.argv[0], run_name="__main__")
"""
"""Runs that program with its initramfs unpacked: a kernel for pods need not know gzip. Less work, so a lower floor."""
DEADLINE = 120.0  # seconds for one boot


class Bare:
    """Boots again and again; a boot's time is from the start of the process to its end."""

    def __init__(self, assets: GuestAssets, memory_mib: int, accel: str) -> None:
        self._folder = tempfile.TemporaryDirectory(prefix="cuboid-floor-")
        folder = Path(self._folder.name)
        self.memory_mib, self._accel = memory_mib, accel
        self.kernel = assets.kernel
        self.entered = boot.unpacked(assets.kernel, folder) if accel == "tcg" else assets.kernel
        self._initramfs = self.initramfs(SOURCE, folder)
        self._host = command.Host("qemu-system-x86_64", accel, tsc.khz() if accel == "tcg" else 0)
        spec = VmSpec("floor", Boot(assets.kernel, Path(self._initramfs)), vcpus=1, memory_mib=memory_mib)
        self._cmdline = command.kernel_cmdline(spec, self._host)

    @staticmethod
    def initramfs(source: Path, folder: Path) -> str:
        """One that holds a static program as its PID 1."""
        program, archive = folder / source.stem, folder / f"{source.stem}.cpio"
        subprocess.run(["gcc", "-O2", "-static", "-o", program, source], check=True, timeout=60)
        archive.write_bytes(boot.padded(cpio([Member("init", 0o100755, program.read_bytes())])))
        return str(archive)

    def command(self, *, memory_backend: str = "") -> list[str]:
        """QEMU without kernel, initramfs and devices."""
        backend = f",memory-backend={memory_backend}" if memory_backend else ""
        tcg = f"tcg,thread=multi,tb-size={self._host.translation_mib}"
        return [
            self._host.qemu, "-M", f"microvm,pit=off,pic=off,rtc=on,isa-serial=off{backend}",
            "-accel", tcg if self._accel == "tcg" else "kvm",
            "-cpu", command.TCG_CPU if self._accel == "tcg" else "host", "-m", f"{self.memory_mib}M",
            "-nodefaults", "-no-user-config", "-display", "none", "-no-reboot", "-append", self._cmdline,
        ]  # fmt: skip

    def packed(self) -> float:
        return self._boot(self.kernel)

    def unpacked(self) -> float:
        return self._boot(self.entered)

    def _boot(self, kernel: Path) -> float:
        arguments = [*self.command(), "-kernel", str(kernel), "-initrd", self._initramfs]
        started = time.monotonic()
        subprocess.run(arguments, check=True, stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL, timeout=DEADLINE)
        return time.monotonic() - started

    def close(self) -> None:
        self._folder.cleanup()


def shared(kernel: Path, runs: int, accel: str) -> dict[str, Any]:
    """What the independent program measures now: `cold_boot_s`, `clone_answered_s` and more; {} where it is not.

    It boots the bzImage beside the kernel that the product enters.
    """
    packed = kernel.with_name("bzImage")
    if not SHARED.exists() or not packed.exists():
        return {}
    arguments = ["--kernel", str(packed), "--runs", str(runs), "--accel", accel]
    done = subprocess.run(
        [sys.executable, "-c", UNPACKED, SHARED, *arguments], check=True, capture_output=True, timeout=DEADLINE
    )
    found: dict[str, Any] = json.loads(done.stdout)
    return found
