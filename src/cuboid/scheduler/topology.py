"""What one pod's rules about other pods come to in the whole snapshot: worked out once for a decision, asked per node.

A domain is a pair of a node label and its value. Source of the rules: kubernetes/pkg/scheduler/framework/plugins,
interpodaffinity and podtopologyspread.
"""

from __future__ import annotations

import copy
from collections import Counter
from collections.abc import Mapping
from typing import Any

from cuboid.kube import selectors
from cuboid.scheduler import terms
from cuboid.scheduler.snapshot import NodeInfo, Placed, Snapshot
from cuboid.scheduler.terms import Spread, Term

Raw = Mapping[str, Any]
Domain = tuple[str, str]


class Neighbours:
    """Required affinity and anti-affinity, of the pod and of those that are there: pods that count, by domain."""

    def __init__(self, pod: Placed, snapshot: Snapshot) -> None:
        self._pod = pod
        self._terms = pod.affinity
        self._labels = snapshot.namespace_labels
        self._own = self._labels(pod.namespace)
        self._forbidden: Counter[Domain] = Counter()  # by those who do not want this pod
        self._near: dict[Term, Counter[Domain]] = {term: Counter() for term in pod.affinity.attract}
        self._far: Counter[Domain] = Counter()
        for other in snapshot.repelling.values():
            if (node := snapshot.node(other.node)) is not None:
                self._unwanted(other, node, 1)
        if pod.affinity.attract or pod.affinity.repel:
            for node in snapshot.nodes():
                for other in node.pods.values():
                    self._wanted(other, node, 1)
        self._like_own = all(term.covers(pod.namespace, pod.labels, self._own) for term in pod.affinity.attract)

    def copy(self) -> Neighbours:
        made = copy.copy(self)
        made._forbidden, made._far = self._forbidden.copy(), self._far.copy()
        made._near = {term: found.copy() for term, found in self._near.items()}
        return made

    def change(self, other: Placed, node: NodeInfo, by: int) -> None:
        """A pod is on a node as well (1), or no longer (-1)."""
        self._unwanted(other, node, by)
        self._wanted(other, node, by)

    def _unwanted(self, other: Placed, node: NodeInfo, by: int) -> None:
        for term in other.affinity.repel:
            if term.topology in node.labels and term.covers(self._pod.namespace, self._pod.labels, self._own):
                self._forbidden[term.topology, node.labels[term.topology]] += by

    def _wanted(self, other: Placed, node: NodeInfo, by: int) -> None:
        if not self._terms.attract and not self._terms.repel:
            return
        labels = self._labels(other.namespace)
        for term in self._terms.attract:
            if term.topology in node.labels and term.covers(other.namespace, other.labels, labels):
                self._near[term][term.topology, node.labels[term.topology]] += by
        for term in self._terms.repel:
            if term.topology in node.labels and term.covers(other.namespace, other.labels, labels):
                self._far[term.topology, node.labels[term.topology]] += by

    def _is_first(self) -> bool:
        """A pod that wants to be near its own kind is let in where there is none yet."""
        return self._like_own and not any(count > 0 for found in self._near.values() for count in found.values())

    def misfit(self, node: NodeInfo) -> str:
        """ "" if the node is fine."""
        if _any_here(self._forbidden, node):
            return "node(s) didn't satisfy existing pods anti-affinity rules"
        first = bool(self._terms.attract) and self._is_first()
        for term in self._terms.attract:
            found = node.labels.get(term.topology)
            if found is None or (not first and self._near[term][term.topology, found] <= 0):
                return "node(s) didn't match pod affinity rules"
        if _any_here(self._far, node):
            return "node(s) didn't match pod anti-affinity rules"
        return ""


def _any_here(counts: Mapping[Domain, int], node: NodeInfo) -> bool:
    return any(count > 0 and node.labels.get(key) == value for (key, value), count in counts.items())


class Spreading:
    """Topology spread constraints: how many matching pods each domain has."""

    def __init__(self, pod: Raw, placed: Placed, snapshot: Snapshot) -> None:
        self._constraints = terms.spreads(pod)
        self._own = [
            spread.selector is not None and selectors.matches(spread.selector, placed.labels)
            for spread in self._constraints
        ]
        self._namespace = placed.namespace
        self._counts: list[dict[str, int]] = [{} for _ in self._constraints]
        self._nodes: list[set[str]] = [set() for _ in self._constraints]  # those that count, by name
        if self._constraints:
            self._survey(pod, snapshot)

    def _survey(self, pod: Raw, snapshot: Snapshot) -> None:
        hard = [spread.topology for spread in self._constraints if spread.hard]
        for node in snapshot.nodes():
            for spread, counts, nodes in zip(self._constraints, self._counts, self._nodes, strict=True):
                value = node.labels.get(spread.topology)
                if value is None or (spread.hard and any(key not in node.labels for key in hard)):
                    continue
                if _counted(spread, pod, node):
                    nodes.add(node.name)
                    found = sum(_matches(spread, self._namespace, other) for other in node.pods.values())
                    counts[value] = counts.get(value, 0) + found

    def copy(self) -> Spreading:
        made = copy.copy(self)
        made._counts = [dict(counts) for counts in self._counts]
        return made

    def change(self, other: Placed, node: NodeInfo, by: int) -> None:
        """A pod is on a node as well (1), or no longer (-1)."""
        for spread, counts, nodes in zip(self._constraints, self._counts, self._nodes, strict=True):
            if node.name in nodes and _matches(spread, self._namespace, other):
                counts[node.labels[spread.topology]] += by

    def misfit(self, node: NodeInfo) -> str:
        for spread, counts, own in zip(self._constraints, self._counts, self._own, strict=True):
            if not spread.hard:
                continue
            value = node.labels.get(spread.topology)
            if value is None:
                return "node(s) didn't match pod topology spread constraints (missing required label)"
            least = min(counts.values(), default=0) if len(counts) >= spread.min_domains else 0
            if counts.get(value, 0) + own - least > spread.max_skew:
                return "node(s) didn't match pod topology spread constraints"
        return ""

    def crowd(self, node: NodeInfo) -> int:
        """How many matching pods the domains of this node have, over the constraints that should hold."""
        return sum(
            counts.get(node.labels.get(spread.topology, ""), 0)
            for spread, counts in zip(self._constraints, self._counts, strict=True)
            if not spread.hard
        )


def _counted(spread: Spread, pod: Raw, node: NodeInfo) -> bool:
    if spread.by_affinity and not terms.node_selected(pod, node.labels, node.name):
        return False
    return not spread.by_taints or terms.untolerated(pod, node.taints, ("NoSchedule", "NoExecute")) is None


def _matches(spread: Spread, namespace: str, other: Placed) -> bool:
    return (
        spread.selector is not None
        and other.namespace == namespace
        and not other.deleting
        and selectors.matches(spread.selector, other.labels)
    )
