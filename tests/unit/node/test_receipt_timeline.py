"""The receipt's phases add up, from the moment in which the API took the pod."""

from __future__ import annotations

import json
from typing import Any

from cuboid.lib.clock import ManualClock, rfc3339_micro
from cuboid.node.receipt import Timeline


def phases(timeline: Timeline) -> dict[str, tuple[float, float]]:
    rows: list[dict[str, Any]] = json.loads(timeline.receipt("qemu", "tcg"))["phases"]
    return {row["name"]: (row["offsetSeconds"], row["seconds"]) for row in rows}


def test_a_start_counts_from_its_admission() -> None:
    clock = ManualClock()
    timeline = Timeline(clock)
    timeline.began(rfc3339_micro(clock.now() - 0.5), rfc3339_micro(clock.now() - 0.2))
    with timeline.phase("image"):
        clock.advance(1.0)
    assert phases(timeline) == {"schedule": (0.0, 0.3), "watch": (0.3, 0.2), "image": (0.5, 1.0)}
    receipt = json.loads(timeline.receipt("qemu", "tcg"))
    assert receipt["totalSeconds"] == 1.5
    assert receipt["startedAt"] == rfc3339_micro(clock.now() - 1.5)


def test_times_that_cannot_be_are_left_out() -> None:
    for before, after in ((0.2, 0.5), (-5.0, -4.0), (9000.0, 1.0)):
        clock = ManualClock()
        timeline = Timeline(clock)
        timeline.began(rfc3339_micro(clock.now() - before), rfc3339_micro(clock.now() - after))
        assert phases(timeline) == {}
    timeline.began("", "yesterday")
    assert phases(timeline) == {}


def test_a_new_start_of_the_same_pod_begins_at_the_node() -> None:
    clock = ManualClock()
    timeline = Timeline(clock)
    timeline.began(rfc3339_micro(clock.now() - 1), rfc3339_micro(clock.now()))
    timeline.restart()
    assert phases(timeline) == {}


def test_a_phase_that_was_tried_twice_is_one_from_first_begin_to_last_end() -> None:
    clock = ManualClock()
    timeline = Timeline(clock)
    for _ in range(2):
        with timeline.phase("network"):
            clock.advance(1.0)
    assert phases(timeline) == {"network": (0.0, 2.0)}


def test_a_guest_s_own_share_of_a_phase_is_told_and_believed_within_bounds() -> None:
    timeline = Timeline(ManualClock())
    with timeline.phase("setup"):
        timeline.inside("setup", {"total": 20_000_000, "network": 5_000_000})
    with timeline.phase("container"):
        timeline.inside("container", {"spawn": 1_000_000, "mounts": 2_000_000})
    with timeline.phase("ready"):
        timeline.inside("ready", {"total": 10**18})
    rows = {row["name"]: row for row in json.loads(timeline.receipt("qemu", "tcg"))["phases"]}
    assert (rows["setup"]["guestSeconds"], rows["container"]["guestSeconds"]) == (0.02, 0.003)
    assert "guestSeconds" not in rows["ready"]
