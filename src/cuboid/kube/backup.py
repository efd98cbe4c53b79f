"""Backups of the store: taken while it is written, verified before they count, and put back when the store is damaged.

A backup is one compressed SQLite file, named by its time and the newest version in it. It is copied by SQLite's online
backup (one moment, no writer waits), checked page by page and object by object, and durable before it has its name.
That makes it also the regular search for damage: a store that can not be copied and checked is reported.
"""

from __future__ import annotations

import os
import re
import secrets
import sqlite3
from collections.abc import Iterable, Iterator
from contextlib import closing, contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path

import zstandard

from cuboid.kube.store_file import FORMAT, DamagedError, Lock, connect, failure, meta, verify
from cuboid.lib.errors import InvalidError, NotFoundError, UnavailableError
from cuboid.lib.paths import sync_folder, write_atomic

FOLDER = "backups"
"""Beside the store."""
HOURLY, DAILY = 24, 7
"""The newest backups that are kept, and the newest of each of the last days before them."""
JUMP = 1_000_000_000
"""Versions that are left out after a restore: more than were given since the backup, so that none is given twice."""
_STAMP = "%Y%m%dT%H%M%SZ"
_NAME = re.compile(r"store-(\d{8}T\d{6}Z)-(\d+)\.db\.zst", re.ASCII)
_LEVEL = 3
_COPY = 1024 * 1024
_ZSTD_MAGIC = b"\x28\xb5\x2f\xfd"
_SUFFIXES = ("", "-wal", "-shm")


@dataclass(frozen=True, order=True)
class Backup:
    """`revision` is the newest version in it, `size` in bytes."""

    time: datetime
    revision: int
    path: Path
    size: int


def folder_of(store: Path) -> Path:
    return store.parent / FOLDER


def found(folder: Path) -> list[Backup]:
    """The backups in a folder, oldest first."""
    made = []
    for path in folder.glob("store-*.db.zst"):
        if match := _NAME.fullmatch(path.name):
            time = datetime.strptime(match[1], _STAMP).replace(tzinfo=UTC)
            made.append(Backup(time, int(match[2]), path, path.stat().st_size))
    return sorted(made)


def surplus(backups: Iterable[Backup]) -> list[Backup]:
    """Those that are not kept any more. Pure."""
    newest_first = sorted(backups, reverse=True)
    older = newest_first[HOURLY:]
    last_of_day = {backup.time.date(): backup for backup in reversed(older)}
    kept = set(sorted(last_of_day.values(), reverse=True)[:DAILY])
    return [backup for backup in older if backup not in kept]


def due(backups: Iterable[Backup], now: datetime, hours: float) -> bool:
    newest = max(backups, default=None)
    return newest is None or now - newest.time >= timedelta(hours=hours)


def advice(store: Path) -> str:
    """What to do about a damaged store, with the exact command."""
    backups = found(folder_of(store))
    if not backups:
        return f"there is no backup in {folder_of(store)}: move the store away to start with an empty one"
    newest = backups[-1]
    return f"stop the server and put back the backup of {newest.time:%Y-%m-%d %H:%M} UTC: cuboid restore {newest.path}"


def take(store: Path, now: datetime) -> Backup:
    """Back the store up into its folder and forget surplus ones. Blocks. DamagedError; the backups stay as they are."""
    folder = folder_of(store)
    _make_folder(folder, store)
    with _copied(store, folder) as (copy, revision):
        target = folder / f"store-{now.strftime(_STAMP)}-{revision}.db.zst"
        _compress(copy, target)
    for old in surplus(found(folder)):
        old.path.unlink(missing_ok=True)
    sync_folder(folder)
    return Backup(now, revision, target, target.stat().st_size)


def before_upgrade(store: Path, version: str, now: datetime) -> Backup | None:
    """Back up what another version of the program wrote last. Blocks; before the store is opened. Errors as of `take`,
    with what to do about damage."""
    marker = folder_of(store) / "version"
    mine = f"{version} {FORMAT}\n"
    if not store.exists() or not store.stat().st_size or (marker.exists() and marker.read_text() == mine):
        made = None
    else:
        try:
            made = take(store, now)
        except DamagedError as error:
            raise DamagedError(store, error.what, hint=advice(store)) from error
    _make_folder(folder_of(store), store)
    write_atomic(marker, mine.encode())
    return made


def save(store: Path, target: Path) -> int:
    """Back the store up into a file that does not exist yet; the newest version in it. Blocks."""
    if target.exists():
        raise InvalidError(f"{target} exists already", hint="name a new file")
    with _copied(store, target.parent) as (copy, revision):
        _compress(copy, target)
    return revision


def restore(backup: Path, store: Path, now: datetime) -> Path | None:
    """Put a backup in the store's place; where the store that was there is now, if there was one. Blocks.

    UnavailableError while the server runs, DamagedError when the backup is damaged: then nothing is changed.
    """
    if not backup.is_file():
        raise NotFoundError(f"there is no backup {backup}", hint=f"see {folder_of(store)}")
    lock = Lock(store)
    try:
        new = store.with_name(f".{store.name}.{secrets.token_hex(4)}.new")
        try:
            _unpack(backup, new)
            verify(new)
            _jump(new)
            _like(new, store if store.exists() else store.parent)
            _sync(new)
            aside = _put_aside(store, now)
            new.rename(store)
            sync_folder(store.parent)
        finally:
            for suffix in _SUFFIXES:
                Path(f"{new}{suffix}").unlink(missing_ok=True)
        return aside
    finally:
        lock.close()


# --- parts -----------------------------------------------------------------------------------------------------------


def _make_folder(folder: Path, store: Path) -> None:
    if not folder.is_dir():
        folder.mkdir(mode=0o700)
        _like(folder, store.parent)


def _like(path: Path, other: Path) -> None:
    """Give it the other's owner: root may do for the server what the server must be able to read."""
    if os.geteuid() == 0:
        row = other.stat()
        os.chown(path, row.st_uid, row.st_gid, follow_symlinks=False)


@contextmanager
def _copied(store: Path, folder: Path) -> Iterator[tuple[Path, int]]:
    """A verified copy of the store, which is removed at the end, and its newest version."""
    copy = folder / f".backup-{secrets.token_hex(4)}"
    try:
        copy.touch(mode=0o600, exist_ok=False)
        try:
            with closing(connect(store)) as source, closing(connect(copy)) as target:
                source.backup(target)
                target.execute("PRAGMA journal_mode=DELETE")  # one file, whatever the store uses
                revision = meta(target, "revision")
        except sqlite3.DatabaseError as error:
            raise failure(store, error) from error
        try:
            verify(copy)
        except DamagedError as error:
            raise DamagedError(store, error.what) from error
        yield copy, revision
    except OSError as error:
        raise UnavailableError(f"the store {store} could not be backed up: {error.strerror}") from error
    finally:
        for suffix in (*_SUFFIXES, "-journal"):
            Path(f"{copy}{suffix}").unlink(missing_ok=True)


def _compress(copy: Path, target: Path) -> None:
    """Durable under its name, and readable again, when this returns."""
    new = target.with_name(f".{target.name}.new")
    try:
        descriptor = os.open(new, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC | os.O_NOFOLLOW, 0o600)
        with copy.open("rb") as source, os.fdopen(descriptor, "wb") as out:
            size = copy.stat().st_size
            zstandard.ZstdCompressor(_LEVEL, write_checksum=True).copy_stream(source, out, size=size)
            out.flush()
            os.fsync(out.fileno())
        if _length(new) != size:
            raise UnavailableError(f"the backup {target} does not read as it was written", hint="is the disk sound?")
        _like(new, target.parent)
        new.rename(target)
    finally:
        new.unlink(missing_ok=True)
    sync_folder(target.parent)


def _length(packed: Path) -> int:
    with packed.open("rb") as file:
        return sum(len(part) for part in zstandard.ZstdDecompressor().read_to_iter(file, read_size=_COPY))


def _unpack(backup: Path, new: Path) -> None:
    """A compressed backup, or a store's plain file."""
    descriptor = os.open(new, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
    try:
        with os.fdopen(descriptor, "wb") as out, backup.open("rb") as source:
            packed = source.read(4) == _ZSTD_MAGIC
            source.seek(0)
            if packed:
                zstandard.ZstdDecompressor().copy_stream(source, out)
            else:
                while part := source.read(_COPY):
                    out.write(part)
    except zstandard.ZstdError as error:
        raise DamagedError(backup, str(error), hint="take another backup") from error


def _jump(new: Path) -> None:
    """Go on with versions that the lost store never gave; who watches from an older one is told to list again."""
    with closing(connect(new)) as db:
        db.execute("BEGIN IMMEDIATE")
        revision = meta(db, "revision") + JUMP
        db.execute("DELETE FROM history")
        for key in ("revision", "compacted"):
            db.execute("INSERT OR REPLACE INTO meta VALUES (?, ?)", (key, revision))
        db.execute("COMMIT")
        db.execute("PRAGMA journal_mode=DELETE")


def _sync(path: Path) -> None:
    with path.open("rb") as file:
        os.fsync(file.fileno())


def _put_aside(store: Path, now: datetime) -> Path | None:
    if not store.exists():
        return None
    aside = store.with_name(f"{store.name}.replaced-{now.strftime(_STAMP)}-{secrets.token_hex(2)}")
    os.link(store, aside)  # at no moment is there none: a server that starts then would begin with an empty one
    for suffix in _SUFFIXES[1:]:
        part = Path(f"{store}{suffix}")
        if part.exists():
            part.rename(f"{aside}{suffix}")
    return aside
