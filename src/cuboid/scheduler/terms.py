"""What pods say of other pods and of nodes: affinity terms, spread constraints, tolerations, ports, as small values.

Source of the rules: kubernetes/component-helpers/scheduling/corev1 and kubernetes/pkg/scheduler/framework.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from cuboid.kube import selectors
from cuboid.kube.objects import label_selector
from cuboid.kube.selectors import Requirement, Selector

Raw = Mapping[str, Any]
Port = tuple[str, str, int]
_NODE_OPERATORS = {"In": "in", "NotIn": "notin", "Exists": "exists", "DoesNotExist": "!exists", "Gt": ">", "Lt": "<"}
ANY_ADDRESS = "0.0.0.0"


@dataclass(frozen=True)
class Term:
    """One pod (anti-)affinity term. `selector` None matches no pod; `namespaces` None with a selector of namespaces."""

    topology: str
    selector: Selector | None
    namespaces: frozenset[str]
    namespace_selector: Selector | None = None
    weight: int = 0

    def covers(self, namespace: str, labels: Mapping[str, str], namespace_labels: Mapping[str, str]) -> bool:
        """Whether a pod with these labels in this namespace is meant."""
        if self.selector is None:
            return False
        inside = namespace in self.namespaces or (
            self.namespace_selector is not None and selectors.matches(self.namespace_selector, namespace_labels)
        )
        return inside and selectors.matches(self.selector, labels)


@dataclass(frozen=True)
class Spread:
    """One topology spread constraint. `hard` ones must hold, the others should."""

    topology: str
    max_skew: int
    hard: bool
    selector: Selector | None
    min_domains: int = 0
    by_affinity: bool = True
    by_taints: bool = False


@dataclass(frozen=True)
class Affinity:
    """All that a pod says of other pods."""

    attract: tuple[Term, ...] = ()
    repel: tuple[Term, ...] = ()
    prefer: tuple[Term, ...] = ()
    """Preferred terms; those of anti-affinity have a negative weight."""


NO_AFFINITY = Affinity()


def affinity(pod: Raw) -> Affinity:
    given = pod["spec"].get("affinity") or {}
    toward, away = given.get("podAffinity") or {}, given.get("podAntiAffinity") or {}
    if not toward and not away:
        return NO_AFFINITY
    return Affinity(
        tuple(_term(pod, item) for item in toward.get("requiredDuringSchedulingIgnoredDuringExecution", [])),
        tuple(_term(pod, item) for item in away.get("requiredDuringSchedulingIgnoredDuringExecution", [])),
        tuple(
            _term(pod, item["podAffinityTerm"], sign * int(item.get("weight", 1)))
            for sign, side in ((1, toward), (-1, away))
            for item in side.get("preferredDuringSchedulingIgnoredDuringExecution", [])
        ),
    )


def _term(pod: Raw, given: Raw, weight: int = 0) -> Term:
    selector = label_selector(given.get("labelSelector"))
    names = frozenset(given.get("namespaces") or ())
    by_label = label_selector(given.get("namespaceSelector"))
    if not names and by_label is None:
        names = frozenset((pod["metadata"].get("namespace", ""),))
    if selector is not None:
        selector += _same_values(pod, given)
    return Term(given.get("topologyKey", ""), selector, names, by_label, weight)


def _same_values(pod: Raw, given: Raw) -> Selector:
    """`matchLabelKeys` and `mismatchLabelKeys`: requirements with the pod's own values."""
    labels = pod["metadata"].get("labels") or {}
    return tuple(
        Requirement(key, operator, frozenset((labels[key],)))
        for field, operator in (("matchLabelKeys", "in"), ("mismatchLabelKeys", "notin"))
        for key in given.get(field) or ()
        if key in labels
    )


def spreads(pod: Raw) -> tuple[Spread, ...]:
    found = []
    for item in pod["spec"].get("topologySpreadConstraints") or ():
        selector = label_selector(item.get("labelSelector"))
        if selector is not None:
            selector += _same_values(pod, item)
        found.append(
            Spread(
                item["topologyKey"],
                int(item["maxSkew"]),
                item.get("whenUnsatisfiable") != "ScheduleAnyway",
                selector,
                int(item.get("minDomains") or 1),
                item.get("nodeAffinityPolicy", "Honor") == "Honor",
                item.get("nodeTaintsPolicy", "Ignore") == "Honor",
            )
        )
    return tuple(found)


def ports(pod: Raw) -> frozenset[Port]:
    """Host ports: (address, protocol, port)."""
    spec = pod["spec"]
    containers = [*spec.get("containers", []), *spec.get("initContainers", [])]
    return frozenset(
        (port.get("hostIP") or ANY_ADDRESS, port.get("protocol", "TCP"), int(port["hostPort"]))
        for container in containers
        for port in container.get("ports", [])
        if port.get("hostPort")
    )


def ports_collide(wanted: frozenset[Port], used: Mapping[Port, int]) -> bool:
    for address, protocol, number in wanted:
        for other, other_protocol, other_number in used:
            if (protocol, number) == (other_protocol, other_number) and (
                address == other or ANY_ADDRESS in (address, other)
            ):
                return True
    return False


# --- nodes -----------------------------------------------------------------------------------------------------------


def node_selected(pod: Raw, labels: Mapping[str, str], name: str) -> bool:
    """`nodeSelector` and required node affinity."""
    spec = pod["spec"]
    if any(labels.get(key) != value for key, value in (spec.get("nodeSelector") or {}).items()):
        return False
    required = ((spec.get("affinity") or {}).get("nodeAffinity") or {}).get(
        "requiredDuringSchedulingIgnoredDuringExecution"
    )
    return required is None or node_terms_match(required.get("nodeSelectorTerms", []), labels, name)


def node_terms_match(terms: list[Raw], labels: Mapping[str, str], name: str) -> bool:
    """One of the terms must hold; a term without requirements never does."""
    return any(node_term_matches(term, labels, name) for term in terms)


def node_term_matches(term: Raw, labels: Mapping[str, str], name: str) -> bool:
    expressions, by_field = term.get("matchExpressions") or [], term.get("matchFields") or []
    if not expressions and not by_field:
        return False
    return all(_node_requirement(item).matches(labels) for item in expressions) and all(
        _node_requirement(item).matches({"metadata.name": name}) for item in by_field
    )


def _node_requirement(item: Raw) -> Requirement:
    return Requirement(item["key"], _NODE_OPERATORS[item["operator"]], frozenset(item.get("values") or ()))


def preferred_nodes(pod: Raw) -> list[tuple[int, Raw]]:
    """(weight, node selector term)"""
    node = (pod["spec"].get("affinity") or {}).get("nodeAffinity") or {}
    found = node.get("preferredDuringSchedulingIgnoredDuringExecution") or []
    return [(int(item["weight"]), item["preference"]) for item in found]


def tolerates(tolerations: list[Raw], taint: Raw) -> bool:
    return any(_tolerates(item, taint) for item in tolerations)


def _tolerates(toleration: Raw, taint: Raw) -> bool:
    if toleration.get("effect") and toleration["effect"] != taint.get("effect"):
        return False
    key = toleration.get("key", "")
    if key and key != taint.get("key"):
        return False
    operator = toleration.get("operator") or "Equal"
    if operator == "Exists":
        return True
    return bool(key) and toleration.get("value", "") == taint.get("value", "")


def untolerated(pod: Raw, taints: tuple[Raw, ...], effects: tuple[str, ...]) -> Raw | None:
    """The first taint with one of these effects that the pod does not tolerate."""
    if not taints:
        return None
    tolerations = pod["spec"].get("tolerations") or []
    return next((t for t in taints if t.get("effect") in effects and not tolerates(tolerations, t)), None)
