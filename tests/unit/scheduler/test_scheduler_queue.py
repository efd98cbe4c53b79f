"""The scheduler's queue: order, rest after a failure, and being stirred."""

from __future__ import annotations

from typing import Any

from cuboid.scheduler.queue import FORGOTTEN, MAX_BACKOFF, SchedulingQueue


def pod(name: str, priority: int = 0, created: str = "2026-01-01T00:00:00Z") -> dict[str, Any]:
    return {"metadata": {"name": name, "uid": name, "creationTimestamp": created}, "spec": {"priority": priority}}


def names(queue: SchedulingQueue, now: float) -> list[str]:
    found = []
    while (item := queue.next(now)) is not None:
        found.append(item["metadata"]["name"])
    return found


def test_importance_comes_before_age() -> None:
    queue = SchedulingQueue()
    queue.put(pod("young", created="2026-01-02T00:00:00Z"))
    queue.put(pod("old"))
    queue.put(pod("boss", 5, created="2026-01-03T00:00:00Z"))
    assert names(queue, 0.0) == ["boss", "old", "young"]


def test_a_pod_that_fits_nowhere_rests_until_something_changes() -> None:
    queue = SchedulingQueue()
    queue.put(pod("p"))
    assert names(queue, 0.0) == ["p"]
    queue.rest("p", 0.0)
    assert names(queue, 100.0) == []
    queue.stir(100.0)
    assert names(queue, 100.0) == ["p"]


def test_its_pause_is_kept_even_when_stirred_and_grows() -> None:
    queue = SchedulingQueue()
    queue.put(pod("p"))
    pauses = []
    now = 0.0
    for _ in range(6):
        assert names(queue, now) == ["p"]
        queue.rest("p", now)
        queue.stir(now)
        due = queue.due()
        assert due is not None
        pauses.append(due - now)
        assert names(queue, due - 0.01) == []
        now = due
    assert pauses == [1.0, 2.0, 4.0, 8.0, MAX_BACKOFF, MAX_BACKOFF]


def test_nothing_is_forgotten_for_ever() -> None:
    queue = SchedulingQueue()
    queue.put(pod("p"))
    names(queue, 0.0)
    queue.rest("p", 0.0)
    assert names(queue, FORGOTTEN - 1) == []
    assert names(queue, FORGOTTEN) == ["p"]


def test_a_change_of_the_pod_itself_ends_its_rest() -> None:
    queue = SchedulingQueue()
    queue.put(pod("p"))
    names(queue, 0.0)
    queue.rest("p", 0.0)
    queue.changed("p", 0.1)
    assert names(queue, 0.1) == ["p"]


def test_a_pod_that_is_gone_is_not_looked_at() -> None:
    queue = SchedulingQueue()
    queue.put(pod("p"))
    queue.put(pod("q"))
    queue.remove("p")
    assert names(queue, 0.0) == ["q"]
    queue.rest("p", 0.0)
    assert queue.due() is None
