"""The scheduler at work: changes of the API feed snapshot and queue, decisions become bindings.

A pod counts as placed from the decision on (it is *assumed*), so that the next decision need not wait for the binding's
write; when that fails, the place is free again. The API refuses to bind a pod twice, whoever tries.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Mapping
from typing import Any, Protocol

from cuboid.kube import names, objects, selectors
from cuboid.kube.client import (
    BUDGETS,
    NAMESPACES,
    NODES,
    PODS,
    STORAGE_CLASSES,
    VOLUME_CLAIMS,
    VOLUMES,
    Client,
    Resource,
)
from cuboid.kube.controller.sources import Follower, Listener, Source
from cuboid.kube.controller.view import Change
from cuboid.kube.names import BOUND_AT
from cuboid.kube.objects import label_selector
from cuboid.lib.aio import TaskSet
from cuboid.lib.clock import rfc3339, rfc3339_micro
from cuboid.lib.errors import ConflictError, CuboidError, NotFoundError
from cuboid.lib.log import get_log
from cuboid.scheduler.decide import Decision, decide, waits_for
from cuboid.scheduler.queue import SchedulingQueue
from cuboid.scheduler.snapshot import Placed, Snapshot, placed
from cuboid.scheduler.volumes import NO_CLAIMS, SELECTED_NODE, Claims, claims, selected_node

log = get_log(__name__)

NAME = "default-scheduler"
BINDINGS = 256
"""Bindings under way at once."""
Raw = Mapping[str, Any]


class Teller(Protocol):
    """Where events go."""

    def tell(self, about: dict[str, Any], type_: str, reason: str, message: str) -> None: ...


class Scheduler:
    def __init__(self, client: Client, source: Source, teller: Teller, name: str = NAME) -> None:
        self._client = client
        self._source = source
        self._teller = teller
        self._name = name
        self._snapshot = Snapshot()
        self._queue = SchedulingQueue()
        self._told: dict[str, str] = {}  # pod uid -> message last given
        self._wake = asyncio.Event()
        self._binding = asyncio.Semaphore(BINDINGS)
        self._assumed: dict[str, Placed] = {}  # bindings under way, by pod uid
        self._behind = False
        self._follow(NODES, self._node_changed)
        self._follow(NAMESPACES, self._namespace_changed)
        self._follow(PODS, self._pod_changed)
        for resource in (VOLUME_CLAIMS, VOLUMES, STORAGE_CLASSES, BUDGETS):
            self._follow(resource, self._other_changed)

    def _follow(self, resource: Resource, listener: Listener) -> None:
        self._source.follow(resource, Follower(listener, initial=True, lost=self._lost))

    async def run(self) -> None:
        """Until cancelled; the source must be run as well, by whoever owns it."""
        async with TaskSet("scheduler") as tasks:
            while True:
                self._wake.clear()
                if self._behind:
                    self._look_at_everything()
                while (pod := self._queue.next(_now())) is not None:
                    await self._schedule(pod, tasks)
                    await asyncio.sleep(0)  # as long as bindings are free, nothing else waits: requests have their turn
                due = self._queue.due()
                try:
                    async with asyncio.timeout(None if due is None else max(due - _now(), 0.01)):
                        await self._wake.wait()
                except TimeoutError:
                    continue

    # --- news --------------------------------------------------------------------------------------------------------

    def _lost(self) -> None:
        self._behind = True
        self._wake.set()

    def _look_at_everything(self) -> None:
        """Changes were missed: what is known is made anew from what there is."""
        self._behind = False
        self._snapshot = Snapshot()
        for resource, listener in (
            (NODES, self._node_changed),
            (NAMESPACES, self._namespace_changed),
            (PODS, self._pod_changed),
        ):
            for document in self._source.every(resource):
                listener(Change("ADDED", document))
        here = {objects.uid(pod) for pod in self._source.every(PODS)}
        for uid in self._queue.uids() - here:
            self._gone(uid)
        for uid, pod in self._assumed.items():
            if uid in self._queue:  # else it is gone by now, or where the API says
                self._snapshot.set_pod(pod)
        self._stir()

    def _node_changed(self, change: Change) -> None:
        if change.type == "DELETED":
            self._snapshot.remove_node(objects.name(change.new))
            return
        self._snapshot.set_node(change.new)
        if change.old is None or _node_matters(change.old) != _node_matters(change.new):
            self._stir()

    def _namespace_changed(self, change: Change) -> None:
        if change.type == "DELETED":
            self._snapshot.namespaces.pop(objects.name(change.new), None)
        else:
            self._snapshot.namespaces[objects.name(change.new)] = dict(objects.labels(change.new))

    def _other_changed(self, change: Change) -> None:
        self._stir()

    def _pod_changed(self, change: Change) -> None:
        pod, uid = change.new, objects.uid(change.new)
        if change.type == "DELETED" or objects.finished(pod):
            self._gone(uid)
        elif pod["spec"].get("nodeName"):
            self._on_a_node(change, uid)
        elif self._is_mine(pod):
            self._waits(change, uid)
        else:
            self._gone(uid)

    def _gone(self, uid: str) -> None:
        self._queue.remove(uid)
        self._told.pop(uid, None)
        self._snapshot.nominate(None, uid)
        if self._snapshot.where(uid):
            self._snapshot.forget(uid)
            self._stir()

    def _on_a_node(self, change: Change, uid: str) -> None:
        self._queue.remove(uid)
        self._told.pop(uid, None)
        self._snapshot.nominate(None, uid)
        pod, old = change.new, change.old
        same = old is not None and _pod_matters(old) == _pod_matters(pod)
        if not same or self._snapshot.where(uid) != pod["spec"]["nodeName"]:
            self._snapshot.set_pod(placed(pod))
            if old is not None and not same:
                self._stir()  # smaller than before, or with labels that others look at

    def _waits(self, change: Change, uid: str) -> None:
        pod, known = change.new, change.new["metadata"].get("uid", "") in self._queue
        if nominated := pod.get("status", {}).get("nominatedNodeName", ""):
            self._snapshot.nominate(placed(pod, nominated), uid)
        else:
            self._snapshot.nominate(None, uid)
        labels = self._snapshot.namespace_labels(objects.namespace(pod))
        tenant = labels.get(names.TENANT, "")
        self._queue.put(pod, f"tenant:{tenant}" if tenant else "")
        if known and change.old is not None and _pod_matters(change.old) != _pod_matters(pod):
            self._queue.changed(uid, _now())
        self._wake.set()

    def _is_mine(self, pod: Raw) -> bool:
        return pod["spec"].get("schedulerName", NAME) == self._name and not objects.deleting(pod)

    def _stir(self) -> None:
        self._queue.stir(_now())
        self._wake.set()

    # --- decisions ---------------------------------------------------------------------------------------------------

    async def _schedule(self, pod: Raw, tasks: TaskSet) -> None:
        uid = objects.uid(pod)
        if gated := waits_for(pod):
            self._queue.rest(uid, _now())
            await self._refuse(pod, "SchedulingGated", gated, Decision(""))
            return
        decision = decide(pod, self._snapshot, self._claims(pod), self._protected())
        if decision.node and not decision.waiting:
            self._assumed[uid] = placed(pod, decision.node)
            self._snapshot.set_pod(self._assumed[uid])
            await self._binding.acquire()
            tasks.start(self._bind(pod, decision.node), name=f"bind-{objects.name(pod)}")
            return
        self._queue.rest(uid, _now())
        if decision.node:
            await self._tell_claims(decision)
        else:
            await self._refuse(pod, "Unschedulable", decision.message, decision)

    def _claims(self, pod: Raw) -> Claims:
        if not any("persistentVolumeClaim" in v or "ephemeral" in v for v in pod["spec"].get("volumes") or ()):
            return NO_CLAIMS
        return claims(pod, self._getter(VOLUME_CLAIMS), self._getter(VOLUMES), self._getter(STORAGE_CLASSES))

    def _getter(self, resource: Resource) -> Any:
        def get(namespace: str, name: str) -> Raw | None:
            return self._source.get(resource, namespace, name)

        return get

    def _protected(self) -> Any:
        """Asked for victims only: budgets are read when the first one comes up."""
        budgets: list[tuple[str, Any]] | None = None

        def protected(pod: Placed) -> bool:
            nonlocal budgets
            if budgets is None:
                budgets = [
                    (objects.namespace(item), label_selector(item["spec"].get("selector")))
                    for item in self._source.select(BUDGETS)
                    if item.get("status", {}).get("disruptionsAllowed", 0) < 1
                ]
            return any(
                namespace == pod.namespace and selector is not None and selectors.matches(selector, pod.labels)
                for namespace, selector in budgets
            )

        return protected

    async def _tell_claims(self, decision: Decision) -> None:
        """The volumes are made for this node; when they are bound, the pod is looked at again."""
        for claim in decision.waiting:
            if selected_node(claim) == decision.node:
                continue
            metadata = claim["metadata"]
            patch = {"metadata": {"uid": metadata["uid"], "annotations": {SELECTED_NODE: decision.node}}}
            try:
                await self._client.patch(VOLUME_CLAIMS, metadata["name"], patch, metadata["namespace"])
            except CuboidError as error:
                log.info("a claim was not told its node", claim=metadata["name"], error=str(error))

    async def _bind(self, pod: Raw, node: str) -> None:
        metadata = pod["metadata"]
        binding = {
            "apiVersion": "v1",
            "kind": "Binding",
            "metadata": {
                "name": metadata["name"],
                "namespace": metadata["namespace"],
                "uid": metadata["uid"],
                "annotations": {BOUND_AT: rfc3339_micro(time.time())},
            },
            "target": {"kind": "Node", "name": node},
        }
        place = f"{metadata['namespace']}/{metadata['name']}"
        try:
            await self._client.create(PODS, binding, metadata["namespace"], name=metadata["name"], sub="binding")
        except CuboidError as error:
            self._unbound(pod, node, error)
        else:
            self._told.pop(metadata["uid"], None)
            self._teller.tell(dict(pod), "Normal", "Scheduled", f"Successfully assigned {place} to {node}")
        finally:
            self._assumed.pop(metadata["uid"], None)
            self._binding.release()

    def _unbound(self, pod: Raw, node: str, error: CuboidError) -> None:
        """Give the assumed place back, unless the watch says meanwhile that the pod is somewhere."""
        uid = objects.uid(pod)
        log.info("a pod was not bound", pod=objects.name(pod), node=node, error=str(error))
        known = self._queue.pod(uid)
        if known is None:
            return  # gone, or bound by another: the news put things right
        self._snapshot.forget(uid)
        self._queue.rest(uid, _now())
        self._stir()  # also after a conflict: what changed may be nothing that wakes it, and came before it rested

    async def _refuse(self, pod: Raw, reason: str, message: str, decision: Decision) -> None:
        uid, metadata = objects.uid(pod), pod["metadata"]
        before = pod.get("status", {}).get("nominatedNodeName", "")
        self._snapshot.nominate(placed(pod, decision.nominated) if decision.nominated else None, uid)
        if self._told.get(uid) == message and decision.nominated == before and not decision.victims:
            return
        condition = {
            "type": "PodScheduled",
            "status": "False",
            "reason": reason,
            "message": message,
            "lastTransitionTime": rfc3339(time.time()),
        }
        status: dict[str, Any] = {"conditions": [condition]}
        if decision.nominated != before:
            status["nominatedNodeName"] = decision.nominated or None
        try:
            await self._client.patch(
                PODS,
                metadata["name"],
                {"metadata": {"uid": uid}, "status": status},
                metadata["namespace"],
                sub="status",
            )
            for victim in decision.victims:
                await self._evict(victim, pod)
        except CuboidError as error:
            log.info("a pod was not told why it waits", pod=metadata["name"], error=str(error))
            self._stir()  # tried again after its pause, else it would rest while its victims live on
            return
        self._told[uid] = message
        if reason != "SchedulingGated":
            self._teller.tell(dict(pod), "Warning", "FailedScheduling", message)

    async def _evict(self, victim: Placed, pod: Raw) -> None:
        """A pod that has to go says why: DisruptionTarget, then its deletion with its own grace period."""
        if victim.deleting:
            return
        why = f"{self._name}: preempting to accommodate a higher priority pod"
        condition = {
            "type": "DisruptionTarget",
            "status": "True",
            "reason": "PreemptionByScheduler",
            "message": why,
            "lastTransitionTime": rfc3339(time.time()),
        }
        about = {
            "apiVersion": "v1",
            "kind": "Pod",
            "metadata": {"name": victim.name, "namespace": victim.namespace, "uid": victim.uid},
        }
        try:
            patch = {"metadata": {"uid": victim.uid}, "status": {"conditions": [condition]}}
            await self._client.patch(PODS, victim.name, patch, victim.namespace, sub="status")
            await self._client.delete(PODS, victim.name, victim.namespace, uid=victim.uid)
        except (NotFoundError, ConflictError):
            return
        told = f"Preempted by pod {objects.uid(pod)} on node {victim.node}"
        self._teller.tell(about, "Normal", "Preempted", told)


def _node_matters(node: Raw) -> tuple[Any, ...]:
    """What of a node can make room; heartbeats do not."""
    spec = node.get("spec", {})
    return (
        objects.labels(node),
        spec.get("taints"),
        spec.get("unschedulable"),
        node.get("status", {}).get("allocatable"),
        objects.is_true(node, "Ready"),
    )


def _pod_matters(pod: Raw) -> tuple[Any, ...]:
    return pod["spec"], objects.labels(pod), objects.deleting(pod)


def _now() -> float:
    return asyncio.get_running_loop().time()
