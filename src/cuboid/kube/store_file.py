"""The file of the store: its tables, its format, and how damage to it is found.

SQLite finds broken pages by itself when it comes across them; a value whose bits have turned it does not notice. So
each object has a checksum, which is compared whenever all objects are read: at every start and in every backup.
"""

from __future__ import annotations

import fcntl
import os
import sqlite3
import time
from contextlib import closing, suppress
from pathlib import Path
from zlib import crc32

from cuboid.lib.errors import CuboidError, ExhaustedError, UnavailableError

FORMAT = 2
"""Of the tables. 1 had no checksums; it is taken on as it is, and objects get theirs when they are next written."""
_TABLES = (
    """CREATE TABLE IF NOT EXISTS objects (
    grp TEXT NOT NULL, resource TEXT NOT NULL, namespace TEXT NOT NULL, name TEXT NOT NULL,
    rv INTEGER NOT NULL, value BLOB NOT NULL, crc INTEGER,
    PRIMARY KEY (grp, resource, namespace, name)) WITHOUT ROWID""",
    """CREATE TABLE IF NOT EXISTS history (
    rv INTEGER PRIMARY KEY, type TEXT NOT NULL, grp TEXT NOT NULL, resource TEXT NOT NULL, namespace TEXT NOT NULL,
    name TEXT NOT NULL, value BLOB NOT NULL)""",
    "CREATE TABLE IF NOT EXISTS meta (key TEXT PRIMARY KEY, value INTEGER NOT NULL) WITHOUT ROWID",
)
_DAMAGE = (sqlite3.SQLITE_CORRUPT, sqlite3.SQLITE_NOTADB)
_BREATH = 256
Row = tuple[str, str, str, str, int, bytes, int | None]


class DamagedError(UnavailableError):
    """The file is not what was written. `what` says how that was noticed."""

    reason = "DamagedStore"

    def __init__(self, path: Path, what: str, *, hint: str = "restore it from a backup: cuboid restore") -> None:
        super().__init__(f"the store {path} is damaged: {what}", hint=hint)
        self.path = path
        self.what = what


def is_damage(error: Exception) -> bool:
    return getattr(error, "sqlite_errorcode", 0) & 0xFF in _DAMAGE


def failure(path: Path, error: Exception) -> CuboidError:
    """What an error of SQLite's means: DamagedError, ExhaustedError (no room) or UnavailableError."""
    if is_damage(error):
        return DamagedError(path, str(error))
    if getattr(error, "sqlite_errorcode", 0) == sqlite3.SQLITE_FULL:
        return ExhaustedError(
            f"there is no room left for the API's store, {path}",
            hint="free some space: writes are taken again as soon as there is room",
            reason="InsufficientStorage",
        )
    return UnavailableError(f"the store {path} failed: {error}")


def checksum(group: str, resource: str, namespace: str, name: str, rv: int, value: bytes) -> int:
    return crc32(value, crc32(f"{group}/{resource}/{namespace}/{name}/{rv}".encode()))


def intact(row: Row) -> bool:
    """Whether an object is as it was written."""
    return row[6] is None or checksum(*row[:6]) == row[6]


def connect(path: Path) -> sqlite3.Connection:
    return sqlite3.connect(path, isolation_level=None, check_same_thread=False, timeout=10)


def prepare(db: sqlite3.Connection, path: Path) -> None:
    """Make the tables, or take those on that are there. UnavailableError for another format."""
    db.execute("PRAGMA journal_mode=WAL")
    db.execute("PRAGMA synchronous=FULL")
    db.execute("PRAGMA cache_size=-2000")
    found = format_of(db)
    if found > FORMAT:
        raise UnavailableError(
            f"the store {path} has format {found}, this version reads {FORMAT}",
            hint="go back to the newer version, or restore a backup from before it: cuboid restore",
        )
    if found == FORMAT:
        return
    db.execute("BEGIN IMMEDIATE")
    for statement in _TABLES:
        db.execute(statement)
    if found == 1:
        db.execute("ALTER TABLE objects ADD COLUMN crc INTEGER")
    db.execute(f"PRAGMA user_version={FORMAT}")
    db.execute("COMMIT")


def format_of(db: sqlite3.Connection) -> int:
    """0 for a file without tables."""
    return int(db.execute("PRAGMA user_version").fetchone()[0])


def meta(db: sqlite3.Connection, key: str) -> int:
    row = db.execute("SELECT value FROM meta WHERE key=?", (key,)).fetchone()
    return int(row[0]) if row else 0


def verify(path: Path) -> int:
    """Look at every page and every object; the number of objects. DamagedError, UnavailableError (another format)."""
    try:
        with closing(connect(path)) as db:
            if not 1 <= (found := format_of(db)) <= FORMAT:
                raise UnavailableError(f"{path} is no store that this version reads (format {found})")
            problem = db.execute("PRAGMA integrity_check(1)").fetchone()[0]
            if problem != "ok":
                raise DamagedError(path, str(problem))
            rows = 0
            for row in db.execute("SELECT * FROM objects"):
                if found == FORMAT and not intact(row):
                    raise DamagedError(path, f"{row[1]} {row[2]}/{row[3]} is not as it was written")
                rows += 1
                if rows % _BREATH == 0:
                    time.sleep(0.001)  # the server's loop is to go on meanwhile
            return rows
    except sqlite3.DatabaseError as error:
        raise failure(path, error) from error


class Lock:
    """One process at a time has the store open or replaces its file. Held until closed, or until the process ends."""

    def __init__(self, path: Path) -> None:
        """UnavailableError when another process holds it."""
        file = path.with_name(f"{path.name}.lock")
        self._descriptor = os.open(file, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW, 0o600)
        try:
            fcntl.flock(self._descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError as error:
            os.close(self._descriptor)
            raise UnavailableError(
                f"the store {path} is in use by another process", hint="stop the API server first: cuboid down"
            ) from error
        own = path if path.exists() else path.parent
        if os.geteuid() == 0:  # the server itself may run as somebody else
            os.fchown(self._descriptor, own.stat().st_uid, own.stat().st_gid)

    def close(self) -> None:
        with suppress(OSError):
            os.close(self._descriptor)
