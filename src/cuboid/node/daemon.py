"""The node agent's loop: pods bound to this node become workers; the Node object and its lease are kept fresh."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine
from functools import partial
from pathlib import Path
from typing import Any

import msgspec

from cuboid.kube import names
from cuboid.kube.types import pod as parse_pod
from cuboid.lib.aio import TaskSet, gather_all, within
from cuboid.lib.errors import CuboidError
from cuboid.lib.log import get_log
from cuboid.node import node_object
from cuboid.node.access import PodView
from cuboid.node.api import Change, PodChange
from cuboid.node.claims import ClaimReader
from cuboid.node.claims_wait import WaitingPods
from cuboid.node.news import News
from cuboid.node.records import Record, Records
from cuboid.node.recover import clean, host_boot_id, recover
from cuboid.node.sandbox import events as ev
from cuboid.node.sandbox import state as st
from cuboid.node.sandbox.plan import plan
from cuboid.node.steps.tools import Tools
from cuboid.node.worker import PodWorker

log = get_log(__name__)
CALL_SECONDS = 10.0
NODE_EVERY = 6  # heartbeats between two looks at the Node object
STOP_SECONDS = 10.0
LEAVE_SECONDS = 2.0
SETTLE_SECONDS = 3.0
SETTLE_LOOK_SECONDS = 0.01
LOOK_SECONDS = 2.0  # between two looks at which guests can be spoken with
Edge = Coroutine[Any, Any, None]


class NodeDaemon:
    """Also the `PodAccess` of the agent's edges."""

    def __init__(self, tools: Tools, state: Path, claims: ClaimReader, *, boot_id: str = "") -> None:
        self._tools = tools
        self.metrics = tools.metrics
        self._state = state
        self._records = Records(state)
        self._boot_id = boot_id or host_boot_id()
        self._workers: dict[str, PodWorker] = {}  # by uid
        self._news = News()
        self._tasks = TaskSet("node", grace=STOP_SECONDS)
        self._waiting = WaitingPods(tools, claims, self._tasks, self._admit)
        self._node: dict[str, Any] = {}
        self.port = tools.settings.port
        self.accel_reason = ""

    # --- PodAccess ---------------------------------------------------------------------------------------------------

    def find(self, namespace: str, name: str) -> PodView | None:
        """Of two pods of one name, of which the older one is still ending, the younger one."""
        metas = {worker.uid: worker.pod.metadata for worker in self._workers.values()}
        found = [uid for uid, meta in metas.items() if (meta.namespace, meta.name) == (namespace, name)]
        newest = max(
            found,
            key=lambda uid: (not metas[uid].deletion_timestamp, metas[uid].creation_timestamp or ""),
            default=None,
        )
        return self._workers[newest] if newest is not None else None

    def pods(self) -> list[PodView]:
        return list(self._workers.values())

    def machines(self) -> list[dict[str, Any]]:
        return self._tools.warm.rows()

    async def news(self, namespace: str, name: str) -> None:
        await self._news.about(namespace, name)

    # --- running -----------------------------------------------------------------------------------------------------

    async def run(
        self, stop: asyncio.Event, *, edges: dict[str, Edge] | None = None, ready: Callable[[], None] = lambda: None
    ) -> None:
        """Until `stop` is set. Pods run on after the end of this."""
        async with self._tasks:
            await self._recover()
            for name, edge in (edges or {}).items():
                self._tasks.start(edge, name=name)
            self._tasks.start(self._tools.refresher.run(), name="volumes")
            await self._settle()
            self._tasks.start(self._heartbeat(), name="heartbeat")
            self._tasks.start(self._look_after_guests(), name="guests")
            ready()
            # Before new pods come in: theirs must not be taken for leftovers.
            await clean(self._tools, list(self._workers.values()))
            self._tasks.start(self._watch(), name="pods")
            self._tasks.start(self._tools.templates.run(), name="templates")
            self._tasks.start(self._tools.warm.run(), name="warm")
            await stop.wait()
            await self._leave()

    async def _settle(self) -> None:
        """Before this agent calls itself ready, guests that were found again should be connected: exec works then."""
        until = self._tools.clock.monotonic() + SETTLE_SECONDS
        while any(worker.connecting for worker in self._workers.values()):
            if self._tools.clock.monotonic() > until:
                return  # one that boots may take longer
            await asyncio.sleep(SETTLE_LOOK_SECONDS)

    async def _leave(self) -> None:
        """Let go of guests so that the next agent finds them at once. VMs, networks and records stay."""
        try:
            await within(LEAVE_SECONDS, self._put_node(ready=False), "writing the Node object")
        except (CuboidError, OSError) as error:
            log.info("the API does not know that this agent ends", error=str(error))
        await gather_all(*(self._part(worker) for worker in self._workers.values()))

    async def _part(self, worker: PodWorker) -> None:
        worker.close()
        try:
            await within(STOP_SECONDS, worker.work.close_guest(), "letting go of a guest")
        except (CuboidError, OSError) as error:
            log.info("guest not let go of in order", pod=worker.pod.metadata.name, error=str(error))

    async def _recover(self) -> None:
        records = await asyncio.to_thread(self._records.load)
        for record in records.values():
            record.sandbox = msgspec.structs.replace(record.sandbox, rules=self._tools.settings.rules)
        workers = {uid: self._start(record) for uid, record in records.items()}
        networks = {worker.work.network_id for worker in workers.values()}
        await gather_all(
            *(
                recover(self._tools, workers[uid], record, boot_id=self._boot_id, networks=networks)
                for uid, record in records.items()
            )
        )
        if records:
            log.info("pods found again", count=len(records))

    def _start(self, record: Record) -> PodWorker:
        worker = PodWorker(self._tools, self._records, record, self._tasks, self._gone)
        self._workers[worker.uid] = worker
        meta = worker.pod.metadata
        worker.on_change = partial(self._news.tell, meta.namespace, meta.name)
        worker.on_change()
        return worker

    def _gone(self, worker: PodWorker) -> None:
        self._workers.pop(worker.uid, None)

    async def _look_after_guests(self) -> None:
        """A VM whose agent has been silent for too long is as good as dead, whatever its VMM says."""
        silent: dict[str, float] = {}
        while True:
            now = self._tools.clock.monotonic()
            lost = {worker.uid: worker for worker in self._workers.values() if worker.out_of_touch}
            silent = {uid: silent.get(uid, now) for uid in lost}
            for uid in [uid for uid, since in silent.items() if now - since >= self._tools.settings.lost_seconds]:
                lost[uid].post(lost[uid].unreachable())
                del silent[uid]
            await asyncio.sleep(LOOK_SECONDS)

    # --- pods --------------------------------------------------------------------------------------------------------

    async def _watch(self) -> None:
        while True:
            try:
                await self._tools.api.watch_pods(self._tools.node, self.on_change)
            except (CuboidError, OSError) as error:
                log.error("the watch of pods ended, it begins anew", error=str(error))
            await asyncio.sleep(1.0)

    def on_change(self, change: PodChange) -> None:
        """One change of a pod of this node. Never raises: a pod that cannot be read is left alone, and said so."""
        try:
            self._on_change(change)
        except CuboidError as error:
            name = change.pod.get("metadata", {}).get("name", "")
            log.error("pod is left alone", pod=name, error=str(error))

    def _on_change(self, change: PodChange) -> None:
        if change.change is Change.SYNCED:
            self._waiting.keep(change.uids)
            self._vanish(lambda worker: worker.uid not in change.uids)
            return
        uid = str(change.pod.get("metadata", {}).get("uid", ""))
        if change.change is Change.GONE:
            self._waiting.drop(uid)
            self._vanish(lambda worker: worker.uid == uid)
        elif uid in self._workers:
            self._workers[uid].update(change.pod)
        elif not self._waiting.take(change.pod):
            self._admit(change.pod)

    def _vanish(self, which: Callable[[PodWorker], bool]) -> None:
        for worker in [worker for worker in self._workers.values() if which(worker)]:
            worker.post(ev.Vanished(at=self._tools.clock.now()))

    def _admit(self, raw: dict[str, Any]) -> None:
        pod = parse_pod(raw)
        if pod.status.phase in ("Succeeded", "Failed") and pod.metadata.deletion_timestamp is None:
            return  # it has ended; of its end nothing is on this host
        record = Record(st.new(plan(pod), self._tools.settings.rules), raw, boot_id=self._boot_id)
        worker = self._start(record)
        log.info("pod bound", pod=f"{pod.metadata.namespace}/{pod.metadata.name}", uid=worker.uid)
        worker.post(ev.Admitted(at=self._tools.clock.now()))
        if pod.metadata.deletion_timestamp is not None:
            worker.update(raw)

    async def shut_down_pods(self) -> None:
        """End every pod for good (`cuboid down --pods`): its objects stay, as Failed."""
        for worker in self._workers.values():
            worker.post(ev.Shutdown(at=self._tools.clock.now()))

    # --- node --------------------------------------------------------------------------------------------------------

    async def _heartbeat(self) -> None:
        beat, renewed = 0, self._tools.clock.monotonic()
        while True:
            if self._tools.clock.monotonic() - renewed > self._tools.settings.lease_seconds:
                beat = 0  # the API takes this node for lost by now
            try:
                if beat % NODE_EVERY == 0 or not self._node:
                    await self._say_ready()
                lease = self._tools.api.renew_lease(self._tools.node, self._tools.settings.lease_seconds)
                await within(self._call_seconds, lease, "renewing the node's lease")
                renewed = self._tools.clock.monotonic()
                beat += 1
                pause = self._tools.settings.heartbeat_seconds
            except (CuboidError, OSError) as error:
                log.warning("the API does not know that this node lives", error=str(error))
                pause = 1.0
            await asyncio.sleep(pause)

    @property
    def _call_seconds(self) -> float:
        """One call that hangs must leave time for another before the lease has ended."""
        return min(CALL_SECONDS, self._tools.settings.lease_seconds / 2)

    async def _say_ready(self) -> None:
        if await within(self._call_seconds, self._put_node(), "writing the Node object"):
            for worker in self._workers.values():
                worker.tell_again()

    async def _put_node(self, *, ready: bool = True) -> bool:
        """Whether the API had taken this node for lost."""
        tools = self._tools
        runtime = f"{tools.driver.name}/{tools.driver.capabilities().accel}"
        host = node_object.host(
            tools.node, tools.host_ip, self.port, self._state, runtime=runtime, boot_id=self._boot_id
        )
        node = node_object.build(
            host, tools.settings, tools.images.images(), now=tools.clock.now(), previous=self._node, ready=ready
        )
        node["metadata"]["annotations"] = {
            names.ACCEL: tools.driver.capabilities().accel, names.ACCEL_REASON: self.accel_reason,
        }  # fmt: skip
        lost = await tools.api.put_node(node)
        self._node = node
        return lost
