"""Which of the nodes that fit is best: a weighted sum, each part from 0 to 100. Pure."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from cuboid.scheduler import terms
from cuboid.scheduler.filters import Candidate
from cuboid.scheduler.snapshot import NodeInfo, Snapshot

Raw = Mapping[str, Any]
BEST = 100
_ROOM, _BALANCE, _PREFERRED, _TAINTS, _NEIGHBOURS, _SPREAD, _IMAGES = 1, 1, 2, 3, 2, 2, 1
"""Weights, as in Kubernetes' default profile."""


def best(wanted: Candidate, nodes: Sequence[NodeInfo], snapshot: Snapshot) -> NodeInfo:
    """Of equals the one with fewest pods, then by name: the same snapshot gives the same answer."""
    if len(nodes) == 1:
        return nodes[0]
    totals = [_ROOM * _room(wanted, node) + _BALANCE * _balance(wanted, node) for node in nodes]
    for weight, raw in (
        (_PREFERRED, _preferred(wanted, nodes)),
        (_TAINTS, [-_soft_taints(wanted, node) for node in nodes]),
        (_NEIGHBOURS, _neighbours(wanted, nodes, snapshot)),
        (_SPREAD, [-wanted.spreading.crowd(node) for node in nodes]),
        (_IMAGES, [_images(wanted, node) for node in nodes]),
    ):
        for index, score in enumerate(_normal(raw)):
            totals[index] += weight * score
    ranked = sorted(zip(totals, nodes, strict=True), key=lambda pair: (-pair[0], len(pair[1].pods), pair[1].name))
    return ranked[0][1]


def _normal(raw: Sequence[int]) -> list[float]:
    """Stretched over 0 to BEST; all the same when there is no difference."""
    low, high = min(raw), max(raw)
    return [BEST * (value - low) / (high - low) if high > low else 0.0 for value in raw]


def _shares(wanted: Candidate, node: NodeInfo) -> list[float]:
    """What would be taken of CPU and memory, from 0 to 1."""
    return [
        min(1.0, (node.used.get(name, 0) + wanted.placed.requests.get(name, 0)) / node.allocatable[name])
        for name in ("cpu", "memory")
        if node.allocatable.get(name)
    ]


def _room(wanted: Candidate, node: NodeInfo) -> float:
    shares = _shares(wanted, node)
    return BEST * (1 - sum(shares) / len(shares)) if shares else 0.0


def _balance(wanted: Candidate, node: NodeInfo) -> float:
    shares = _shares(wanted, node)
    return BEST * (1 - abs(shares[0] - shares[1])) if len(shares) == 2 else 0.0


def _preferred(wanted: Candidate, nodes: Sequence[NodeInfo]) -> list[int]:
    liked = terms.preferred_nodes(wanted.pod)
    return [
        sum(weight for weight, term in liked if terms.node_term_matches(term, node.labels, node.name)) for node in nodes
    ]


def _soft_taints(wanted: Candidate, node: NodeInfo) -> int:
    tolerations = wanted.pod["spec"].get("tolerations") or []
    return sum(
        1
        for taint in node.taints
        if taint.get("effect") == "PreferNoSchedule" and not terms.tolerates(tolerations, taint)
    )


def _neighbours(wanted: Candidate, nodes: Sequence[NodeInfo], snapshot: Snapshot) -> list[int]:
    """Preferred affinity of the pod to those that are there."""
    liked = wanted.placed.affinity.prefer
    if not liked:
        return [0] * len(nodes)
    sums: dict[tuple[str, str], int] = {}
    for node in snapshot.nodes():
        for other in node.pods.values():
            labels = snapshot.namespace_labels(other.namespace)
            for term in liked:
                if term.topology in node.labels and term.covers(other.namespace, other.labels, labels):
                    domain = (term.topology, node.labels[term.topology])
                    sums[domain] = sums.get(domain, 0) + term.weight
    keys = {term.topology for term in liked}
    return [sum(sums.get((key, node.labels.get(key, "")), 0) for key in keys) for node in nodes]


def _images(wanted: Candidate, node: NodeInfo) -> int:
    names = {container.get("image", "") for container in wanted.pod["spec"].get("containers", [])}
    return len(names & node.images)
