"""Brings a pod's status to the API: only when it has changed, the newest only, until it is there.

A pod that comes up says little that anybody waits for until its containers run. Its steps are told together, so that a
start that takes less than PATIENCE is one write, and no write of a step is under way when the pod runs.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Any

from cuboid.lib.aio import within
from cuboid.lib.errors import ConflictError, CuboidError, InvalidError, NotFoundError
from cuboid.lib.log import get_log
from cuboid.node.api import Api

log = get_log(__name__)
Raw = dict[str, Any]
CALL_SECONDS = 10.0
RETRY_FIRST, RETRY_LONGEST = 0.2, 10.0
PATIENCE = 0.1  # seconds that a pod on its way up may be silent
ON_THE_WAY = ("ContainerCreating", "PodInitializing")
FINAL = (NotFoundError, ConflictError)  # the object is gone, or another pod's by now


class StatusWriter:
    """`render(conditions)` gives the status as it is now; the conditions are those last written."""

    def __init__(self, api: Api, namespace: str, name: str, uid: str, render: Callable[[list[Raw]], Raw]) -> None:
        self._api = api
        self._place = (namespace, name, uid)
        self._render = render
        self._dirty = asyncio.Event()
        self._idle = asyncio.Event()
        self._idle.set()
        self._sent: Raw = {}

    def mark(self) -> None:
        """Something may have changed."""
        self._idle.clear()
        self._dirty.set()

    def again(self) -> None:
        """Write it even if it has not changed: somebody else has written over it."""
        self._sent = {"conditions": self._sent.get("conditions", [])}
        self.mark()

    async def flush(self) -> None:
        """Wait until the newest status has been written, or cannot be."""
        await self._idle.wait()

    async def run(self) -> None:
        while True:
            await self._dirty.wait()
            await self._gather()
            self._dirty.clear()
            await self._write()
            if not self._dirty.is_set():
                self._idle.set()

    async def _gather(self) -> None:
        """Wait a little while there is only a step of a start to tell."""
        until = asyncio.get_running_loop().time() + PATIENCE
        try:
            async with asyncio.timeout_at(until):
                while _on_the_way(self._render(self._sent.get("conditions", []))):
                    self._dirty.clear()
                    await self._dirty.wait()
        except TimeoutError:
            return

    async def _write(self) -> None:
        pause = RETRY_FIRST
        while True:
            status = self._render(self._sent.get("conditions", []))
            if status == self._sent:
                return
            try:
                await within(CALL_SECONDS, self._api.patch_pod_status(*self._place, status), "writing a pod's status")
                self._sent = status
                return
            except FINAL as error:
                log.debug("no status written", pod=self._place[1], error=str(error))
                return
            except InvalidError as error:
                log.error("the API refuses a status", pod=self._place[1], error=str(error))
                return
            except (CuboidError, OSError) as error:
                log.info("status will be written later", pod=self._place[1], error=str(error))
            await asyncio.sleep(pause)
            pause = min(pause * 2, RETRY_LONGEST)


def _on_the_way(status: Raw) -> bool:
    rows = [*status.get("initContainerStatuses", ()), *status.get("containerStatuses", ())]
    waiting = [row.get("state", {}).get("waiting", {}).get("reason", "") for row in rows]
    return status.get("phase") == "Pending" and not status.get("reason") and all(r in ON_THE_WAY for r in waiting)
