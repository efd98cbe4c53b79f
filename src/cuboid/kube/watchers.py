"""Who is told of changes: watchers inside the process, and feeds that many clients of one selection share.

A feed looks at each change once, whatever the number of its clients, gathers what came within a moment and hands the
same batch to all of them, a few per turn of the loop, so that a thousand clients do not stop everything else. Queues
are bounded, for each client and in sum: who does not keep up is cut off and lists again; others never wait.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Callable, Hashable, Iterable, Iterator

from cuboid.kube.entry import Change, Filter
from cuboid.lib.errors import DeadlineError, GoneError

BACKLOG = 2_000
"""Events a watcher may lag behind before it is cut off."""
BACKLOG_BYTES = 8 * 1024 * 1024
"""Stored bytes of the events that one client may lag behind."""
SUM_BYTES = 128 * 1024 * 1024
"""The same of all clients together. Beyond it, the one that lags behind most is cut off."""
BATCH_BYTES = 64 * 1024
"""Stored bytes that go out at once."""
PAUSE = 0.0001
"""Seconds between two batches of a feed, for each of its clients."""
MAX_PAUSE = 0.1
SLICE = 32
"""Clients that are woken in one turn of the loop."""
Seen = tuple[str, Change]


class _Waiting:
    """What watcher and client share: somebody waits in `take`, and may be woken, cut off or sent away."""

    def __init__(self) -> None:
        self._wake: asyncio.Future[None] | None = None
        self.lost = False
        self.ended = False
        self._woken = False

    def wake(self) -> None:
        """Let `take` return now, though nothing is pending."""
        self._woken = True
        if self._wake is not None and not self._wake.done():
            self._wake.set_result(None)

    def end(self) -> None:
        """What is watched is no longer served: `take` gives what is pending and raises GoneError from then on."""
        self.ended = True
        self.wake()

    async def _wait(self, timeout: float) -> None:
        loop = asyncio.get_running_loop()
        self._wake = loop.create_future()
        timer = loop.call_later(timeout, self.wake)
        try:
            if not self._woken:
                await self._wake
        finally:
            timer.cancel()
            self._wake = None
            self._woken = False

    def _check(self) -> None:
        if self.lost:
            raise DeadlineError("this watch was too slow and is cut off", hint="list again and watch from there")
        if self.ended:
            raise GoneError("what this watch was for is no longer served", reason="Expired")


class Watcher(_Waiting):
    """A bounded queue of changes for a part of this process, which sees each at once."""

    def __init__(self, wanted: Filter, backlog: Iterable[Change]) -> None:
        super().__init__()
        self.wanted = wanted
        self._pending: deque[Seen] = deque()
        for change in backlog:
            self.offer(change)

    def offer(self, change: Change) -> None:
        kind = change.seen_by(self.wanted)
        if not kind or self.lost:
            return
        if len(self._pending) >= BACKLOG:
            self.lost = True
            self._pending.clear()
        else:
            self._pending.append((kind, change))
        self.wake()

    async def take(self, timeout: float) -> list[Seen]:
        """All that is pending; empty when nothing came in `timeout` seconds. DeadlineError when it was cut off,
        GoneError when the resource is no longer served."""
        if not self._pending:
            self._check()
            await self._wait(timeout)
        if not self._pending:
            if self.lost:
                self._check()
            return []
        self._woken = False
        taken = list(self._pending)
        self._pending.clear()
        return taken


class Batch:
    """Changes as one filter sees them. How they go out is worked out once for all clients that want the same form."""

    __slots__ = ("_rendered", "changes", "size")

    def __init__(self, changes: list[Seen]) -> None:
        self.changes = changes
        self.size = sum(len(change.entry.value) for _, change in changes)
        self._rendered: dict[Hashable, bytes] = {}

    def rendered(self, form: Hashable, render: Callable[[list[Seen]], bytes]) -> bytes:
        """`render`'s bytes for these changes; equal forms are rendered alike."""
        if form not in self._rendered:
            self._rendered[form] = render(self.changes)
        return self._rendered[form]


class Backlog:
    """What the clients of a whole cache have not taken, in stored bytes, each counted for itself."""

    def __init__(self) -> None:
        self.size = 0
        self._behind: dict[Client, int] = {}

    def put(self, client: Client, size: int) -> None:
        """So much waits for a client now. In sum it stays within `SUM_BYTES`: who has most waiting loses it."""
        self.size += size - self._behind.pop(client, 0)
        if size:
            self._behind[client] = size
        while self.size > SUM_BYTES and len(self._behind) > 1:
            max(self._behind, key=self._behind.__getitem__).cut_off()


class Client(_Waiting):
    """One client of a feed: a bounded queue of batches.

    `direct` takes a batch at once and says whether it did: asked only while nothing is pending and somebody waits in
    `take`, which then goes on waiting. It saves a turn of the client's task, most of what a delivery costs.
    """

    def __init__(self, backlog: Backlog) -> None:
        super().__init__()
        self._sum = backlog
        self._pending: deque[Batch] = deque()
        self.direct: Callable[[Batch], bool] | None = None
        self._events = 0
        self._size = 0

    def offer(self, batch: Batch) -> None:
        if self.lost or (self.direct and self._idle() and self.direct(batch)):
            return
        events, size = self._events + len(batch.changes), self._size + batch.size
        if self._pending and (events > BACKLOG or size > BACKLOG_BYTES):
            self.cut_off()
            return
        self._pending.append(batch)
        self._events, self._size = events, size
        self._sum.put(self, size)
        self.wake()

    def cut_off(self) -> None:
        """It is too slow: `take` raises DeadlineError."""
        self.close()
        self.wake()

    def _idle(self) -> bool:
        return not self._pending and self._wake is not None and not self._wake.done()

    def close(self) -> None:
        """Let go of what is pending, and take nothing more."""
        self.lost = True
        self._events = self._size = 0
        self._pending.clear()
        self._sum.put(self, 0)

    async def take(self, timeout: float) -> Batch | None:
        """The next batch, None when there was none in `timeout` seconds. Errors as of `Watcher.take`."""
        if not self._pending:
            self._check()
            await self._wait(timeout)
        if not self._pending:
            if self.lost:
                self._check()
            return None
        self._woken = False
        batch = self._pending.popleft()
        self._events -= len(batch.changes)
        self._size -= batch.size
        self._sum.put(self, self._size)
        return batch


class Feed:
    """The clients of one filter."""

    def __init__(self, wanted: Filter) -> None:
        self.wanted = wanted
        self.clients: dict[Client, None] = {}
        self._pending: list[Seen] = []
        self._timer: asyncio.Handle | None = None
        self._last = 0.0
        self._under_way: deque[int] = deque()  # first versions of what is being handed out

    def offer(self, change: Change) -> None:
        if kind := change.seen_by(self.wanted):
            self._pending.append((kind, change))
            if self._timer is None:
                self._start()

    def _start(self) -> None:
        loop = asyncio.get_running_loop()
        due = self._last + min(MAX_PAUSE, PAUSE * len(self.clients))
        self._timer = loop.call_soon(self.flush) if due <= loop.time() else loop.call_at(due, self.flush)

    def flush(self) -> None:
        """Hand out what was gathered."""
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        if not self._pending:
            return
        pending, self._pending = self._pending, []
        loop = asyncio.get_running_loop()
        self._last = loop.time()
        self._under_way.append(pending[0][1].rv)
        self._hand_out(loop, tuple(batches(pending)), tuple(self.clients))

    def _hand_out(self, loop: asyncio.AbstractEventLoop, made: tuple[Batch, ...], clients: tuple[Client, ...]) -> None:
        """To a few now, to the others in later turns. A later one never overtakes this one."""
        for client in clients[:SLICE]:
            for batch in made:
                client.offer(batch)
        if len(clients) > SLICE:
            loop.call_soon(self._hand_out, loop, made, clients[SLICE:])
        else:
            self._under_way.popleft()

    def told(self, revision: int) -> int:
        """The version up to which every client has been told everything, when the cache is at `revision`."""
        if self._under_way:
            return self._under_way[0] - 1
        return self._pending[0][1].rv - 1 if self._pending else revision


def batches(changes: Iterable[Seen]) -> Iterator[Batch]:
    """In order, each of about `BATCH_BYTES` at most."""
    gathered: list[Seen] = []
    size = 0
    for seen in changes:
        gathered.append(seen)
        size += len(seen[1].entry.value)
        if size >= BATCH_BYTES:
            yield Batch(gathered)
            gathered, size = [], 0
    if gathered:
        yield Batch(gathered)


Place = tuple[str, str]


class Audience:
    """All who watch one resource, found by what they watch: an event touches only those that it may concern."""

    def __init__(self, backlog: Backlog) -> None:
        self._backlog = backlog
        self._watchers: dict[str, dict[Watcher, None]] = {}  # by namespace
        self._feeds: dict[Place, dict[Hashable, Feed]] = {}  # by namespace and name

    def __len__(self) -> int:
        return sum(len(found) for found in self._watchers.values()) + sum(1 for _ in self._clients())

    def _clients(self) -> Iterator[Client]:
        for feeds in self._feeds.values():
            for feed in feeds.values():
                yield from feed.clients

    def watch(self, wanted: Filter, backlog: Iterable[Change]) -> Watcher:
        watcher = Watcher(wanted, backlog)
        self._watchers.setdefault(wanted.namespace, {})[watcher] = None
        return watcher

    def unwatch(self, watcher: Watcher) -> None:
        place = watcher.wanted.namespace
        found = self._watchers.get(place, {})
        found.pop(watcher, None)
        if not found:
            self._watchers.pop(place, None)

    def join(self, wanted: Filter, backlog: Iterable[Change]) -> Client:
        feeds = self._feeds.setdefault((wanted.namespace, wanted.name), {})
        feed = feeds.setdefault(wanted.same, Feed(wanted))
        feed.flush()  # what it gathered so far is in the backlog of the newcomer
        client = Client(self._backlog)
        for batch in batches((kind, change) for change in backlog if (kind := change.seen_by(wanted))):
            client.offer(batch)
        feed.clients[client] = None
        return client

    def told(self, wanted: Filter, revision: int) -> int:
        """See `Feed.told`."""
        feed = self._feeds.get((wanted.namespace, wanted.name), {}).get(wanted.same)
        return revision if feed is None else feed.told(revision)

    def leave(self, wanted: Filter, client: Client) -> None:
        client.close()
        place = (wanted.namespace, wanted.name)
        feeds = self._feeds.get(place, {})
        if (feed := feeds.get(wanted.same)) is None:
            return
        feed.clients.pop(client, None)
        if not feed.clients:
            feed.flush()  # stops its timer
            del feeds[wanted.same]
            if not feeds:
                del self._feeds[place]

    def tell(self, change: Change) -> None:
        namespace, name = change.entry.key.namespace, change.entry.key.name
        for place in (namespace, "") if namespace else ("",):
            for watcher in tuple(self._watchers.get(place, ())):
                watcher.offer(change)
            for part in (name, ""):
                for feed in self._feeds.get((place, part), {}).values():
                    feed.offer(change)

    def _everyone(self) -> list[Watcher | Client]:
        return [*(watcher for found in self._watchers.values() for watcher in found), *self._clients()]

    def wake(self) -> None:
        for one in self._everyone():
            one.wake()

    def end(self) -> None:
        for one in self._everyone():
            one.end()
