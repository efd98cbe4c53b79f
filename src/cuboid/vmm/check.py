"""Whether a VmSpec can be meant: the same answer from every driver, before anything is made. Pure."""

from __future__ import annotations

import re

from cuboid.lib.errors import InvalidError
from cuboid.vmm.base import Capabilities, Disk, Nic, VmSpec

MAX_VCPUS = 64
MAX_NICS = 4
MAX_CMDLINE = 1024  # bytes, of the 2047 that x86 kernels take
_ID = re.compile(r"[a-z0-9-]{1,40}")
_SERIAL = re.compile(r"[A-Za-z0-9._-]{1,20}")
_MAC = re.compile(r"[0-9a-f]{2}(:[0-9a-f]{2}){5}")
_TAP = re.compile(r"[A-Za-z0-9._-]{1,15}")


def check(spec: VmSpec, capabilities: Capabilities) -> None:
    """InvalidError with the field, what is wrong and what would be right."""
    check_id(spec.id)
    if not 1 <= spec.vcpus <= MAX_VCPUS:
        raise InvalidError(f"a VM has 1 to {MAX_VCPUS} vCPUs, not {spec.vcpus}")
    _check_memory(spec, capabilities)
    if len(spec.disks) > capabilities.max_disks:
        raise InvalidError(f"{len(spec.disks)} disks; this driver takes at most {capabilities.max_disks}")
    if len(spec.nics) > MAX_NICS:
        raise InvalidError(f"{len(spec.nics)} network devices; at most {MAX_NICS} are supported")
    if not spec.boot.cmdline.isascii() or not spec.boot.cmdline.isprintable() or len(spec.boot.cmdline) > MAX_CMDLINE:
        raise InvalidError(f"the kernel command line must be at most {MAX_CMDLINE} printable ASCII characters")
    if spec.template and spec.shared_memory:
        raise InvalidError("memory that is shared with other processes cannot be a template's")
    _check_disks(spec.disks, capabilities)
    _check_nics(spec)


def check_id(vm_id: str) -> None:
    """Ids become file and group names: nothing else may reach those."""
    if not _ID.fullmatch(vm_id):
        raise InvalidError(f"VM id {vm_id!r}: 1 to 40 of a-z, 0-9 and -")


def _check_memory(spec: VmSpec, capabilities: Capabilities) -> None:
    if spec.memory_mib < capabilities.min_memory_mib:
        raise InvalidError(
            f"{spec.memory_mib} MiB of memory are too little for a guest",
            hint=f"the minimum is {capabilities.min_memory_mib} MiB",
        )
    least = spec.memory_mib + capabilities.overhead_mib
    if 0 < spec.limits.memory_mib < least:
        raise InvalidError(
            f"a limit of {spec.limits.memory_mib} MiB on the VMM is too little for a guest of {spec.memory_mib} MiB",
            hint=f"at least {least} MiB",
        )


def _check_disks(disks: tuple[Disk, ...], capabilities: Capabilities) -> None:
    for disk in disks:
        if disk.path is None and not capabilities.late_disks:
            raise InvalidError(f"disk {disk.serial} has no path, and this driver fills no empty slots")
        if not _SERIAL.fullmatch(disk.serial):
            raise InvalidError(f"disk serial {disk.serial!r}: 1 to 20 of A-Z, a-z, 0-9, . _ -")
    if len({disk.serial for disk in disks}) < len(disks):
        raise InvalidError("two disks have the same serial")


def _check_nics(spec: VmSpec) -> None:
    if spec.nics and spec.netns is None and not spec.template:  # a template's taps are made for it, in an empty one
        raise InvalidError("a VM with network devices needs the network namespace of its taps")
    for nic in spec.nics:
        _check_nic(nic)


def _check_nic(nic: Nic) -> None:
    if not _TAP.fullmatch(nic.tap):
        raise InvalidError(f"tap name {nic.tap!r}: 1 to 15 of A-Z, a-z, 0-9, . _ -")
    if not _MAC.fullmatch(nic.mac) or int(nic.mac[:2], 16) & 1:
        raise InvalidError(f"{nic.mac!r} is not the MAC address of a device", hint="02:00:00:00:00:01 is one")
    if not 68 <= nic.mtu <= 65535:
        raise InvalidError(f"an MTU is 68 to 65535, not {nic.mtu}")
