"""QEMU's command line, as a function of the VM."""

from __future__ import annotations

import dataclasses
import itertools
import json
from pathlib import Path
from typing import Any

from cuboid.vmm.base import Boot, Disk, Nic, VmSpec
from cuboid.vmm.qemu import command

SPEC = VmSpec("vm-1", Boot(Path("/k"), Path("/i"), "cuboid.extra=1"), vcpus=2, memory_mib=256)
FDS = command.Descriptors(qmp=3, channel=4, console=5, disks=(6, 7), taps=(8,))
TCG = command.Host("/usr/bin/qemu-system-x86_64", "tcg", tsc_khz=2_100_000)


def option(argv: list[str], name: str) -> list[str]:
    return [value for flag, value in itertools.pairwise(argv) if flag == name]


def nodes(argv: list[str]) -> list[dict[str, Any]]:
    """Of the disks: the gauge is left out."""
    found = [json.loads(value) for value in option(argv, "-blockdev")]
    return [node for node in found if node["node-name"] != "gauge"]


def test_software_emulation_is_told_the_rate_of_the_time_stamp_counter() -> None:
    argv = command.build(SPEC, TCG, FDS)
    (cmdline,) = option(argv, "-append")
    assert {"no_timer_check", "tsc_early_khz=2100000", "tsc=reliable"} <= set(cmdline.split())
    assert option(argv, "-cpu") == ["max,-erms,-fsrm,-la57"]
    assert option(argv, "-accel") == ["tcg,thread=multi,tb-size=64"]


def test_kvm_comes_as_a_descriptor_and_brings_its_own_clock() -> None:
    argv = command.build(SPEC, command.Host("/q", "kvm"), dataclasses.replace(FDS, kvm=9))
    assert option(argv, "-accel") == ["kvm,device=/dev/fdset/9"]
    assert "fd=9,set=9" in option(argv, "-add-fd")
    (cmdline,) = option(argv, "-append")
    assert "tsc" not in cmdline
    assert "mitigations" not in cmdline  # under KVM the guest's CPU does speculate


def test_what_the_caller_adds_to_the_kernels_command_line_comes_last() -> None:
    assert command.kernel_cmdline(SPEC, TCG).endswith(" cuboid.extra=1")


def test_the_sandbox_denies_everything_it_can() -> None:
    (sandbox,) = option(command.build(SPEC, TCG, FDS), "-sandbox")
    assert sandbox == "on,obsolete=deny,elevateprivileges=deny,spawn=deny,resourcecontrol=deny"


def test_no_path_of_the_host_is_on_the_command_line_but_the_programs() -> None:
    spec = dataclasses.replace(SPEC, disks=(Disk("image", Path("/secret/image"), True),))
    text = " ".join(command.build(spec, TCG, FDS))
    assert "/secret" not in text
    assert "-kernel /boot/kernel -initrd /boot/initramfs" in text


def test_a_disk_has_its_serial_and_is_writable_only_if_it_should_be() -> None:
    disks = (Disk("image", Path("/a"), True), Disk("data", Path("/b"), False))
    argv = command.build(dataclasses.replace(SPEC, disks=disks), TCG, FDS)
    devices = [value for value in option(argv, "-device") if value.startswith("virtio-blk")]
    assert [("serial=image" in devices[0]), ("serial=data" in devices[1])] == [True, True]
    image, data = nodes(argv)
    assert (image["read-only"], image["file"]["read-only"], "discard" in image) == (True, True, False)
    assert (data["read-only"], data["file"]["read-only"], data["discard"]) == (False, False, "unmap")


def test_an_empty_slot_is_a_large_disk_of_zeros() -> None:
    disks = (Disk("image", None, True), Disk("data", Path("/b"), False))
    argv = command.build(dataclasses.replace(SPEC, disks=disks), TCG, dataclasses.replace(FDS, disks=(-1, 7)))
    empty, filled = nodes(argv)
    assert (empty["driver"], empty["size"], empty["read-only"]) == ("null-co", 1 << 40, True)
    assert filled["file"]["filename"] == "/dev/fdset/7"
    assert [device for device in option(argv, "-device") if "drive=stub0" in device]


def test_the_memory_of_a_template_is_written_to_its_file_and_that_of_a_clone_is_not() -> None:
    for memory, wanted in (
        (command.Memory.TEMPLATE, "share=on"),
        (command.Memory.CLONE, "offset=0,share=off,readonly=on"),
    ):
        (backend,) = option(command.build(SPEC, TCG, FDS, memory), "-object")
        assert backend.startswith(f"memory-backend-file,mem-path=/boot/memory,{wanted}")
    (backend,) = option(
        command.build(SPEC, dataclasses.replace(TCG, gives_back=True), FDS, command.Memory.CLONE), "-object"
    )
    assert "share=off" in backend
    assert "readonly" not in backend  # the library opens it for reading only


def test_a_vm_that_goes_on_from_a_snapshot_waits_for_its_state() -> None:
    argv = command.build(SPEC, TCG, dataclasses.replace(FDS, state=9), command.Memory.CLONE)
    assert option(argv, "-incoming") == ["defer"]
    assert "fd=9,set=2000" in option(argv, "-add-fd")
    assert option(argv, "-kernel") == []
    assert option(command.build(SPEC, TCG, FDS), "-incoming") == []


def test_a_limited_disk_goes_through_a_throttle_and_others_do_not() -> None:
    disks = (Disk("a", Path("/a"), False, iops=100, bytes_per_second=1 << 20), Disk("b", Path("/b"), False))
    argv = command.build(dataclasses.replace(SPEC, disks=disks), TCG, FDS)
    groups = [json.loads(value) for value in option(argv, "-object") if value.startswith("{")]
    limits = {"iops-total": 100, "bps-total": 1 << 20}
    assert groups == [{"qom-type": "throttle-group", "id": "limit0", "limits": limits}]
    limited, free = nodes(argv)
    assert (limited["file"]["driver"], limited["file"]["throttle-group"]) == ("throttle", "limit0")
    assert free["file"]["driver"] == "file"


def test_a_network_device_takes_its_tap_as_a_descriptor() -> None:
    argv = command.build(dataclasses.replace(SPEC, nics=(Nic("tap0", "02:00:00:00:00:01", 1400),)), TCG, FDS)
    assert option(argv, "-netdev") == ["tap,id=net0,fd=8"]
    assert "virtio-net-device,netdev=net0,mac=02:00:00:00:00:01,host_mtu=1400" in option(argv, "-device")


def test_shared_memory_is_a_memfd() -> None:
    argv = command.build(SPEC, TCG, FDS, command.Memory.SHARED)
    assert "memory-backend-memfd,share=on,id=ram,size=256M" in option(argv, "-object")
