"""Whose pod is looked at next: one namespace with thousands that wait does not stand before another's one."""

from __future__ import annotations

from typing import Any

from cuboid.scheduler.queue import SchedulingQueue


def pod(namespace: str, number: int, priority: int = 0) -> dict[str, Any]:
    created = f"2026-01-01T00:{number // 60:02}:{number % 60:02}Z"
    name = f"{namespace}-{number}"
    metadata = {"name": name, "namespace": namespace, "uid": name, "creationTimestamp": created}
    return {"metadata": metadata, "spec": {"priority": priority}}


def taken(queue: SchedulingQueue, count: int) -> list[str]:
    return [found["metadata"]["name"] for _ in range(count) if (found := queue.next(0.0)) is not None]


def test_a_pod_does_not_wait_for_thousands_of_another_namespace() -> None:
    queue = SchedulingQueue()
    for number in range(2_000):
        queue.put(pod("many", number))
    assert taken(queue, 500) == [f"many-{number}" for number in range(500)], "in a namespace the oldest first"
    queue.put(pod("one", 3_000))
    assert "one-3000" in taken(queue, 2)


def test_namespaces_that_wait_are_looked_at_in_turn_and_nothing_is_saved_up() -> None:
    queue = SchedulingQueue()
    for number in range(100):
        queue.put(pod("a", number))
    taken(queue, 50)
    for number in range(100):
        queue.put(pod("b", 200 + number))
    order = taken(queue, 20)
    assert sum(name.startswith("a-") for name in order) == sum(name.startswith("b-") for name in order) == 10
    assert len(taken(queue, 1_000)) == 130 and queue.next(0.0) is None


def test_priority_comes_before_turns_and_what_has_gone_is_left_out() -> None:
    queue = SchedulingQueue()
    for number in range(3):
        queue.put(pod("a", number, priority=7))
    queue.put(pod("b", 0))
    queue.remove("a-1")
    assert taken(queue, 9) == ["a-0", "a-2", "b-0"]


def test_a_tenant_gets_no_more_turns_by_having_more_namespaces() -> None:
    queue = SchedulingQueue()
    for number in range(100):
        queue.put(pod(f"many-{number}", number), "tenant:greedy")
        queue.put(pod("one", 200 + number), "tenant:modest")
    order = taken(queue, 20)
    assert sum(name.startswith("one-") for name in order) == 10
