"""The loop that runs controllers: changes wake keys, each key is planned and its plan carried out, one at a time.

Nothing is remembered between two plans but the objects themselves: a controller that is killed at any point goes on
where its next plan finds things.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Iterable

from cuboid.kube.client import Client
from cuboid.kube.controller.act import Actor, Teller, told
from cuboid.kube.controller.queue import KeyQueue
from cuboid.kube.controller.sources import Listener, Source
from cuboid.kube.controller.view import Change, Controller, Key, Watch
from cuboid.lib.aio import TaskSet
from cuboid.lib.errors import ConflictError, CuboidError
from cuboid.lib.log import get_log

log = get_log(__name__)

WORKERS = 4
"""Keys of one controller that are worked on at once."""
SEEN_SECONDS = 5.0
"""How long a plan waits for its predecessor's writes to be seen."""


class Runtime:
    """All controllers of one process over one source."""

    def __init__(
        self,
        client: Client,
        source: Source,
        teller: Teller,
        controllers: Iterable[Controller],
        *,
        workers: int = WORKERS,
    ) -> None:
        self._source = source
        self._actor = Actor(client, teller)
        self._controllers = tuple(controllers)
        self._queues = {controller.name: KeyQueue() for controller in self._controllers}
        self._workers = workers
        for controller in self._controllers:
            for watch in controller.watches:
                source.follow(watch.resource, self._listener(controller, watch))

    def _listener(self, controller: Controller, watch: Watch) -> Listener:
        queue = self._queues[controller.name]

        def wake(change: Change) -> None:
            for key in watch.keys(change, self._source):
                queue.add(key)

        return wake

    async def run(self) -> None:
        """Until cancelled."""
        async with TaskSet("controllers") as tasks:
            await self._source.run(tasks)
            for controller in self._controllers:
                for number in range(self._workers):
                    tasks.start(self._work(controller), name=f"{controller.name}-{number}")
            await asyncio.Event().wait()

    async def _work(self, controller: Controller) -> None:
        queue = self._queues[controller.name]
        while True:
            key = await queue.take()
            try:
                await self._once(controller, key, queue)
            except ConflictError:
                queue.failed(key)  # somebody else wrote; the news is on its way
            except CuboidError as error:
                delay = queue.failed(key)
                log.info("trying again", controller=controller.name, key=str(key), error=str(error), seconds=delay)
            except Exception:
                queue.failed(key)
                log.exception("a controller failed", controller=controller.name, key=str(key))
            else:
                queue.done(key)

    async def _once(self, controller: Controller, key: Key, queue: KeyQueue) -> None:
        plan = controller.plan(key, self._source, time.time())
        if plan.instructions:
            log.debug("acting", controller=controller.name, key=str(key), plan=told(plan))
        for resource, written in await self._actor.carry_out(plan):
            await self._source.seen(resource, written, SEEN_SECONDS)
        if plan.again is not None:
            queue.add_after(key, plan.again)
