"""The QEMU driver with real guests: disks, console, memory, its controller's death, and what cannot boot."""

from __future__ import annotations

import asyncio
import dataclasses
import json
import os
import signal
import sys
import time
from pathlib import Path

import pytest

from cuboid.lib import proc
from cuboid.lib.errors import CuboidError, InvalidError, UnavailableError, UnsupportedError
from cuboid.lib.linux import cgroup
from cuboid.vmm.base import Boot, Disk, EndCause, Nic, State
from cuboid.vmm.qemu.driver import QemuDriver
from tests.harness import guest_image
from tests.harness.vms import BOOT_SECONDS, Vms, needs_vms

pytestmark = [pytest.mark.vm, needs_vms, pytest.mark.timeout(180)]


async def test_the_guest_finds_disks_by_serial_and_writes_only_where_it_may() -> None:
    async with Vms("disks") as vms:
        image, data = vms.disk("image.img", 1 << 20), vms.disk("data.img", 2 << 20)
        image.write_bytes(b"from the host".ljust(1 << 20, b"\0"))
        disks = (
            Disk("image-0", image, True),
            Disk("data-0", data, False, iops=1000, bytes_per_second=10 << 20),
        )
        guest = await vms.boot(vms.spec(disks=disks))
        assert sorted(await guest.ask_list("disks")) == ["data-0 2097152 rw", "image-0 1048576 ro"]
        assert await guest.ask("read image-0") == "from the host"
        assert await guest.ask("write image-0 changed") == "failed"
        assert await guest.ask("write data-0 from the guest") == "written"
        await guest.send("poweroff")
        assert (await guest.vm.wait_for(10)).cause == EndCause.POWEROFF
        assert data.read_bytes().startswith(b"from the guest\0")
        assert image.read_bytes().startswith(b"from the host\0")


async def test_one_image_serves_many_vms_at_once() -> None:
    async with Vms("shared-image") as vms:
        image = vms.disk("image.img")
        made = [await vms.create(vms.spec(disks=(Disk("image", image, True),))) for _ in range(2)]
        assert [vm.state for vm in made] == [State.CREATED, State.CREATED]


async def test_a_writable_disk_of_another_vm_is_refused() -> None:
    async with Vms("locked-disk") as vms:
        disk = (Disk("data", vms.disk("data.img"), False),)
        await vms.create(vms.spec(disks=disk))
        with pytest.raises(UnavailableError, match="lock"):
            await vms.create(vms.spec("vm-second", disks=disk))
        assert "vm-second" not in await vms.driver.leftovers(set())


async def test_a_flooded_console_stays_bounded_and_blocks_nobody() -> None:
    async with Vms("flood") as vms:
        guest = await vms.boot()
        assert await guest.ask("say first words") == "said"
        assert "first words" in guest.vm.console_tail()
        await guest.ask("flood")
        until = time.monotonic() + 4
        while time.monotonic() < until:
            assert await guest.ask("hello") == "hello"
            await asyncio.sleep(0.1)
        text = guest.vm.console_tail(1 << 22)
        assert "flood" in text
        assert len(text) <= (vms.settings.console_kib << 10) + 16384


async def test_a_vmm_over_its_memory_limit_is_reported_as_ended_for_memory() -> None:
    async with Vms("oom") as vms:
        hierarchy = cgroup.find(vms.settings.cgroup_parent)
        if not hierarchy.usable:
            pytest.skip("control groups cannot be made here")
        vm = await vms.create()
        hierarchy.group(vm.id).limit(cgroup.Limits(memory_bytes=80 << 20))
        await vm.start()
        ended = await vm.wait_for(BOOT_SECONDS)
        assert ended.cause == EndCause.HOST_OOM


CONTROLLER = """
import asyncio, json, sys
from tests.harness.vms import STATE, guest_image
from cuboid.vmm.base import Boot, VmSpec
from cuboid.vmm.qemu.driver import QemuDriver
from cuboid.vmm.settings import VmmSettings
from pathlib import Path

async def main():
    settings = VmmSettings(cgroup_parent=sys.argv[2], uid_base=int(sys.argv[3]), uid_count=200)
    driver = QemuDriver(Path(sys.argv[1]), STATE, settings, kernel=guest_image.kernel())
    boot = Boot(guest_image.kernel(), guest_image.test_initramfs())
    vms = [await driver.create(VmSpec(name, boot, 1, 128)) for name in ("vm-kept", "vm-gone", "vm-off")]
    await vms[0].start()
    await vms[2].start()
    print(json.dumps([vm.handle() for vm in vms]), flush=True)
    await asyncio.sleep(60)

asyncio.run(main())
"""


async def test_vms_outlive_a_killed_controller_and_are_found_in_the_state_they_reached() -> None:
    async with Vms("controller-killed") as vms:
        await vms.driver.probe()
        arguments = (str(vms.folder), vms.settings.cgroup_parent, str(vms.settings.uid_base))
        controller = await asyncio.create_subprocess_exec(
            sys.executable, "-c", CONTROLLER, *arguments, stdout=asyncio.subprocess.PIPE, cwd=guest_image.ROOT
        )
        try:
            assert controller.stdout is not None
            kept, gone, off = json.loads(await asyncio.wait_for(controller.stdout.readline(), 20))
        finally:
            controller.kill()
            await controller.wait()
        os.kill(gone["pid"], signal.SIGKILL)
        found = await vms.driver.recover(kept)
        assert found is not None
        assert await vms.driver.recover(gone) is None
        guest = await vms.guest(found)
        assert await guest.line(BOOT_SECONDS) == "READY"
        assert await guest.ask("say still here") == "said"
        assert "still here" in found.console_tail()
        await vms.driver.clean(off["id"])
        assert not proc.alive(off["pid"], off["started"])


async def test_an_end_that_nobody_saw_is_reported_with_its_cause_after_a_restart() -> None:
    async with Vms("unseen-end") as vms:
        guest = await vms.boot()
        handle = guest.vm.handle()
        await vms.driver.close()
        await guest.send("panic")
        await asyncio.sleep(1)
        vms.driver = vms.new_driver()
        found = await vms.driver.recover(handle)
        assert found is not None
        ended = await found.wait_for(5)
        assert ended.cause == EndCause.PANIC
        assert "Attempted to kill init" in ended.detail


async def test_probing_boots_a_kernel_says_what_works_and_leaves_nothing(tmp_path: Path) -> None:
    kernel = guest_image.kernel()
    assert kernel is not None
    async with Vms("probe") as vms:
        settings = dataclasses.replace(vms.settings, accel="tcg", tcg_probe_seconds=BOOT_SECONDS)
        driver = QemuDriver(vms.folder, tmp_path / "state", settings, kernel=kernel)
        probe = await driver.probe()
        assert (probe.usable, probe.accel) == (True, "tcg")
        assert probe.boot_seconds > 0.1
        again = QemuDriver(vms.folder, tmp_path / "state", settings, kernel=kernel)
        assert await asyncio.wait_for(again.probe(), 0.5) == probe
        await driver.close()
        await again.close()


async def test_a_kernel_that_hangs_makes_the_driver_unusable_with_the_reason(tmp_path: Path) -> None:
    kernel = guest_image.kernel()
    assert kernel is not None
    async with Vms("probe-hangs") as vms:
        settings = dataclasses.replace(vms.settings, accel="tcg", tcg_probe_seconds=0.2)
        driver = QemuDriver(vms.folder, tmp_path / "state", settings, kernel=kernel)
        probe = await driver.probe()
        assert not probe.usable
        assert "did not reach user space within 0.2 s" in probe.reason
        with pytest.raises(UnsupportedError, match="did not reach user space"):
            await driver.create(vms.spec())
        await driver.close()


async def test_what_is_no_kernel_is_refused_before_anything_is_made(tmp_path: Path) -> None:
    async with Vms("bad-kernel") as vms:
        bad = tmp_path / "kernel"
        bad.write_bytes(b"not a kernel" * 100)
        with pytest.raises(InvalidError, match="not a Linux kernel image"):
            await vms.create(vms.spec(boot=Boot(bad, guest_image.test_initramfs())))


async def test_a_guest_that_cannot_boot_ends_as_a_panic(tmp_path: Path) -> None:
    initramfs = tmp_path / "garbage"
    initramfs.write_bytes(os.urandom(10_000))
    async with Vms("no-init", initramfs=initramfs) as vms:
        vm = await vms.create()
        await vm.start()
        assert (await vm.wait_for(BOOT_SECONDS)).cause == EndCause.PANIC


async def test_a_missing_tap_or_namespace_is_named_and_leaves_nothing(tmp_path: Path) -> None:
    async with Vms("no-tap") as vms:
        nics = (Nic("tap0", "02:00:00:00:00:01"),)
        with pytest.raises(CuboidError, match="no-such-netns"):
            await vms.create(vms.spec(nics=nics, netns=tmp_path / "no-such-netns"))
        assert await vms.driver.leftovers(set()) == []


@pytest.mark.net
async def test_the_guest_has_a_network_device_on_a_tap_of_its_namespace() -> None:
    name = f"cuboid-vmm-{os.getpid()}"
    await proc.run(["ip", "netns", "add", name], timeout=5)
    try:
        await proc.run(["ip", "-n", name, "tuntap", "add", "tap0", "mode", "tap", "vnet_hdr"], timeout=5)
        await proc.run(["ip", "-n", name, "link", "set", "tap0", "up"], timeout=5)
        async with Vms("tap") as vms:
            nics = (Nic("tap0", "02:00:00:00:00:01", mtu=1400),)
            spec = vms.spec(nics=nics, netns=Path("/run/netns") / name)
            guest = await vms.boot(spec)
            assert await guest.ask_list("nics") == ["02:00:00:00:00:01"]
            assert Path(f"/proc/{guest.vm.pid}/ns/net").stat().st_ino == (Path("/run/netns") / name).stat().st_ino
    finally:
        await proc.run(["ip", "netns", "del", name], timeout=5)
