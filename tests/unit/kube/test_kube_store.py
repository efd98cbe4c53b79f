"""The store: transactions, versions, history, compaction, and what a killed process leaves."""

from __future__ import annotations

import asyncio
import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from cuboid.kube.store import Event, Key, MismatchError, Store, Write
from cuboid.lib.errors import UnavailableError


def key(name: str) -> Key:
    return Key("", "pods", "default", name)


@pytest.fixture
def store(tmp_path: Path) -> Iterator[Store]:
    opened = Store(tmp_path / "store.db")
    yield opened
    opened.close()


async def test_no_file_of_the_store_can_be_read_by_others(tmp_path: Path) -> None:
    """Secrets are in all three of them, whatever the umask and whatever an older version left."""
    (tmp_path / "store.db-wal").touch(mode=0o644)
    before = os.umask(0)
    try:
        store = Store(tmp_path / "store.db")
        await store.commit(Write(key("a"), b"secret", 0))
        modes = {path.name: path.stat().st_mode & 0o777 for path in tmp_path.iterdir()}
        store.close()
    finally:
        os.umask(before)
    names = ("store.db", "store.db-wal", "store.db-shm", "store.db.lock")
    assert modes == dict.fromkeys(names, 0o600)


async def test_versions_grow_by_one_and_events_tell_what_happened(store: Store) -> None:
    seen: list[Event] = []
    store.listen(seen.extend)
    await store.commit(Write(key("a"), b"1", 0))
    await store.commit(Write(key("a"), b"2", 1))
    await store.commit(Write(key("a"), None, 2, b"last"))
    assert [(event.type, event.rv, event.value) for event in seen] == [
        ("ADDED", 1, b"1"),
        ("MODIFIED", 2, b"2"),
        ("DELETED", 3, b"last"),
    ]
    assert store.revision == 3


@pytest.mark.parametrize(("expected", "found"), [(0, 1), (7, 1)])
async def test_a_write_on_another_version_changes_nothing(store: Store, expected: int, found: int) -> None:
    await store.commit(Write(key("a"), b"1", 0))
    with pytest.raises(MismatchError) as refused:
        await store.commit(Write(key("a"), b"2", expected))
    assert refused.value.found == found and store.revision == 1


async def test_a_transaction_is_all_or_nothing(store: Store) -> None:
    await store.commit(Write(key("b"), b"1", 0))
    with pytest.raises(MismatchError):
        await store.commit(Write(key("a"), b"1", 0), Write(key("b"), b"2", 0))
    assert [found.name for found, _, _ in store.objects()] == ["b"]


async def test_many_writers_share_commits_and_one_conflict_hurts_nobody_else(store: Store) -> None:
    batches: list[int] = []
    store.listen(lambda events: batches.append(len(events)))
    writes = [store.commit(Write(key(f"n{index}"), b"x", 0)) for index in range(200)]
    writes.append(store.commit(Write(key("n0"), b"y", 0)))
    results = await asyncio.gather(*writes, return_exceptions=True)
    assert sum(isinstance(result, MismatchError) for result in results) == 1
    assert sum(batches) == 200 and len(batches) < 200
    assert len({events[0].rv for events in results if isinstance(events, list)}) == 200


async def test_everything_is_there_after_a_restart_and_versions_go_on(tmp_path: Path) -> None:
    first = Store(tmp_path / "store.db")
    await first.commit(Write(key("a"), b"1", 0))
    await first.commit(Write(key("a"), None, 1, b"1"))
    first.close()
    second = Store(tmp_path / "store.db")
    assert [event.type for event in second.events()] == ["ADDED", "DELETED"]
    assert (await second.commit(Write(key("b"), b"1", 0)))[0].rv == 3
    second.close()


async def test_the_history_is_bounded(tmp_path: Path) -> None:
    opened = Store(tmp_path / "store.db", history=10)
    rv = 0
    for _ in range(1_100):
        rv = (await opened.commit(Write(key("a"), b"x", rv)))[0].rv
    kept = [event.rv for event in opened.events()]
    assert opened.compacted > 0 and kept[0] == opened.compacted + 1 and kept[-1] == rv
    opened.close()


async def test_what_can_not_be_written_fails_and_the_next_write_is_taken(store: Store) -> None:
    with pytest.raises(UnavailableError):
        await asyncio.wait_for(store.commit(Write(key("lone surrogate \ud800"), b"1", 0)), 5)
    assert (await asyncio.wait_for(store.commit(Write(key("a"), b"1", 0)), 5))[0].rv == 1


async def test_a_listener_that_fails_keeps_no_writer_waiting(store: Store) -> None:
    def fails(events: list[Event]) -> None:
        raise RuntimeError(str(len(events)))

    store.listen(fails)
    assert (await asyncio.wait_for(store.commit(Write(key("a"), b"1", 0)), 5))[0].rv == 1


async def test_a_closed_store_refuses(store: Store) -> None:
    store.close()
    with pytest.raises(UnavailableError):
        await store.commit(Write(key("a"), b"1", 0))


def test_a_file_that_is_no_database_is_named(tmp_path: Path) -> None:
    (tmp_path / "store.db").write_bytes(b"not a database" * 100)
    with pytest.raises(UnavailableError, match=r"store\.db is damaged: file is not a database.*cuboid restore"):
        Store(tmp_path / "store.db")


WRITER = """
import asyncio, sys
from pathlib import Path
from cuboid.kube.store import Key, Store, Write
async def write(store, number):
    for index in range(100000):
        name = f"w{number}-{index}"
        await store.commit(Write(Key("", "pods", "d", name), name.encode() * 50, 0))
        print(name, flush=True)
async def main():
    store = Store(Path(sys.argv[1]))
    await asyncio.gather(*(write(store, number) for number in range(8)))
asyncio.run(main())
"""


def test_no_acknowledged_write_is_lost_by_kill_9(tmp_path: Path) -> None:
    path = tmp_path / "store.db"
    with subprocess.Popen([sys.executable, "-c", WRITER, str(path)], stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        acknowledged = [process.stdout.readline().strip() for _ in range(300)]
        process.send_signal(signal.SIGKILL)
        acknowledged += process.stdout.read().split("\n")[:-1]
    opened = Store(path)
    stored = {found.name: value for found, _, value in opened.objects()}
    opened.close()
    assert set(acknowledged) <= stored.keys()
    assert all(value == name.encode() * 50 for name, value in stored.items())
