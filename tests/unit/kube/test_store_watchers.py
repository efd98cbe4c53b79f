"""Clients that share a feed: batches, bounds for each and in sum, and what is promised by a bookmark."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest

from cuboid.kube import watchers
from cuboid.kube.cache import Batch, Cache, Client, Filter, ResourceCache, stored
from cuboid.kube.entry import Entry
from cuboid.kube.selectors import Requirement, parse_labels
from cuboid.kube.store import Event, Key, Store
from cuboid.lib.errors import DeadlineError, GoneError, InvalidError

PODS = ("", "pods")


def fields_of(document: Mapping[str, Any]) -> dict[str, str]:
    return {"metadata.name": document["metadata"]["name"]}


@pytest.fixture
def pods(tmp_path: Path) -> Any:
    store = Store(tmp_path / "store.db")
    yield Cache(store, {PODS: fields_of})[PODS]
    store.close()


def event(rv: int, name: str = "", namespace: str = "d", size: int = 10, kind: str = "ADDED") -> Event:
    name = name or f"p{rv}"
    document = {"kind": "Pod", "metadata": {"name": name, "namespace": namespace}, "spec": {"x": "y" * size}}
    return Event(kind, Key("", "pods", namespace, name), rv, stored(document))


async def versions(client: Client) -> list[int]:
    found: list[int] = []
    while (batch := await client.take(0.05)) is not None:
        found += [change.rv for _, change in batch.changes]
    return found


async def test_what_comes_in_one_moment_goes_out_together(pods: ResourceCache) -> None:
    client = pods.join(Filter(), 0)
    for rv in range(1, 11):
        pods.apply(event(rv))
    batch = await client.take(1)
    assert batch is not None and [change.rv for _, change in batch.changes] == list(range(1, 11))


async def test_large_events_are_not_gathered_into_one_large_write(pods: ResourceCache) -> None:
    client = pods.join(Filter(), 0)
    for rv in range(1, 11):
        pods.apply(event(rv, size=watchers.BATCH_BYTES // 2))
    batch = await client.take(1)
    assert batch is not None and len(batch.changes) == 2
    assert await versions(client) == list(range(3, 11))


async def test_a_newcomer_gets_everything_once(pods: ResourceCache) -> None:
    """Also what its feed has gathered and not yet handed out."""
    first = pods.join(Filter(), 0)
    pods.apply(event(1))
    pods.apply(event(2))
    second = pods.join(Filter(), 1)
    pods.apply(event(3))
    assert await versions(second) == [2, 3]
    assert await versions(first) == [1, 2, 3]


async def test_many_clients_get_all_in_order_while_events_go_on_coming(
    pods: ResourceCache, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(watchers, "SLICE", 3)
    monkeypatch.setattr(watchers, "PAUSE", 0.0)
    clients = [pods.join(Filter(), 0) for _ in range(20)]
    for rv in range(1, 60):
        pods.apply(event(rv))
        await asyncio.sleep(0)
    for client in clients:
        assert await versions(client) == list(range(1, 60))


@pytest.mark.parametrize(
    ("wanted", "sees"),
    [
        (Filter(), [1, 2, 3]),
        (Filter("d"), [1, 3]),
        (Filter("e"), [2]),
        (Filter("", (), (Requirement("metadata.name", "=", frozenset({"b"})),)), [2, 3]),
        (Filter("d", (), (Requirement("metadata.name", "=", frozenset({"b"})),)), [3]),
        (Filter("", (), (Requirement("metadata.name", "!=", frozenset({"b"})),)), [1]),
        (Filter("d", parse_labels("a=1")), []),
    ],
)
async def test_an_event_reaches_those_it_concerns(pods: ResourceCache, wanted: Filter, sees: list[int]) -> None:
    client, watcher = pods.join(wanted, 0), pods.watch(wanted, 0)
    for one in (event(1, "a", "d"), event(2, "b", "e"), event(3, "b", "d")):
        pods.apply(one)
    assert await versions(client) == sees
    assert [change.rv for _, change in await watcher.take(0.01)] == sees
    assert [entry.rv for entry in pods.select(wanted)] == sorted(sees, key=lambda rv: ["", "a", "zb", "b"][rv])


async def test_who_has_most_waiting_is_cut_off_when_the_sum_is_too_much(
    pods: ResourceCache, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(watchers, "SUM_BYTES", 10_000)
    dead, slow = pods.join(Filter(), 0), pods.join(Filter("d"), 0)
    for rv in range(1, 20):
        pods.apply(event(rv, size=600))
        await asyncio.sleep(0.001)
        if rv > 3:
            await slow.take(0.01)  # always some events behind, never far
    with pytest.raises(DeadlineError):
        while True:
            assert await dead.take(0.01)
    assert not slow.lost
    pods.leave(Filter("d"), slow)
    pods.leave(Filter(), dead)
    assert pods.watchers == 0


async def test_nothing_is_counted_for_clients_that_left(pods: ResourceCache) -> None:
    client = pods.join(Filter(), 0)
    pods.apply(event(1))
    await asyncio.sleep(0.01)
    backlog = client._sum
    assert backlog.size > 0
    pods.leave(Filter(), client)
    pods.apply(event(2))
    await asyncio.sleep(0.01)
    assert backlog.size == 0 and pods.watchers == 0


async def test_a_direct_client_is_written_to_only_while_nothing_waits(pods: ResourceCache) -> None:
    client = pods.join(Filter(), 0)
    direct: list[int] = []
    takes = True

    def write(batch: Batch) -> bool:
        if takes:
            direct.extend(change.rv for _, change in batch.changes)
        return takes

    client.direct = write
    pods.apply(event(1))
    await asyncio.sleep(0.01)  # nobody is in `take`: something else is being sent
    taken = await client.take(1)
    assert taken is not None and direct == []
    waiting = asyncio.create_task(client.take(5))
    await asyncio.sleep(0)
    pods.apply(event(2))
    await asyncio.sleep(0.01)
    assert direct == [2] and not waiting.done()
    takes = False  # the client does not keep up
    pods.apply(event(3))
    batch = await waiting
    assert batch is not None and batch.changes[0][1].rv == 3 and direct == [2]


async def test_a_bookmark_never_promises_what_is_still_under_way(
    pods: ResourceCache, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(watchers, "SLICE", 1)
    clients = [pods.join(Filter(), 0) for _ in range(3)]
    assert pods.told(Filter(), 7) == 7
    pods.apply(event(8))
    assert pods.told(Filter(), 8) == 7, "gathered"
    await asyncio.sleep(0)
    assert pods.told(Filter(), 8) == 7, "handed to some"
    assert await versions(clients[-1]) == [8]
    assert pods.told(Filter(), 8) == 8
    assert pods.told(Filter("other"), 8) == 8, "nobody watches this"


async def test_the_end_of_a_resource_ends_its_watches(pods: ResourceCache) -> None:
    client, watcher = pods.join(Filter(), 0), pods.watch(Filter(), 0)
    pods.apply(event(1))
    await asyncio.sleep(0.01)
    pods.end()
    assert await client.take(1) is not None
    assert await watcher.take(1)
    with pytest.raises(GoneError):
        await client.take(1)
    with pytest.raises(GoneError):
        await watcher.take(1)


@pytest.mark.parametrize(
    "value",
    [
        b'{"metadata":{"name":"n"},"kind":"Pod","apiVersion":"v1"}',
        b'{"kind":"Pod","apiVersion":"v1","metadata":{"name":"n","resourceVersion":"3"}}',
        b'{"spec":{"metadata":{"name":"other"}},"kind":"Pod","metadata":{"name":"n"}}',
        b'{"apiVersion":"v1","kind":"Event","metadata":{"name":"n"},"involvedObject":{"resourceVersion":"9"}}',
    ],
)
def test_the_version_goes_into_the_metadata_whatever_the_stored_form(value: bytes) -> None:
    entry = Entry(Key("", "pods", "d", "n"), 42, value, fields_of)
    document = entry.object()
    assert document["metadata"] == {"name": "n", "resourceVersion": "42"}
    again = Entry(entry.key, 42, entry.raw, fields_of)
    assert again.object() == document
    assert entry.raw.count(b'"resourceVersion":"42"') == 1


def test_a_change_that_makes_no_sense_takes_no_other_of_its_commit_with_it(tmp_path: Path) -> None:
    store = Store(tmp_path / "store.db")
    cache = Cache(store, {PODS: fields_of})
    senseless = Event("ADDED", Key("", "pods", "d", "bad"), 1, b'{"metadata":{"name":"bad","labels":[1]}}')
    cache.apply([senseless, event(2, "good")])
    assert [entry.key.name for entry in cache[PODS]] == ["good"] and cache.revision == 2
    store.close()


@pytest.mark.parametrize("value", [b'{"kind":"Pod"}', b"[]", b"{", b'{"metadata":{}}', b'{"metadata":{"labels":[1]}}'])
def test_bytes_that_are_no_object_are_named(value: bytes) -> None:
    with pytest.raises(InvalidError, match="what is stored as pods d/n"):
        Entry(Key("", "pods", "d", "n"), 1, value, fields_of)


def test_equal_labels_are_kept_once() -> None:
    one, two = (
        Entry(Key("", "pods", "d", name), 1, stored({"metadata": {"name": name, "labels": {"a": "1"}}}), fields_of)
        for name in "xy"
    )
    assert one.labels is two.labels
