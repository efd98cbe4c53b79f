"""On which nodes a DaemonSet's pods run: by selector, affinity and taints of the template, never by free room.

Source: kubernetes/pkg/controller/daemon/util/daemonset_util.go and daemon_controller.go.
"""

from __future__ import annotations

import copy
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

from cuboid.controllers import common
from cuboid.controllers.revisions import HASH
from cuboid.controllers.taints import tolerates
from cuboid.kube import objects, selectors
from cuboid.kube.client import PODS
from cuboid.kube.controller.instructions import Create, Tell
from cuboid.kube.selectors import Requirement, Selector

Object = dict[str, Any]
Raw = Mapping[str, Any]
_OPERATORS = {"In": "in", "NotIn": "notin", "Exists": "exists", "DoesNotExist": "!exists", "Gt": ">", "Lt": "<"}
_NODE = "node.kubernetes.io/"
_TOLERATED = (
    ("not-ready", "NoExecute"),
    ("unreachable", "NoExecute"),
    ("disk-pressure", "NoSchedule"),
    ("memory-pressure", "NoSchedule"),
    ("pid-pressure", "NoSchedule"),
    ("unschedulable", "NoSchedule"),
)
"""A daemon runs where nothing else may."""


@dataclass(frozen=True)
class Place:
    """What of a DaemonSet belongs on a node: a pod is to run there, or one that does may stay."""

    run: bool
    stay: bool


def place(found: Raw, node: Raw) -> Place:
    spec = found["spec"]["template"].get("spec") or {}
    if spec.get("nodeName") not in (None, "", objects.name(node)) or not _chosen(spec, node):
        return Place(False, False)
    tolerations = tolerations_of(spec)
    bad = {
        taint.get("effect")
        for taint in (node.get("spec") or {}).get("taints") or ()
        if not any(tolerates(toleration, taint) for toleration in tolerations)
    }
    return Place(not bad & {"NoSchedule", "NoExecute"}, "NoExecute" not in bad)


def tolerations_of(spec: Raw) -> list[Object]:
    """Its own and those that every daemon has."""
    added = [*_TOLERATED, ("network-unavailable", "NoSchedule")] if spec.get("hostNetwork") else _TOLERATED
    made: list[Object] = copy.deepcopy(spec.get("tolerations") or [])
    for key, effect in added:
        made.append({"key": f"{_NODE}{key}", "operator": "Exists", "effect": effect})
    return made


def _chosen(spec: Raw, node: Raw) -> bool:
    labels = objects.labels(node)
    if any(labels.get(key) != value for key, value in (spec.get("nodeSelector") or {}).items()):
        return False
    affinity = (spec.get("affinity") or {}).get("nodeAffinity") or {}
    required = affinity.get("requiredDuringSchedulingIgnoredDuringExecution")
    return required is None or any(_term(term, node) for term in required.get("nodeSelectorTerms") or ())


def _term(term: Raw, node: Raw) -> bool:
    """An empty term matches nothing."""
    by_label, by_field = _requirements(term.get("matchExpressions")), _requirements(term.get("matchFields"))
    fields = {"metadata.name": objects.name(node)}
    return bool(by_label or by_field) and (
        selectors.matches(by_label, objects.labels(node)) and selectors.matches(by_field, fields)
    )


def _requirements(items: Iterable[Raw] | None) -> Selector:
    return tuple(
        Requirement(item["key"], _OPERATORS[item["operator"]], frozenset(item.get("values") or ()))
        for item in items or ()
    )


def node_of(pod: Raw) -> str:
    """Where it runs or is to run; "" when that is open."""
    if pod["spec"].get("nodeName"):
        return str(pod["spec"]["nodeName"])
    affinity = (pod["spec"].get("affinity") or {}).get("nodeAffinity") or {}
    terms = (affinity.get("requiredDuringSchedulingIgnoredDuringExecution") or {}).get("nodeSelectorTerms") or ()
    for term in terms:
        for field in term.get("matchFields") or ():
            if field["key"] == "metadata.name" and field["operator"] == "In" and len(field["values"]) == 1:
                return str(field["values"][0])
    return ""


def creation(found: Raw, hashed: str, node: str) -> Create:
    """A pod for one node. What the template says of nodes has chosen this one already, so it is replaced by the name:
    the scheduler, not this controller, puts the pod there."""
    pod = common.pod_from(found["spec"]["template"], found)
    pod["metadata"]["labels"] = {**pod["metadata"].get("labels", {}), HASH: hashed}
    spec = pod["spec"]
    term = {"matchFields": [{"key": "metadata.name", "operator": "In", "values": [node]}]}
    toward: Object = (spec.setdefault("affinity", {})).setdefault("nodeAffinity", {})
    toward["requiredDuringSchedulingIgnoredDuringExecution"] = {"nodeSelectorTerms": [term]}
    spec["tolerations"] = tolerations_of(spec)
    told = Tell(dict(found), "Normal", "SuccessfulCreate", "Created pod: {name}")
    return Create(PODS, pod, objects.namespace(found), tell=told)
