"""Large objects that are written all the time fill neither memory nor disk: what watches resume from has a size."""

from __future__ import annotations

from pathlib import Path

import pytest

from cuboid.kube import cache as cache_module
from cuboid.kube import store as store_module
from cuboid.kube.cache import Cache, Filter, encode
from cuboid.kube.store import Key, Store, Write
from cuboid.lib.errors import GoneError

PODS = ("", "pods")
KEY = Key("", "pods", "d", "x")
KIB = 1024


def value(number: int, size: int = 10 * KIB) -> bytes:
    notes = {"n": str(number), "pad": "x" * size}
    return encode({"kind": "Pod", "metadata": {"name": "x", "namespace": "d", "annotations": notes}})


async def write(store: Store, count: int, version: int = 0) -> int:
    for number in range(count):
        (event,) = await store.commit(Write(KEY, value(number), version))
        version = event.rv
    return version


async def test_the_window_of_a_resource_has_a_size(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(cache_module, "WINDOW_BYTES", 50 * KIB)
    store = Store(tmp_path / "store.db")
    pods = Cache(store, {PODS: lambda document: {}})[PODS]
    newest = await write(store, 20)
    with pytest.raises(GoneError):
        pods.watch(Filter(), newest - 10)
    watcher = pods.watch(Filter(), newest - 3)
    assert [change.rv for _, change in await watcher.take(1)] == [newest - 2, newest - 1, newest]
    store.close()


async def test_an_object_larger_than_the_window_is_still_told(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(cache_module, "WINDOW_BYTES", KIB)
    store = Store(tmp_path / "store.db")
    pods = Cache(store, {PODS: lambda document: {}})[PODS]
    newest = await write(store, 3)
    assert [change.rv for _, change in await pods.watch(Filter(), newest - 1).take(1)] == [newest]
    store.close()


async def test_the_history_on_disk_has_a_size_also_after_a_restart(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(store_module, "HISTORY_BYTES", 100 * KIB)
    store = Store(tmp_path / "store.db")
    newest = await write(store, 8)
    assert store.compacted == 0
    store.close()
    store = Store(tmp_path / "store.db")
    newest = await write(store, 30, newest)
    store.close()
    again = Store(tmp_path / "store.db")
    events = list(again.events())
    assert 0 < sum(len(event.value) for event in events) <= 100 * KIB
    assert events[-1].rv == newest
    assert again.compacted == events[0].rv - 1
    pods = Cache(again, {PODS: lambda document: {}})[PODS]
    with pytest.raises(GoneError):
        pods.watch(Filter(), again.compacted - 1)
    assert len(await pods.watch(Filter(), again.compacted).take(1)) == len(events)
    again.close()
