"""Backups: which are kept, what is in one, what damage is found, and how one is put back."""

from __future__ import annotations

import sqlite3
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from cuboid.kube import backup
from cuboid.kube.backup import Backup, due, folder_of, found, restore, save, surplus, take
from cuboid.kube.store import Key, Store, Write
from cuboid.kube.store_file import FORMAT, DamagedError, verify
from cuboid.lib.errors import InvalidError, NotFoundError, UnavailableError

NOW = datetime(2026, 11, 26, 12, tzinfo=UTC)


def key(name: str) -> Key:
    return Key("", "pods", "default", name)


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "store.db"


@pytest.fixture
def store(path: Path) -> Iterator[Store]:
    opened = Store(path)
    yield opened
    opened.close()


async def filled(store: Store, count: int = 20) -> None:
    for index in range(count):
        await store.commit(Write(key(f"p{index}"), b"x" * 300, 0))


def contents(path: Path) -> list[tuple[str, int, bytes]]:
    opened = Store(path)
    try:
        return sorted((found.name, rv, value) for found, rv, value in opened.objects())
    finally:
        opened.close()


def hourly(count: int) -> list[Backup]:
    return [Backup(NOW - timedelta(hours=index), 1000 - index, Path(f"{index}"), 1) for index in range(count)]


def test_a_day_of_hours_is_kept_and_a_week_of_days_before_it() -> None:
    backups = hourly(24 * 20)
    kept = sorted(set(backups) - set(surplus(backups)), reverse=True)
    assert kept[:24] == backups[:24]
    older = kept[24:]
    assert len(older) == 7 and len({one.time.date() for one in older}) == 7
    assert all(one.time.hour == 23 for one in older[1:]), "the last of each day"


def test_keeping_is_stable_when_a_backup_comes_every_hour() -> None:
    """Pruned after each, the same are left as when all are looked at together."""
    kept: list[Backup] = []
    for one in reversed(hourly(24 * 12)):
        kept.append(one)
        gone = set(surplus(kept))
        kept = [other for other in kept if other not in gone]
    assert len(kept) == 24 + 7


def test_a_backup_is_due_when_the_newest_is_old_enough() -> None:
    assert due([], NOW, 1)
    assert not due(hourly(3), NOW + timedelta(minutes=59), 1)
    assert due(hourly(3), NOW + timedelta(minutes=60), 1)


async def test_a_backup_of_a_store_in_use_is_put_back_whole(store: Store, path: Path) -> None:
    await filled(store)
    made = take(path, NOW)
    await store.commit(Write(key("later"), b"y", 0))
    store.close()
    assert made.path.stat().st_mode & 0o777 == 0o600 and folder_of(path).stat().st_mode & 0o777 == 0o700
    assert made.revision == 20 and found(folder_of(path)) == [made]
    before = contents(path)
    aside = restore(made.path, path, NOW)
    assert aside is not None and aside.exists(), "what was there is kept"
    assert contents(path) == [row for row in before if row[0] != "later"]


async def test_after_a_restore_no_version_is_given_twice_and_old_watches_are_gone(store: Store, path: Path) -> None:
    await filled(store)
    made = take(path, NOW)
    for index in range(5):
        await store.commit(Write(key(f"lost{index}"), b"y", 0))
    lost = store.revision
    store.close()
    restore(made.path, path, NOW)
    again = Store(path)
    try:
        assert again.compacted > lost and list(again.events()) == []
        assert (await again.commit(Write(key("new"), b"z", 0)))[0].rv == 20 + backup.JUMP + 1
    finally:
        again.close()


async def test_a_store_that_is_open_is_not_replaced(store: Store, path: Path) -> None:
    await filled(store, 1)
    made = take(path, NOW)
    with pytest.raises(UnavailableError, match=r"in use by another process.*cuboid down"):
        restore(made.path, path, NOW)
    with pytest.raises(UnavailableError, match="in use"):
        Store(path)


async def test_a_backup_of_ones_own_is_a_new_file(store: Store, path: Path, tmp_path: Path) -> None:
    await filled(store, 3)
    assert save(path, tmp_path / "mine") == 3
    with pytest.raises(InvalidError, match="exists already"):
        save(path, tmp_path / "mine")
    assert sorted(one.name for one in tmp_path.iterdir() if one.name.startswith(".")) == []


@pytest.mark.parametrize("cut", ["truncated", "flipped", "empty", "words"])
async def test_a_damaged_backup_changes_nothing(store: Store, path: Path, tmp_path: Path, cut: str) -> None:
    await filled(store)
    made = take(path, NOW)
    store.close()
    data = made.path.read_bytes()
    middle = len(data) // 2
    bad = tmp_path / "bad"
    bad.write_bytes(
        {
            "truncated": data[:-20],
            "flipped": data[:middle] + bytes((data[middle] ^ 0x40,)) + data[middle + 1 :],
            "empty": b"",
            "words": b"this is no backup",
        }[cut]
    )
    before = contents(path)
    with pytest.raises(UnavailableError):
        restore(bad, path, NOW)
    assert contents(path) == before
    assert not [one for one in tmp_path.iterdir() if "replaced" in one.name or one.name.endswith(".new")]


def test_a_backup_that_is_not_there_is_said(path: Path) -> None:
    with pytest.raises(NotFoundError, match="there is no backup"):
        restore(path.with_name("nothing"), path, NOW)


def turn_a_bit(path: Path, value: bytes) -> None:
    """In the value of an object, where SQLite does not look."""
    data = bytearray(path.read_bytes())
    data[data.index(value) + 7] ^= 1
    path.write_bytes(data)


async def test_a_bit_that_turned_in_an_object_is_found_at_the_start(store: Store, path: Path) -> None:
    await filled(store)
    made = take(path, NOW)
    await store.commit(Write(key("victim"), b"v" * 100, 0))
    store.close()
    turn_a_bit(path, b"v" * 100)
    again = Store(path, advice=lambda: backup.advice(path))
    with pytest.raises(DamagedError, match="pods default/victim is not as it was written") as told:
        list(again.objects())
    again.close()
    assert f"cuboid restore {made.path}" in told.value.hint
    with pytest.raises(DamagedError, match="victim"):
        take(path, NOW + timedelta(hours=1))
    assert found(folder_of(path)) == [made], "a bad copy does not become a backup"
    restore(made.path, path, NOW)
    assert len(contents(path)) == 20


async def test_a_page_that_is_broken_is_found_by_the_backup(store: Store, path: Path) -> None:
    await filled(store, 200)
    store.close()
    data = bytearray(path.read_bytes())
    data[3 * 4096 : 4 * 4096] = b"\x55" * 4096
    path.write_bytes(data)
    with pytest.raises(DamagedError):
        take(path, NOW)


def break_pages(path: Path, holding: bytes) -> None:
    """The headers of all pages in which this is: of tables, not of what says where they are."""
    data = bytearray(path.read_bytes())
    for start in range(4096, len(data), 4096):
        if holding in data[start : start + 4096]:
            data[start : start + 64] = b"\x55" * 64
    path.write_bytes(data)


async def test_a_store_that_breaks_while_it_is_open_takes_no_more_writes_and_says_what_to_do(path: Path) -> None:
    opened = Store(path)
    await filled(opened, 200)
    opened.close()
    opened = Store(path, advice=lambda: "cuboid restore FILE")
    break_pages(path, b"x" * 300)
    for _ in range(2):
        with pytest.raises(DamagedError, match="cuboid restore FILE"):
            await opened.commit(Write(key("new"), b"x", 0))
    assert opened.damaged
    opened.close()


async def test_a_store_of_which_nothing_can_be_read_says_so_when_it_is_opened(path: Path) -> None:
    opened = Store(path)
    await filled(opened, 5)
    opened.close()
    data = path.read_bytes()
    path.write_bytes(data[:4096] + b"\x55" * (len(data) - 4096))
    for _ in range(2):  # it also leaves nothing locked
        with pytest.raises(DamagedError, match="malformed"):
            Store(path)


def test_a_store_of_format_1_is_taken_on(path: Path) -> None:
    with sqlite3.connect(path) as db:
        db.executescript(
            "CREATE TABLE objects (grp TEXT NOT NULL, resource TEXT NOT NULL, namespace TEXT NOT NULL, "
            "name TEXT NOT NULL, rv INTEGER NOT NULL, value BLOB NOT NULL, "
            "PRIMARY KEY (grp, resource, namespace, name)) WITHOUT ROWID;"
            "CREATE TABLE history (rv INTEGER PRIMARY KEY, type TEXT NOT NULL, grp TEXT NOT NULL, "
            "resource TEXT NOT NULL, namespace TEXT NOT NULL, name TEXT NOT NULL, value BLOB NOT NULL);"
            "CREATE TABLE meta (key TEXT PRIMARY KEY, value INTEGER NOT NULL) WITHOUT ROWID;"
            "INSERT INTO objects VALUES ('', 'pods', 'default', 'old', 7, x'7b7d');"
            "INSERT INTO meta VALUES ('revision', 7); PRAGMA user_version=1;"
        )
    db.close()
    made = backup.before_upgrade(path, "2.0", NOW)
    assert made is not None and made.revision == 7
    assert contents(path) == [("old", 7, b"{}")]
    assert verify(path) == 1 and FORMAT == 2
    assert backup.before_upgrade(path, "2.0", NOW + timedelta(hours=1)) is None, "once for each version"


def test_a_store_of_a_later_format_is_left_alone(path: Path) -> None:
    with sqlite3.connect(path) as db:
        db.execute(f"PRAGMA user_version={FORMAT + 1}")
    db.close()
    with pytest.raises(UnavailableError, match="has format 3, this version reads 2"):
        Store(path)
