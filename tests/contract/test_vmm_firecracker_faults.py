"""Firecracker's driver against a VMM that fails, at every step and in every way: one sentence, nothing left."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import pytest

from cuboid.lib.errors import ConflictError, CuboidError, DeadlineError, HostileError, UnavailableError
from cuboid.vmm.base import Disk, EndCause, State
from cuboid.vmm.firecracker.http import ApiRefusedError
from cuboid.vmm.firecracker.vm import FirecrackerVm
from tests.harness.firecracker.bench import FirecrackerBench
from tests.harness.firecracker.needs import needs_protocol

pytestmark = [needs_protocol]

SLOT = Disk("data", None, False)


@asynccontextmanager
async def usable(**settings: float) -> AsyncIterator[FirecrackerBench]:
    """A bench whose host has been found fit, before anything fails."""
    bench = FirecrackerBench(**settings)
    try:
        assert (await bench.driver.probe()).usable
        yield bench
    finally:
        await bench.close()


@pytest.fixture
async def bench() -> AsyncIterator[FirecrackerBench]:
    async with usable(call_seconds=1.0, create_seconds=6.0, memory_seconds=2.0) as made:
        yield made


def disk(folder: Path, text: bytes = b"data") -> Disk:
    (folder / "data.img").write_bytes(text.ljust(4096, b"\0"))
    return Disk("data", folder / "data.img", False)


FAULTS: list[tuple[str, type[CuboidError]]] = [
    ("400", ApiRefusedError), ("500", ApiRefusedError), ("garbage", HostileError), ("oversized", HostileError),
    ("chunked", HostileError), ("cut", UnavailableError), ("silent", DeadlineError), ("slow:30", DeadlineError),
    ("die", UnavailableError),
]  # fmt: skip


@pytest.mark.parametrize(("fault", "kind"), FAULTS, ids=[fault for fault, _ in FAULTS])
async def test_a_request_that_fails_ends_the_making_and_leaves_nothing(
    bench: FirecrackerBench, fault: str, kind: type[CuboidError]
) -> None:
    bench.faults(**{"PUT_/machine-config": fault})
    with pytest.raises((kind, ConflictError)) as caught:
        await bench.driver.create(bench.spec())
    assert "\n" not in str(caught.value)
    assert await bench.driver.leftovers(set()) == []


STEPS = [
    "PUT_/logger", "PUT_/metrics", "PUT_/boot-source", "PUT_/drives/disk0",
    "PUT_/vsock", "PUT_/balloon", "PUT_/entropy",
]  # fmt: skip


@pytest.mark.parametrize("step", ["GET_/", *STEPS])
async def test_a_vmm_that_dies_at_any_step_of_its_making_leaves_nothing(bench: FirecrackerBench, step: str) -> None:
    bench.faults(**{step: "die"})
    with pytest.raises((UnavailableError, ConflictError)):
        await bench.driver.create(bench.spec(disks=(SLOT,)))
    assert await bench.driver.leftovers(set()) == []


@pytest.mark.parametrize("fault", ["malformed", "list", "garbage"])
async def test_a_vmm_that_does_not_say_what_it_is_is_not_used(bench: FirecrackerBench, fault: str) -> None:
    bench.faults(**{"GET_/": fault})
    with pytest.raises(HostileError):
        await bench.driver.create(bench.spec())
    assert await bench.driver.leftovers(set()) == []


async def test_a_vmm_that_ends_at_once_is_told_with_its_words(bench: FirecrackerBench) -> None:
    bench.faults(start="die")
    with pytest.raises(UnavailableError, match=r"RunWithApi\(on request\)"):
        await bench.driver.create(bench.spec())
    assert await bench.driver.leftovers(set()) == []


async def test_a_jailer_that_fails_is_told_with_its_words(bench: FirecrackerBench) -> None:
    bench.faults(jailer="fails")
    with pytest.raises(UnavailableError, match=r"jail cannot be made.*on request"):
        await bench.driver.create(bench.spec())
    assert await bench.driver.leftovers(set()) == []


async def test_a_jailer_that_hangs_is_ended_with_its_launcher() -> None:
    async with usable(create_seconds=3.0) as bench:
        bench.faults(jailer="hangs")
        with pytest.raises(DeadlineError, match="longer than 3 s"):
            await bench.driver.create(bench.spec())
        assert await bench.driver.leftovers(set()) == []


async def test_a_vmm_that_opens_no_socket_is_given_up_in_time() -> None:
    async with usable(create_seconds=3.0) as bench:
        bench.faults(start="deaf")
        with pytest.raises(DeadlineError, match="first answer"):
            await bench.driver.create(bench.spec())
        assert await bench.driver.leftovers(set()) == []


async def test_who_gives_up_waiting_for_a_vm_leaves_none_behind(bench: FirecrackerBench) -> None:
    bench.faults(**{"PUT_/entropy": "slow:30"})
    with pytest.raises(TimeoutError):
        async with asyncio.timeout(0.9):
            await bench.driver.create(bench.spec())
    assert await bench.driver.leftovers(set()) == []


@pytest.mark.parametrize(("fault", "kind"), [("400", ApiRefusedError), ("silent", DeadlineError)])
async def test_a_start_that_fails_leaves_a_vm_that_can_be_killed(
    bench: FirecrackerBench, fault: str, kind: type[CuboidError]
) -> None:
    bench.faults(**{"PUT_/actions": fault})
    vm = await bench.driver.create(bench.spec())
    with pytest.raises(kind):
        await vm.start()
    assert vm.state == State.CREATED
    await vm.kill()
    assert (await vm.wait()).cause == EndCause.KILLED


async def test_a_vmm_that_dies_of_a_command_is_told_as_ended(bench: FirecrackerBench) -> None:
    bench.faults(**{"PATCH_/vm": "die"})
    vm = await bench.running()
    with pytest.raises((ConflictError, UnavailableError)):
        await vm.pause()
    assert (await asyncio.wait_for(vm.wait(), 5)).cause == EndCause.VMM_DIED
    with pytest.raises(ConflictError, match="ended"):
        await vm.resume()


@pytest.mark.parametrize("fault", ["400", "cut", "silent"])
async def test_a_disk_that_is_refused_leaves_its_slot_empty(
    bench: FirecrackerBench, tmp_path: Path, fault: str
) -> None:
    bench.faults(**{"PATCH_/drives/disk0": fault})
    vm = await bench.running(disks=(SLOT,))
    assert isinstance(vm, FirecrackerVm)
    for _ in range(2):
        with pytest.raises((ApiRefusedError, UnavailableError, DeadlineError)):
            await vm.attach_disk(disk(tmp_path))
        assert "/disks/data" not in Path(f"/proc/{vm.pid}/mountinfo").read_text()


@pytest.mark.parametrize("fault", ["500", "silent", "die", "malformed"])
async def test_a_snapshot_that_fails_is_not_there(bench: FirecrackerBench, tmp_path: Path, fault: str) -> None:
    bench.faults(**{"PUT_/snapshot/create": fault})
    vm = await bench.running()
    assert isinstance(vm, FirecrackerVm)
    await vm.pause()
    attempt = vm.snapshot(tmp_path / "snapshot")
    if fault == "malformed":  # a success with a body that nobody asked for
        return await attempt
    with pytest.raises(CuboidError):
        await asyncio.wait_for(attempt, 20)
    assert list(tmp_path.iterdir()) == []
    if fault != "die":
        assert "/snapshot/" not in Path(f"/proc/{vm.pid}/mountinfo").read_text()
        await vm.resume()
        assert await bench.echo(vm, "hello") == "hello"
    return None


async def snapshot(bench: FirecrackerBench, folder: Path) -> Path:
    vm = await bench.running(id="source", disks=(SLOT,))
    await vm.pause()
    await vm.snapshot(folder / "snapshot")
    await vm.kill()
    return folder / "snapshot"


@pytest.mark.parametrize("fault", ["400", "die", "silent", "garbage"])
async def test_a_restore_that_fails_leaves_nothing(bench: FirecrackerBench, tmp_path: Path, fault: str) -> None:
    folder = await snapshot(bench, tmp_path)
    bench.faults(**{"PUT_/snapshot/load": fault})
    with pytest.raises(CuboidError) as caught:
        await asyncio.wait_for(bench.driver.restore(bench.spec(disks=(SLOT,)), folder), 20)
    if fault == "400":
        assert caught.value.reason == "SnapshotIncompatible"
    assert await bench.driver.leftovers(set()) == []


async def test_a_vmm_that_is_killed_while_it_saves_leaves_no_half_snapshot(
    bench: FirecrackerBench, tmp_path: Path
) -> None:
    bench.faults(**{"PUT_/snapshot/create": "slow:30"})
    vm = await bench.running()
    await vm.pause()
    saving = asyncio.create_task(vm.snapshot(tmp_path / "snapshot"))
    while not list(tmp_path.iterdir()):
        await asyncio.sleep(0.01)
    await vm.kill()
    with pytest.raises(CuboidError):
        await asyncio.wait_for(saving, 10)
    assert list(tmp_path.iterdir()) == []


async def test_a_snapshot_that_a_crash_interrupted_is_removed_and_its_vm_goes_on(
    bench: FirecrackerBench, tmp_path: Path
) -> None:
    vm = await bench.running()
    await vm.pause()
    draft = tmp_path / ".snapshot.vm-1.partial"
    draft.mkdir()
    (draft / "memory.raw").write_bytes(b"half")
    (bench.folder / "run/vmm/vm-1/draft").symlink_to(draft)
    await bench.restart()
    again = await bench.driver.recover(vm.handle())
    assert again is not None
    assert not draft.exists()
    await again.snapshot(tmp_path / "snapshot")
    await again.resume()
    assert await bench.echo(again, "hello") == "hello"


async def test_a_vsock_that_answers_wrongly_is_hostile_and_the_vm_goes_on(bench: FirecrackerBench) -> None:
    bench.faults(vsock="garbage")
    vm = await bench.running()
    assert isinstance(vm, FirecrackerVm)
    with pytest.raises(HostileError, match="vsock"):
        await vm.open_channel()
    assert vm.state == State.RUNNING


async def test_a_vmm_that_does_not_answer_after_a_restart_is_ended(bench: FirecrackerBench) -> None:
    vm = await bench.running()
    socket = Path(f"/proc/{vm.handle()['pid']}/root/run/api.sock")
    socket.unlink()
    await bench.restart()
    assert await bench.driver.recover(vm.handle()) is None
    assert await bench.driver.leftovers(set()) == []


CYCLES = 5


async def test_cycles_leave_neither_files_nor_descriptors(bench: FirecrackerBench, tmp_path: Path) -> None:
    folder = await snapshot(bench, tmp_path)
    before = len(list(Path("/proc/self/fd").iterdir()))
    for number in range(CYCLES):
        vm = await bench.driver.restore(bench.spec(id=f"clone-{number}", disks=(SLOT,)), folder)
        await vm.resume()
        await vm.attach_disk(disk(tmp_path))
        assert await bench.echo(vm, "disks") == "disk0=data"
        await vm.kill()
        assert await bench.driver.leftovers(set()) == []
    assert len(list(Path("/proc/self/fd").iterdir())) <= before + 1  # an event loop may keep one for itself
