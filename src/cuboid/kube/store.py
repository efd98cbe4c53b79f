"""The durable store: objects by key in SQLite, one growing resourceVersion, and a history that watches resume from.

One thread writes. It takes every transaction that waits, runs them one after the other inside one SQLite transaction
and commits once: many writers share one fsync (group commit), and an acknowledged write is on disk. A transaction
whose precondition fails takes nothing with it. The store knows bytes and keys, not what they mean.
"""

from __future__ import annotations

import asyncio
import queue
import sqlite3
import threading
from collections.abc import Callable, Iterator
from contextlib import closing, suppress
from dataclasses import dataclass
from pathlib import Path
from sys import intern
from typing import Any

from cuboid.kube.store_file import DamagedError, Lock, checksum, connect, failure, intact, meta, prepare
from cuboid.lib.errors import CuboidError, UnavailableError
from cuboid.lib.log import get_log

log = get_log(__name__)

MAX_BATCH = 256
"""Transactions in one commit."""
HISTORY = 20_000
"""Events kept for watches that resume."""
HISTORY_BYTES = 256 * 1024 * 1024
"""Of their objects. Beyond it the older half is deleted, however few they are: large objects that are written all the
time would fill the disk."""
_SLACK = 1_000  # events beyond HISTORY before the old ones are deleted


@dataclass(frozen=True, slots=True, order=True)
class Key:
    """Where an object is. `namespace` is "" for what belongs to none."""

    group: str
    resource: str
    namespace: str
    name: str


@dataclass(frozen=True, slots=True)
class Write:
    """One change. `value` None deletes. `last` is the state that watchers of a deletion are shown.

    `expected` is the resourceVersion that the object must have now; 0: it must not exist.
    """

    key: Key
    value: bytes | None
    expected: int
    last: bytes = b""


@dataclass(frozen=True, slots=True)
class Event:
    """A committed change. `type` is ADDED, MODIFIED or DELETED."""

    type: str
    key: Key
    rv: int
    value: bytes


class MismatchError(CuboidError):
    """The object is not at the version that a transaction expected. `found` is its version, 0 if there is none."""

    reason = "Conflict"

    def __init__(self, key: Key, found: int) -> None:
        super().__init__(f"{key.resource} {key.namespace}/{key.name} is at version {found}")
        self.key = key
        self.found = found


@dataclass(slots=True)
class _Transaction:
    writes: tuple[Write, ...]
    loop: asyncio.AbstractEventLoop
    done: asyncio.Future[list[Event]]
    given_up: bool = False
    """Nobody waits any more: not written if it is not under way yet."""


Listener = Callable[[list[Event]], None]
Advice = Callable[[], str]
_RESTORE = "restore it from a backup: cuboid restore"


class Store:
    """Opened once per process. `listener` sees every batch of events on the event loop, before the writers do."""

    def __init__(self, path: Path, *, history: int = HISTORY, advice: Advice = lambda: _RESTORE) -> None:
        """`advice` says what to do about damage. UnavailableError: another process has it, or it can not be read."""
        self._path = path
        self._advice = advice
        self.damaged = ""
        """What was found broken while it was open: nothing is written any more."""
        self._history = history
        self._queue: queue.SimpleQueue[_Transaction | None] = queue.SimpleQueue()
        self._listener: Listener = lambda _: None
        self._closed = False
        self._lock = Lock(path)
        try:
            self._db, self.revision, self._compacted, self._size = self._open()
        except BaseException:
            self._lock.close()
            raise
        self._thread = threading.Thread(target=self._run, name="store", daemon=True)
        self._thread.start()

    @property
    def compacted(self) -> int:
        """Events up to this version are gone from the history."""
        return self._compacted

    def listen(self, listener: Listener) -> None:
        self._listener = listener

    def objects(self) -> Iterator[tuple[Key, int, bytes]]:
        """All that is stored. For start-up, before the first commit. DamagedError."""
        for row in self._rows("SELECT * FROM objects"):
            if not intact(row):
                raise self._damage(f"{row[1]} {row[2]}/{row[3]} is not as it was written")
            group, resource, namespace, name, rv, value, _ = row
            yield Key(intern(group), intern(resource), intern(namespace), name), rv, value

    def values(self, group: str, resource: str) -> list[bytes]:
        """What is stored of one resource. For start-up, before the first commit."""
        query = "SELECT value FROM objects WHERE grp=? AND resource=?"
        return [value for (value,) in self._rows(query, group, resource)]

    def events(self) -> Iterator[Event]:
        """The history, oldest first. For start-up, before the first commit."""
        rows = self._rows("SELECT * FROM history ORDER BY rv")
        for rv, kind, group, resource, namespace, name, value in rows:
            yield Event(intern(kind), Key(intern(group), intern(resource), intern(namespace), name), rv, value)

    async def commit(self, *writes: Write) -> list[Event]:
        """All or none, durable when this returns. MismatchError, ExhaustedError (disk), UnavailableError (closed).

        Cancelled, it is written only if it was under way: whoever gave up on a disk that stood still may have asked
        again, and what waits would be done as often as it was asked for.
        """
        if self._closed:
            raise UnavailableError("the store is closed")
        if self.damaged:
            raise self._damage(self.damaged)
        loop = asyncio.get_running_loop()
        transaction = _Transaction(writes, loop, loop.create_future())
        self._queue.put(transaction)
        try:
            return await asyncio.shield(transaction.done)
        except asyncio.CancelledError:
            transaction.given_up = True
            raise

    def afterwards(self, then: Callable[[], None]) -> None:
        """Call `then` on this loop when all that is queued now has been written or refused, and told."""
        loop = asyncio.get_running_loop()
        marker = _Transaction((), loop, loop.create_future())

        def told(done: asyncio.Future[list[Event]]) -> None:
            if not done.cancelled():
                done.exception()  # taken note of: a failure of what was queued is told to who queued it
            then()

        marker.done.add_done_callback(told)
        self._queue.put(marker)

    def close(self) -> None:
        """Finish what is queued and close the file. Idempotent."""
        if not self._closed:
            self._closed = True
            self._queue.put(None)
            self._thread.join(timeout=30)

    # --- start -------------------------------------------------------------------------------------------------------

    def _rows(self, query: str, *values: str) -> Iterator[Any]:
        try:
            with closing(connect(self._path)) as db:
                yield from db.execute(query, values)
        except sqlite3.DatabaseError as error:
            raise self._failure(error) from error

    def _failure(self, error: Exception) -> CuboidError:
        found = failure(self._path, error)
        return self._damage(found.what) if isinstance(found, DamagedError) else found

    def _damage(self, what: str) -> DamagedError:
        return DamagedError(self._path, what, hint=self._advice())

    def _open(self) -> tuple[sqlite3.Connection, int, int, int]:
        """With the newest version, that up to which events are gone, and the bytes of those that are not.

        Secrets are in it: readable for nobody else. SQLite gives its `-wal` and `-shm` files the store's mode."""
        self._path.touch(mode=0o600)
        for suffix in ("", "-wal", "-shm"):
            with suppress(FileNotFoundError):
                Path(f"{self._path}{suffix}").chmod(0o600)
        db = connect(self._path)
        try:
            prepare(db, self._path)
            return db, meta(db, "revision"), meta(db, "compacted"), _length(db, 0)
        except sqlite3.DatabaseError as error:
            db.close()
            raise self._failure(error) from error
        except UnavailableError:
            db.close()
            raise

    # --- the writer thread -------------------------------------------------------------------------------------------

    def _run(self) -> None:
        while batch := self._next_batch():
            try:
                results = self._apply(batch)
            except Exception as error:  # whatever it is, the writer goes on: else nobody would ever be answered again
                self._rolled_back(batch, error)
            else:
                _deliver(batch, results, self._listener)
        self._db.close()
        self._lock.close()

    def _next_batch(self) -> list[_Transaction]:
        first = self._queue.get()
        batch: list[_Transaction] = []
        item = first
        while item is not None:
            batch.append(item)
            if len(batch) == MAX_BATCH:
                return batch
            try:
                item = self._queue.get_nowait()
            except queue.Empty:
                return batch
        if batch:
            self._queue.put(None)  # commit these, then meet the end again
        return batch

    def _apply(self, batch: list[_Transaction]) -> list[list[Event] | MismatchError]:
        revision = self.revision
        results: list[list[Event] | MismatchError] = []
        self._db.execute("BEGIN IMMEDIATE")
        for transaction in batch:
            try:
                events = [] if transaction.given_up else self._one(transaction.writes, revision)
            except MismatchError as error:
                results.append(error)
            else:
                revision += len(events)
                results.append(events)
        self._db.execute("INSERT OR REPLACE INTO meta VALUES ('revision', ?)", (revision,))
        size = self._size + sum(len(event.value) for part in results if isinstance(part, list) for event in part)
        compacted, size = self._compact(revision, size)
        self._db.execute("COMMIT")
        self.revision, self._compacted, self._size = revision, compacted, size
        return results

    def _one(self, writes: tuple[Write, ...], revision: int) -> list[Event]:
        found = [self._check(write) for write in writes]
        events = []
        for write, version in zip(writes, found, strict=True):
            revision += 1
            events.append(self._write(write, version, revision))
        return events

    def _check(self, write: Write) -> int:
        key = write.key
        row = self._db.execute(
            "SELECT rv FROM objects WHERE grp=? AND resource=? AND namespace=? AND name=?",
            (key.group, key.resource, key.namespace, key.name),
        ).fetchone()
        version = int(row[0]) if row else 0
        if version != write.expected:
            raise MismatchError(key, version)
        return version

    def _write(self, write: Write, version: int, rv: int) -> Event:
        key = write.key
        where = (key.group, key.resource, key.namespace, key.name)
        if write.value is None:
            self._db.execute("DELETE FROM objects WHERE grp=? AND resource=? AND namespace=? AND name=?", where)
            event = Event("DELETED", key, rv, write.last)
        else:
            row = (*where, rv, write.value, checksum(*where, rv, write.value))
            self._db.execute("INSERT OR REPLACE INTO objects VALUES (?,?,?,?,?,?,?)", row)
            event = Event("MODIFIED" if version else "ADDED", key, rv, write.value)
        self._db.execute("INSERT INTO history VALUES (?,?,?,?,?,?,?)", (rv, event.type, *where, event.value))
        return event

    def _compact(self, revision: int, size: int) -> tuple[int, int]:
        """The version up to which events are gone, and the size of the others."""
        limit = self._compacted
        if revision - limit > self._history + _SLACK:
            limit = revision - self._history
        if size > HISTORY_BYTES:
            limit = max(limit, self._half())
        if limit == self._compacted:
            return limit, size
        self._db.execute("DELETE FROM history WHERE rv<=?", (limit,))
        self._db.execute("INSERT OR REPLACE INTO meta VALUES ('compacted', ?)", (limit,))
        return limit, _length(self._db, limit)

    def _half(self) -> int:
        """The newest version of the older half of the history, by size."""
        kept = 0
        for rv, size in self._db.execute("SELECT rv, LENGTH(value) FROM history ORDER BY rv DESC"):
            kept += size
            if kept > HISTORY_BYTES // 2:
                return int(rv)
        return self._compacted

    def _rolled_back(self, batch: list[_Transaction], error: Exception) -> None:
        with suppress(sqlite3.Error):
            if self._db.in_transaction:
                self._db.execute("ROLLBACK")
        log.error("a batch of writes failed", count=len(batch), error=str(error))
        for transaction in batch:
            found = self._failure(error)
            if isinstance(found, DamagedError):
                self.damaged = found.what
            _call(transaction, _fail, transaction.done, found)


def _length(db: sqlite3.Connection, after: int) -> int:
    """Bytes of the events behind a version."""
    row = db.execute("SELECT SUM(LENGTH(value)) FROM history WHERE rv>?", (after,)).fetchone()
    return int(row[0] or 0)


def _deliver(batch: list[_Transaction], results: list[list[Event] | MismatchError], listener: Listener) -> None:
    """On the loop: events to the listener first, so that a writer reads its own write."""

    def run() -> None:
        try:
            listener([event for result in results if isinstance(result, list) for event in result])
        except Exception:
            log.exception("what was committed could not be told")  # it is committed all the same
        for transaction, result in zip(batch, results, strict=True):
            if isinstance(result, MismatchError):
                _fail(transaction.done, result)
            elif not transaction.done.done():
                transaction.done.set_result(result)

    _call(batch[0], run)


def _call(transaction: _Transaction, function: Callable[..., None], *arguments: object) -> None:
    try:
        transaction.loop.call_soon_threadsafe(function, *arguments)
    except RuntimeError:
        log.warning("a write was committed after its caller's loop ended")


def _fail(future: asyncio.Future[list[Event]], error: CuboidError) -> None:
    if not future.done():
        future.set_exception(error)
