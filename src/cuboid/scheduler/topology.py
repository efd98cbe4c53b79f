"""What one pod's rules about other pods come to in the whole snapshot: worked out once for a decision, asked per node.

A domain is a pair of a node label and its value. Source of the rules: kubernetes/pkg/scheduler/framework/plugins,
interpodaffinity and podtopologyspread.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from cuboid.kube import selectors
from cuboid.scheduler import terms
from cuboid.scheduler.snapshot import NodeInfo, Placed, Snapshot
from cuboid.scheduler.terms import Affinity, Spread, Term

Raw = Mapping[str, Any]
Domain = tuple[str, str]


class Neighbours:
    """Required affinity and anti-affinity, of the pod and of those that are there."""

    def __init__(self, pod: Placed, snapshot: Snapshot) -> None:
        self._terms = pod.affinity
        self._forbidden = _forbidden(pod, snapshot)
        self._near: dict[Term, set[Domain]] = {term: set() for term in pod.affinity.attract}
        self._far: set[Domain] = set()
        if pod.affinity.attract or pod.affinity.repel:
            self._survey(pod.affinity, snapshot)
        self._first = self._is_first(pod, snapshot)

    def _survey(self, wanted: Affinity, snapshot: Snapshot) -> None:
        for node in snapshot.nodes():
            for other in node.pods.values():
                labels = snapshot.namespace_labels(other.namespace)
                for term in wanted.attract:
                    if term.topology in node.labels and term.covers(other.namespace, other.labels, labels):
                        self._near[term].add((term.topology, node.labels[term.topology]))
                for term in wanted.repel:
                    if term.topology in node.labels and term.covers(other.namespace, other.labels, labels):
                        self._far.add((term.topology, node.labels[term.topology]))

    def _is_first(self, pod: Placed, snapshot: Snapshot) -> bool:
        """A pod that wants to be near its own kind is let in where there is none yet."""
        own = snapshot.namespace_labels(pod.namespace)
        return not any(self._near.values()) and all(
            term.covers(pod.namespace, pod.labels, own) for term in pod.affinity.attract
        )

    def misfit(self, node: NodeInfo) -> str:
        """ "" if the node is fine."""
        for key, value in self._forbidden:
            if node.labels.get(key) == value:
                return "node(s) didn't satisfy existing pods anti-affinity rules"
        for term in self._terms.attract:
            found = node.labels.get(term.topology)
            if found is None or (not self._first and (term.topology, found) not in self._near[term]):
                return "node(s) didn't match pod affinity rules"
        for key, value in self._far:
            if node.labels.get(key) == value:
                return "node(s) didn't match pod anti-affinity rules"
        return ""


def _forbidden(pod: Placed, snapshot: Snapshot) -> set[Domain]:
    """Domains in which somebody does not want this pod."""
    own = snapshot.namespace_labels(pod.namespace)
    found: set[Domain] = set()
    for other in snapshot.repelling.values():
        node = snapshot.node(other.node)
        if node is None:
            continue
        for term in other.affinity.repel:
            if term.topology in node.labels and term.covers(pod.namespace, pod.labels, own):
                found.add((term.topology, node.labels[term.topology]))
    return found


class Spreading:
    """Topology spread constraints: how many matching pods each domain has."""

    def __init__(self, pod: Raw, placed: Placed, snapshot: Snapshot) -> None:
        self._constraints = terms.spreads(pod)
        self._own = [
            spread.selector is not None and selectors.matches(spread.selector, placed.labels)
            for spread in self._constraints
        ]
        self._counts: list[dict[str, int]] = [{} for _ in self._constraints]
        if self._constraints:
            self._survey(pod, placed, snapshot)

    def _survey(self, pod: Raw, placed: Placed, snapshot: Snapshot) -> None:
        hard = [spread.topology for spread in self._constraints if spread.hard]
        for node in snapshot.nodes():
            for spread, counts in zip(self._constraints, self._counts, strict=True):
                value = node.labels.get(spread.topology)
                if value is None or (spread.hard and any(key not in node.labels for key in hard)):
                    continue
                if _counted(spread, pod, node):
                    counts[value] = counts.get(value, 0) + _matching(spread, placed.namespace, node)

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


def _matching(spread: Spread, namespace: str, node: NodeInfo) -> int:
    if spread.selector is None:
        return 0
    return sum(
        1
        for other in node.pods.values()
        if other.namespace == namespace and not other.deleting and selectors.matches(spread.selector, other.labels)
    )
