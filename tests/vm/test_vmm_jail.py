"""The jail of a VMM, looked at from outside: what /proc says about the process that runs a tenant's VM."""

from __future__ import annotations

import os
import re
from pathlib import Path

import pytest

from cuboid.lib.linux import cgroup
from cuboid.vmm.base import Disk, HostLimits
from tests.harness.vms import Vms, needs_vms

pytestmark = [pytest.mark.vm, needs_vms, pytest.mark.timeout(180)]

NAMESPACES = ("mnt", "pid", "ipc", "uts", "net")


def status(pid: int) -> dict[str, str]:
    rows = (line.split(":", 1) for line in Path(f"/proc/{pid}/status").read_text().splitlines())
    return {key: value.strip() for key, value in rows}


async def test_a_vmm_has_no_privilege_and_no_way_to_one() -> None:
    async with Vms("jail-privileges") as vms:
        first, second = await vms.create(), await vms.create()
        users = []
        for vm in (first, second):
            rows = status(vm.pid)
            users.append(rows["Uid"].split())
            assert len(set(rows["Uid"].split())) == 1
            assert int(rows["Uid"].split()[0]) in range(vms.settings.uid_base, vms.settings.uid_base + 200)
            assert rows["Gid"].split() == rows["Uid"].split()
            assert rows["Groups"] == ""
            assert {rows[f"Cap{kind}"] for kind in ("Inh", "Prm", "Eff", "Bnd", "Amb")} == {"0" * 16}
            assert (rows["NoNewPrivs"], rows["Seccomp"]) == ("1", "2")
        assert users[0] != users[1]


async def test_every_thread_is_under_the_seccomp_filter() -> None:
    async with Vms("jail-threads") as vms:
        guest = await vms.boot()
        threads = list(Path(f"/proc/{guest.vm.pid}/task").iterdir())
        assert len(threads) > 1
        for thread in threads:
            text = (thread / "status").read_text()
            assert re.search(r"^Seccomp:\t2$", text, re.MULTILINE), thread
            assert re.search(r"^CapEff:\t0+$", text, re.MULTILINE), thread


async def test_namespaces_are_its_own() -> None:
    async with Vms("jail-namespaces") as vms:
        first, second = await vms.create(), await vms.create()
        for kind in NAMESPACES:
            links = {Path(f"/proc/{pid}/ns/{kind}").readlink() for pid in (os.getpid(), first.pid, second.pid)}
            assert len(links) == 3, kind
        assert status(first.pid)["NSpid"].split()[-1] == "1"


async def test_its_root_holds_only_what_it_reads_and_can_be_written_nowhere() -> None:
    async with Vms("jail-root") as vms:
        vm = await vms.create()
        root = Path(f"/proc/{vm.pid}/root")
        assert {entry.name for entry in root.iterdir()} == {"usr", "lib", "lib64", "etc", "boot", "dev"}
        assert {entry.name for entry in (root / "dev").iterdir()} == {"null", "urandom"}
        assert {entry.name for entry in (root / "boot").iterdir()} == {"kernel", "initramfs"}
        assert {entry.name for entry in (root / "etc").iterdir()} <= {"ld.so.cache"}
        mounts = [line.split() for line in Path(f"/proc/{vm.pid}/mounts").read_text().splitlines()]
        assert mounts
        for _, target, _, options, *_ in mounts:
            assert "nosuid" in options.split(","), target
            assert "ro" in options.split(",") or target in ("/dev/null", "/dev/urandom"), target


async def test_it_has_no_descriptor_but_those_it_was_given() -> None:
    with open("/etc/hostname") as secret:  # noqa: PTH123 - kept open and inheritable on purpose
        os.set_inheritable(secret.fileno(), True)
        async with Vms("jail-descriptors") as vms:
            disk = vms.disk("data.img")
            vm = await vms.create(vms.spec(disks=(Disk("data", disk, False),)))
            targets = {str(link.readlink()) for link in Path(f"/proc/{vm.pid}/fd").iterdir()}
    allowed = re.compile(
        r"/dev/null|/memfd:gauge \(deleted\)|/cuboid-console|/cuboid-log|"
        r"socket:\[\d+\]|anon_inode:\[(eventfd|eventpoll|signalfd|io_uring)\]"
    )
    assert {target for target in targets if not allowed.fullmatch(target)} == {str(disk)}


async def test_its_sockets_are_roots_alone() -> None:
    async with Vms("jail-sockets") as vms:
        vm = await vms.create()
        folder = vm.channel_path.parent
        assert folder.stat().st_mode & 0o077 == 0
        for path in (vm.channel_path, folder / "qmp.sock"):
            assert (path.stat().st_uid, path.stat().st_mode & 0o777) == (0, 0o600)


async def test_the_vmm_is_the_only_process_and_is_in_its_group() -> None:
    async with Vms("jail-group") as vms:
        hierarchy = cgroup.find(vms.settings.cgroup_parent)
        if not hierarchy.usable:
            pytest.skip("control groups cannot be made here")
        await vms.driver.probe()
        least = 128 + vms.driver.capabilities().overhead_mib
        vm = await vms.create(vms.spec(limits=HostLimits(cpu_millis=1500, memory_mib=least, pids=64)))
        assert hierarchy.group(vm.id).pids() == {vm.pid}
        folders = hierarchy.folders(vm.id)
        limit = (folders["memory"] / "memory.limit_in_bytes") if "memory" in folders else folders[""] / "memory.max"
        assert int(limit.read_text()) == least << 20


async def test_limits_of_the_process_are_low() -> None:
    async with Vms("jail-limits") as vms:
        vm = await vms.create()
        rows = Path(f"/proc/{vm.pid}/limits").read_text()
        assert re.search(r"Max core file size\s+0\s+0", rows)
        assert re.search(r"Max open files\s+512\s+512", rows)
        assert re.search(r"Max processes\s+256\s+256", rows)
