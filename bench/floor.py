"""The floor: QEMU with the same kernel and an init that ends the machine at once, no agent, no network, no disks.

Machine, CPU, memory and kernel command line are those of the product. `packed` boots the kernel as the distribution
ships it (`qemu -kernel vmlinuz`); `unpacked` as the product enters it, so that only what Cuboid adds is left.
"""

from __future__ import annotations

import subprocess
import tempfile
import time
from pathlib import Path

from cuboid.guest.assets import guest_assets
from cuboid.guest.initramfs import Member, cpio
from cuboid.vmm.base import Boot, VmSpec
from cuboid.vmm.qemu import boot, command, tsc

SOURCE = Path(__file__).resolve().parent / "floor.c"
DEADLINE = 120.0  # seconds for one boot


class Floor:
    """Boots again and again; a boot's time is from the start of the process to its end."""

    def __init__(self, memory_mib: int, accel: str) -> None:
        self._folder = tempfile.TemporaryDirectory(prefix="cuboid-floor-")
        folder = Path(self._folder.name)
        subprocess.run(["gcc", "-O2", "-static", "-o", folder / "init", SOURCE], check=True, timeout=60)
        self._initramfs = folder / "initramfs"
        self._initramfs.write_bytes(boot.padded(cpio([Member("init", 0o100755, (folder / "init").read_bytes())])))
        self._kernel = guest_assets().kernel
        self._unpacked = boot.unpacked(self._kernel, folder) if accel == "tcg" else self._kernel
        spec = VmSpec("floor", Boot(self._kernel, self._initramfs), vcpus=1, memory_mib=memory_mib)
        host = command.Host("qemu-system-x86_64", accel, tsc.khz() if accel == "tcg" else 0)
        self._command = [
            host.qemu, "-M", "microvm,pit=off,pic=off,rtc=on,isa-serial=off",
            "-accel", f"tcg,thread=multi,tb-size={host.translation_mib}" if accel == "tcg" else "kvm",
            "-cpu", command.TCG_CPU if accel == "tcg" else "host", "-m", f"{memory_mib}M",
            "-nodefaults", "-no-user-config", "-display", "none", "-no-reboot",
            "-initrd", str(self._initramfs), "-append", command.kernel_cmdline(spec, host),
        ]  # fmt: skip

    def packed(self) -> float:
        return self._boot(self._kernel)

    def unpacked(self) -> float:
        return self._boot(self._unpacked)

    def _boot(self, kernel: Path) -> float:
        arguments = [*self._command, "-kernel", str(kernel)]
        started = time.monotonic()
        subprocess.run(arguments, check=True, stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL, timeout=DEADLINE)
        return time.monotonic() - started

    def close(self) -> None:
        self._folder.cleanup()
