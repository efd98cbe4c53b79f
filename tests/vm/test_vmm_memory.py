"""Memory of VMs on the host: what is given back, what is counted, who is ended when there is none."""

from __future__ import annotations

import asyncio
import dataclasses
import time
from pathlib import Path

import pytest

from cuboid.lib.linux import cgroup
from cuboid.vmm.base import EndCause, HostLimits
from cuboid.vmm.qemu.vm import QemuVm
from tests.harness.vms import BOOT_SECONDS, Guest, Vms, needs_vms

pytestmark = [pytest.mark.vm, needs_vms, pytest.mark.timeout(180)]

MIB = 1 << 20
REPORT_SECONDS = 40.0  # a guest reports in rounds of 2 s, a share of what is free in each


async def template(vms: Vms, cmdline: str = "") -> Path:
    spec = vms.spec(memory_mib=256, template=True)
    guest = await vms.boot(dataclasses.replace(spec, boot=dataclasses.replace(spec.boot, cmdline=cmdline)))
    await guest.vm.pause()
    await guest.vm.snapshot(vms.folder / "snapshot")
    await guest.vm.kill()
    return vms.folder / "snapshot"


async def uses_and_frees(vm: QemuVm, guest: Guest) -> tuple[int, int, int]:
    """Private bytes of guest memory on the host before, while 64 MiB are used, and some time after."""
    before = (await vm.stats()).guest_bytes
    assert await guest.ask("use 64", 60) == "used"
    used = (await vm.stats()).guest_bytes
    until = time.monotonic() + REPORT_SECONDS
    while (after := (await vm.stats()).guest_bytes) > used - 48 * MIB and time.monotonic() < until:
        await asyncio.sleep(0.5)
    return before, used, after


async def test_memory_that_the_guest_of_a_clone_frees_goes_back_to_the_host_and_the_template_is_whole() -> None:
    async with Vms("give-back") as vms:
        folder = await template(vms)
        assert vms.driver.capabilities().free_page_reporting
        vm = await vms.driver.restore(vms.spec(memory_mib=256), folder)
        vms.own(vm)
        guest = await vms.guest(vm)
        await vm.resume()
        before, used, after = await uses_and_frees(vm, guest)
        assert used - before > 56 * MIB
        assert used - after >= 48 * MIB
        assert await guest.ask("hello") == "hello"
        await vms.driver.verify(folder)


async def test_a_guest_that_relies_on_zeros_in_free_pages_gives_none_back() -> None:
    """It would find its template's content there and hand it out as zeroed memory."""
    async with Vms("relies-on-zeros") as vms:
        vm = await vms.driver.restore(vms.spec(memory_mib=256), await template(vms, "init_on_free=1"))
        vms.own(vm)
        guest = await vms.guest(vm)
        await vm.resume()
        assert await guest.ask("use 64", 60) == "used"
        used = (await vm.stats()).guest_bytes
        await asyncio.sleep(6)
        assert (await vm.stats()).guest_bytes >= used


async def test_memory_that_a_booted_guest_frees_goes_back_to_the_host() -> None:
    async with Vms("give-back-cold") as vms:
        guest = await vms.boot(vms.spec(memory_mib=256))
        _, used, after = await uses_and_frees(guest.vm, guest)
        assert used - after >= 48 * MIB


async def test_without_the_library_clones_run_and_the_driver_says_that_they_keep_memory() -> None:
    async with Vms("keeps") as vms:
        folder = await template(vms)
        vms.driver._launch.library = None
        assert not vms.driver.capabilities().free_page_reporting
        vm = await vms.driver.restore(vms.spec(memory_mib=256), folder)
        vms.own(vm)
        guest = await vms.guest(vm)
        await vm.resume()
        assert await guest.ask("use 64", 60) == "used"
        await asyncio.sleep(5)
        assert await guest.ask("hello") == "hello"
        await vms.driver.verify(folder)


async def test_a_clone_that_waits_has_little_memory_of_its_own_and_it_is_told_by_part() -> None:
    async with Vms("parts") as vms:
        folder = await template(vms)
        vm = await vms.driver.restore(vms.spec(memory_mib=256), folder)
        vms.own(vm)
        waiting = await vm.stats()
        guest = await vms.guest(vm)
        await vm.resume()
        await guest.ask("use 8")
        running = await vm.stats()
        assert waiting.anonymous_bytes <= 30 * MIB
        assert 8 * MIB <= running.guest_bytes - waiting.guest_bytes < 16 * MIB
        assert 0 < running.translation_bytes <= vms.settings.translation_mib * MIB
        assert running.guest_bytes + running.translation_bytes < running.anonymous_bytes <= running.memory_bytes
        assert running.anonymous_bytes <= 45 * MIB


async def test_a_vmm_that_goes_because_a_parent_group_has_no_memory_left_is_reported_so() -> None:
    async with Vms("parent-oom") as vms:
        hierarchy = cgroup.find(vms.settings.cgroup_parent)
        if not hierarchy.usable:
            pytest.skip("control groups cannot be made here")
        vm = await vms.create()
        hierarchy.group(".").change(cgroup.Limits(memory_bytes=80 * MIB))
        await vm.start()
        ended = await vm.wait_for(BOOT_SECONDS)
        assert ended.cause == EndCause.HOST_OOM
        assert "a group that the VMM is in, had no memory left" in ended.detail


async def test_who_goes_first_is_set_when_a_vm_is_made_and_can_be_changed() -> None:
    async with Vms("oom-score") as vms:
        vm = await vms.create(vms.spec(limits=HostLimits(oom_score=300)))
        score = Path(f"/proc/{vm.pid}/oom_score_adj")
        assert score.read_text().strip() == "300"
        await vm.set_limits(HostLimits(oom_score=700))
        assert score.read_text().strip() == "700"


async def test_limits_are_changed_in_the_group_of_a_running_vm_and_lifted() -> None:
    async with Vms("changed-limits") as vms:
        hierarchy = cgroup.find(vms.settings.cgroup_parent)
        if not hierarchy.usable:
            pytest.skip("control groups cannot be made here")
        vm = await vms.create(vms.spec(limits=HostLimits(cpu_millis=500)))
        folders = hierarchy.folders(vm.id)
        version2 = "" in folders
        file = folders[""] / "cpu.max" if version2 else folders["cpu"] / "cpu.cfs_quota_us"
        found = [file.read_text().split()[0]]
        await vm.set_limits(HostLimits(cpu_millis=2000))
        found.append(file.read_text().split()[0])
        await vm.set_limits(HostLimits())
        found.append(file.read_text().split()[0])
        assert found == ["50000", "200000", "max" if version2 else "-1"]
