"""Command lines: what the jailer, the VMM behind it and the guest's kernel are told."""

from __future__ import annotations

import itertools
import struct
from pathlib import Path
from typing import Any

import pytest

from cuboid.lib.linux.cgroup import Hierarchy, Limits
from cuboid.vmm import probe
from cuboid.vmm.base import Boot, Disk, VmSpec
from cuboid.vmm.firecracker import command, guest
from cuboid.vmm.firecracker.command import Groups, Programs

PROGRAMS = Programs(Path("/usr/bin/jailer"), Path("/opt/firecracker-v1.17.0"))
BASE = Path("/run/cuboid/vmm/vm-1/root")


def jailer(netns: Path | None = None, groups: Groups | None = None) -> list[str]:
    return command.jailer(PROGRAMS, "vm-1", 2_000_000_007, BASE, netns, groups or Groups())


def boot_args(*, console: bool = False, **changes: Any) -> list[str]:
    values: dict[str, Any] = {"id": "vm-1", "boot": Boot(Path("/k"), Path("/i")), "vcpus": 1, "memory_mib": 128}
    return command.boot_args(VmSpec(**(values | changes)), console=console).split(" ")


def test_the_jail_has_its_own_user_root_and_pid_namespace_and_stays_in_our_hands() -> None:
    words = jailer()
    own, behind = words[: words.index("--")], words[words.index("--") + 1 :]
    pairs = dict(itertools.pairwise(own))
    assert (pairs["--uid"], pairs["--gid"]) == ("2000000007", "2000000007")
    assert pairs["--chroot-base-dir"] == str(BASE)
    assert "--new-pid-ns" in own
    assert "--daemonize" not in own
    assert "--netns" not in own
    assert behind == ["--api-sock", "/run/api.sock"]


def test_a_network_namespace_is_joined_by_the_jailer() -> None:
    words = jailer(netns=Path("/run/netns/pod"))
    assert words[words.index("--netns") + 1] == "/run/netns/pod"


def test_the_root_is_where_the_jailer_will_make_it() -> None:
    assert command.jail_root(BASE, PROGRAMS, "vm-1") == BASE / "firecracker-v1.17.0/vm-1/root"


def test_on_v2_the_jailer_moves_into_the_group_that_is_there() -> None:
    groups = Groups.of(Hierarchy("cuboid", v2=Path("/sys/fs/cgroup")), "vm-1", Limits(memory_bytes=1 << 30))
    words = jailer(groups=groups)
    assert words[words.index("--cgroup-version") + 1] == "2"
    assert words[words.index("--parent-cgroup") + 1] == "cuboid/vm-1"
    assert "--cgroup" not in words


@pytest.mark.parametrize(
    ("limits", "memory", "pids"),
    [(Limits(), "-1", "max"), (Limits(memory_bytes=1 << 30, pids=64), str(1 << 30), "64")],
)
def test_on_v1_every_controller_is_set_and_so_joined(limits: Limits, memory: str, pids: str) -> None:
    root = Path("/sys/fs/cgroup")
    v1 = {name: root / name for name in ("cpu", "cpuacct", "memory", "pids")}
    groups = Groups.of(Hierarchy("cuboid", v1=v1), "vm-1", limits)
    words = jailer(groups=groups)
    rows = {words[index + 1] for index, word in enumerate(words) if word == "--cgroup"}
    assert rows == {"cpu.shares=1024", f"memory.limit_in_bytes={memory}", f"pids.max={pids}"}
    assert words[words.index("--parent-cgroup") + 1] == "cuboid"


def test_a_host_without_groups_gets_no_words_about_them() -> None:
    assert Groups.of(Hierarchy("cuboid"), "vm-1", Limits()) == Groups()
    assert not [word for word in jailer() if "cgroup" in word]


def test_the_guest_has_no_serial_console_unless_it_is_asked_for() -> None:
    assert "8250.nr_uarts=0" in boot_args()
    assert "console=ttyS0" not in boot_args()
    assert "console=ttyS0" in boot_args(console=True)


def test_a_panic_and_an_orderly_end_are_told_apart() -> None:
    words = boot_args()
    assert {"reboot=t", "panic=-1", "cuboid.end=reset"} <= set(words)


def test_the_guest_learns_which_disk_is_which_and_where_to_listen() -> None:
    words = boot_args(disks=(Disk("image", None, True), Disk("data.1", None, False)))
    assert "cuboid.disks=image,data.1" in words
    assert "cuboid.vsock=1024" in words
    assert not [word for word in boot_args() if word.startswith("cuboid.disks")]


def test_what_the_pod_adds_comes_last() -> None:
    assert boot_args(boot=Boot(Path("/k"), Path("/i"), "quiet loglevel=7"))[-2:] == ["quiet", "loglevel=7"]


def test_sixteen_disks_with_long_serials_fit_the_kernels_command_line() -> None:
    disks = tuple(Disk(f"{number:020}", None, True) for number in range(16))
    assert len(command.boot_args(VmSpec("v", Boot(Path(), Path(), "x" * 1024), 1, 128, disks), console=True)) < 2048


def test_the_guest_that_a_host_is_tried_with_names_the_reset_it_wants() -> None:
    program = guest.program()
    entry = struct.unpack_from("<Q", program, 24)[0]
    assert entry == probe.CODE_ADDRESS
    for text in (b"sysfs\0", b"/sys\0", b"/sys/kernel/reboot/type\0", b"kbd\0"):
        address = probe.CODE_ADDRESS - 120 + program.index(text)
        assert struct.pack("<I", address) in program[120:]
    assert guest.initramfs().startswith(b"070701")
    assert program in guest.initramfs()
