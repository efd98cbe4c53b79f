"""How fast, and how far from now, a guest may speak."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as some

from cuboid.guest import agent_pb2 as pb
from cuboid.node.steps import guest_events
from cuboid.node.steps.guest_events import BURST, EVENTS_PER_SECOND, Pace


def test_a_guest_that_tells_little_never_waits() -> None:
    pace = Pace(0.0)
    assert [pace.delay(second / EVENTS_PER_SECOND) for second in range(1000)] == [0.0] * 1000


def test_a_flood_is_slowed_to_the_pace_of_events() -> None:
    pace, now = Pace(0.0), 0.0
    for _ in range(1000):
        now += pace.delay(now)
    assert abs(now - (1000 - BURST) / EVENTS_PER_SECOND) < 1


@given(some.integers(0, 2**63 - 1), some.integers(0, 2**63 - 1))
def test_a_container_found_in_a_guest_began_and_ended_in_our_time(started: int, finished: int) -> None:
    now = 1_700_000_000.0
    told = pb.ContainerState(name="app", started_unix_ns=started, exit=pb.ExitStatus(finished_unix_ns=finished))
    found = guest_events.found(told, now)
    assert all(moment <= now + guest_events.CLOCK_SKEW for moment in (found.started_at, found.finished_at))
