"""The life of nodes: one that is not heard of becomes Unknown, is tainted, and its pods no longer count as ready.

When a node was last heard of is seen here, by this machine's clock: a lease's own time is the node's, and a server that
was away for a minute must not take all nodes for dead. That is the only memory; without it every node gets the time of
one lease anew. Source of the behaviour: kubernetes/pkg/controller/nodelifecycle.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

from cuboid.controllers import nodelife_zones as zones
from cuboid.controllers.nodelife_pods import PodsOn, by_looking
from cuboid.controllers.nodelife_taints import LOST, NOT_READY, lost_key, readiness, taints
from cuboid.kube import objects
from cuboid.kube.client import LEASES, NODES, PODS
from cuboid.kube.controller.instructions import NOTHING, Draft, Patch, Plan, Tell, Update
from cuboid.kube.controller.view import Change, Key, View, Watch, itself
from cuboid.kube.names import LEASE_NAMESPACE
from cuboid.lib.clock import parse_rfc3339, rfc3339

Object = dict[str, Any]
Raw = Mapping[str, Any]

DEFAULT_SECONDS = 40.0
"""Silence after which a node without a lease of its own length counts as lost."""
STARTUP_SECONDS = 60.0
"""The same for a node that was made and has never said anything."""
LOOK_SECONDS = 2.0
"""A node that is heard of is looked at so often, so that a longer pause is known to be one of this process."""
WITNESS_SECONDS = 1.0
"""Between two looks for another node that is heard of, when one is to be given up."""
_CONDITIONS = ("Ready", "MemoryPressure", "DiskPressure", "PIDPressure")


@dataclass
class _Heard:
    """The last sign of life, what it was and when it was seen here."""

    sign: str
    at: float


def of_lease(change: Change, view: View) -> Iterable[Key]:
    if objects.namespace(change.new) == LEASE_NAMESPACE:
        yield Key("", objects.name(change.new))


def of_fellows(change: Change, view: View) -> Iterable[Key]:
    """A node that is lost or comes back may end or begin the time in which all are."""
    if change.old is not None and readiness(change.old) == readiness(change.new) and change.type == "MODIFIED":
        return ()
    return [Key("", objects.name(node)) for node in view.select(NODES)]


class NodeLifecycleController:
    name = "node-lifecycle"
    watches = (Watch(NODES, itself, initial=True), Watch(NODES, of_fellows), Watch(LEASES, of_lease))

    def __init__(self, pods: PodsOn = by_looking) -> None:
        self._pods = pods
        self._looked = 0.0  # when any node was looked at last
        self._heard: dict[str, _Heard] = {}
        self._all_lost = False
        self._given_up: zones.GivenUp = {}

    def plan(self, key: Key, view: View, now: float) -> Plan:
        self._mind_a_gap(now)
        node = view.get(NODES, "", key.name)
        if node is None:
            self._heard.pop(key.name, None)
            return NOTHING
        lost, nodes = lost_key(node), list[Object]()
        if lost or self._all_lost:
            nodes = view.select(NODES)
            self._look(nodes, now)
        lease = view.get(LEASES, LEASE_NAMESPACE, key.name)
        patience = _patience(node, lease)
        left = self._listen(node, lease, now) + patience - now
        draft = Draft()
        if left > 0:
            draft.look_again(min(left, LOOK_SECONDS))
        elif readiness(node) != "Unknown":
            draft.add(*_silent(node, now))
            return draft.plan()  # its taints follow from that
        else:
            draft.add(*_unready_pods(self._pods(view, key.name), now))
        self._taint(node, nodes, left, patience, draft, now)
        return draft.plan()

    def _mind_a_gap(self, now: float) -> None:
        """Who was stopped itself, or had its clock moved, has heard nobody meanwhile: that time does not count."""
        gap = now - self._looked
        if self._looked and not -LOOK_SECONDS <= gap <= 2 * LOOK_SECONDS:
            for heard in self._heard.values():
                heard.at += gap
        self._looked = now

    def _look(self, nodes: Iterable[Raw], now: float) -> None:
        """After a time without any node each gets its patience anew: they do not all come back in the same moment."""
        lost = zones.all_lost(nodes)
        if self._all_lost and not lost:
            for heard in self._heard.values():
                heard.at = now
        self._all_lost = lost

    def _listen(self, node: Raw, lease: Raw | None, now: float) -> float:
        """When it was last heard of."""
        ready = objects.condition(node, "Ready") or {}
        renewed = (lease or {}).get("spec", {}).get("renewTime", "")
        sign = f"{objects.uid(node)} {renewed} {ready.get('lastHeartbeatTime', '')}"
        known = self._heard.get(objects.name(node))
        if known is None or known.sign != sign:
            known = self._heard[objects.name(node)] = _Heard(sign, now)
        return known.at

    def _taint(self, node: Object, nodes: list[Object], left: float, patience: float, draft: Draft, now: float) -> None:
        evicting = self._evicting(node, nodes, left, patience, draft, now)
        wanted = taints(node, evicting, now)
        if wanted != (node["spec"].get("taints") or []):
            spec = {**node["spec"], "taints": wanted}
            if not wanted:
                del spec["taints"]
            draft.add(Update(NODES, {**node, "spec": spec}))

    def _evicting(self, node: Raw, nodes: list[Object], left: float, patience: float, draft: Draft, now: float) -> str:
        """The key of the taint that drives pods away, "" for none."""
        key = lost_key(node)
        if not key or self._all_lost:
            return ""
        held = [t["key"] for t in node["spec"].get("taints") or [] if t["key"] in LOST and t["effect"] == "NoExecute"]
        if held:
            return key  # given up already
        if key == NOT_READY:  # an agent that is replaced says so; its pods run on
            left = _since(node) + patience - now
        if left > 0:
            draft.look_again(left)
            return ""
        if not self._witnessed(nodes, now - patience / 2):
            draft.look_again(WITNESS_SECONDS)
            return ""
        delay = zones.wait(node, nodes, LOST, now, self._given_up)
        if delay is None:
            return ""
        if delay > 0:
            draft.look_again(delay)
            return ""
        self._give_up(node, now)
        return key

    def _give_up(self, node: Raw, now: float) -> None:
        old = now - zones.SLOW_WINDOW
        self._given_up = {name: found for name, found in self._given_up.items() if found[1] > old}
        self._given_up[objects.name(node)] = (zones.zone_of(node), now)

    def _witnessed(self, nodes: Iterable[Raw], since: float) -> bool:
        """Whether anybody was heard of lately. When all fall silent at once, one is found out before the others."""
        ready = (objects.name(node) for node in nodes if readiness(node) == "True")
        return any(self._heard[name].at >= since for name in ready if name in self._heard)


def _since(node: Raw) -> float:
    """When its readiness changed last."""
    text = (objects.condition(node, "Ready") or {}).get("lastTransitionTime")
    return parse_rfc3339(text) if text else 0.0


def _patience(node: Raw, lease: Raw | None) -> float:
    """Seconds of silence that this node is allowed: as long as its own lease is."""
    if lease is not None:
        return float(lease.get("spec", {}).get("leaseDurationSeconds") or DEFAULT_SECONDS)
    return DEFAULT_SECONDS if objects.condition(node, "Ready") else STARTUP_SECONDS


def _silent(node: Object, now: float) -> list[Update | Tell]:
    """All that the node ever said of itself is no longer known."""
    before = {item["type"]: item for item in node.get("status", {}).get("conditions") or []}
    made = []
    for type_ in _CONDITIONS:
        said = type_ in before
        made.append({
            **before.get(type_, {}),
            "type": type_, "status": "Unknown", "lastTransitionTime": rfc3339(now),
            "reason": "NodeStatusUnknown" if said else "NodeStatusNeverUpdated",
            "message": "Kubelet stopped posting node status." if said else "Kubelet never posted node status.",
        })  # fmt: skip
    others = [item for type_, item in before.items() if type_ not in _CONDITIONS]
    status = {**node.get("status", {}), "conditions": [*others, *made]}
    name = objects.name(node)
    return [
        Update(NODES, {**node, "status": status}, sub="status"),
        Tell(node, "Normal", "NodeNotReady", f"Node {name} status is now: NodeNotReady"),
    ]


def _unready_pods(pods: Iterable[Object], now: float) -> Iterable[Patch | Tell]:
    """Nobody knows whether they serve, so nobody is sent to them."""
    for pod in pods:
        if not objects.ready(pod):
            continue
        conditions = [
            {**item, "status": "False", "lastTransitionTime": rfc3339(now)} if item["type"] == "Ready" else item
            for item in pod["status"]["conditions"]
        ]
        meta = {key: pod["metadata"][key] for key in ("uid", "resourceVersion")}
        body = {"metadata": meta, "status": {"conditions": conditions}}
        yield Patch(PODS, objects.name(pod), body, objects.namespace(pod), sub="status")
        yield Tell(pod, "Warning", "NodeNotReady", "Node is not ready")
