"""Pods whose claims are not bound yet: they wait here, say so, and go on when they are."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterable
from typing import Any

from cuboid.kube.types import pod as parse_pod
from cuboid.lib.aio import TaskSet
from cuboid.lib.errors import CuboidError
from cuboid.lib.log import get_log
from cuboid.node import claims, status
from cuboid.node.sandbox import state as st
from cuboid.node.sandbox.plan import plan
from cuboid.node.steps.tools import Tools

log = get_log(__name__)
Raw = dict[str, Any]


class WaitingPods:
    """`admit` is called once per pod, with its claims replaced by volumes."""

    def __init__(self, tools: Tools, reader: claims.ClaimReader, tasks: TaskSet, admit: Callable[[Raw], None]) -> None:
        self._tools = tools
        self._reader = reader
        self._tasks = tasks
        self._admit = admit
        self._pods: dict[str, Raw] = {}  # by uid, as last told

    def take(self, pod: Raw) -> bool:
        """Whether the pod waits here. One that is asked to end does not: nothing of it has begun."""
        uid = str(pod["metadata"]["uid"])
        if pod["metadata"].get("deletionTimestamp") or not claims.wanted(pod):
            self._pods.pop(uid, None)
            return False
        known = uid in self._pods
        self._pods[uid] = pod
        if not known:
            self._tasks.start(self._wait(uid), name=f"claims/{uid}")
        return True

    def drop(self, uid: str) -> None:
        self._pods.pop(uid, None)

    def keep(self, uids: Iterable[str]) -> None:
        """Only these exist."""
        for uid in set(self._pods) - set(uids):
            self.drop(uid)

    async def _wait(self, uid: str) -> None:
        while (pod := self._pods.get(uid)) is not None:
            try:
                found = await claims.resolved(pod, self._reader)
            except (CuboidError, OSError) as error:
                await self._say(pod, str(error))
            else:
                if self._pods.pop(uid, None) is not None:
                    self._admit(found)
                return
            await asyncio.sleep(self._tools.settings.retry)

    async def _say(self, raw: Raw, why: str) -> None:
        pod = parse_pod(raw)
        self._tools.recorder.warning(pod, "FailedMount", why)
        waiting = st.new(plan(pod), self._tools.settings.rules)
        shown = status.render(waiting, raw, host_ip=self._tools.host_ip, now=self._tools.clock.now())
        meta = pod.metadata
        try:
            await self._tools.api.patch_pod_status(meta.namespace, meta.name, meta.uid, shown)
        except (CuboidError, OSError) as error:
            log.info("a pod's wait for its claims is not told", pod=meta.name, error=str(error))
