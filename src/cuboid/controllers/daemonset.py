"""DaemonSets: one pod on every node that fits.

Source of the behaviour: kubernetes/pkg/controller/daemon, daemon_controller.go and update.go.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from cuboid.controllers import common, daemonset_nodes, revisions
from cuboid.controllers.daemonset_nodes import Place, node_of, place
from cuboid.controllers.owning import claim, owner_or_choosers
from cuboid.kube import objects
from cuboid.kube.client import DAEMON_SETS, NODES, PODS, REVISIONS
from cuboid.kube.controller.instructions import NOTHING, Create, Delete, Draft, Instruction, Plan, Tell, Together
from cuboid.kube.controller.view import Change, Key, View, Watch, itself
from cuboid.lib.errors import CuboidError

Object = dict[str, Any]
Raw = Mapping[str, Any]
FAILED_SECONDS = 10.0
"""A pod that has ended stays so long before it is replaced: it may end again at once."""


def _of_a_node(change: Change, view: View) -> Iterable[Key]:
    """Nodes report all the time; only what decides about daemons counts."""
    if change.old is not None and change.type != "DELETED" and _matters(change.old) == _matters(change.new):
        return ()
    return [Key(objects.namespace(found), objects.name(found)) for found in view.select(DAEMON_SETS)]


def _matters(node: Raw) -> Any:
    return dict(objects.labels(node)), (node.get("spec") or {}).get("taints"), objects.deleting(node)


class DaemonSets:
    name = "daemonset"
    watches = (
        Watch(DAEMON_SETS, itself, initial=True),
        Watch(PODS, owner_or_choosers("DaemonSet", DAEMON_SETS)),
        Watch(REVISIONS, owner_or_choosers("DaemonSet", DAEMON_SETS)),
        Watch(NODES, _of_a_node),
    )

    def plan(self, key: Key, view: View, now: float) -> Plan:
        found = view.get(DAEMON_SETS, key.namespace, key.name)
        if found is None or objects.deleting(found):
            return NOTHING
        claimed = claim(view, PODS, found, objects.label_selector(found["spec"]["selector"]), objects.active)
        if claimed.patches:
            return Plan((Together(claimed.patches),))
        history = revisions.history(view, DAEMON_SETS, found)
        if history.update is None:
            return Plan(history.changes)
        nodes = {objects.name(node): place(found, node) for node in view.select(NODES)}
        return _plan(_Set(found, revisions.hash_of(history.update), nodes, claimed.mine, now), history)


@dataclass
class _Set:
    """One DaemonSet now. `on` are its pods by node, oldest first."""

    found: Object
    hashed: str
    nodes: Mapping[str, Place]
    pods: Sequence[Object]
    now: float
    on: dict[str, list[Object]] = field(default_factory=dict)

    def __post_init__(self) -> None:
        for pod in sorted(self.pods, key=lambda pod: (common.born(pod), objects.name(pod))):
            self.on.setdefault(node_of(pod), []).append(pod)

    def available(self, pod: Raw) -> bool:
        wait = self.found["spec"].get("minReadySeconds", 0)
        return not objects.deleting(pod) and common.available(pod, wait, self.now)

    def new(self, pod: Raw) -> bool:
        return objects.labels(pod).get(revisions.HASH) == self.hashed

    def running(self, node: str) -> list[Object]:
        return [pod for pod in self.on.get(node, ()) if objects.active(pod)]

    @property
    def wanted(self) -> list[str]:
        return [node for node, where in self.nodes.items() if where.run]

    def bounds(self) -> tuple[int, int]:
        """Pods beside the old one, and nodes without one that works, at most."""
        rolling = (self.found["spec"].get("updateStrategy") or {}).get("rollingUpdate") or {}
        total = len(self.wanted)
        surge = common.amount(rolling.get("maxSurge", 0), total, up=True)
        unavailable = common.amount(rolling.get("maxUnavailable", 1), total, up=True)
        return surge, unavailable if surge or unavailable else 1


def _plan(one: _Set, history: revisions.History) -> Plan:
    draft = Draft()
    draft.add(*common.status_patch(DAEMON_SETS, one.found, status_of(one)))
    steps = _managed(one, draft)
    if not steps and (one.found["spec"].get("updateStrategy") or {}).get("type", "RollingUpdate") == "RollingUpdate":
        steps = _surged(one) if one.bounds()[0] else _replaced(one)
    if steps:
        draft.add(Together(tuple(steps[: common.MANY])))
        draft.failed = lambda error: _failed(one.found, error)
    else:
        hashes = {objects.labels(pod).get(revisions.HASH) for pod in one.pods} | {one.hashed}
        in_use = [objects.name(item) for item in history.all if revisions.hash_of(item) in hashes]
        draft.add(*revisions.forgotten(one.found, history, in_use))
    wait = common.soonest(one.pods, one.found["spec"].get("minReadySeconds", 0), one.now)
    if wait is not None:
        draft.look_again(wait)
    return draft.plan()


def _failed(found: Raw, error: CuboidError) -> tuple[Instruction, ...]:
    return (Tell(dict(found), "Warning", "FailedCreate", f"Error creating: {error.message}"),)


def _managed(one: _Set, draft: Draft) -> list[Create | Delete]:
    """One pod where one is to run, none where none may be; those that have ended make room for another."""
    steps: list[Create | Delete] = []
    for node in one.wanted:
        if not one.on.get(node):
            steps.append(daemonset_nodes.creation(one.found, one.hashed, node))
    for node, pods in one.on.items():
        where = one.nodes.get(node, Place(False, False))
        if not where.stay:
            steps += [_deletion(one.found, pod) for pod in pods if not objects.deleting(pod)]
            continue
        for pod in pods:
            if objects.finished(pod) and not objects.deleting(pod):
                left = _ended(pod, one.now) + FAILED_SECONDS - one.now
                if left > 0:
                    draft.look_again(left)
                else:
                    steps.append(_deletion(one.found, pod))
        steps += [_deletion(one.found, pod) for pod in _doubled(one, node)]
    return steps


def _doubled(one: _Set, node: str) -> list[Object]:
    """The oldest stays; with a surge the oldest of the old and the oldest of the new template."""
    running = one.running(node)
    if not one.bounds()[0]:
        return running[1:]
    new = [pod for pod in running if one.new(pod)]
    old = [pod for pod in running if not one.new(pod)]
    return [*new[1:], *old[1:]]


def _ended(pod: Raw, now: float) -> float:
    """When its last container did; now if nothing tells."""
    rows = (pod.get("status") or {}).get("containerStatuses") or ()
    moments = [common.moment(row.get("state", {}).get("terminated", {}).get("finishedAt")) for row in rows]
    return max((moment for moment in moments if moment is not None), default=common.born(pod) or now)


def _deletion(found: Raw, pod: Raw) -> Delete:
    told = Tell(dict(found), "Normal", "SuccessfulDelete", "Deleted pod: {name}")
    return Delete(PODS, objects.name(pod), objects.namespace(pod), objects.uid(pod), tell=told)


# --- from template to template ---------------------------------------------------------------------------------------


def _replaced(one: _Set) -> list[Create | Delete]:
    """Old pods that do not work go at once, others as far as the nodes without a working one allow."""
    down, useless, candidates = 0, [], []
    for node in one.wanted:
        running = one.running(node)
        if len(running) != 1:
            down += 1
        elif one.new(running[0]):
            down += not one.available(running[0])
        elif one.available(running[0]):
            candidates.append(running[0])
        else:
            useless.append(running[0])
            down += 1
    left = max(one.bounds()[1] - down, 0)
    return [_deletion(one.found, pod) for pod in (*useless, *candidates[:left])]


def _surged(one: _Set) -> list[Create | Delete]:
    """A new pod beside the old one, which goes when the new one works."""
    surging, steps, at_once, candidates = 0, list[Create | Delete](), list[str](), list[str]()
    for node in one.wanted:
        new = next((pod for pod in one.running(node) if one.new(pod)), None)
        old = next((pod for pod in one.running(node) if not one.new(pod)), None)
        if old is None:
            continue
        if new is None:
            (candidates if one.available(old) else at_once).append(node)
        elif one.available(new):
            steps.append(_deletion(one.found, old))
        else:
            surging += 1
    left = max(one.bounds()[0] - surging, 0)
    nodes = (*at_once, *candidates[: max(left - len(at_once), 0)])
    return [*steps, *(daemonset_nodes.creation(one.found, one.hashed, node) for node in nodes)]


# --- what it says of itself ------------------------------------------------------------------------------------------


def status_of(one: _Set) -> Object:
    wanted = one.wanted
    there = [pods for node in wanted if (pods := one.on.get(node))]
    available = sum(any(one.available(pod) for pod in pods) for pods in there)
    old = one.found.get("status") or {}
    counts = {
        "currentNumberScheduled": len(there),
        "numberMisscheduled": sum(not where.run and node in one.on for node, where in one.nodes.items()),
        "desiredNumberScheduled": len(wanted),
        "numberReady": sum(any(objects.ready(pod) and not objects.deleting(pod) for pod in pods) for pods in there),
    }
    more = {
        "observedGeneration": common.generation(one.found),
        "updatedNumberScheduled": sum(any(map(one.new, pods)) for pods in there),
        "numberAvailable": available,
        "numberUnavailable": len(wanted) - available,
        "collisionCount": old.get("collisionCount"),
        "conditions": old.get("conditions"),
    }
    return {**counts, **common.spread(more)}
