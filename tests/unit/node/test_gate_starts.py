"""How many start at once: nobody waits behind a slower kind of start."""

from __future__ import annotations

import asyncio

import pytest

from cuboid.node.steps.gate import BootGate, Start


async def test_quick_starts_do_not_wait_behind_boots() -> None:
    gate = BootGate(1)
    await gate.enter(Start.BOOT)
    slot = await asyncio.wait_for(gate.enter(Start.QUICK), 1)
    slot.leave()


async def test_what_boots_with_arguments_of_its_own_holds_up_only_its_like() -> None:
    gate = BootGate(3)
    await gate.enter(Start.OWN)
    with pytest.raises(TimeoutError):
        await asyncio.wait_for(gate.enter(Start.OWN), 0.05)
    for _ in range(3):
        await asyncio.wait_for(gate.enter(Start.BOOT), 1)


async def test_it_is_quiet_when_nobody_is_inside_or_waits() -> None:
    gate = BootGate(1)
    slot = await gate.enter()
    waiter = asyncio.ensure_future(gate.enter())
    quiet = asyncio.ensure_future(gate.quiet())
    await asyncio.sleep(0.01)
    slot.leave()
    second = await waiter
    await asyncio.sleep(0.3)
    assert not quiet.done()
    second.leave()
    second.leave()
    await asyncio.wait_for(quiet, 2)


async def test_a_start_that_is_given_up_while_it_waits_keeps_no_slot() -> None:
    gate = BootGate(1)
    slot = await gate.enter()
    waiter = asyncio.ensure_future(gate.enter())
    await asyncio.sleep(0.01)
    waiter.cancel()
    await asyncio.wait([waiter])
    slot.leave()
    await asyncio.wait_for(gate.enter(), 1)
