"""Settings of the VMM layer (`[vmm]`, CUBOID_VMM_*)."""

from __future__ import annotations

from dataclasses import dataclass

from cuboid.lib.settings import setting


@dataclass(frozen=True)
class VmmSettings:
    accel: str = setting(
        "auto", why="auto tries KVM by booting a kernel under it, then software emulation; or kvm, tcg"
    )
    qemu: str = setting("qemu-system-x86_64", why="the program, by name or absolute path; version 10.0 or later")
    firecracker: str = setting("firecracker", why="the program, by name or absolute path; version 1.17 or later")
    jailer: str = setting("jailer", why="Firecracker's jailer, by name or absolute path; of the same version")
    firecracker_console: bool = setting(
        False,
        why="give Firecracker's guests a serial console, for looking into one that does not start; it is slow, and "
        "one more device for a guest to attack",
    )
    uid_base: int = setting(2_000_000_000, why="first of the unprivileged users that VMMs run as; each VM has its own")
    uid_count: int = setting(65_536, why="how many such users: the most VMs at once")
    cgroup_parent: str = setting("cuboid", why="the group in which each VM gets a group of its own")
    create_seconds: float = setting(10.0, unit="s", why="deadline for a VMM to answer after it is started")
    call_seconds: float = setting(5.0, unit="s", why="deadline for one VMM command")
    memory_seconds: float = setting(
        60.0, unit="s", why="deadline for a guest's memory to be written to disk or read from it"
    )
    kvm_probe_seconds: float = setting(5.0, unit="s", why="a kernel that has not booted under KVM by then never will")
    tcg_probe_seconds: float = setting(40.0, unit="s", why="deadline of the same under software emulation")
    console_kib: int = setting(256, unit="KiB", why="the most a guest's console may hold in host memory")
    translation_mib: int = setting(
        64,
        unit="MiB",
        why="QEMU's cache of translated code (software emulation only): taken as code runs, 6 by an idle pod, all "
        "by a large program, which is slower with less; QEMU's own default is up to 1 GiB",
    )
