"""The watch cache: who sees which event, resuming, falling behind, restarts."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from cuboid.kube import cache as cache_module
from cuboid.kube import watchers
from cuboid.kube.cache import Cache, Filter, Watcher, encode
from cuboid.kube.selectors import parse_labels
from cuboid.kube.store import Event, Key, Store, Write
from cuboid.lib.errors import DeadlineError, GoneError

PODS = ("", "pods")


def fields_of(document: Mapping[str, Any]) -> dict[str, str]:
    return {"metadata.name": document["metadata"]["name"]}


@pytest.fixture
def store(tmp_path: Path) -> Iterator[Store]:
    opened = Store(tmp_path / "store.db")
    yield opened
    opened.close()


def event(kind: str, name: str, rv: int, **labels: str) -> Event:
    value = encode({"kind": "Pod", "metadata": {"name": name, "namespace": "d", "labels": labels}})
    return Event(kind, Key("", "pods", "d", name), rv, value)


async def seen(watcher: Watcher) -> list[tuple[str, int]]:
    return [(kind, change.rv) for kind, change in await watcher.take(0.01)]


async def test_a_watcher_sees_an_object_enter_and_leave_its_selection(store: Store) -> None:
    pods = Cache(store, {PODS: fields_of})[PODS]
    watcher = pods.watch(Filter(labels=parse_labels("a=1")), 0)
    for change in (
        event("ADDED", "x", 1),
        event("MODIFIED", "x", 2, a="1"),
        event("MODIFIED", "x", 3, a="1", b="2"),
        event("MODIFIED", "x", 4),
        event("DELETED", "x", 5),
    ):
        pods.apply(change)
    assert await seen(watcher) == [("ADDED", 2), ("MODIFIED", 3), ("DELETED", 4)]


async def test_a_watch_resumes_after_the_version_it_names(store: Store) -> None:
    pods = Cache(store, {PODS: fields_of})[PODS]
    for rv in range(1, 5):
        pods.apply(event("ADDED", f"p{rv}", rv))
    assert await seen(pods.watch(Filter(), 2)) == [("ADDED", 3), ("ADDED", 4)]


async def test_a_version_out_of_the_window_is_gone(store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(cache_module, "WINDOW", 3)
    pods = Cache(store, {PODS: fields_of})[PODS]
    for rv in range(1, 6):
        pods.apply(event("ADDED", f"p{rv}", rv))
    with pytest.raises(GoneError):
        pods.watch(Filter(), 1)
    assert len(await seen(pods.watch(Filter(), 2))) == 3


async def test_a_slow_watcher_is_cut_off_and_others_are_not(store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(watchers, "BACKLOG", 2)
    pods = Cache(store, {PODS: fields_of})[PODS]
    slow, quick = pods.watch(Filter(), 0), pods.watch(Filter(), 0)
    for rv in range(1, 5):
        pods.apply(event("ADDED", f"p{rv}", rv))
        assert len(await seen(quick)) == 1
    with pytest.raises(DeadlineError):
        await slow.take(0.01)


async def test_an_event_is_encoded_once_for_all_clients_of_a_selection(store: Store) -> None:
    pods = Cache(store, {PODS: fields_of})[PODS]
    first, second = pods.join(Filter(), 0), pods.join(Filter(), 0)
    pods.apply(event("ADDED", "x", 1))
    one, two = await first.take(1), await second.take(1)
    assert one is not None and one is two
    line = one.rendered("as it is", lambda changes: b"".join(change.line(kind) for kind, change in changes))
    assert b'"resourceVersion":"1"' in line
    assert two.rendered("as it is", lambda _: b"again") is line


async def test_take_waits_and_can_be_woken(store: Store) -> None:
    cache = Cache(store, {PODS: fields_of})
    watcher = cache[PODS].watch(Filter(), 0)
    taking = asyncio.create_task(watcher.take(30))
    await asyncio.sleep(0)
    cache.wake()
    assert await asyncio.wait_for(taking, 1) == []


async def test_a_cache_made_anew_lets_watches_resume(tmp_path: Path) -> None:
    first = Store(tmp_path / "store.db")
    Cache(first, {PODS: fields_of})
    for change in (event("ADDED", "a", 1), event("ADDED", "b", 2)):
        await first.commit(Write(change.key, change.value, 0))
    await first.commit(Write(Key("", "pods", "d", "a"), None, 1, event("DELETED", "a", 3).value))
    first.close()
    second = Store(tmp_path / "store.db")
    pods = Cache(second, {PODS: fields_of})[PODS]
    assert [entry.key.name for entry in pods.select(Filter())] == ["b"]
    assert await seen(pods.watch(Filter(), 1)) == [("ADDED", 2), ("DELETED", 3)]
    second.close()


steps = st.lists(st.tuples(st.sampled_from("xyz"), st.sampled_from(["", "1", "2", "gone"])), max_size=40)


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], max_examples=60, deadline=None)
@given(steps, st.integers(0, 40))
async def test_what_a_watcher_believes_is_what_a_list_shows(
    store: Store, steps: list[tuple[str, str]], since: int
) -> None:
    """From any version on, with a selector: replaying events over the list of then gives the list of now."""
    wanted = Filter(labels=parse_labels("a=1"))
    pods = Cache(store, {PODS: fields_of})[PODS]
    believed: set[str] = set()
    rv = 0
    for name, label in steps:
        exists = pods.get("d", name) is not None
        if label == "gone" and not exists:
            continue
        kind = "DELETED" if label == "gone" else "MODIFIED" if exists else "ADDED"
        rv += 1
        labels = {} if label in ("", "gone") else {"a": label}
        pods.apply(event(kind, name, rv, **labels))
        if rv == since:
            believed = {entry.key.name for entry in pods.select(wanted)}
    if since > rv:
        return
    for kind, change in await pods.watch(wanted, since).take(0.01):
        believed = believed - {change.entry.key.name} if kind == "DELETED" else believed | {change.entry.key.name}
    assert believed == {entry.key.name for entry in pods.select(wanted)}
