"""From a VmSpec to QEMU's command line. Pure: no file is looked at, no descriptor opened."""

from __future__ import annotations

from dataclasses import dataclass

from cuboid.vmm.base import Disk, Nic, VmSpec

CHANNEL_PORT = "cuboid.agent.0"  # name of the guest agent's virtio-serial port
MAX_DISKS = 16  # the microvm machine has 24 virtio-mmio slots: disks, serial, entropy, network devices
MAX_NICS = 4
# Without erms and fsrm the guest's kernel copies in unrolled loops: TCG emulates `rep movsb` byte by byte. Without la57
# it has four levels of page tables to walk instead of five.
TCG_CPU = "max,-erms,-fsrm,-la57"
KERNEL_INSIDE, INITRAMFS_INSIDE = "/boot/kernel", "/boot/initramfs"


@dataclass(frozen=True)
class Descriptors:
    """Numbers under which the VMM finds what the driver opened for it."""

    qmp: int
    channel: int
    console: int
    disks: tuple[int, ...] = ()
    taps: tuple[int, ...] = ()
    kvm: int = -1


@dataclass(frozen=True)
class Host:
    """What the command line depends on besides the VM."""

    qemu: str
    accel: str  # "kvm" or "tcg"
    tsc_khz: int = 0  # needed under tcg only
    translation_mib: int = 64


def build(spec: VmSpec, host: Host, fds: Descriptors) -> list[str]:
    return [
        host.qemu,
        *_machine(spec, host, fds),
        *_boot(spec, host),
        *_control(fds),
        *_serial(fds),
        "-device", "virtio-rng-device",
        *(part for index, disk in enumerate(spec.disks) for part in _disk(index, disk, fds.disks[index])),
        *(part for index, nic in enumerate(spec.nics) for part in _nic(index, nic, fds.taps[index])),
    ]  # fmt: skip


def kernel_cmdline(spec: VmSpec, host: Host) -> str:
    """`panic=-1 reboot=t` makes a panic a reset, which QEMU reports; there is no other way out of a hung panic.

    Under TCG there is no kvm-clock, and calibrating the TSC against emulated timers sometimes never ends: it is told.
    Mitigations against speculation change emulated code only, not what the host's CPU speculates on: they cost boot
    time and protect nobody. The kernel's tests of its own ciphers at every boot are left out everywhere.
    """
    parts = ["console=hvc0", "quiet", "panic=-1", "reboot=t", "cryptomgr.notests"]
    if host.accel == "tcg":
        parts += ["no_timer_check", f"tsc_early_khz={host.tsc_khz}", "tsc=reliable", "mitigations=off"]
    return " ".join([*parts, *spec.boot.cmdline.split()])


def _machine(spec: VmSpec, host: Host, fds: Descriptors) -> list[str]:
    memory = "memory-backend-memfd,share=on" if spec.shared_memory else "memory-backend-ram"
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
    read_only = "on" if disk.read_only else "off"
    node = f"file{index}"
    throttle: list[str] = []
    if disk.iops or disk.bytes_per_second:
        limits = f",x-iops-total={disk.iops}" if disk.iops else ""
        limits += f",x-bps-total={disk.bytes_per_second}" if disk.bytes_per_second else ""
        throttle = [
            "-object", f"throttle-group,id=limit{index}{limits}",
            "-blockdev", f"driver=throttle,node-name=slow{index},throttle-group=limit{index},file={node}"
            f",read-only={read_only}",
        ]  # fmt: skip
        node = f"slow{index}"
    discard = "" if disk.read_only else ",discard=unmap"
    return [
        "-add-fd", f"fd={fd},set={fd}",
        "-blockdev", f"driver=file,node-name=file{index},filename={_set(fd)},read-only={read_only}{discard}",
        *throttle,
        "-blockdev", f"driver=raw,node-name=disk{index},file={node},read-only={read_only}{discard}",
        "-device", f"virtio-blk-device,drive=disk{index},serial={disk.serial},werror=report,rerror=report",
    ]  # fmt: skip


def _nic(index: int, nic: Nic, fd: int) -> list[str]:
    return [
        "-netdev", f"tap,id=net{index},fd={fd}",
        "-device", f"virtio-net-device,netdev=net{index},mac={nic.mac},host_mtu={nic.mtu}",
    ]  # fmt: skip


def _set(fd: int) -> str:
    """QEMU's name for a descriptor that `-add-fd` gave it: each is a set of its own."""
    return f"/dev/fdset/{fd}"
