"""Which nodes a pod can be on, and in Kubernetes' words why not on the others. Pure."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from cuboid.scheduler import terms, volumes
from cuboid.scheduler.snapshot import MAX_PODS, NodeInfo, Placed, Snapshot
from cuboid.scheduler.topology import Neighbours, Spreading
from cuboid.scheduler.volumes import Claims

Raw = Mapping[str, Any]


@dataclass(frozen=True)
class Misfit:
    """`room` tells that fewer pods on the node could make it fit."""

    reason: str
    room: bool = False


@dataclass
class Candidate:
    """A pod with what a decision about it needs, worked out once."""

    pod: Raw
    placed: Placed
    neighbours: Neighbours
    spreading: Spreading
    claims: Claims

    def copy(self) -> Candidate:
        """One for which others may be said to be gone."""
        return Candidate(self.pod, self.placed, self.neighbours.copy(), self.spreading.copy(), self.claims)

    def change(self, other: Placed, node: NodeInfo, by: int) -> None:
        """A pod is on a node as well (1), or no longer (-1)."""
        self.neighbours.change(other, node, by)
        self.spreading.change(other, node, by)


def candidate(pod: Raw, placed: Placed, snapshot: Snapshot, claims: Claims) -> Candidate:
    return Candidate(pod, placed, Neighbours(placed, snapshot), Spreading(pod, placed, snapshot), claims)


def misfits(wanted: Candidate, node: NodeInfo) -> list[Misfit]:
    """Empty when the pod can be on the node. The first filter that refuses speaks alone."""
    for check in FILTERS:
        if found := check(wanted, node):
            return found
    return []


def _available(wanted: Candidate, node: NodeInfo) -> list[Misfit]:
    unschedulable = {"key": "node.kubernetes.io/unschedulable", "effect": "NoSchedule"}
    tolerations = wanted.pod["spec"].get("tolerations") or []
    if node.unschedulable and not terms.tolerates(tolerations, unschedulable):
        return [Misfit("node(s) were unschedulable")]
    if not node.ready and not terms.tolerates(tolerations, {"key": _NOT_READY, "effect": "NoSchedule"}):
        return [Misfit("node(s) were not ready")]
    return []


_NOT_READY = "node.kubernetes.io/not-ready"


def _taints(wanted: Candidate, node: NodeInfo) -> list[Misfit]:
    taint = terms.untolerated(wanted.pod, node.taints, ("NoSchedule", "NoExecute"))
    if taint is None:
        return []
    return [Misfit(f"node(s) had untolerated taint {{{taint['key']}: {taint.get('value', '')}}}")]


def _selected(wanted: Candidate, node: NodeInfo) -> list[Misfit]:
    if terms.node_selected(wanted.pod, node.labels, node.name):
        return []
    return [Misfit("node(s) didn't match Pod's node affinity/selector")]


def _volumes(wanted: Candidate, node: NodeInfo) -> list[Misfit]:
    if volumes.fits(wanted.claims, node.labels, node.name):
        return []
    return [Misfit("node(s) didn't match PersistentVolume's node affinity")]


def _ports(wanted: Candidate, node: NodeInfo) -> list[Misfit]:
    if terms.ports_collide(wanted.placed.ports, node.ports):
        return [Misfit("node(s) didn't have free ports for the requested pod ports", room=True)]
    return []


def _resources(wanted: Candidate, node: NodeInfo) -> list[Misfit]:
    found = []
    if len(node.pods) >= node.allocatable.get("pods", MAX_PODS):
        found.append(Misfit("Too many pods", room=True))
    for name, count in wanted.placed.requests.items():
        have = node.allocatable.get(name, 0)
        if count + node.used.get(name, 0) > have:
            found.append(Misfit(f"Insufficient {name}", room=count <= have))
    return found


def _neighbours(wanted: Candidate, node: NodeInfo) -> list[Misfit]:
    found = wanted.neighbours.misfit(node)
    return [Misfit(found, room="anti-affinity" in found)] if found else []


def _spreading(wanted: Candidate, node: NodeInfo) -> list[Misfit]:
    found = wanted.spreading.misfit(node)
    return [Misfit(found, room="missing" not in found)] if found else []


FILTERS: tuple[Callable[[Candidate, NodeInfo], list[Misfit]], ...] = (
    _available,
    _taints,
    _selected,
    _volumes,
    _ports,
    _resources,
    _spreading,
    _neighbours,
)
