"""The guest of the VMM tests: a small static PID 1 (guest_init.c) and the modules it needs, as an initramfs."""

from __future__ import annotations

import lzma
import shutil
import subprocess
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
SOURCE = Path(__file__).with_name("guest_init.c")
MODULES = ("virtio_mmio", "virtio_blk", "failover", "net_failover", "virtio_net", "virtio_balloon")


def missing() -> str:
    """Why no VM can run here, or nothing."""
    if kernel() is None:
        return "no guest kernel in build/kernel (tools/setup.sh fetches it)"
    for program, package in (("qemu-system-x86_64", "qemu-system-x86"), ("gcc", "gcc")):
        if shutil.which(program) is None:
            return f"{program} is not installed (apt-get install {package})"
    if not (ROOT / "build/guest/cuboid-launcher").exists():
        return "the launcher of VMs is not built (tools/build_guest.sh)"
    return ""


def kernel() -> Path | None:
    return next(iter(sorted((ROOT / "build/kernel").glob("vmlinuz-*"))), None)


def test_initramfs() -> Path:
    """Built once into build/test, again when its source or kernel changes."""
    found = kernel()
    assert found is not None, "no guest kernel"
    target = ROOT / "build/test" / f"guest-{found.name.removeprefix('vmlinuz-')}.cpio"
    newest = max(SOURCE.stat().st_mtime, Path(__file__).stat().st_mtime, found.stat().st_mtime)
    if not target.exists() or target.stat().st_mtime < newest:
        target.parent.mkdir(parents=True, exist_ok=True)
        _build(target, found.name.removeprefix("vmlinuz-"))
    return target


def _build(target: Path, release: str) -> None:
    program = target.with_suffix(".init")
    subprocess.run(["gcc", "-O2", "-Wall", "-static", "-o", program, SOURCE], check=True, timeout=60)
    subprocess.run(["strip", program], check=True, timeout=60)
    data = b"".join(_folder(name) for name in ("dev", "sys", "modules"))
    data += _member("init", 0o100755, program.read_bytes())
    for index, name in enumerate(MODULES):
        if (module := _module(release, name)) is not None:
            data += _member(f"modules/{index}-{name}.ko", 0o100644, module)
    data += _member("TRAILER!!!", 0, b"")
    new = target.with_suffix(".new")
    new.write_bytes(data)
    new.replace(target)


def _module(release: str, name: str) -> bytes | None:
    """A module's bytes; None if it is built into the kernel."""
    for path in (ROOT / "build/kernel/modules" / release).rglob(f"{name}.ko*"):
        return lzma.decompress(path.read_bytes()) if path.suffix == ".xz" else path.read_bytes()
    return None


def _folder(name: str) -> bytes:
    return _member(name, 0o040755, b"")


def _member(name: str, mode: int, data: bytes) -> bytes:
    fields = (0, mode, 0, 0, 1, 0, len(data), 0, 0, 0, 0, len(name) + 1, 0)
    head = b"070701" + b"".join(b"%08X" % field for field in fields) + name.encode() + b"\0"
    return head + bytes(-len(head) % 4) + data + bytes(-len(data) % 4)
