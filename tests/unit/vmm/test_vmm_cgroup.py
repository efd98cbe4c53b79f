"""Control groups: v2 on plain files, v1 and v2 as rules, and the host's own where it lets us."""

from __future__ import annotations

import os
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from cuboid.lib.linux import cgroup
from cuboid.lib.linux.cgroup import Group, Hierarchy, Limits

HYBRID = """\
tmpfs /sys/fs/cgroup tmpfs rw 0 0
cgroup /sys/fs/cgroup/cpu,cpuacct cgroup rw,relatime,cpu,cpuacct 0 0
cgroup /sys/fs/cgroup/memory cgroup rw,relatime,memory 0 0
cgroup /sys/fs/cgroup/systemd cgroup rw,relatime,name=systemd 0 0
cgroup2 /sys/fs/cgroup/unified cgroup2 rw,relatime 0 0
"""


@pytest.fixture
def v2(tmp_path: Path) -> Hierarchy:
    """A unified hierarchy of plain files: what the kernel makes in a new group is made here by hand."""
    (tmp_path / "cgroup.controllers").write_text("cpuset cpu io memory pids\n")
    parent = tmp_path / "cuboid"
    parent.mkdir()
    (parent / "cgroup.controllers").write_text("cpu memory pids\n")
    return Hierarchy("cuboid", v2=tmp_path)


def group_with_files(v2: Hierarchy, **files: str) -> Group:
    folder = v2.folders("vm-1")[""]
    folder.mkdir()
    for name, content in files.items():
        (folder / name.replace("_", ".", 1)).write_text(content)
    return v2.group("vm-1")


def test_v2_hands_its_controllers_down_to_the_parent(v2: Hierarchy) -> None:
    v2.prepare()
    assert v2.v2 is not None
    assert (v2.v2 / "cgroup.subtree_control").read_text() == "+cpu +memory +pids"
    assert (v2.v2 / "cuboid/cgroup.subtree_control").read_text() == "+cpu +memory +pids"


def test_v2_limits_are_written_in_the_kernels_words(v2: Hierarchy) -> None:
    v2.group("vm-1").create(Limits(cpu_millis=1500, cpu_weight=50, memory_bytes=1 << 28, pids=64))
    folder = v2.folders("vm-1")[""]
    written = {file.name: file.read_text() for file in folder.iterdir()}
    assert written == {
        "cpu.max": "150000 100000", "cpu.weight": "50", "memory.max": "268435456", "memory.swap.max": "0",
        "pids.max": "64",
    }  # fmt: skip


def test_v2_stats_are_read_and_a_missing_file_counts_as_nothing(v2: Hierarchy) -> None:
    group = group_with_files(
        v2,
        cpu_stat="usage_usec 2500000\nuser_usec 1\n",
        memory_current="4096\n",
        memory_events="max 5\noom 3\noom_kill 2\n",
    )
    assert group.stats() == cgroup.Stats(2.5, 4096, 2, 5)
    assert v2.group("vm-none").stats() == cgroup.Stats(0.0, 0, 0, 0)


def test_changed_limits_lift_what_is_not_limited_any_more(v2: Hierarchy) -> None:
    group = v2.group("vm-1")
    group.create(Limits(cpu_millis=1500, memory_bytes=1 << 28, pids=64))
    group.change(Limits(cpu_millis=500))
    written = {file.name: file.read_text() for file in v2.folders("vm-1")[""].iterdir()}
    assert written == {
        "cpu.max": "50000 100000", "cpu.weight": "100", "memory.max": "max", "memory.swap.max": "max",
        "pids.max": "max",
    }  # fmt: skip


def test_pids_of_a_group_and_of_none(v2: Hierarchy) -> None:
    assert group_with_files(v2, cgroup_procs="12\n34\n").pids() == {12, 34}
    assert v2.group("vm-none").pids() == set()


def test_a_process_joins_a_group_by_its_pid(v2: Hierarchy) -> None:
    group = group_with_files(v2, cgroup_procs="")
    group.add(77)
    assert group.pids() == {77}
    assert [file.read_text() for file in group.join_files] == ["77"]


def test_groups_below_the_parent_are_listed(v2: Hierarchy) -> None:
    group_with_files(v2)
    assert v2.names() == {"vm-1"}


def test_no_limit_is_no_file() -> None:
    assert cgroup.v2_files(Limits()) == {"cpu.weight": "100"}
    assert cgroup.v1_files(Limits()) == {"cpu": {"cpu.shares": "1024"}, "memory": {}, "pids": {}}


@given(st.integers(1, 10_000), st.integers(0, 64_000))
def test_v1_shares_and_quota_are_ones_the_kernel_takes(weight: int, millis: int) -> None:
    files = cgroup.v1_files(Limits(cpu_weight=weight, cpu_millis=millis))["cpu"]
    assert 2 <= int(files["cpu.shares"]) <= 262_144
    assert int(files.get("cpu.cfs_quota_us", "1000")) == (millis * 100 or 1000)


def test_a_hybrid_host_is_used_through_v1() -> None:
    v2, v1 = cgroup.mounted(HYBRID.splitlines())
    assert v2 == Path("/sys/fs/cgroup/unified")
    assert v1 == {
        "cpu": Path("/sys/fs/cgroup/cpu,cpuacct"), "cpuacct": Path("/sys/fs/cgroup/cpu,cpuacct"),
        "memory": Path("/sys/fs/cgroup/memory"),
    }  # fmt: skip


def test_controllers_on_one_mount_are_one_folder(tmp_path: Path) -> None:
    both = Hierarchy("p", v1={"cpu": tmp_path, "cpuacct": tmp_path})
    assert list(both.folders("vm-1").values()) == [tmp_path / "p/vm-1"]


@given(st.lists(st.text(max_size=60), max_size=20))
def test_any_mount_table_is_read(lines: list[str]) -> None:
    cgroup.mounted(lines)


def test_a_host_without_groups_is_said_once_and_goes_on(caplog: pytest.LogCaptureFixture) -> None:
    hierarchy = cgroup.find("cuboid", mounts="proc /proc proc rw 0 0\n")
    assert not hierarchy.usable
    assert len(caplog.records) == 1
    group = hierarchy.group("vm-1")
    group.create(Limits(memory_bytes=1))
    assert (group.join_files, group.pids(), hierarchy.names()) == ([], set(), set())
    group.remove()


def test_the_hosts_own_groups_take_limits_and_go_away() -> None:
    hierarchy = cgroup.find(f"cuboid-unit-{os.getpid()}")
    if not hierarchy.usable:
        pytest.skip("control groups cannot be made here")
    group = hierarchy.group("vm-1")
    try:
        group.create(Limits(cpu_millis=500, cpu_weight=10, memory_bytes=64 << 20, pids=10))
        group.create(Limits(cpu_millis=600))
        assert hierarchy.names() == {"vm-1"}
        assert group.pids() == set()
        assert group.stats().oom_kills == 0
    finally:
        for _ in range(2):
            group.remove()
        for folder in hierarchy.folders(".").values():
            folder.rmdir()
    assert hierarchy.names() == set()
