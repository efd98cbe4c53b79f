"""Who is served next: shares, bounds, and seats that are not lost."""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from cuboid.lib.errors import ExhaustedError
from cuboid.server import fairness
from cuboid.server.fairness import Fairness, Flow, Level, Shares
from cuboid.server.flows import LARGE, length

A, B = Flow("a"), Flow("b")


@asynccontextmanager
async def full(level: Level, seats: int) -> AsyncIterator[None]:
    """All seats are taken by somebody else."""
    for _ in range(seats):
        await level.enter(Flow("before"))
    yield
    for _ in range(seats):
        level.leave()


async def served(level: Level, asked: list[tuple[Flow, float]], count: int) -> list[str]:
    """The order in which the first `count` of those who wait get the one seat."""
    order: list[str] = []

    async def one(flow: Flow, width: float) -> None:
        await level.enter(flow, width)
        order.append(flow.name)

    await level.enter(Flow("before"))
    tasks = [asyncio.create_task(one(*row)) for row in asked]
    await asyncio.sleep(0)
    for _ in range(count):
        level.leave()
        await asyncio.sleep(0)
    for task in tasks:
        task.cancel()
    await asyncio.gather(*tasks, return_exceptions=True)
    return order


async def test_one_request_of_another_is_served_next_however_many_wait() -> None:
    order = await served(Level(1), [(A, 1.0)] * 200 + [(B, 1.0)], 5)
    assert "b" in order[:2]


async def test_shares_follow_weights() -> None:
    heavy = Flow("heavy", weight=3.0)
    order = await served(Level(1), [(A, 1.0)] * 100 + [(heavy, 1.0)] * 100, 80)
    count = Counter(order)
    assert 55 <= count["heavy"] <= 65


async def test_a_wide_request_costs_its_flow_its_next_turns() -> None:
    order = await served(Level(1), [(A, 10.0)] * 20 + [(B, 1.0)] * 100, 55)
    assert Counter(order)["a"] in (5, 6)


async def test_who_was_idle_has_saved_nothing_up() -> None:
    level = Level(1)
    for _ in range(50):  # a is busy alone
        await level.enter(A)
        level.leave()
    order = await served(level, [(A, 1.0)] * 50 + [(B, 1.0)] * 50, 40)
    assert 15 <= Counter(order)["b"] <= 25


async def test_too_many_of_one_flow_are_refused_and_others_still_wait(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(fairness, "WAITING", 3)
    level = Level(1)
    async with full(level, 1):
        waiting = [asyncio.create_task(level.enter(A)) for _ in range(3)]
        await asyncio.sleep(0)
        with pytest.raises(ExhaustedError) as refused:
            await level.enter(A)
        assert refused.value.details["retryAfterSeconds"] == 1
        other = asyncio.create_task(level.enter(B))
        await asyncio.sleep(0)
        assert level.waiting == 4
        for task in (*waiting, other):
            task.cancel()
        await asyncio.gather(*waiting, other, return_exceptions=True)
    assert level.waiting == 0


async def test_a_wait_has_an_end(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(fairness, "WAIT_SECONDS", 0.02)
    level = Level(1)
    async with full(level, 1):
        with pytest.raises(ExhaustedError):
            await asyncio.wait_for(level.enter(A), 5)
    await asyncio.wait_for(level.enter(A), 1)


async def test_a_seat_given_to_who_has_gone_is_passed_on() -> None:
    level = Level(1)
    await level.enter(A)
    gone = asyncio.create_task(level.enter(A))
    next_one = asyncio.create_task(level.enter(B))
    await asyncio.sleep(0)
    level.leave()  # the turn is `gone`'s, which is cancelled before it knows
    gone.cancel()
    await asyncio.gather(gone, return_exceptions=True)
    await asyncio.wait_for(next_one, 1)


async def test_the_system_has_seats_of_its_own() -> None:
    fair = Fairness(2)
    taken = [await fair.seat(A), await fair.seat(A)]
    seat = await asyncio.wait_for(fair.seat(Flow("system:node:n", system=True)), 1)
    for one in (*taken, seat):
        one.give_back()
        one.give_back()  # a second time is nothing
    assert await asyncio.wait_for(fair.seat(A), 1)


steps = st.lists(st.tuples(st.sampled_from("abc"), st.sampled_from(["enter", "leave", "cancel"])), max_size=60)


@settings(max_examples=80, deadline=None)
@given(steps, st.integers(1, 3))
async def test_no_seat_is_lost_or_given_twice(steps: list[tuple[str, str]], seats: int) -> None:
    level = Level(seats)
    inside: list[str] = []
    waiting: list[asyncio.Task[None]] = []

    async def one(name: str) -> None:
        await level.enter(Flow(name))
        inside.append(name)

    for name, step in steps:
        if step == "enter":
            waiting.append(asyncio.create_task(one(name)))
        elif step == "leave" and inside:
            inside.pop()
            level.leave()
        elif step == "cancel" and waiting:
            waiting.pop(0).cancel()
        if name != "b":  # sometimes several things happen in one turn of the loop
            await asyncio.sleep(0)
        assert len(inside) <= seats
    for task in waiting:
        task.cancel()
    await asyncio.gather(*waiting, return_exceptions=True)
    while inside:
        inside.pop()
        level.leave()
    for _ in range(seats):
        await asyncio.wait_for(level.enter(A), 1)
    assert level.waiting == 0


def test_many_flows_together_take_nothing_of_the_systems() -> None:
    """Four tenants that sent bodies slowly had all bytes, and no node could renew its lease."""
    shares = Shares(each=25, total=100)
    for number in range(4):
        shares.take(Flow(f"tenant:{number}"), 25)
    with pytest.raises(ExhaustedError):
        shares.take(Flow("tenant:5"))
    system = Flow("system:node:n", system=True)
    shares.take(system, 50)
    with pytest.raises(ExhaustedError):
        shares.take(system)
    shares.give_back(system, 50)
    shares.take(system, 50)


def test_a_flow_gets_its_share_and_the_system_a_part_of_its_own() -> None:
    shares = Shares(each=2, total=3)
    shares.take(A, 2)
    with pytest.raises(ExhaustedError):
        shares.take(A)
    system = Flow("system:node:n", system=True)
    shares.take(system)
    with pytest.raises(ExhaustedError):
        shares.take(system)
    shares.give_back(A, 2)
    shares.take(B, 2)


def test_a_large_body_counts_for_many_requests() -> None:
    assert length({"headers": [(b"content-length", b"3000000")]}) == 3_000_000
    assert length({"headers": [(b"transfer-encoding", b"chunked")]}) > LARGE
    assert length({"headers": [(b"content-length", b"-1")]}) == length({"headers": []}) == 0
