"""Snapshots, what is restored from them, and disks that come late: one suite for every VMM driver."""

from __future__ import annotations

import asyncio
import json
import os
import shutil
from collections.abc import AsyncIterator, Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from cuboid.lib.errors import AlreadyExistsError, ConflictError, InvalidError, NotFoundError, UnsupportedError
from cuboid.vmm.base import Disk, HostLimits, Nic, State, Vm
from tests.harness.vmm_bench import DRIVERS, SLOTS, Bench, opened, sparse_copy, template


@pytest.fixture(params=DRIVERS)
async def bench(request: pytest.FixtureRequest, tmp_path: Path) -> AsyncIterator[Bench]:
    async with opened(request.param, tmp_path) as made:
        yield made


@pytest.fixture(scope="module")
def kept(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """Where the snapshot of a template is kept, made once for each driver."""
    folder = tmp_path_factory.mktemp("templates")
    yield folder
    shutil.rmtree(folder)


def disk(folder: Path, name: str, text: bytes = b"", size: int = 1 << 20) -> Path:
    path = folder / name
    path.write_bytes(text.ljust(size, b"\0"))
    return path


async def clone(bench: Bench, folder: Path, name: str = "clone-1", **changes: Any) -> Vm:
    vm = await bench.driver.restore(bench.spec(**({"id": name, "disks": SLOTS} | changes)), folder)
    bench.met(vm)
    return vm


async def paused(bench: Bench, **changes: Any) -> Vm:
    vm = await bench.running(**changes)
    await vm.pause()
    return vm


# -- templates and their clones


async def test_clones_of_a_template_wait_paused_and_answer_when_they_are_resumed(bench: Bench, kept: Path) -> None:
    folder = await template(bench, kept)
    clones = [await clone(bench, folder, f"clone-{number}") for number in range(2)]
    assert [vm.state for vm in clones] == [State.PAUSED, State.PAUSED]
    for vm in clones:
        await vm.resume()
        assert await bench.echo(vm, vm.id) == vm.id


async def test_a_host_that_connects_before_the_guest_goes_on_is_answered(bench: Bench, kept: Path) -> None:
    vm = await clone(bench, await template(bench, kept))
    answer = asyncio.create_task(bench.echo(vm, "hello"))
    await asyncio.sleep(0.05)  # it has connected and asked
    await vm.resume()
    assert await asyncio.wait_for(answer, 10) == "hello"


async def test_a_template_that_was_snapshotted_can_only_be_killed(bench: Bench, tmp_path: Path) -> None:
    vm = await paused(bench, template=True)
    await vm.snapshot(tmp_path / "first")
    with pytest.raises(ConflictError, match="only be killed"):
        await vm.resume()
    with pytest.raises(UnsupportedError):
        await vm.snapshot(tmp_path / "second")
    assert not list(tmp_path.glob("*second*"))
    await vm.kill()
    await bench.driver.verify(tmp_path / "first")
    assert await bench.driver.leftovers(set()) == []


async def test_a_template_that_is_killed_instead_leaves_nothing(bench: Bench) -> None:
    vm = await bench.driver.create(bench.spec(template=True))
    await vm.kill()
    assert await bench.driver.leftovers(set()) == []


async def test_a_templates_network_device_needs_no_namespace_and_anothers_does(bench: Bench) -> None:
    nics = (Nic("tap0", "02:00:00:00:00:01"),)
    vm = await bench.driver.create(bench.spec(template=True, nics=nics))
    assert vm.state == State.CREATED
    with pytest.raises(InvalidError, match="namespace"):
        await bench.driver.create(bench.spec(id="vm-2", nics=nics))


async def test_a_clone_is_found_again_paused_and_running(bench: Bench, kept: Path) -> None:
    vm = await clone(bench, await template(bench, kept))
    await bench.restart()
    waiting = await bench.driver.recover(vm.handle())
    assert waiting is not None
    assert waiting.state == State.PAUSED
    await waiting.resume()
    await bench.restart()
    again = await bench.driver.recover(vm.handle())
    assert again is not None
    bench.met(again)
    assert again.state == State.RUNNING
    assert await bench.echo(again, "hello") == "hello"


async def test_a_template_is_found_again_and_still_knows_that_its_memory_is_gone(bench: Bench, tmp_path: Path) -> None:
    vm = await paused(bench, template=True)
    await bench.restart()
    again = await bench.driver.recover(vm.handle())
    assert again is not None
    await again.snapshot(tmp_path / "snapshot")
    await bench.restart()
    spent = await bench.driver.recover(vm.handle())
    assert spent is not None
    assert spent.state == State.PAUSED
    with pytest.raises(ConflictError, match="only be killed"):
        await spent.resume()


# -- any paused VM


async def test_a_paused_vm_is_snapshotted_goes_on_and_is_restored_twice(bench: Bench, tmp_path: Path) -> None:
    data = disk(tmp_path, "data.img", b"as it was")
    disks = (Disk("image", disk(tmp_path, "image.img"), True), Disk("data", data, False))
    vm = await paused(bench, disks=disks)
    await vm.snapshot(tmp_path / "snapshot")
    await vm.resume()
    assert await bench.echo(vm, "went on") == "went on"
    data.write_bytes(b"changed since")
    copies = [path for path in (tmp_path / "snapshot").iterdir() if "disk" in path.name]
    assert [path.name for path in copies] == ["disk-data"]
    assert copies[0].read_bytes().rstrip(b"\0") == b"as it was"
    for name in ("one", "two"):
        own = tmp_path / name
        shutil.copy(copies[0], own)
        restored = await clone(bench, tmp_path / "snapshot", name, disks=(disks[0], Disk("data", own, False)))
        assert restored.state == State.PAUSED
        await restored.resume()
        assert await bench.echo(restored, name) == name


async def test_only_a_paused_vm_is_snapshotted(bench: Bench, tmp_path: Path) -> None:
    vm = await bench.driver.create(bench.spec())
    for _ in range(2):
        with pytest.raises(ConflictError, match="only a paused VM"):
            await vm.snapshot(tmp_path / "snapshot")
        await vm.start()
    await vm.kill()
    with pytest.raises(ConflictError, match="has ended"):
        await vm.snapshot(tmp_path / "snapshot")
    assert not list(tmp_path.glob("*snapshot*"))


async def test_a_snapshot_does_not_replace_another(bench: Bench, tmp_path: Path) -> None:
    vm = await paused(bench)
    (tmp_path / "snapshot").mkdir()
    with pytest.raises(AlreadyExistsError):
        await vm.snapshot(tmp_path / "snapshot")
    assert list((tmp_path / "snapshot").iterdir()) == []
    await vm.resume()
    assert await bench.echo(vm, "hello") == "hello"


async def test_memory_shared_with_other_processes_is_not_snapshotted(bench: Bench, tmp_path: Path) -> None:
    vm = await bench.driver.create(bench.spec(shared_memory=True))
    await vm.start()
    await vm.pause()
    with pytest.raises(UnsupportedError):
        await vm.snapshot(tmp_path / "snapshot")
    with pytest.raises(InvalidError):
        await bench.driver.create(bench.spec(id="vm-2", shared_memory=True, template=True))


# -- what is refused


SHAPES: list[tuple[str, dict[str, Any]]] = [
    ("2 and 128 MiB", {"vcpus": 2}),
    ("1 and 160 MiB", {"memory_mib": 160}),
    ("not image", {"disks": SLOTS[:1]}),
    ("not none", {"disks": ()}),
    ("not data", {"disks": SLOTS[::-1]}),
    ("not image .rw.", {"disks": (Disk("image", None, False), SLOTS[1])}),
    ("not 1", {"nics": (Nic("tap0", "02:00:00:00:00:01"),), "netns": Path("/proc/self/ns/net")}),
]


@pytest.mark.parametrize(("words", "changes"), SHAPES, ids=[words for words, _ in SHAPES])
async def test_a_vm_of_another_shape_is_not_restored(
    bench: Bench, kept: Path, words: str, changes: dict[str, Any]
) -> None:
    folder = await template(bench, kept)
    with pytest.raises(ConflictError, match=words) as caught:
        await clone(bench, folder, **changes)
    assert caught.value.reason == "SnapshotIncompatible"
    assert await bench.driver.leftovers(set()) == []


async def test_a_snapshot_of_another_host_is_refused_with_what_differs(
    bench: Bench, kept: Path, tmp_path: Path
) -> None:
    await bench.driver.probe()
    facts = bench.driver.snapshot_facts()
    assert facts == json.loads(json.dumps(facts))
    assert facts["CPU"]
    async with sparse_copy(await template(bench, kept), tmp_path / "other") as folder:
        manifest = json.loads((folder / "snapshot.json").read_text())
        manifest["facts"]["CPU"] = "a CPU from elsewhere"
        (folder / "snapshot.json").write_text(json.dumps(manifest))
        for attempt in (clone(bench, folder), bench.driver.verify(folder)):
            with pytest.raises(ConflictError, match="CPU a CPU from elsewhere") as caught:
                await attempt
            assert caught.value.reason == "SnapshotIncompatible"
    assert await bench.driver.leftovers(set()) == []


def _truncated(folder: Path) -> None:
    path = max(folder.iterdir(), key=lambda path: path.stat().st_size)
    os.truncate(path, path.stat().st_size - 1)


def _file_missing(folder: Path) -> None:
    min((path for path in folder.iterdir() if path.suffix != ".json"), key=lambda path: path.stat().st_size).unlink()


def _manifest_torn(folder: Path) -> None:
    os.truncate(folder / "snapshot.json", 100)


def _manifest_of_another_kind(folder: Path) -> None:
    (folder / "snapshot.json").write_text('{"format": 1}')


def _name_that_leads_out(folder: Path) -> None:
    text = (folder / "snapshot.json").read_text()
    (folder / "snapshot.json").write_text(text.replace('"files": {', '"files": {"../x": {"size": 0, "digest": ""},'))


SPOILS: list[Callable[[Path], None]] = [
    _truncated, _file_missing, _manifest_torn, _manifest_of_another_kind, _name_that_leads_out,
]  # fmt: skip


@pytest.mark.parametrize("spoil", SPOILS, ids=[spoil.__name__.strip("_") for spoil in SPOILS])
async def test_a_damaged_snapshot_is_refused_and_leaves_nothing(
    bench: Bench, kept: Path, tmp_path: Path, spoil: Callable[[Path], None]
) -> None:
    async with sparse_copy(await template(bench, kept), tmp_path / "spoilt") as folder:
        spoil(folder)
        for attempt in (clone(bench, folder), bench.driver.verify(folder)):
            with pytest.raises(ConflictError) as caught:
                await attempt
            assert caught.value.reason == "SnapshotCorrupt"
    assert await bench.driver.leftovers(set()) == []


async def test_verifying_reads_every_byte(bench: Bench, kept: Path, tmp_path: Path) -> None:
    folder = await template(bench, kept)
    await bench.driver.verify(folder)
    for name in json.loads((folder / "snapshot.json").read_text())["files"]:
        async with sparse_copy(folder, tmp_path / "spoilt") as copy:
            with (copy / name).open("r+b") as file:
                file.seek(-1, os.SEEK_END)
                last = file.read(1)
                file.seek(-1, os.SEEK_END)
                file.write(bytes([last[0] ^ 1]))
            with pytest.raises(ConflictError, match=f"{name} has changed") as caught:
                await bench.driver.verify(copy)
            assert caught.value.reason == "SnapshotCorrupt"


async def test_what_is_no_snapshot_is_not_found(bench: Bench, tmp_path: Path) -> None:
    await bench.driver.probe()
    for folder in (tmp_path / "nowhere", tmp_path):
        for attempt in (clone(bench, folder), bench.driver.verify(folder)):
            with pytest.raises(NotFoundError):
                await attempt
    assert await bench.driver.leftovers(set()) == []


async def test_what_is_restored_is_no_template_again(bench: Bench, kept: Path) -> None:
    folder = await template(bench, kept)
    with pytest.raises(InvalidError):
        await clone(bench, folder, template=True)
    with pytest.raises(InvalidError):
        await clone(bench, folder, shared_memory=True)


# -- disks that come late


async def test_a_slot_is_filled_once_until_it_is_emptied(bench: Bench, kept: Path, tmp_path: Path) -> None:
    vm = await clone(bench, await template(bench, kept))
    image = Disk("image", disk(tmp_path, "image.img"), True)
    data = Disk("data", disk(tmp_path, "data.img"), False, iops=1000, bytes_per_second=10 << 20)
    await vm.attach_disk(image)
    with pytest.raises(ConflictError, match="taken"):
        await vm.attach_disk(image)
    await vm.resume()
    await vm.attach_disk(data)
    for _ in range(2):
        await vm.detach_disk("data")
        await vm.detach_disk("image")
    await vm.attach_disk(data)
    await vm.attach_disk(image)


async def test_a_disk_that_does_not_fit_its_slot_is_refused_and_the_slot_stays_empty(
    bench: Bench, kept: Path, tmp_path: Path
) -> None:
    vm = await clone(bench, await template(bench, kept))
    path = disk(tmp_path, "data.img")
    with pytest.raises(ConflictError, match="read-only"):
        await vm.attach_disk(Disk("image", path, False))
    with pytest.raises(ConflictError, match="read-only"):
        await vm.attach_disk(Disk("data", path, True))
    with pytest.raises(ConflictError, match="no path"):
        await vm.attach_disk(Disk("data", None, False))
    with pytest.raises(NotFoundError, match="no-such-slot"):
        await vm.attach_disk(Disk("no-such-slot", path, False))
    with pytest.raises(NotFoundError, match="no-such-slot"):
        await vm.detach_disk("no-such-slot")
    with pytest.raises(NotFoundError, match="no-such-file"):
        await vm.attach_disk(Disk("data", tmp_path / "no-such-file", False))
    await vm.attach_disk(Disk("data", path, False))


async def test_what_is_in_the_slots_is_known_after_a_restart(bench: Bench, kept: Path, tmp_path: Path) -> None:
    vm = await clone(bench, await template(bench, kept))
    data = disk(tmp_path, "data.img", b"written")
    await vm.attach_disk(Disk("data", data, False))
    await bench.restart()
    again = await bench.driver.recover(vm.handle())
    assert again is not None
    with pytest.raises(ConflictError, match="taken"):
        await again.attach_disk(Disk("data", data, False))
    await again.snapshot(tmp_path / "snapshot")
    assert (tmp_path / "snapshot/disk-data").read_bytes().rstrip(b"\0") == b"written"
    await again.detach_disk("data")
    await again.attach_disk(Disk("data", data, False))


async def test_disks_of_a_cold_vm_are_exchanged_as_well(bench: Bench, tmp_path: Path) -> None:
    first, second = disk(tmp_path, "first.img"), disk(tmp_path, "second.img")
    vm = await bench.driver.create(bench.spec(disks=(Disk("data", first, False, iops=100),)))
    with pytest.raises(ConflictError, match="taken"):
        await vm.attach_disk(Disk("data", second, False))
    await vm.detach_disk("data")
    await vm.attach_disk(Disk("data", second, False, iops=200))
    await vm.detach_disk("data")


async def test_limits_are_changed_while_it_runs_and_not_after_its_end(bench: Bench, kept: Path) -> None:
    vm = await clone(bench, await template(bench, kept))
    await vm.set_limits(HostLimits(cpu_millis=500, cpu_weight=50, memory_mib=512, oom_score=300))
    await vm.resume()
    await vm.set_limits(HostLimits())
    assert await bench.echo(vm, "hello") == "hello"
    await vm.kill()
    for call in (vm.set_limits(HostLimits()), vm.attach_disk(SLOTS[0]), vm.detach_disk("data")):
        with pytest.raises(ConflictError, match="has ended"):
            await call
