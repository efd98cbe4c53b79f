"""One suite for every VMM driver (what it needs from outside the contract: tests/harness/vmm_bench.py). Snapshots and
disks that come late: test_vmm_snapshots.py."""

from __future__ import annotations

import asyncio
import os
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest

from cuboid.lib.errors import (
    AlreadyExistsError,
    ConflictError,
    InvalidError,
    NotFoundError,
    UnavailableError,
    UnsupportedError,
)
from cuboid.vmm.base import Boot, Disk, EndCause, HostLimits, Nic, State, Vm
from tests.harness.vmm_bench import DRIVERS, Bench, opened

END_SECONDS = 0.5  # the contract's bound on noticing an end


@pytest.fixture(params=DRIVERS)
async def bench(request: pytest.FixtureRequest, tmp_path: Path) -> AsyncIterator[Bench]:
    async with opened(request.param, tmp_path) as made:
        yield made


async def ended_soon(vm: Vm, seconds: float = END_SECONDS) -> EndCause:
    return (await asyncio.wait_for(vm.wait(), seconds)).cause


async def test_probe_says_which_accelerator_works_and_why(bench: Bench) -> None:
    probe = await bench.driver.probe()
    assert probe.usable
    assert probe.reason
    assert bench.driver.capabilities().accel == probe.accel


async def test_a_vm_runs_pauses_resumes_and_answers_again(bench: Bench) -> None:
    vm = await bench.running()
    states = [vm.state]
    await vm.pause()
    states.append(vm.state)
    await vm.resume()
    states.append(vm.state)
    assert states == [State.RUNNING, State.PAUSED, State.RUNNING]
    assert await bench.echo(vm, "hello") == "hello"


async def test_the_channel_can_be_connected_to_again_and_again(bench: Bench) -> None:
    vm = await bench.running()
    assert [await bench.echo(vm, word) for word in ("one", "two", "three")] == ["one", "two", "three"]


async def test_a_vm_opens_its_own_channel_and_not_after_its_end(bench: Bench) -> None:
    vm = await bench.running()
    with await vm.open_channel() as connection:
        assert connection.getblocking() is False
    await vm.kill()
    with pytest.raises(UnavailableError):
        await vm.open_channel()


async def test_commands_can_be_repeated(bench: Bench) -> None:
    vm = await bench.driver.create(bench.spec())
    await vm.start()
    await vm.start()
    await vm.pause()
    await vm.pause()
    await vm.resume()
    await vm.resume()
    await vm.kill()
    await vm.kill()
    assert vm.state == State.ENDED


async def test_a_vm_is_created_without_running(bench: Bench) -> None:
    vm = await bench.driver.create(bench.spec())
    assert vm.state == State.CREATED
    with pytest.raises(ConflictError, match="cannot become paused"):
        await vm.pause()
    with pytest.raises(ConflictError, match="cannot become running"):
        await vm.resume()


async def test_an_ended_vm_obeys_nothing(bench: Bench) -> None:
    vm = await bench.driver.create(bench.spec())
    await vm.kill()
    for command in (vm.start, vm.pause, vm.resume, vm.stats):
        with pytest.raises(ConflictError):
            await command()


async def test_kill_ends_a_vm_and_says_so(bench: Bench) -> None:
    vm = await bench.driver.create(bench.spec())
    await vm.start()
    await vm.kill()
    assert await ended_soon(vm) == EndCause.KILLED
    assert await bench.driver.leftovers(set()) == []


async def test_a_guest_that_turns_itself_off_is_reported_as_such(bench: Bench) -> None:
    vm = await bench.running()
    await bench.power_off(vm)
    assert await ended_soon(vm, 10) == EndCause.POWEROFF
    assert await bench.driver.leftovers(set()) == []


async def test_a_panic_is_reported_with_the_consoles_last_words(bench: Bench) -> None:
    vm = await bench.running()
    await bench.panic(vm)
    ended = await asyncio.wait_for(vm.wait(), 10)
    assert ended.cause == EndCause.PANIC
    assert "Kernel panic" in ended.detail
    assert await bench.driver.leftovers(set()) == []


async def test_a_vmm_that_dies_is_noticed_at_once_and_leaves_nothing(bench: Bench) -> None:
    vm = await bench.driver.create(bench.spec())
    await vm.start()
    await bench.kill_vmm(vm)
    assert await ended_soon(vm) == EndCause.VMM_DIED
    assert vm.state == State.ENDED
    assert await bench.driver.leftovers(set()) == []


async def test_a_running_vm_is_found_again_by_its_handle(bench: Bench) -> None:
    vm = await bench.running()
    assert await bench.echo(vm, "before") == "before"
    handle = vm.handle()
    await bench.restart()
    again = await bench.driver.recover(handle)
    assert again is not None
    assert (again.id, again.state, again.handle()) == (vm.id, State.RUNNING, handle)
    assert await bench.echo(again, "after") == "after"
    await again.kill()


async def test_a_created_and_a_paused_vm_are_found_in_their_states(bench: Bench) -> None:
    vm = await bench.driver.create(bench.spec())
    await bench.restart()
    created = await bench.driver.recover(vm.handle())
    assert created is not None
    assert created.state == State.CREATED
    await created.start()
    await created.pause()
    await bench.restart()
    paused = await bench.driver.recover(vm.handle())
    assert paused is not None
    assert paused.state == State.PAUSED


async def test_a_vm_that_is_gone_is_not_recovered_and_leaves_nothing(bench: Bench) -> None:
    vm = await bench.driver.create(bench.spec())
    handle = vm.handle()
    await vm.kill()
    await bench.restart()
    assert await bench.driver.recover(handle) is None
    assert await bench.driver.leftovers(set()) == []


async def test_a_handle_with_anothers_pid_is_not_recovered(bench: Bench) -> None:
    vm = await bench.driver.create(bench.spec())
    handle = vm.handle() | {"pid": os.getpid()}
    await bench.restart()
    assert await bench.driver.recover(handle) is None
    assert await bench.driver.leftovers(set()) == []


@pytest.mark.parametrize(
    "handle", [{}, {"id": "x"}, {"id": "x", "pid": "many", "started": 1}, {"id": "../x", "pid": 1, "started": 1}]
)
async def test_a_broken_handle_is_refused(bench: Bench, handle: dict[str, Any]) -> None:
    with pytest.raises(InvalidError):
        await bench.driver.recover(handle)


async def test_leftovers_are_those_not_known_and_clean_removes_them(bench: Bench) -> None:
    first = await bench.driver.create(bench.spec(id="vm-1"))
    await bench.driver.create(bench.spec(id="vm-2"))
    await bench.restart()
    assert await bench.driver.leftovers({first.id}) == ["vm-2"]
    for _ in range(2):
        await bench.driver.clean("vm-2")
        await bench.driver.clean("vm-1")
    assert await bench.driver.leftovers(set()) == []


async def test_an_id_is_taken_once(bench: Bench) -> None:
    first = await bench.driver.create(bench.spec())
    with pytest.raises(AlreadyExistsError, match="vm-1"):
        await bench.driver.create(bench.spec())
    assert first.state == State.CREATED
    await first.start()


async def test_many_vms_live_side_by_side(bench: Bench) -> None:
    vms = [await bench.driver.create(bench.spec(id=f"vm-{number}")) for number in range(3)]
    assert len({str(vm.channel_path) for vm in vms}) == 3
    await vms[1].kill()
    assert [vm.state for vm in vms] == [State.CREATED, State.ENDED, State.CREATED]


async def test_stats_count_what_the_vmm_uses(bench: Bench) -> None:
    vm = await bench.driver.create(bench.spec())
    stats = await vm.stats()
    assert stats.cpu_seconds >= 0
    assert stats.memory_bytes >= stats.anonymous_bytes > 0


async def test_a_missing_file_is_named_and_leaves_nothing(bench: Bench, tmp_path: Path) -> None:
    missing = tmp_path / "no-such-disk"
    with pytest.raises(NotFoundError, match="no-such-disk"):
        await bench.driver.create(bench.spec(disks=(Disk("data", missing, False),)))
    good = bench.spec().boot
    with pytest.raises(NotFoundError, match="no-such-kernel"):
        await bench.driver.create(bench.spec(boot=Boot(tmp_path / "no-such-kernel", good.initramfs)))
    with pytest.raises(NotFoundError, match="no-such-initramfs"):
        await bench.driver.create(bench.spec(boot=Boot(good.kernel, tmp_path / "no-such-initramfs")))
    assert await bench.driver.leftovers(set()) == []


async def test_too_little_memory_is_refused_with_the_minimum(bench: Bench) -> None:
    least = bench.driver.capabilities().min_memory_mib
    with pytest.raises(InvalidError, match=f"minimum is {least} MiB"):
        await bench.driver.create(bench.spec(memory_mib=least - 1))


@pytest.mark.parametrize(
    "changes",
    [
        {"vcpus": 0},
        {"vcpus": 1000},
        {"nics": (Nic("tap0", "02:00:00:00:00:01"),)},
        {"disks": (Disk("has space", Path("/dev/null"), True),)},
        {"disks": (Disk("a" * 21, Path("/dev/null"), True),)},
        {"disks": (Disk("same", Path("/dev/null"), True), Disk("same", Path("/dev/null"), True))},
        {"limits": HostLimits(memory_mib=64)},
    ],
)
async def test_a_vm_that_cannot_be_meant_is_refused(bench: Bench, changes: dict[str, Any]) -> None:
    await bench.driver.probe()
    with pytest.raises(InvalidError):
        await bench.driver.create(bench.spec(**changes))
    assert await bench.driver.leftovers(set()) == []


async def test_what_a_driver_cannot_do_it_refuses(bench: Bench, tmp_path: Path) -> None:
    vm = await bench.driver.create(bench.spec())
    capabilities = bench.driver.capabilities()
    if not capabilities.hotplug_disk:
        with pytest.raises((UnsupportedError, NotFoundError), match="late"):
            await vm.attach_disk(Disk("late", tmp_path / "late", False))
        with pytest.raises((UnsupportedError, NotFoundError), match="late"):
            await vm.detach_disk("late")
    if not capabilities.snapshot:
        with pytest.raises(UnsupportedError):
            await vm.snapshot(tmp_path)
        with pytest.raises(UnsupportedError):
            await bench.driver.restore(bench.spec(id="vm-9"), tmp_path)
    if not capabilities.late_disks:
        with pytest.raises(InvalidError):
            await bench.driver.create(bench.spec(id="vm-9", disks=(Disk("late", None, False),)))
