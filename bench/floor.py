"""The floor: QEMU with the same kernel and an init that ends the machine at once, no agent, no network, no disks."""

from __future__ import annotations

import subprocess
import tempfile
import time
from pathlib import Path

from cuboid.guest.assets import guest_assets
from cuboid.guest.initramfs import Member, cpio
from cuboid.vmm.qemu import tsc

SOURCE = Path(__file__).resolve().parent / "floor.c"
DEADLINE = 60.0  # seconds for one boot


class Floor:
    """Boots again and again; `boot()` is seconds from the start of the process to its end."""

    def __init__(self, memory_mib: int, accel: str) -> None:
        self._folder = tempfile.TemporaryDirectory(prefix="cuboid-floor-")
        folder = Path(self._folder.name)
        subprocess.run(["gcc", "-O2", "-static", "-o", folder / "init", SOURCE], check=True, timeout=60)
        archive = cpio([Member("init", 0o100755, (folder / "init").read_bytes())])
        (folder / "initramfs").write_bytes(archive + bytes(-len(archive) % 4096))
        clock = f" tsc_early_khz={tsc.khz()} tsc=reliable no_timer_check" if accel == "tcg" else ""
        self._command = [
            "qemu-system-x86_64", "-M", f"microvm,accel={accel},pit=off,pic=off,rtc=on,isa-serial=off",
            "-cpu", "max" if accel == "tcg" else "host", "-m", str(memory_mib), "-nodefaults", "-no-user-config",
            "-display", "none", "-no-reboot",
            "-kernel", str(guest_assets().kernel), "-initrd", str(folder / "initramfs"),
            "-append", f"quiet panic=-1 reboot=t{clock}",
        ]  # fmt: skip

    def boot(self) -> float:
        started = time.monotonic()
        subprocess.run(self._command, check=True, stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL, timeout=DEADLINE)
        return time.monotonic() - started

    def close(self) -> None:
        self._folder.cleanup()
