"""The loop that runs controllers: changes wake keys, each key is planned and its plan carried out, one at a time.

Nothing is remembered between two plans but the objects themselves: a controller that is killed at any point goes on
where its next plan finds things.
"""

from __future__ import annotations

import asyncio
import random
import time
from collections import Counter
from collections.abc import Callable, Iterable

from cuboid.kube.client import Client
from cuboid.kube.controller.act import Actor, Failure, Teller, told
from cuboid.kube.controller.queue import KeyQueue
from cuboid.kube.controller.sources import Follower, Listener, Source
from cuboid.kube.controller.view import Change, Controller, Key, Watch
from cuboid.lib.aio import TaskSet
from cuboid.lib.errors import ConflictError, CuboidError
from cuboid.lib.log import get_log

log = get_log(__name__)

WORKERS = 4
"""Keys of one controller that are worked on at once."""
SEEN_SECONDS = 300.0
"""How long a plan waits for its predecessor's writes to be seen, while the server is away: one that is made without
them makes everything twice."""
RESYNC_SECONDS = 600.0
"""Every object of its own is looked at by a controller this often at least, whatever was missed."""

REST = 4.0
MAX_REST = 1.0
"""A key whose plan took long to make rests for so many times as long (seconds at most) before the next one: one large
object, with changes all the time, leaves the event loop to the others."""


class Runtime:
    """All controllers of one process over one source. `clock` gives seconds since the epoch."""

    def __init__(
        self,
        client: Client,
        source: Source,
        teller: Teller,
        controllers: Iterable[Controller],
        *,
        workers: int = WORKERS,
        clock: Callable[[], float] = time.time,
    ) -> None:
        self._source = source
        self._actor = Actor(client, teller)
        self._controllers = tuple(controllers)
        self._queues = {controller.name: KeyQueue() for controller in self._controllers}
        assert len(self._queues) == len(self._controllers), "two controllers have the same name"
        self._workers = workers
        self._clock = clock
        self._turn = asyncio.Lock()
        self.counts: Counter[tuple[str, str]] = Counter()
        """Plans by controller and outcome: done, conflict (made anew), failed (tried again), broken (a defect)."""
        for controller in self._controllers:
            for watch in controller.watches:
                self.follow(controller, watch)

    def follow(self, controller: Controller, watch: Watch) -> None:
        """Beside its own `watches`, also while it runs: for controllers of kinds that come later."""
        listener = waker(watch, self._source, self._queues[controller.name].add)
        self._source.follow(watch.resource, Follower(listener, watch.initial, self._lost(controller)))

    def _lost(self, controller: Controller) -> Callable[[], None]:
        return lambda: self.look_at_all(controller)

    def look_at_all(self, controller: Controller) -> None:
        """Wake every key of what the controller is about."""
        queue = self._queues[controller.name]
        for watch in controller.watches:
            if watch.initial:
                listener = waker(watch, self._source, queue.add)
                for document in self._source.every(watch.resource):
                    listener(Change("MODIFIED", document))

    async def run(self) -> None:
        """Until cancelled."""
        try:
            async with TaskSet("controllers") as tasks:
                await self._source.run(tasks)
                for controller in self._controllers:
                    for number in range(self._workers):
                        tasks.start(self._work(controller), name=f"{controller.name}-{number}")
                while True:
                    await asyncio.sleep(RESYNC_SECONDS * random.uniform(0.8, 1.2))
                    log.info("plans so far", **{f"{name}_{outcome}": n for (name, outcome), n in self.counts.items()})
                    for controller in self._controllers:
                        self.look_at_all(controller)
                        await asyncio.sleep(1.0)  # not all of them at once
        finally:
            for queue in self._queues.values():
                queue.close()

    async def _work(self, controller: Controller) -> None:
        queue = self._queues[controller.name]
        while True:
            key = await queue.take()
            try:
                await self._once(controller, key, queue)
            except ConflictError:
                queue.failed(key)  # somebody else wrote; the news is on its way
                self.counts[controller.name, "conflict"] += 1
            except CuboidError as error:
                delay = queue.failed(key)
                self.counts[controller.name, "failed"] += 1
                log.info("trying again", controller=controller.name, key=str(key), error=str(error), seconds=delay)
            except Exception:
                queue.failed(key)
                self.counts[controller.name, "broken"] += 1
                log.exception("a controller failed", controller=controller.name, key=str(key))
            else:
                queue.done(key)
                self.counts[controller.name, "done"] += 1

    async def _once(self, controller: Controller, key: Key, queue: KeyQueue) -> None:
        async with self._turn:
            await asyncio.sleep(0)  # between two plans of any controllers, the loop gets to everything else
            began = time.perf_counter()
            plan = controller.plan(key, self._source, self._clock())
            queue.rest(key, min(REST * (time.perf_counter() - began), MAX_REST))
        if plan.instructions:
            log.debug("acting", controller=controller.name, key=str(key), plan=told(plan))
        try:
            written = await self._actor.carry_out(plan)
        except Failure as failure:
            for resource, made in failure.written:
                await self._source.seen(resource, made, SEEN_SECONDS)
            raise failure.error from None
        for resource, made in written:
            await self._source.seen(resource, made, SEEN_SECONDS)
        if plan.again is not None:
            queue.add_after(key, plan.again)


def waker(watch: Watch, source: Source, add: Callable[[Key], None]) -> Listener:
    """A listener that adds the keys of a change."""

    def wake(change: Change) -> None:
        for key in watch.keys(change, source):
            add(key)

    return wake
