"""Where the guest's kernel and initramfs are: in the development tree or installed."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path

from cuboid.lib.errors import UnsupportedError

TREE = Path(__file__).resolve().parents[3]
INSTALLED = Path("/usr/lib/cuboid")


@dataclass(frozen=True)
class GuestAssets:
    """What a VM boots (`vmm.base.Boot` takes the first two).

    `small` is an initramfs without NFS, netfilter and bridges: 9 MB more memory for a guest that needs none of them.
    """

    kernel: Path
    initramfs: Path
    small: Path
    agent_version: str
    digest: str  # sha256 of the initramfs, hexadecimal


def guest_assets(root: Path | None = None) -> GuestAssets:
    """Find them below `root`/build (default: this tree), else in /usr/lib/cuboid. UnsupportedError if missing."""
    build = (root or TREE) / "build"
    for kernels, guest in ((build / "kernel", build / "guest"), (INSTALLED, INSTALLED)):
        kernel = next(iter(sorted(kernels.glob("vmlinuz-*"))), None)
        about = guest / "initramfs.json"
        if kernel is not None and about.exists() and (guest / "initramfs").exists():
            return _assets(kernel, guest, json.loads(about.read_text()))
    raise UnsupportedError("the guest's kernel and agent have not been built", hint="make run")


def _assets(kernel: Path, guest: Path, about: dict[str, str]) -> GuestAssets:
    if not kernel.name.endswith(about["kernel"]):
        raise UnsupportedError(
            f"the guest's initramfs is for kernel {about['kernel']}, not {kernel.name}", hint="tools/build_guest.sh"
        )
    small = guest / "initramfs-small"
    initramfs = guest / "initramfs"
    return GuestAssets(kernel, initramfs, small if small.exists() else initramfs, about["agent"], about["sha256"])
