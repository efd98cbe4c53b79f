"""Puts pending pods on the one node there is. A client of the API like any scheduler, and replaced by one later.

`decide` is pure: it says where a pod goes, or why it can not go anywhere in Kubernetes' words.
"""

from __future__ import annotations

import asyncio
import socket
import time
from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

from cuboid.kube import quantity
from cuboid.kube.client import EVENTS, NODES, PODS, KubeClient
from cuboid.kube.informer import Informer
from cuboid.kube.names import BOUND_AT
from cuboid.lib.clock import rfc3339, rfc3339_micro
from cuboid.lib.errors import CuboidError
from cuboid.lib.log import get_log

log = get_log(__name__)

SCHEDULER = "default-scheduler"
RETRY_SECONDS = 5.0
"""How often a pod that fits nowhere is looked at again, if nothing changes."""
EVENT_SECONDS = 0.05
"""How long an event waits."""
Raw = Mapping[str, Any]
_RESOURCES = ("cpu", "memory", "ephemeral-storage")


@dataclass(frozen=True)
class Decision:
    """`node`, or "" with a `message`."""

    node: str
    message: str = ""


def requested(pod: Raw) -> dict[str, int]:
    """What a pod asks of its node, in thousandths; init containers count by their greatest, sidecars always."""
    spec = pod["spec"]
    total = dict.fromkeys(_RESOURCES, 0)
    for container in spec.get("containers", []):
        _add(total, _amounts(container))
    peak = dict(total)
    sidecars = dict.fromkeys(_RESOURCES, 0)
    for container in spec.get("initContainers", []):
        amounts = _amounts(container)
        if container.get("restartPolicy") == "Always":
            _add(sidecars, amounts)
            amounts = dict.fromkeys(_RESOURCES, 0)
        peak = {name: max(peak[name], amounts[name] + sidecars[name]) for name in _RESOURCES}
    _add(total, sidecars)
    result = {name: max(total[name], peak[name]) for name in _RESOURCES}
    _add(result, {name: quantity.to_millis(spec.get("overhead", {}).get(name, 0)) for name in _RESOURCES})
    return result


def _amounts(container: Raw) -> dict[str, int]:
    requests = container.get("resources", {}).get("requests", {})
    return {name: quantity.to_millis(requests.get(name, 0)) for name in _RESOURCES}


def _add(total: dict[str, int], more: Mapping[str, int]) -> None:
    for name in _RESOURCES:
        total[name] += more[name]


def decide(pod: Raw, nodes: Iterable[Raw], pods: Iterable[Raw]) -> Decision:
    """`pods` are those that are on nodes already."""
    placed = list(pods)
    reasons: Counter[str] = Counter()
    count = 0
    for node in nodes:
        count += 1
        why = _misfit(pod, node, [other for other in placed if _on(other, node) and not _over(other)])
        if not why:
            return Decision(node["metadata"]["name"])
        reasons.update(why)
    if not count:
        return Decision("", "no nodes available to schedule pods")
    told = ", ".join(f"{number} {reason}" for reason, number in sorted(reasons.items()))
    return Decision("", f"0/{count} nodes are available: {told}.")


def _on(pod: Raw, node: Raw) -> bool:
    return bool(pod["spec"].get("nodeName") == node["metadata"]["name"])


def _over(pod: Raw) -> bool:
    return pod.get("status", {}).get("phase") in ("Succeeded", "Failed")


def _misfit(pod: Raw, node: Raw, there: list[Raw]) -> list[str]:
    """Why this pod can not be on this node; empty if it can."""
    if node.get("spec", {}).get("unschedulable"):
        return ["node(s) were unschedulable"]
    conditions = {item.get("type"): item.get("status") for item in node.get("status", {}).get("conditions", [])}
    if conditions.get("Ready") != "True":
        return ["node(s) were not ready"]
    labels = node["metadata"].get("labels", {})
    if any(labels.get(key) != value for key, value in pod["spec"].get("nodeSelector", {}).items()):
        return ["node(s) didn't match Pod's node affinity/selector"]
    allocatable = node.get("status", {}).get("allocatable", {})
    wanted, used = requested(pod), dict.fromkeys(_RESOURCES, 0)
    for other in there:
        _add(used, requested(other))
    short = [
        f"Insufficient {name}"
        for name in _RESOURCES
        if wanted[name] and wanted[name] + used[name] > quantity.to_millis(allocatable.get(name, 0))
    ]
    limit = quantity.to_int(allocatable.get("pods", 110))
    return (["Too many pods"] if len(there) >= limit else []) + short


class Binder:
    """The loop: one decision at a time, woken by changes of pods and nodes."""

    def __init__(self, client: KubeClient) -> None:
        self._client = client
        self._pods = Informer(client, PODS)
        self._nodes = Informer(client, NODES)
        self._wake = asyncio.Event()
        self._waiting: dict[str, dict[str, Any]] = {}  # by pod uid
        self._told: dict[str, str] = {}  # pod uid -> message last given
        self._events: asyncio.Queue[tuple[str, dict[str, Any]]] = asyncio.Queue()

    async def run(self) -> None:
        async with asyncio.TaskGroup() as group:
            group.create_task(self._follow_pods(), name="binder-pods")
            group.create_task(self._follow_nodes(), name="binder-nodes")
            group.create_task(self._loop(), name="binder")
            group.create_task(self._tell(), name="binder-events")

    async def _follow_pods(self) -> None:
        async for kind, pod in self._pods.events():
            if kind != "DELETED" and _is_waiting(pod):
                self._waiting[_uid(pod)] = pod
            else:
                self._waiting.pop(_uid(pod), None)
                self._told.pop(_uid(pod), None)
            self._wake.set()

    async def _follow_nodes(self) -> None:
        async for _ in self._nodes.events():
            self._wake.set()

    async def _loop(self) -> None:
        await self._pods.synced.wait()
        await self._nodes.synced.wait()
        while True:
            self._wake.clear()
            for pod in sorted(
                self._waiting.values(), key=lambda pod: str(pod["metadata"].get("creationTimestamp", ""))
            ):
                await self._place(pod)
            try:
                async with asyncio.timeout(RETRY_SECONDS):
                    await self._wake.wait()
            except TimeoutError:
                continue

    async def _place(self, pod: dict[str, Any]) -> None:
        placed = [other for other in self._pods.objects.values() if other["spec"].get("nodeName")]
        decision = decide(pod, self._nodes.objects.values(), placed)
        try:
            if decision.node:
                await self._bind(pod, decision.node)
            elif self._told.get(_uid(pod)) != decision.message:
                await self._refuse(pod, decision.message)
                self._told[_uid(pod)] = decision.message
        except CuboidError as error:
            log.info("a pod was not placed", pod=pod["metadata"]["name"], error=str(error))

    async def _bind(self, pod: dict[str, Any], node: str) -> None:
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
        await self._client.create(PODS, binding, metadata["namespace"], name=metadata["name"], sub="binding")
        self._assume(pod, node)
        place = f"{metadata['namespace']}/{metadata['name']}"
        self._event(pod, "Normal", "Scheduled", f"Successfully assigned {place} to {node}")

    def _assume(self, pod: dict[str, Any], node: str) -> None:
        """Count it as placed before the watch says so."""
        self._waiting.pop(_uid(pod), None)
        place = (pod["metadata"]["namespace"], pod["metadata"]["name"])
        if self._pods.objects.get(place) is pod:
            self._pods.objects[place] = {**pod, "spec": {**pod["spec"], "nodeName": node}}

    async def _refuse(self, pod: dict[str, Any], message: str) -> None:
        metadata = pod["metadata"]
        condition = {
            "type": "PodScheduled",
            "status": "False",
            "reason": "Unschedulable",
            "message": message,
            "lastTransitionTime": rfc3339(time.time()),
        }
        patch = {"metadata": {"uid": metadata["uid"]}, "status": {"conditions": [condition]}}
        await self._client.patch(PODS, metadata["name"], patch, metadata["namespace"], sub="status")
        self._event(pod, "Warning", "FailedScheduling", message)

    async def _tell(self) -> None:
        """Write events, a little later: no pod waits for its place because of another's event."""
        while True:
            waiting = [await self._events.get()]
            await asyncio.sleep(EVENT_SECONDS)
            while not self._events.empty():
                waiting.append(self._events.get_nowait())
            for namespace, event in waiting:
                try:
                    await self._client.create(EVENTS, event, namespace)
                except CuboidError as error:  # the pod's namespace may be gone
                    log.info("an event was not written", reason=event["reason"], error=str(error))

    def _event(self, pod: dict[str, Any], kind: str, reason: str, message: str) -> None:
        metadata = pod["metadata"]
        now = rfc3339(time.time())
        event = {
            "apiVersion": "v1",
            "kind": "Event",
            "metadata": {"generateName": f"{metadata['name'][:200]}.", "namespace": metadata["namespace"]},
            "involvedObject": {
                "kind": "Pod",
                "apiVersion": "v1",
                "name": metadata["name"],
                "namespace": metadata["namespace"],
                "uid": metadata["uid"],
                "resourceVersion": metadata.get("resourceVersion", ""),
            },
            "type": kind,
            "reason": reason,
            "message": message,
            "source": {"component": SCHEDULER, "host": socket.gethostname()},
            "firstTimestamp": now,
            "lastTimestamp": now,
            "count": 1,
        }
        self._events.put_nowait((metadata["namespace"], event))


def _uid(pod: Raw) -> str:
    return str(pod["metadata"].get("uid", ""))


def _is_waiting(pod: Raw) -> bool:
    spec, metadata = pod["spec"], pod["metadata"]
    mine = spec.get("schedulerName", SCHEDULER) == SCHEDULER
    return bool(mine and not spec.get("nodeName") and not metadata.get("deletionTimestamp") and not _over(pod))


async def run(client: KubeClient) -> None:
    """Place pods until cancelled."""
    await Binder(client).run()
