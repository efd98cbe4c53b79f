"""Where the guest's kernel and initramfs are: in the development tree or installed.

Two kinds of guest: `minimal` has our own kernel, everything built in (`make guest-kernel`), and an initramfs of the
agent alone; `general` has Debian's cloud kernel, with modules, for whoever needs what the minimal one leaves out.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Final, Literal

from cuboid.lib.errors import InvalidError, UnsupportedError

TREE = Path(__file__).resolve().parents[3]
INSTALLED = Path("/usr/lib/cuboid")

Kind = Literal["minimal", "general"]
MINIMAL: Final = "minimal"
GENERAL: Final = "general"
HOW_TO_GET: dict[Kind, str] = {MINIMAL: "make guest-kernel (about 8 minutes on two CPUs, once)", GENERAL: "make run"}
# Measured with the agent and no pod (docs/design/0013-guest-kernel.md), rounded up; the smallest VM that starts a pod.
OVERHEAD_MIB: dict[Kind, int] = {MINIMAL: 44, GENERAL: 96}
LEAST_MIB: dict[Kind, int] = {MINIMAL: 64, GENERAL: 128}


@dataclass(frozen=True)
class GuestAssets:
    """What a VM boots (`vmm.base.Boot` takes the first two).

    `small` is an initramfs without NFS, netfilter and bridges: 9 MB more memory for a guest that needs none of them.
    For the minimal kernel, which has them built in, it is the same file as `initramfs`.
    """

    kernel: Path  # minimal: an ELF file with a PVH entry, for QEMU and Firecracker; general: a bzImage
    initramfs: Path
    small: Path
    agent_version: str
    digest: str  # sha256 of the initramfs, hexadecimal
    kind: Kind
    release: str  # of the kernel, as `uname -r` in the guest
    overhead_mib: int  # memory that the guest itself needs beyond its containers' and volumes'
    min_memory_mib: int  # the smallest VM that boots and runs a pod


def guest_assets(root: Path | None = None, *, kind: str = "") -> GuestAssets:
    """Find them below `root`/build (default: this tree), else in /usr/lib/cuboid: of `kind`, or minimal if it is there.

    UnsupportedError if they are missing, InvalidError for a kind that there is not.
    """
    build = (root or TREE) / "build"
    match kind:
        case "minimal" | "general":
            found = _FINDERS[kind](build)
        case "":
            found = _minimal(build) or _general(build)
        case _:
            raise InvalidError(f"there is no guest kernel {kind!r}", hint=f"one of {MINIMAL}, {GENERAL}")
    if found is None:
        what = f"the {kind} guest kernel has" if kind else "the guest's kernel and agent have"
        raise UnsupportedError(f"{what} not been built", hint=HOW_TO_GET[MINIMAL if kind == MINIMAL else GENERAL])
    return found


def _minimal(build: Path) -> GuestAssets | None:
    for kernels, guest in ((build / "guest-kernel", build / "guest"), (INSTALLED, INSTALLED)):
        kernel, release = kernels / "vmlinux", kernels / "release"
        initramfs = guest / "initramfs-minimal"
        if kernel.exists() and release.exists() and initramfs.exists():
            about = _about(initramfs)
            return _assets(MINIMAL, kernel, release.read_text().strip(), initramfs, initramfs, about)
    return None


def _general(build: Path) -> GuestAssets | None:
    for kernels, guest in ((build / "kernel", build / "guest"), (INSTALLED, INSTALLED)):
        kernel = next(iter(sorted(kernels.glob("vmlinuz-*"))), None)
        initramfs = guest / "initramfs"
        if kernel is not None and initramfs.exists() and (about := _about(initramfs)):
            if not kernel.name.endswith(about["kernel"]):
                raise UnsupportedError(
                    f"the guest's initramfs is for kernel {about['kernel']}, not {kernel.name}",
                    hint="tools/build_guest.sh",
                )
            small = guest / "initramfs-small"
            return _assets(GENERAL, kernel, about["kernel"], initramfs, small if small.exists() else initramfs, about)
    return None


_FINDERS = {MINIMAL: _minimal, GENERAL: _general}


def _about(initramfs: Path) -> dict[str, str]:
    """What `guest.initramfs` wrote beside it; empty if there is none."""
    about = initramfs.with_name(initramfs.name + ".json")
    found: dict[str, str] = json.loads(about.read_text()) if about.exists() else {}
    return found


def _assets(kind: Kind, kernel: Path, release: str, initramfs: Path, small: Path, about: dict[str, str]) -> GuestAssets:
    return GuestAssets(
        kernel, initramfs, small, about["agent"], about["sha256"], kind, release, OVERHEAD_MIB[kind], LEAST_MIB[kind]
    )
