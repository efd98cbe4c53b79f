"""Pods leave nodes with a NoExecute taint that they do not tolerate, or no longer; and those of a node that is said to
be out of service are let go, whether its agent says so or not.

A taint's time is written into it where it is missing, so that what a pod has left of its toleration survives restarts.
Source of the behaviour: kubernetes/pkg/controller/tainteviction, and gcTerminating of pkg/controller/podgc.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

from cuboid.controllers.nodelife_pods import PodsOn, by_looking
from cuboid.controllers.nodelife_taints import OUT_OF_SERVICE, has, readiness
from cuboid.kube import objects
from cuboid.kube.client import NODES, PODS
from cuboid.kube.controller.instructions import NOTHING, Delete, Draft, Patch, Plan, Tell, Update
from cuboid.kube.controller.view import Change, Key, View, Watch, itself
from cuboid.lib.clock import parse_rfc3339, rfc3339

Object = dict[str, Any]
Raw = Mapping[str, Any]


def node_of(change: Change, view: View) -> Iterable[Key]:
    """The node that a pod came to, or on which it tolerates something else now or is asked to end."""
    name = change.new["spec"].get("nodeName")
    if not name or change.type == "DELETED" or _matters(change.old) == _matters(change.new):
        return
    yield Key("", name)


def _matters(pod: Raw | None) -> Object:
    if pod is None:
        return {}
    spec = {key: pod["spec"].get(key) for key in ("nodeName", "tolerations")}
    return {**spec, "deleting": objects.deleting(pod)}


class TaintController:
    """The key is a node."""

    name = "taint-eviction"
    watches = (Watch(NODES, itself, initial=True), Watch(PODS, node_of))

    def __init__(self, pods: PodsOn = by_looking) -> None:
        self._pods = pods

    def plan(self, key: Key, view: View, now: float) -> Plan:
        node = view.get(NODES, "", key.name)
        if node is None:
            return NOTHING
        given = _no_execute(node)
        if any(not taint.get("timeAdded") for taint in given):
            return Plan((Update(NODES, _dated(node, now)),))
        let_go = has(node, OUT_OF_SERVICE) and readiness(node) != "True"
        if not given and not let_go:
            return NOTHING
        draft = Draft()
        for pod in self._pods(view, key.name):
            _look_at(pod, given, let_go, draft, now)
        return draft.plan()


def _no_execute(node: Raw) -> list[Object]:
    return [taint for taint in node["spec"].get("taints") or [] if taint["effect"] == "NoExecute"]


def _dated(node: Object, now: float) -> Object:
    taints = [
        {**taint, "timeAdded": rfc3339(now)} if taint["effect"] == "NoExecute" and not taint.get("timeAdded") else taint
        for taint in node["spec"]["taints"]
    ]
    return {**node, "spec": {**node["spec"], "taints": taints}}


def _look_at(pod: Object, taints: Iterable[Raw], let_go: bool, draft: Draft, now: float) -> None:
    if objects.deleting(pod):
        if let_go:
            draft.add(*_forced(pod))
        return
    if objects.finished(pod):
        return
    left = seconds_left(pod, taints, now)
    if left is None:
        return
    if left > 0:
        draft.look_again(left)
        return
    draft.add(*_evicted(pod, now))


def seconds_left(pod: Raw, taints: Iterable[Raw], now: float) -> float | None:
    """How long the pod may stay, 0 for not at all, None for as long as it likes."""
    ends = []
    for taint in taints:
        matching = [t for t in pod["spec"].get("tolerations") or [] if tolerates(t, taint)]
        if not matching:
            return 0.0
        limits = [t["tolerationSeconds"] for t in matching if t.get("tolerationSeconds") is not None]
        if limits:
            begun = max(parse_rfc3339(taint["timeAdded"]), _came(pod))
            ends.append(begun + max(min(limits), 0))
    return None if not ends else max(min(ends) - now, 0.0)


def tolerates(toleration: Raw, taint: Raw) -> bool:
    """Source: k8s.io/api Toleration.ToleratesTaint."""
    if toleration.get("effect") and toleration["effect"] != taint["effect"]:
        return False
    if toleration.get("key") and toleration["key"] != taint["key"]:
        return False
    if toleration.get("operator", "Equal") == "Exists":
        return True
    return bool(toleration.get("key")) and (toleration.get("value") or "") == (taint.get("value") or "")


def _came(pod: Raw) -> float:
    """When it was put on its node."""
    found = objects.condition(pod, "PodScheduled") or {}
    text = found.get("lastTransitionTime") or pod["metadata"].get("creationTimestamp")
    return parse_rfc3339(text) if text else 0.0


def _evicted(pod: Object, now: float) -> Iterable[Tell | Patch | Delete]:
    namespace, name = objects.namespace(pod), objects.name(pod)
    if not objects.is_true(pod, "DisruptionTarget"):
        target = {
            "type": "DisruptionTarget", "status": "True", "reason": "DeletionByTaintManager",
            "message": "Taint manager: deleting due to NoExecute taint", "lastTransitionTime": rfc3339(now),
        }  # fmt: skip
        yield _with_conditions(pod, [target], {})
    yield Delete(
        PODS, name, namespace, uid=objects.uid(pod),
        tell=Tell(pod, "Normal", "TaintManagerEviction", f"Marking for deletion Pod {namespace}/{name}"),
    )  # fmt: skip


def _forced(pod: Object) -> Iterable[Patch | Delete]:
    """Whoever said that the node is out of service has made sure that nothing of it runs any more."""
    if not objects.finished(pod):
        yield _with_conditions(pod, [], {"phase": "Failed"})
    yield Delete(PODS, objects.name(pod), objects.namespace(pod), uid=objects.uid(pod), grace=0)


def _with_conditions(pod: Raw, new: list[Object], status: Object) -> Patch:
    types = {item["type"] for item in new}
    kept = [item for item in pod.get("status", {}).get("conditions") or [] if item["type"] not in types]
    meta = {key: pod["metadata"][key] for key in ("uid", "resourceVersion")}
    body = {"metadata": meta, "status": {**status, "conditions": [*kept, *new]}}
    return Patch(PODS, objects.name(pod), body, objects.namespace(pod), sub="status")
