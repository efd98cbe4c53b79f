"""How many machines wait: what bursts, quiet times and bounds make of it."""

from __future__ import annotations

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from cuboid.node.warm.demand import HALF_LIFE_SECONDS, WINDOW_SECONDS, Demand, share


def test_nothing_waits_for_what_was_never_asked_for() -> None:
    assert Demand().wanted(0.0, floor=0, ceiling=9) == 0
    assert Demand().next_change(0.0) == math.inf


def test_the_floor_waits_without_any_start() -> None:
    assert Demand().wanted(0.0, floor=2, ceiling=9) == 2


def test_a_burst_is_served_whole_the_next_time() -> None:
    demand = Demand()
    for number in range(20):
        demand.taken(100.0 + number * 0.01, hit=number < 2)
    assert demand.wanted(101.0, floor=2, ceiling=32) == 21


def test_starts_far_apart_want_one_machine() -> None:
    demand = Demand()
    for number in range(50):
        demand.taken(number * (WINDOW_SECONDS + 1), hit=True)
        assert demand.wanted(number * (WINDOW_SECONDS + 1), floor=0, ceiling=32) == 1


def test_a_miss_wants_one_machine_more_than_was_taken() -> None:
    demand = Demand()
    demand.taken(0.0, hit=False)
    assert demand.wanted(0.0, floor=0, ceiling=32) == 2


def test_the_demand_halves_over_quiet_times_and_ends() -> None:
    demand = Demand()
    for _ in range(16):
        demand.taken(0.0, hit=True)
    assert demand.wanted(HALF_LIFE_SECONDS, floor=0, ceiling=32) == 8
    assert demand.wanted(HALF_LIFE_SECONDS * 4, floor=0, ceiling=32) == 1
    assert demand.wanted(HALF_LIFE_SECONDS * 6, floor=0, ceiling=32) == 0


def test_a_small_start_does_not_shorten_the_memory_of_a_burst() -> None:
    demand = Demand()
    for _ in range(16):
        demand.taken(0.0, hit=True)
    demand.taken(60.0, hit=True)
    assert demand.wanted(60.0, floor=0, ceiling=32) == 14


@given(st.lists(st.floats(0, 1000), max_size=40), st.floats(0, 5000))
def test_the_next_change_is_when_the_number_falls(times: list[float], later: float) -> None:
    demand = Demand()
    for time in sorted(times):
        demand.taken(time, hit=True)
    now = max(times, default=0.0) + later
    pause, wanted = demand.next_change(now), demand.wanted(now, floor=0, ceiling=99)
    if pause == math.inf:
        assert wanted == 0
    else:
        assert demand.wanted(now + pause, floor=0, ceiling=99) < wanted
        assert demand.wanted(now + pause * 0.9, floor=0, ceiling=99) >= wanted - 1


@pytest.mark.parametrize(
    ("wanted", "ceiling", "result"),
    [
        ({"a": 3, "b": 2}, 9, {"a": 3, "b": 2}),
        ({"a": 9, "b": 2}, 6, {"a": 4, "b": 2}),
        ({"a": 4, "b": 4}, 4, {"a": 2, "b": 2}),
        ({"a": 1, "b": 1}, 0, {"a": 0, "b": 0}),
        ({}, 0, {}),
    ],
)
def test_those_that_want_most_give_first(wanted: dict[str, int], ceiling: int, result: dict[str, int]) -> None:
    assert share(wanted, ceiling) == result
