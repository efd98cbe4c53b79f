"""From a VmSpec to QEMU's command line. Pure: no file is looked at, no descriptor opened."""

from __future__ import annotations

import enum
import json
from dataclasses import dataclass
from typing import Any

from cuboid.vmm.base import Disk, Nic, VmSpec

CHANNEL_PORT = "cuboid.agent.0"  # name of the guest agent's virtio-serial port
MAX_DISKS = 16  # the microvm machine has 24 virtio-mmio slots: disks, serial, entropy, balloon, network
MAX_NICS = 4
# Without erms and fsrm the guest's kernel copies in unrolled loops: TCG emulates `rep movsb` byte by byte. Without la57
# it has four levels of page tables to walk instead of five.
TCG_CPU = "max,-erms,-fsrm,-la57"
KERNEL_INSIDE, INITRAMFS_INSIDE, MEMORY_INSIDE = "/boot/kernel", "/boot/initramfs", "/boot/memory"
LIBRARY_INSIDE = "/boot/memory.so"
# What a guest finds under an empty slot: as large as any disk put there later, so no read of its ends beyond its end.
STUB_BYTES = 1 << 40
GAUGE = "gauge"
REPORTING_ORDER = 6  # pages, as a power of two
STATE_FDSET = 2000  # of the device state that a VM goes on from, or writes
# Raised when the devices below change: a snapshot fits the machine that it was taken from only.
LAYOUT = "microvm-4"


class Memory(enum.Enum):
    """Where the guest's memory is."""

    OWN = "own"  # anonymous
    SHARED = "shared"  # with vhost-user processes
    TEMPLATE = "template"  # a file that the snapshot will hold
    CLONE = "clone"  # the pages of a snapshot's file, copied when written to


@dataclass(frozen=True)
class Descriptors:
    """Numbers under which the VMM finds what the driver opened for it."""

    qmp: int
    channel: int
    console: int
    disks: tuple[int, ...] = ()  # -1 for an empty slot
    taps: tuple[int, ...] = ()
    kvm: int = -1
    state: int = -1  # of the devices, to go on from
    gauge: int = -1  # an empty file in memory, if there are disks


@dataclass(frozen=True)
class Host:
    """What the command line depends on besides the VM."""

    qemu: str
    accel: str  # "kvm" or "tcg"
    tsc_khz: int = 0  # needed under tcg only
    translation_mib: int = 64
    gives_back: bool = False  # a clone's VMM has memory.c loaded


def build(spec: VmSpec, host: Host, fds: Descriptors, memory: Memory = Memory.OWN, memory_offset: int = 0) -> list[str]:
    return [
        host.qemu,
        *_machine(spec, host, fds, _backend(memory, memory_offset, host)),
        *(_boot(spec, host) if fds.state < 0 else ()),  # a snapshot's memory holds what was booted
        *_control(fds),
        *_serial(fds),
        "-device", "virtio-rng-device",
        # Without page-poison a guest that relies on the content of its free pages (init_on_free) reports none of them:
        # where a clone gave a page back it finds its template's, not zeros.
        "-device", "virtio-balloon-device,free-page-reporting=on,page-poison=off",
        *(_gauge(fds) if spec.disks else ()),
        *(part for index, disk in enumerate(spec.disks) for part in _disk(index, disk, fds.disks[index])),
        *(part for index, nic in enumerate(spec.nics) for part in _nic(index, nic, fds.taps[index])),
        *_migration(fds),
    ]  # fmt: skip


def kernel_cmdline(spec: VmSpec, host: Host) -> str:
    return " ".join([kernel_arguments(host), *spec.boot.cmdline.split()])


def kernel_arguments(host: Host) -> str:
    """What every kernel is told; a snapshot depends on it, for its kernel has been told.

    `panic=-1 reboot=t` makes a panic a reset, which QEMU reports; there is no other way out of a hung panic.
    Under TCG there is no kvm-clock, and calibrating the TSC against emulated timers sometimes never ends: it is told.
    Mitigations against speculation change emulated code only, not what the host's CPU speculates on: they cost boot
    time and protect nobody. The kernel's tests of its own ciphers at every boot are left out everywhere. Free memory is
    reported in pieces of 256 KiB: of the default, 2 MiB, a small guest has few that are free as a whole. A built-in
    dummy driver would make a device at boot, whose random address all clones of a template had in common.
    """
    parts = ["console=hvc0", "quiet", "panic=-1", "reboot=t", "cryptomgr.notests", "dummy.numdummies=0"]
    parts.append("swiotlb=noforce")  # 64 MiB of a guest above 3 GiB, for devices that it does not have
    parts.append(f"page_reporting.page_reporting_order={REPORTING_ORDER}")
    if host.accel == "tcg":
        parts += ["no_timer_check", f"tsc_early_khz={host.tsc_khz}", "tsc=reliable", "mitigations=off"]
    return " ".join(parts)


def _machine(spec: VmSpec, host: Host, fds: Descriptors, memory: str) -> list[str]:
    if host.accel == "kvm":
        accel, cpu = f"kvm,device={_set(fds.kvm)}", "host"
    else:
        accel, cpu = f"tcg,thread=multi,tb-size={host.translation_mib}", TCG_CPU
    return [
        "-M", "microvm,memory-backend=ram,pit=off,pic=off,rtc=on,isa-serial=off",
        "-global", "virtio-mmio.force-legacy=false",
        "-accel", accel, "-cpu", cpu, "-smp", str(spec.vcpus), "-m", f"{spec.memory_mib}M",
        "-object", f"{memory},id=ram,size={spec.memory_mib}M",
        "-nodefaults", "-no-user-config", "-display", "none", "-name", f"{spec.id},debug-threads=on",
        "-action", "reboot=shutdown,shutdown=pause,panic=shutdown",
        "-sandbox", "on,obsolete=deny,elevateprivileges=deny,spawn=deny,resourcecontrol=deny",
        *(("-add-fd", f"fd={fds.kvm},set={fds.kvm}") if host.accel == "kvm" else ()),
    ]  # fmt: skip


def _backend(memory: Memory, offset: int, host: Host) -> str:
    """A clone's file can only be read, whatever QEMU is told; told so, it refuses to give memory back (memory.c)."""
    file = f"memory-backend-file,mem-path={MEMORY_INSIDE}"
    match memory:
        case Memory.OWN:
            return "memory-backend-ram"
        case Memory.SHARED:
            return "memory-backend-memfd,share=on"
        case Memory.TEMPLATE:
            return f"{file},share=on"
        case Memory.CLONE:
            place = f"{file},offset={offset},share=off"
            return place if host.gives_back else f"{place},readonly=on,rom=off"


def _migration(fds: Descriptors) -> list[str]:
    """Nobody is told by QEMU where the guest's address is now: the agent of a clone is given another one."""
    options = ["-global", "migration.x-events=on", "-global", "migration.announce-rounds=0"]
    if fds.state >= 0:
        options += ["-add-fd", f"fd={fds.state},set={STATE_FDSET}", "-incoming", "defer"]
    return options


def _boot(spec: VmSpec, host: Host) -> list[str]:
    return ["-kernel", KERNEL_INSIDE, "-initrd", INITRAMFS_INSIDE, "-append", kernel_cmdline(spec, host)]


def _control(fds: Descriptors) -> list[str]:
    return [
        "-S",  # created, not running: `cont` starts the guest
        "-chardev", f"socket,id=qmp,fd={fds.qmp},server=on,wait=off",
        "-mon", "chardev=qmp,mode=control",
    ]  # fmt: skip


def _serial(fds: Descriptors) -> list[str]:
    """The console drops what its file cannot take; the channel blocks the guest's writer instead."""
    return [
        "-add-fd", f"fd={fds.console},set={fds.console}",
        "-chardev", f"file,id=console,path={_set(fds.console)},append=on",
        "-chardev", f"socket,id=channel,fd={fds.channel},server=on,wait=off",
        "-device", "virtio-serial-device,max_ports=3",
        "-device", "virtconsole,chardev=console",
        "-device", f"virtserialport,chardev=channel,name={CHANNEL_PORT}",
    ]  # fmt: skip


def _disk(index: int, disk: Disk, fd: int) -> list[str]:
    """`report`: a host without space is an I/O error in the guest; QEMU's default would stop the guest for ever."""
    device = f"virtio-blk-device,id={device_id(index)},serial={disk.serial},werror=report,rerror=report"
    if fd < 0:
        return ["-blockdev", _json(stub(index, disk.read_only)), "-device", f"{device},drive={stub_node(index)}"]
    limits = throttle(index, disk)
    return [
        "-add-fd", f"fd={fd},set={fd}",
        *(("-object", _json(limits)) if limits else ()),
        "-blockdev", _json(disk_node(index, disk, fd)),
        "-device", f"{device},drive={node_name(index)}",
    ]  # fmt: skip


def _gauge(fds: Descriptors) -> list[str]:
    """What stands in a slot for a moment when its medium is exchanged (slots.py)."""
    node = {"driver": "raw", "node-name": GAUGE, "file": {"driver": "file", "filename": _set(fds.gauge)}}
    return ["-add-fd", f"fd={fds.gauge},set={fds.gauge}", "-blockdev", _json(node)]


def device_id(index: int) -> str:
    return f"slot{index}"


def node_name(index: int) -> str:
    """The block node of what is in a slot."""
    return f"disk{index}"


def stub_node(index: int) -> str:
    """The block node of an empty slot."""
    return f"stub{index}"


def throttle_id(index: int) -> str:
    return f"limit{index}"


def stub(index: int, read_only: bool) -> dict[str, Any]:
    """Zeros that cost nothing, as arguments of `blockdev-add`."""
    return {
        "driver": "null-co", "node-name": stub_node(index), "size": STUB_BYTES, "read-zeroes": True,
        "read-only": read_only,
    }  # fmt: skip


def throttle(index: int, disk: Disk) -> dict[str, Any]:
    """Limits as arguments of `object-add`; empty if there are none."""
    limits = {"iops-total": disk.iops, "bps-total": disk.bytes_per_second}
    wanted = {name: value for name, value in limits.items() if value}
    return {"qom-type": "throttle-group", "id": throttle_id(index), "limits": wanted} if wanted else {}


def disk_node(index: int, disk: Disk, fdset: int) -> dict[str, Any]:
    """A raw disk on a descriptor, through a throttle if it is limited, as arguments of `blockdev-add`."""
    discard = {} if disk.read_only else {"discard": "unmap"}
    file: dict[str, Any] = {"driver": "file", "filename": _set(fdset), "read-only": disk.read_only, **discard}
    if disk.iops or disk.bytes_per_second:
        file = {
            "driver": "throttle", "throttle-group": throttle_id(index), "file": file, "read-only": disk.read_only,
            **discard,
        }  # fmt: skip
    return {"driver": "raw", "node-name": node_name(index), "file": file, "read-only": disk.read_only, **discard}


def _json(value: dict[str, Any]) -> str:
    return json.dumps(value, separators=(",", ":"))


def _nic(index: int, nic: Nic, fd: int) -> list[str]:
    return [
        "-netdev", f"tap,id=net{index},fd={fd}",
        "-device", f"virtio-net-device,netdev=net{index},mac={nic.mac},host_mtu={nic.mtu}",
    ]  # fmt: skip


def _set(fd: int) -> str:
    """QEMU's name for a descriptor that `-add-fd` gave it: each is a set of its own."""
    return f"/dev/fdset/{fd}"
