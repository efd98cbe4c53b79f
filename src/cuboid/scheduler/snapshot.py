"""What the scheduler knows: nodes with what is taken of them, and the pods that are on them, as small values.

It is fed change by change. Pods that were given a node a moment ago are in it too (*assumed*), before the API says so;
`forget` takes one out again whose binding failed. Objects of the API are not kept.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

from cuboid.kube import objects
from cuboid.scheduler import resources, terms
from cuboid.scheduler.resources import Amounts

Raw = Mapping[str, Any]
MAX_PODS = 110
"""Pods on a node that names no limit, as in Kubernetes."""
ZONE = "topology.kubernetes.io/zone"


@dataclass(frozen=True, slots=True)
class Placed:
    """A pod on a node. `created` is its creation timestamp."""

    uid: str
    namespace: str
    name: str
    node: str
    priority: int
    created: str
    labels: Mapping[str, str]
    requests: Amounts
    ports: frozenset[terms.Port]
    affinity: terms.Affinity
    deleting: bool = False


def placed(pod: Raw, node: str = "") -> Placed:
    """`node` for one that is only about to be bound there."""
    spec, metadata = pod["spec"], pod["metadata"]
    return Placed(
        objects.uid(pod),
        objects.namespace(pod),
        objects.name(pod),
        node or spec.get("nodeName", ""),
        int(spec.get("priority") or 0),
        metadata.get("creationTimestamp") or "",
        dict(objects.labels(pod)),
        resources.requested(pod),
        terms.ports(pod),
        terms.affinity(pod),
        objects.deleting(pod),
    )


@dataclass(slots=True)
class NodeInfo:
    """One node and what is on it. `ready` is its Ready condition."""

    name: str
    labels: Mapping[str, str] = field(default_factory=dict)
    taints: tuple[Raw, ...] = ()
    allocatable: Amounts = field(default_factory=dict)
    unschedulable: bool = False
    ready: bool = False
    known: bool = False
    """False while only pods have named it."""
    images: frozenset[str] = frozenset()
    used: Amounts = field(default_factory=dict)
    ports: dict[terms.Port, int] = field(default_factory=dict)
    pods: dict[str, Placed] = field(default_factory=dict)

    def put(self, pod: Placed) -> None:
        self.pods[pod.uid] = pod
        resources.add(self.used, pod.requests)
        for port in pod.ports:
            self.ports[port] = self.ports.get(port, 0) + 1

    def take(self, uid: str) -> Placed | None:
        pod = self.pods.pop(uid, None)
        if pod is not None:
            resources.subtract(self.used, pod.requests)
            for port in pod.ports:
                self.ports[port] -= 1
                if not self.ports[port]:
                    del self.ports[port]
        return pod

    def without(self, uids: set[str]) -> NodeInfo:
        """A copy from which these pods are gone."""
        copy = NodeInfo(
            self.name, self.labels, self.taints, self.allocatable, self.unschedulable, self.ready, self.known,
            self.images, dict(self.used), dict(self.ports), dict(self.pods),
        )  # fmt: skip
        for uid in uids:
            copy.take(uid)
        return copy


class Snapshot:
    def __init__(self) -> None:
        self._nodes: dict[str, NodeInfo] = {}
        self._where: dict[str, str] = {}  # pod uid -> node name
        self._nominees: dict[str, Placed] = {}  # by uid
        self.namespaces: dict[str, Mapping[str, str]] = {}
        """Labels by name."""
        self.repelling: dict[str, Placed] = {}
        """Placed pods with required anti-affinity, by uid."""

    def nominate(self, pod: Placed | None, uid: str) -> None:
        """A pod for which room is being made on its node; None when it is no longer waiting for that."""
        if pod is None:
            self._nominees.pop(uid, None)
        else:
            self._nominees[uid] = pod

    def with_nominees(self, node: NodeInfo, pod: Placed) -> NodeInfo:
        """The node as a pod finds it: room that is made for others, as important or more, is taken."""
        coming = [
            other
            for other in self._nominees.values()
            if other.node == node.name and other.uid != pod.uid and other.priority >= pod.priority
        ]
        if not coming:
            return node
        fuller = node.without(set())
        for other in coming:
            fuller.put(other)
        return fuller

    def nodes(self) -> Iterator[NodeInfo]:
        return (node for node in self._nodes.values() if node.known)

    def node(self, name: str) -> NodeInfo | None:
        found = self._nodes.get(name)
        return found if found is not None and found.known else None

    def __len__(self) -> int:
        return sum(1 for _ in self.nodes())

    def set_node(self, document: Raw) -> None:
        name = objects.name(document)
        info = self._nodes.setdefault(name, NodeInfo(name))
        spec, status = document.get("spec", {}), document.get("status", {})
        info.labels = dict(objects.labels(document))
        info.taints = tuple(spec.get("taints") or ())
        info.allocatable = resources.amounts(status.get("allocatable") or {})
        info.unschedulable = bool(spec.get("unschedulable"))
        info.ready = objects.is_true(document, "Ready")
        info.images = frozenset(name for image in status.get("images") or () for name in image.get("names") or ())
        info.known = True

    def remove_node(self, name: str) -> None:
        info = self._nodes.get(name)
        if info is not None:
            info.known = False
            if not info.pods:
                del self._nodes[name]

    def set_pod(self, pod: Placed) -> None:
        """A pod is on a node, or is assumed to be. What was known of it before is replaced."""
        self.forget(pod.uid)
        self._nodes.setdefault(pod.node, NodeInfo(pod.node)).put(pod)
        self._where[pod.uid] = pod.node
        if pod.affinity.repel:
            self.repelling[pod.uid] = pod

    def forget(self, uid: str) -> None:
        name = self._where.pop(uid, None)
        self.repelling.pop(uid, None)
        if name is None:
            return
        info = self._nodes[name]
        info.take(uid)
        if not info.known and not info.pods:
            del self._nodes[name]

    def where(self, uid: str) -> str:
        return self._where.get(uid, "")

    def namespace_labels(self, name: str) -> Mapping[str, str]:
        return self.namespaces.get(name, {})
