"""Writes on which their callers gave up while the disk stood still are not done after all, once for every attempt."""

from __future__ import annotations

import asyncio
import threading
from pathlib import Path

import pytest

from cuboid.kube.store import Event, Key, Store, Write


def write(name: str) -> Write:
    return Write(Key("", "pods", "d", name), b"{}", 0)


async def test_what_was_given_up_before_its_turn_is_not_written(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    disk, stands = threading.Event(), threading.Event()
    real = Store._one

    def slow(self: Store, writes: tuple[Write, ...], revision: int) -> list[Event]:
        stands.set()
        assert disk.wait(20)
        return real(self, writes, revision)

    monkeypatch.setattr(Store, "_one", slow)
    store = Store(tmp_path / "store.db")
    told: list[str] = []
    store.listen(lambda events: told.extend(event.key.name for event in events))
    try:
        first = asyncio.create_task(store.commit(write("under-way")))
        while not stands.is_set():
            await asyncio.sleep(0.01)
        for attempt in range(3):
            with pytest.raises(TimeoutError):
                async with asyncio.timeout(0.05):
                    await store.commit(write(f"attempt-{attempt}"))
        first.cancel()
        disk.set()
        (event,) = await store.commit(write("last"))
    finally:
        disk.set()
        store.close()
    assert told == ["under-way", "last"]
    assert event.rv == 2
