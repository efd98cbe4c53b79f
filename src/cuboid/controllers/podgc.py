"""Pods that nobody ends any more: on nodes that are gone, of no node and asked to end, and the oldest of too many that
have finished. Source: kubernetes/pkg/controller/podgc.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator
from typing import Protocol

from cuboid.controllers.common import born, condition, with_condition
from cuboid.kube import kinds, objects
from cuboid.kube.client import NAMESPACES, NODES, PODS
from cuboid.kube.controller.instructions import NOTHING, Delete, Instruction, Object, Patch, Plan, Together
from cuboid.kube.controller.view import Change, Key, View, Watch
from cuboid.kube.objects import Raw
from cuboid.kube.registry import Registry

THRESHOLD = 12_500
"""Finished pods that are kept."""
INTERVAL = 60.0
"""Seconds between two counts of them."""
PATIENCE = 40.0
"""Seconds that a node may be gone before its pods are: its agent may register it again."""
_MOST = 500
_FINISHED_PHASES = (b'"phase":"Succeeded"', b'"phase":"Failed"')
_NODE = re.compile(rb'"nodeName":"([^"]*)"')
_FINISHED, _LOST = Key("", "finished"), Key("", "lost")


class Pods(Protocol):
    """What is asked about all pods, without the cost of having them all."""

    def finished(self, beyond: int) -> list[Object]:
        """Those that have finished, if they are more than `beyond`."""
        ...

    def on_other_nodes(self, nodes: set[str]) -> Iterator[Object]:
        """Those on nodes with none of these names."""
        ...


class PodGarbage:
    """Keys are pods of no node, "finished" and "lost" (on nodes that are gone). It remembers since when a node is gone;
    new, it waits anew."""

    name = "pod-garbage-collector"
    watches = (
        Watch(NAMESPACES, lambda change, view: () if change.old else (_FINISHED, _LOST), initial=True),
        Watch(NODES, lambda change, view: (_LOST,) if change.type == "DELETED" else ()),
        Watch(PODS, lambda change, view: (*_unscheduled(change), *_misplaced(change, view))),
    )

    def __init__(self, pods: Pods | None = None, threshold: int = THRESHOLD) -> None:
        self._pods = pods
        self._threshold = threshold
        self._gone: dict[str, float] = {}

    def plan(self, key: Key, view: View, now: float) -> Plan:
        pods = self._pods or Seen(view)
        if key == _FINISHED:
            return self._finished(pods)
        if key == _LOST:
            return self._lost(pods, view, now)
        pod = view.get(PODS, key.namespace, key.name)
        if pod is None or not objects.deleting(pod) or pod["spec"].get("nodeName"):
            return NOTHING
        return Plan(tuple(_end(pod, "", now)))

    def _finished(self, pods: Pods) -> Plan:
        found = [pod for pod in pods.finished(self._threshold) if not objects.deleting(pod)]
        found.sort(key=lambda pod: (pod.get("status", {}).get("reason") != "Evicted", born(pod), objects.name(pod)))
        surplus = found[: max(0, len(found) - self._threshold)]
        gone = Together(tuple(_delete(pod) for pod in surplus[:_MOST]))
        return Plan((gone,) if surplus else (), again=0.0 if len(surplus) > _MOST else INTERVAL)

    def _lost(self, pods: Pods, view: View, now: float) -> Plan:
        nodes = {objects.name(node) for node in view.select(NODES)}
        found: dict[str, list[Object]] = {}
        for pod in pods.on_other_nodes(nodes):
            found.setdefault(pod["spec"]["nodeName"], []).append(pod)
        self._gone = {node: self._gone.get(node, now) for node in found}
        left = [since + PATIENCE - now for since in self._gone.values() if since + PATIENCE > now]
        over = [pod for node, those in found.items() if self._gone[node] + PATIENCE <= now for pod in those]
        wanted = [item for pod in over[:_MOST] for item in _end(pod, "PodGC: node no longer exists", now)]
        if len(over) > _MOST:
            left = [0.0]
        return Plan(tuple(wanted), again=min(left, default=None))


def _unscheduled(change: Change) -> Iterable[Key]:
    pod = change.new
    if change.type != "DELETED" and objects.deleting(pod) and not pod["spec"].get("nodeName"):
        yield Key(objects.namespace(pod), objects.name(pod))


def _misplaced(change: Change, view: View) -> Iterable[Key]:
    """A pod that comes to a node which is not there: no node's end will tell."""
    node = change.new["spec"].get("nodeName")
    came = node and change.type != "DELETED" and (change.old is None or change.old["spec"].get("nodeName") != node)
    return (_LOST,) if came and view.get(NODES, "", node) is None else ()


def _end(pod: Object, why: str, now: float) -> list[Instruction]:
    """It has failed, since nobody is there who could say otherwise, and goes at once."""
    wanted: list[Instruction] = []
    if not objects.finished(pod):
        status: Object = {"phase": "Failed"}
        if why:
            new = condition("DisruptionTarget", "True", "DeletionByPodGC", why, now)
            status["conditions"] = with_condition(pod.get("status", {}).get("conditions") or (), new)
        body = {"metadata": {"uid": objects.uid(pod)}, "status": status}
        wanted.append(Patch(PODS, objects.name(pod), body, objects.namespace(pod), sub="status"))
    done = objects.deleting(pod) and pod["metadata"].get("deletionGracePeriodSeconds") == 0
    return wanted if done else [*wanted, _delete(pod)]


def _delete(pod: Raw) -> Delete:
    return Delete(PODS, objects.name(pod), objects.namespace(pod), objects.uid(pod), grace=0)


class Seen:
    """By looking at every pod."""

    def __init__(self, view: View) -> None:
        self._view = view

    def finished(self, beyond: int) -> list[Object]:
        found = [pod for pod in self._view.select(PODS) if objects.finished(pod)]
        return found if len(found) > beyond else []

    def on_other_nodes(self, nodes: set[str]) -> Iterator[Object]:
        for pod in self._view.select(PODS):
            if pod["spec"].get("nodeName") and pod["spec"]["nodeName"] not in nodes:
                yield pod


class Cached:
    """By the bytes in the watch cache: only pods that may be meant are decoded."""

    def __init__(self, registry: Registry) -> None:
        self._cache = registry.of(kinds.builtin("Pod"))

    def finished(self, beyond: int) -> list[Object]:
        found = [entry for entry in self._cache if any(phase in entry.value for phase in _FINISHED_PHASES)]
        return [pod for entry in found if objects.finished(pod := entry.object())] if len(found) > beyond else []

    def on_other_nodes(self, nodes: set[str]) -> Iterator[Object]:
        known = {name.encode() for name in nodes}
        for entry in self._cache:
            if not known.issuperset(_NODE.findall(entry.value)):
                pod = entry.object()
                if pod["spec"].get("nodeName", "") not in nodes | {""}:
                    yield pod
