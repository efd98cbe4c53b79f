"""What every `Disks` promises, of the fake and of local disks alike; then what only real files can show."""

from __future__ import annotations

import asyncio
import os
import re
import subprocess
import time
from pathlib import Path

import pytest

from cuboid.lib.errors import ConflictError, ExhaustedError, InvalidError, NotFoundError
from cuboid.storage.disks import LocalDisks
from cuboid.storage.fake import FakeDisks
from cuboid.storage.settings import StorageSettings

MIB = 1 << 20
SIZE = 64 * MIB


def local(tmp_path: Path, **settings: float) -> LocalDisks:
    return LocalDisks(tmp_path, StorageSettings(**{"reserve_mib": 0, "minimum_mib": 1, **settings}))  # type: ignore[arg-type]


@pytest.fixture(params=["fake", "local"])
def disks(request: pytest.FixtureRequest, tmp_path: Path) -> FakeDisks | LocalDisks:
    if request.param == "local" and os.geteuid() != 0:
        pytest.skip("local disks need root")
    return FakeDisks() if request.param == "fake" else local(tmp_path)


@pytest.fixture
def real(tmp_path: Path) -> LocalDisks:
    if os.geteuid() != 0:
        pytest.skip("local disks need root")
    return local(tmp_path)


async def test_a_pod_has_one_writable_layer_until_it_is_removed(disks: FakeDisks | LocalDisks) -> None:
    path = await disks.create_writable("pod-1", SIZE)
    assert await disks.create_writable("pod-1", SIZE) == path
    assert await disks.create_writable("pod-2", SIZE) != path
    assert disks.writable_pods() == {"pod-1", "pod-2"}
    await disks.remove_writable("pod-1")
    await disks.remove_writable("pod-1")
    assert disks.writable_pods() == {"pod-2"}


async def test_ready_devices_are_no_pods_until_they_are_taken(disks: FakeDisks | LocalDisks) -> None:
    await disks.prepare_writables(SIZE, 2)
    assert disks.ready_writables(SIZE) == 2
    assert disks.writable_pods() == set()
    paths = {await disks.create_writable(f"pod-{number}", SIZE) for number in range(5)}
    assert len(paths) == 5
    assert disks.writable_pods() == {f"pod-{number}" for number in range(5)}
    await disks.prepare_writables(SIZE, 2)
    assert disks.ready_writables(SIZE) == 2
    await disks.remove_writable("pod-0")
    assert disks.ready_writables(SIZE) == 2
    await disks.close()


async def test_ready_devices_of_a_size_come_and_go_apart_from_other_sizes(disks: FakeDisks | LocalDisks) -> None:
    await disks.prepare_writables(SIZE, 3)
    await disks.prepare_writables(2 * SIZE, 1)
    await disks.prepare_writables(SIZE, 1)
    assert (disks.ready_writables(SIZE), disks.ready_writables(2 * SIZE)) == (1, 1)
    await disks.prepare_writables(SIZE, 0)
    assert (disks.ready_writables(SIZE), disks.ready_writables(2 * SIZE)) == (0, 1)
    with pytest.raises(InvalidError):
        await disks.prepare_writables(0, 1)
    await disks.close()


async def test_a_senseless_size_or_uid_is_refused(disks: FakeDisks | LocalDisks) -> None:
    for size in (-1, 0, MIB, 17 << 40):
        with pytest.raises(InvalidError):
            await disks.create_writable("pod-1", size)
    for uid in ("", "../x", "a/b"):
        with pytest.raises(InvalidError):
            await disks.create_writable(uid, SIZE)
    assert disks.writable_pods() == set()


async def test_a_named_volume_is_held_by_one_pod_and_outlives_it(disks: FakeDisks | LocalDisks) -> None:
    path = await disks.acquire_volume("default", "data", "pod-1", SIZE)
    assert await disks.acquire_volume("default", "data", "pod-1", SIZE) == path
    with pytest.raises(ConflictError, match="in use by the pod pod-1"):
        await disks.acquire_volume("default", "data", "pod-2", SIZE)
    await disks.acquire_volume("default", "data", "pod-1", SIZE, pod="writer")
    with pytest.raises(ConflictError, match="in use by the pod writer"):
        await disks.acquire_volume("default", "data", "pod-2", SIZE)
    await disks.release_volumes("pod-1")
    await disks.release_volumes("pod-1")
    assert await disks.acquire_volume("default", "data", "pod-2", 2 * SIZE) == path
    (volume,) = disks.volumes()
    assert (volume.holder, volume.device.size_bytes) == ("pod-2", SIZE)


async def test_namespaces_keep_volumes_apart(disks: FakeDisks | LocalDisks) -> None:
    one = await disks.acquire_volume("a", "data", "pod-1", SIZE)
    other = await disks.acquire_volume("b", "data", "pod-2", SIZE)
    assert one != other
    assert [(volume.namespace, volume.name) for volume in disks.volumes()] == [("a", "data"), ("b", "data")]


async def test_a_volume_in_use_is_not_removed_and_a_missing_one_not_found(disks: FakeDisks | LocalDisks) -> None:
    await disks.acquire_volume("default", "data", "pod-1", SIZE)
    with pytest.raises(ConflictError):
        await disks.remove_volume("default", "data")
    await disks.release_volumes("pod-1")
    await disks.remove_volume("default", "data")
    assert disks.volumes() == []
    with pytest.raises(NotFoundError):
        await disks.remove_volume("default", "data")
    with pytest.raises(NotFoundError):
        disks.volume("default", "data")


async def test_a_volume_name_that_names_another_file_is_refused(disks: FakeDisks | LocalDisks) -> None:
    for namespace, name in (("..", "x"), ("default", "../x"), ("default", ""), ("Default", "x"), ("default", ".x")):
        with pytest.raises(InvalidError):
            await disks.acquire_volume(namespace, name, "pod-1", SIZE)
    assert disks.volumes() == []


def fsck(path: Path) -> str:
    done = subprocess.run(["e2fsck", "-fn", path], capture_output=True, text=True, timeout=30, check=False)
    assert done.returncode == 0, done.stdout
    return subprocess.run(["dumpe2fs", "-h", path], capture_output=True, text=True, timeout=30, check=True).stdout


async def test_a_writable_layer_is_a_sound_sparse_ext4_with_a_small_journal(real: LocalDisks) -> None:
    path = await real.create_writable("pod-1", 1024 * MIB - 5)
    found = path.stat()
    assert found.st_size == 1024 * MIB
    assert found.st_blocks * 512 < MIB
    assert (found.st_mode & 0o777, found.st_uid) == (0o600, 0)
    assert re.search(r"Total journal size:\s+32M", fsck(path))


async def test_a_ready_device_is_the_pods_by_a_rename_and_is_made_again(real: LocalDisks, tmp_path: Path) -> None:
    await real.prepare_writables(SIZE, 1)
    (ready,) = (tmp_path / "disks" / "ready").iterdir()
    inode = ready.stat().st_ino
    path = await real.create_writable("pod-1", SIZE)
    assert path.stat().st_ino == inode
    assert (path.stat().st_mode & 0o777, path.stat().st_size) == (0o600, SIZE)
    fsck(path)
    while not real.ready_writables(SIZE):
        await asyncio.sleep(0.001)
    other = await real.create_writable("pod-2", 2 * SIZE)
    assert other.stat().st_size == 2 * SIZE
    assert real.ready_writables(SIZE) == 1


async def test_ready_devices_are_bounded_and_those_of_a_killed_process_go_at_the_next_start(tmp_path: Path) -> None:
    if os.geteuid() != 0:
        pytest.skip("local disks need root")
    disks = local(tmp_path, ready=3)
    await disks.prepare_writables(SIZE, 1000)
    ready = tmp_path / "disks" / "ready"
    assert len(list(ready.iterdir())) == disks.ready_writables(SIZE) == 3
    (ready / ".1.ext4.new").touch()
    again = local(tmp_path)
    assert list(ready.iterdir()) == []
    assert (again.writable_pods(), again.ready_writables(SIZE)) == (set(), 0)


async def test_a_ready_device_that_somebody_deleted_is_none(real: LocalDisks, tmp_path: Path) -> None:
    await real.prepare_writables(SIZE, 2)
    for path in (tmp_path / "disks" / "ready").iterdir():
        path.unlink()
    fsck(await real.create_writable("pod-1", SIZE))


async def test_a_full_disk_takes_no_ready_devices(tmp_path: Path) -> None:
    disks = local(tmp_path, reserve_mib=1 << 40)
    with pytest.raises(ExhaustedError):
        await disks.prepare_writables(SIZE, 2)
    assert disks.ready_writables(SIZE) == 0
    assert list((tmp_path / "disks" / "ready").iterdir()) == []


async def test_preparing_that_is_cancelled_leaves_whole_devices_only(real: LocalDisks, tmp_path: Path) -> None:
    task = asyncio.create_task(real.prepare_writables(SIZE, 64))
    while not real.ready_writables(SIZE):
        await asyncio.sleep(0)
    task.cancel()
    await asyncio.wait([task])
    await real.close()
    left = list((tmp_path / "disks" / "ready").iterdir())
    assert len(left) == real.ready_writables(SIZE)
    assert all(path.stat().st_size == SIZE for path in left)
    await real.create_writable("pod-1", SIZE)
    assert real.ready_writables(SIZE) == len(left) - 1


async def test_a_pods_writable_layer_waits_for_no_write_to_the_hosts_disk(
    real: LocalDisks, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(_: int) -> None:
        raise AssertionError("synced")

    monkeypatch.setattr(os, "fsync", refuse)
    await real.create_writable("pod-1", SIZE)
    await real.prepare_writables(SIZE, 1)
    await real.create_writable("pod-2", SIZE)


async def test_a_named_volume_is_a_sound_ext4_with_a_journal_of_its_own(real: LocalDisks) -> None:
    one = await real.acquire_volume("default", "one", "pod-1", SIZE)
    other = await real.acquire_volume("default", "two", "pod-1", SIZE)
    headers = [fsck(path) for path in (one, other)]
    assert all("has_journal" in header for header in headers)
    uuids = {line for header in headers for line in header.splitlines() if line.startswith("Filesystem UUID")}
    assert len(uuids) == 2
    assert (one.stat().st_mode & 0o777, one.stat().st_uid) == (0o600, 0)


async def test_no_inode_table_is_left_for_the_guest_to_zero(real: LocalDisks) -> None:
    path = await real.create_writable("pod-1", 2048 * MIB)
    groups = subprocess.run(["dumpe2fs", path], capture_output=True, text=True, timeout=30, check=True).stdout
    assert groups.count("ITABLE_ZEROED") == len(re.findall(r"^Group \d+:", groups, re.MULTILINE)) > 1


async def test_a_second_layer_of_a_size_takes_milliseconds(real: LocalDisks) -> None:
    await real.create_writable("first", 10240 * MIB)
    times = []
    for number in range(15):
        started = time.perf_counter()
        await real.create_writable(f"pod-{number}", 10240 * MIB)
        times.append(time.perf_counter() - started)
    assert sorted(times)[7] < 0.010


async def test_a_full_host_disk_refuses_new_devices_and_leaves_nothing(tmp_path: Path) -> None:
    disks = local(tmp_path, reserve_mib=1 << 40)
    with pytest.raises(ExhaustedError) as caught:
        await disks.create_writable("pod-1", SIZE)
    assert caught.value.reason == "DiskPressure"
    with pytest.raises(ExhaustedError):
        await disks.acquire_volume("default", "data", "pod-1", SIZE)
    assert (disks.writable_pods(), disks.volumes()) == (set(), [])


async def test_volumes_and_holders_are_found_again_after_a_restart(real: LocalDisks, tmp_path: Path) -> None:
    await real.acquire_volume("default", "data", "pod-1", SIZE)
    await real.create_writable("pod-1", SIZE)
    again = local(tmp_path)
    assert again.volumes() == real.volumes()
    assert again.writable_pods() == {"pod-1"}
    with pytest.raises(ConflictError):
        await again.acquire_volume("default", "data", "pod-2", SIZE)


async def test_a_layer_of_an_earlier_boot_is_not_used_again(real: LocalDisks, tmp_path: Path) -> None:
    path = await real.create_writable("pod-1", SIZE)
    earlier = path.parent.with_name("00000000-0000-0000-0000-000000000000")
    earlier.mkdir()
    old = path.rename(earlier / path.name)
    assert real.writable_pods() == {"pod-1"}
    assert await real.create_writable("pod-1", SIZE) == path
    assert not old.exists()


async def test_what_an_interrupted_creation_left_goes_at_the_next_start(real: LocalDisks, tmp_path: Path) -> None:
    path = await real.acquire_volume("default", "data", "pod-1", SIZE)
    half = path.with_name(".other.ext4.new")
    half.write_bytes(b"half")
    local(tmp_path)
    assert not half.exists()
    assert path.exists()


async def test_a_failing_mkfs_leaves_no_volume(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    disks = local(tmp_path, mkfs_deadline=0.0)
    with pytest.raises(Exception, match="took longer"):
        await disks.acquire_volume("default", "data", "pod-1", SIZE)
    assert disks.volumes() == []
    assert [path for path in tmp_path.rglob("*") if "data" in path.name] == []


async def test_old_templates_are_dropped(tmp_path: Path) -> None:
    disks = local(tmp_path, templates=2)
    for number in range(4):
        await disks.create_writable(f"pod-{number}", SIZE + number * MIB)
    assert len(list((tmp_path / "disks" / "templates").glob("*/*"))) == 2


async def test_templates_of_an_earlier_boot_are_not_used_again(real: LocalDisks, tmp_path: Path) -> None:
    await real.create_writable("pod-1", SIZE)
    templates = tmp_path / "disks" / "templates"
    (earlier,) = templates.iterdir()
    earlier.rename(templates / "00000000-0000-0000-0000-000000000000")
    (templates / "67108864.v2.ext4").touch()
    again = local(tmp_path)
    assert list(templates.glob("*/*")) == []
    await again.create_writable("pod-2", SIZE)
