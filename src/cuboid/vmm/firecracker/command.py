"""Command lines: the jailer's, Firecracker's behind it, and the guest kernel's. Pure.

The jailer's arguments are those of Firecracker's `docs/jailer.md`.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from cuboid.lib.linux import cgroup
from cuboid.vmm.base import VmSpec
from cuboid.vmm.firecracker import requests

CHANNEL_PORT = 1024  # vsock port on which the guest agent listens
MAX_FILES = 512
GUEST_ARGS = (
    "dummy.numdummies=0",  # its random address would be common to all clones of a template
    "reboot=t",  # a panic is a triple fault, which Firecracker tells apart from an orderly reset
    "panic=-1",
    "cuboid.end=reset",  # a machine without a power switch ends by a reset (keyboard controller)
    f"cuboid.vsock={CHANNEL_PORT}",
    "pci=off",
    "i8042.noaux", "i8042.nomux", "i8042.dumbkbd",  # the controller is there for the reset alone
    "quiet",
)  # fmt: skip
SERIAL_OFF = "8250.nr_uarts=0"
SERIAL_ON = "console=ttyS0"


@dataclass(frozen=True)
class Programs:
    """Absolute paths. Firecracker's file name is part of the jail's path and must contain "firecracker"."""

    jailer: Path
    firecracker: Path


@dataclass(frozen=True)
class Groups:
    """How the jailer joins the VM's control group, which exists already: all empty on a host without any."""

    version: int = 0
    parent: str = ""
    files: tuple[tuple[str, str], ...] = ()

    @classmethod
    def of(cls, hierarchy: cgroup.Hierarchy, vm_id: str, limits: cgroup.Limits) -> Groups:
        """On v2 the jailer moves into a parent that it is given without files; on v1 it needs a file per controller."""
        if hierarchy.v2 is not None:
            return cls(2, f"{hierarchy.parent}/{vm_id}")
        if not hierarchy.v1:
            return cls()
        rows = cgroup.v1_files(limits)
        rows["memory"] = {"memory.limit_in_bytes": str(limits.memory_bytes or -1)}  # it joins only what it sets
        rows["pids"] = {"pids.max": str(limits.pids or "max")}
        files = [row for controller in hierarchy.v1 for row in rows.get(controller, {}).items()]
        return cls(1, hierarchy.parent, tuple(files))


def jail_root(base: Path, programs: Programs, vm_id: str) -> Path:
    """Where the jailer builds the root, by its own rule."""
    return base / programs.firecracker.name / vm_id / "root"


def jailer(programs: Programs, vm_id: str, uid: int, base: Path, netns: Path | None, groups: Groups) -> list[str]:
    words = [
        str(programs.jailer), "--id", vm_id, "--exec-file", str(programs.firecracker),
        "--uid", str(uid), "--gid", str(uid), "--chroot-base-dir", str(base),
        "--new-pid-ns", "--resource-limit", f"no-file={MAX_FILES}",
    ]  # fmt: skip
    if netns is not None:
        words += ["--netns", str(netns)]
    if groups.version:
        words += ["--cgroup-version", str(groups.version), "--parent-cgroup", groups.parent]
    for name, value in groups.files:
        words += ["--cgroup", f"{name}={value}"]
    return [*words, "--", "--api-sock", requests.API_SOCKET]


def boot_args(spec: VmSpec, *, console: bool) -> str:
    """The guest kernel's command line.

    Firecracker gives disks serials of its own choosing, so the guest is told ours in the order of the devices.
    """
    words = [*GUEST_ARGS, SERIAL_ON if console else SERIAL_OFF]
    if spec.disks:
        words.append("cuboid.disks=" + ",".join(disk.serial for disk in spec.disks))
    return " ".join([*words, *([spec.boot.cmdline] if spec.boot.cmdline else [])])
