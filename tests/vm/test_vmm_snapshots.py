"""Snapshots of real guests: what they see after a restore, and what is left when something fails on the way."""

from __future__ import annotations

import asyncio
import dataclasses
import json
import os
import re
import shutil
import signal
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from cuboid.lib import proc
from cuboid.lib.errors import ConflictError, UnavailableError
from cuboid.lib.linux import netns
from cuboid.vmm import snapshots
from cuboid.vmm.base import Disk, Nic, State
from cuboid.vmm.qemu import mapped
from cuboid.vmm.qemu.vm import QemuVm
from tests.harness.vms import Guest, Vms, needs_vms

pytestmark = [pytest.mark.vm, needs_vms, pytest.mark.timeout(180)]

NICS = (Nic("tap0", "02:00:00:00:00:01"),)
SLOTS = (Disk("image", None, True), Disk("data", None, False))


@pytest.fixture(scope="module")
def template(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    folder = tmp_path_factory.mktemp("template") / "snapshot"
    asyncio.run(_make_template(folder))
    yield folder
    shutil.rmtree(folder)


async def _make_template(folder: Path) -> None:
    async with Vms("template") as vms:
        guest = await vms.boot(vms.spec(disks=SLOTS, template=True))
        await guest.vm.pause()
        await guest.vm.snapshot(folder)


async def clone(vms: Vms, folder: Path, name: str = "") -> QemuVm:
    vm = await vms.driver.restore(vms.spec(name, disks=SLOTS), folder)
    vms.own(vm)
    return vm


async def resumed(vms: Vms, vm: QemuVm) -> Guest:
    guest = await vms.guest(vm)
    await vm.resume()
    return guest


async def test_a_guest_finds_late_disks_with_their_sizes_and_content(template: Path) -> None:
    async with Vms("late-disks") as vms:
        vm = await clone(vms, template)
        image, data = vms.disk("image.img", 1 << 20), vms.disk("data.img", 3 << 20)
        image.write_bytes(b"from the host".ljust(1 << 20, b"\0"))
        await vm.attach_disk(Disk("image", image, True))
        guest = await resumed(vms, vm)
        await vm.attach_disk(Disk("data", data, False, iops=1000, bytes_per_second=10 << 20))
        found = []
        while "data 3145728 rw" not in (found := sorted(await guest.ask_list("disks"))):
            await asyncio.sleep(0.01)  # it learns of a change by an interrupt and asks later
        assert found == ["data 3145728 rw", "image 1048576 ro"]
        assert await guest.ask("read image") == "from the host"
        assert await guest.ask("write image changed") == "failed"
        assert await guest.ask("write data from the guest") == "written"
        await vm.detach_disk("data")
        assert await guest.ask("write data nowhere") == "written"  # a slot without a disk forgets
        assert data.read_bytes().startswith(b"from the guest\0")


async def test_a_disk_that_another_vm_writes_to_is_refused_and_the_slot_can_be_filled_later(template: Path) -> None:
    async with Vms("late-lock") as vms:
        first, second = await clone(vms, template), await clone(vms, template)
        disk = Disk("data", vms.disk("data.img"), False, iops=500)
        await first.attach_disk(disk)
        for _ in range(2):
            with pytest.raises(UnavailableError, match="lock"):
                await second.attach_disk(disk)
        await first.kill()
        await second.attach_disk(disk)
        guest = await resumed(vms, second)
        assert await guest.ask("write data mine now") == "written"


async def test_twenty_clones_are_restored_at_once(template: Path) -> None:
    async with Vms("twenty") as vms:
        made = await asyncio.gather(*(clone(vms, template, f"clone-{number}") for number in range(20)))
        assert {vm.state for vm in made} == {State.PAUSED}
        await asyncio.gather(*(vm.kill() for vm in made))


async def test_a_late_disk_keeps_its_limits(template: Path) -> None:
    async with Vms("late-limits") as vms:
        vm = await clone(vms, template)
        await vm.attach_disk(Disk("data", vms.disk("data.img"), False, iops=10))
        guest = await resumed(vms, vm)
        begin = time.monotonic()
        for number in range(25):
            assert await guest.ask(f"write data {number}") == "written"
        assert time.monotonic() - begin > 1.5  # 25 requests, 10 a second, of which some may come early


@pytest.mark.net
async def test_a_clone_has_a_tap_of_its_own_where_the_template_had_one_in_an_empty_namespace() -> None:
    namespace = Path("/run/netns") / f"cuboid-clone-{os.getpid()}"
    async with Vms("clone-tap") as vms:
        guest = await vms.boot(vms.spec(nics=NICS, template=True))
        assert await guest.ask_list("nics") == [NICS[0].mac]
        assert Path(f"/proc/{guest.vm.pid}/ns/net").stat().st_ino != Path("/proc/self/ns/net").stat().st_ino
        await guest.vm.pause()
        await guest.vm.snapshot(vms.folder / "snapshot")
        await netns.create(namespace)
        try:
            adding = "ip tuntap add tap7 mode tap vnet_hdr".split()
            await proc.run(["nsenter", f"--net={namespace}", *adding], timeout=5)
            own = (dataclasses.replace(NICS[0], tap="tap7"),)
            vm = await vms.driver.restore(vms.spec("clone", nics=own, netns=namespace), vms.folder / "snapshot")
            vms.own(vm)
            restored = await resumed(vms, vm)
            assert await restored.ask_list("nics") == [NICS[0].mac]  # the agent gives it its own
            assert Path(f"/proc/{vm.pid}/ns/net").stat().st_ino == namespace.stat().st_ino
            await vm.kill()
        finally:
            netns.remove(namespace)


async def test_what_clones_write_to_memory_reaches_neither_the_template_nor_each_other(template: Path) -> None:
    async with Vms("copy-on-write") as vms:
        guests = [await resumed(vms, await clone(vms, template)) for _ in range(2)]
        assert [await guest.ask("count") for guest in guests] == ["counting"] * 2
        await asyncio.sleep(0.3)
        assert await guests[0].ask("use 20") == "used"
        assert min([int(await guest.ask("counter")) for guest in guests]) > 0
        await vms.driver.verify(template)
        late = await resumed(vms, await clone(vms, template))
        assert await late.ask("counter") == "-1"


async def test_the_jail_of_a_clone_shows_the_template_for_reading_only(template: Path) -> None:
    async with Vms("jail-clone") as vms:
        vm = await clone(vms, template)
        process = Path(f"/proc/{vm.pid}")
        assert {path.name for path in (process / "root/boot").iterdir()} <= {"memory", "memory.so"}
        mounts = [line.split() for line in (process / "mounts").read_text().splitlines()]
        (options,) = [fields[3].split(",") for fields in mounts if fields[1] == "/boot/memory"]
        assert "ro" in options
        inode = (template / "memory").stat().st_ino
        opened = [link.name for link in (process / "fd").iterdir() if link.stat().st_ino == inode]
        for number in opened:
            flags = re.search(r"^flags:\s+(\d+)", (process / "fdinfo" / number).read_text(), re.MULTILINE)
            assert flags is not None
            assert int(flags[1], 8) & os.O_ACCMODE == os.O_RDONLY
        mapped = [line.split()[1] for line in (process / "maps").read_text().splitlines() if f" {inode} " in line]
        assert opened
        assert set(mapped) <= {"rw-p", "r--p"}
        owner = (template / "memory").stat()
        assert (owner.st_uid, owner.st_mode & 0o777) == (0, 0o444)


@pytest.mark.parametrize("memory", ["mapped", "read"])
async def test_a_process_counts_on_from_where_it_was_snapshotted(memory: str, monkeypatch: pytest.MonkeyPatch) -> None:
    if memory == "read":  # where the memory is not found in QEMU's file, QEMU reads it
        monkeypatch.setattr(mapped, "find", lambda *_: None)
    async with Vms("counting") as vms:
        guest = await vms.boot(vms.spec(memory_mib=256))
        await guest.ask("count")
        await asyncio.sleep(0.2)
        await guest.vm.pause()
        folder = vms.folder / "snapshot"
        await guest.vm.snapshot(folder)
        await guest.vm.resume()
        at_least = int(await guest.ask("counter"))
        assert at_least > 0
        await guest.vm.kill()
        for name in ("one", "two"):
            vm = await vms.driver.restore(vms.spec(name, memory_mib=256), folder)
            vms.own(vm)
            again = await resumed(vms, vm)
            first = int(await again.ask("counter"))
            await asyncio.sleep(0.2)
            assert 0 < first < int(await again.ask("counter"))
            assert first <= at_least + 1000
            assert await again.ask("use 16") == "used"
            assert ((await vm.stats()).guest_bytes < 40 << 20) == (memory == "mapped")  # what it wrote, or all
        await vms.driver.verify(folder)


async def test_a_state_that_the_vmm_cannot_read_is_refused_and_leaves_nothing(template: Path) -> None:
    async with Vms("strange-state") as vms:
        folder = vms.folder / "spoilt"
        folder.mkdir()
        (folder / "memory").symlink_to(template / "memory")
        state = bytearray((template / "state").read_bytes())
        state[len(state) // 2 :] = bytes(len(state) - len(state) // 2)
        (folder / "state").write_bytes(state)
        manifest = json.loads((template / "snapshot.json").read_text())
        manifest["files"]["state"]["digest"] = snapshots.digest(folder / "state")
        manifest["files"]["memory"]["size"] = (folder / "memory").lstat().st_size
        (folder / "snapshot.json").write_text(json.dumps(manifest))
        with pytest.raises(ConflictError) as caught:
            await clone(vms, folder)
        assert caught.value.reason == "SnapshotIncompatible"
        assert await vms.driver.leftovers(set()) == []


async def test_a_vmm_that_is_killed_while_it_is_snapshotted_leaves_no_snapshot() -> None:
    async with Vms("killed-saving") as vms:
        guest = await vms.boot(vms.spec(memory_mib=256))
        await guest.vm.pause()
        saving = asyncio.ensure_future(guest.vm.snapshot(vms.folder / "snapshots/one"))
        await asyncio.sleep(0.03)
        os.kill(guest.vm.pid, signal.SIGKILL)
        with pytest.raises(ConflictError, match="has ended"):
            await saving
        await guest.vm.wait_for(5)
        assert list((vms.folder / "snapshots").iterdir()) == []


async def test_a_snapshot_that_is_cancelled_leaves_nothing_and_the_vm_goes_on() -> None:
    async with Vms("cancelled-saving") as vms:
        guest = await vms.boot(vms.spec(memory_mib=256))
        await guest.vm.pause()
        saving = asyncio.ensure_future(guest.vm.snapshot(vms.folder / "snapshots/one"))
        await asyncio.sleep(0.03)
        saving.cancel()
        with pytest.raises(asyncio.CancelledError):
            await saving
        assert list((vms.folder / "snapshots").iterdir()) == []
        await guest.vm.resume()
        assert await guest.ask("hello") == "hello"


@pytest.mark.parametrize("then", ["recover", "clean"])
async def test_what_a_killed_controller_left_of_a_snapshot_is_removed_with_its_vm_or_when_that_is_found(
    then: str,
) -> None:
    async with Vms("draft") as vms:
        vm = await vms.create()
        draft = snapshots.Draft(vms.folder / "snapshots/one", vm.id).__enter__()
        vm._jail.note_draft(draft.path)
        (draft.path / "state").write_bytes(b"half")
        handle = vm.handle()
        await vms.driver.close()
        vms.driver = vms.new_driver()
        if then == "recover":
            found = await vms.driver.recover(handle)
            assert found is not None
            assert found.state == State.CREATED
        else:
            await vms.driver.clean(vm.id)
        assert list((vms.folder / "snapshots").iterdir()) == []


@pytest.mark.slow
async def test_a_hundred_clones_come_and_go_and_leave_nothing(template: Path) -> None:
    """The factory looks for processes, groups, mounts, users and files at its end."""
    async with Vms("hundred") as vms:
        before = len(list(Path("/proc/self/fd").iterdir()))
        for number in range(100):
            vm = await clone(vms, template, f"clone-{number}")
            if number % 3 == 0:
                await vm.resume()
            if number % 5 == 0:
                os.kill(vm.pid, signal.SIGKILL)
                await vm.wait_for(5)
            else:
                await vm.kill()
        assert await vms.driver.leftovers(set()) == []
        assert len(list(Path("/proc/self/fd").iterdir())) <= before + 2
