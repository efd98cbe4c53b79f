"""What a node agent may do: what its own pods need, and its own Node, Lease and events. Nothing of other nodes' pods.

Source of the idea: kubernetes/plugin/pkg/auth/authorizer/node. Which objects a pod refers to is read from the pods on
the node when it is asked for, and not kept as a graph.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from cuboid.kube import kinds
from cuboid.kube.cache import Entry, Filter
from cuboid.kube.identity import User
from cuboid.kube.names import LEASE_NAMESPACE
from cuboid.kube.rbac.attributes import Attributes
from cuboid.kube.registry import Registry
from cuboid.kube.selectors import Requirement

Raw = Mapping[str, Any]
NODES = "system:nodes"
PREFIX = "system:node:"
_POD = kinds.builtin("Pod")
_READ = ("get", "list", "watch")
_WRITE = ("update", "patch")
_REMEMBERED = 4_096
_PUBLIC = {
    ("", "services"),
    ("discovery.k8s.io", "endpointslices"),
    ("node.k8s.io", "runtimeclasses"),
    ("", "persistentvolumes"),
}
"""What every node reads."""


def node_of(user: User) -> str:
    """The node whose agent this is, "" for anybody else."""
    return user.name.removeprefix(PREFIX) if NODES in user.groups and user.name.startswith(PREFIX) else ""


class NodeRules:
    def __init__(self, registry: Registry) -> None:
        self._registry = registry
        self._referring: dict[tuple[str, str, str, str], tuple[str, int]] = {}  # a pod that refers to it, its version

    def allows(self, user: User, wanted: Attributes) -> bool:
        node = node_of(user)
        if not node or wanted.path:
            return False
        check = _CHECKS.get((wanted.group, wanted.resource))
        if check is not None:
            return check(self, node, wanted)
        return (wanted.group, wanted.resource) in _PUBLIC and not wanted.sub and wanted.verb in _READ

    def _node(self, node: str, wanted: Attributes) -> bool:
        if wanted.sub == "status":
            return wanted.name == node and wanted.verb in _WRITE
        own = wanted.name == node and wanted.verb in (*_READ, *_WRITE)
        return not wanted.sub and (own or wanted.verb == "create")

    def _lease(self, node: str, wanted: Attributes) -> bool:
        own = wanted.name == node and wanted.verb in ("get", "delete", *_WRITE)
        return wanted.namespace == LEASE_NAMESPACE and not wanted.sub and (own or wanted.verb == "create")

    def _event(self, node: str, wanted: Attributes) -> bool:
        return not wanted.sub and wanted.verb in ("create", *_WRITE)

    def _volume(self, node: str, wanted: Attributes) -> bool:
        return not wanted.sub and wanted.verb in (*_READ, "update")

    def _pod(self, node: str, wanted: Attributes) -> bool:
        if wanted.verb in ("list", "watch") and not wanted.sub:
            return f"spec.nodeName={node}" in wanted.selector.replace("==", "=").split(",")
        known = {"": ("get", "delete", *_WRITE), "status": ("get", *_WRITE), "eviction": ("create",)}
        if wanted.verb not in known.get(wanted.sub, ()):
            return False
        entry = self._registry.of(_POD).get(wanted.namespace, wanted.name)
        return entry is not None and entry.fields.get("spec.nodeName") == node

    def _account(self, node: str, wanted: Attributes) -> bool:
        return wanted.sub == "token" and wanted.verb == "create" and self._refers(node, wanted)

    def _referred(self, node: str, wanted: Attributes) -> bool:
        return wanted.verb in _READ and not wanted.sub and self._refers(node, wanted)

    def _refers(self, node: str, wanted: Attributes) -> bool:
        """Whether a pod on the node refers to this object; the pod is remembered, and looked at again next time."""
        if not wanted.name or not wanted.namespace:
            return False
        key = (node, wanted.resource, wanted.namespace, wanted.name)
        pods = self._registry.of(_POD)
        name, version = self._referring.get(key, ("", 0))
        known = pods.get(wanted.namespace, name)
        here_still = known is not None and known.fields.get("spec.nodeName") == node
        if known is not None and here_still and (known.rv == version or self._found(key, known, wanted)):
            return True
        here = Requirement("spec.nodeName", "=", frozenset((node,)))
        return any(self._found(key, entry, wanted) for entry in pods.select(Filter(wanted.namespace, (), (here,))))

    def _found(self, key: tuple[str, str, str, str], pod: Entry, wanted: Attributes) -> bool:
        if (wanted.resource, wanted.name) not in set(references(pod.object())):
            return False
        if len(self._referring) >= _REMEMBERED:
            self._referring.clear()
        self._referring[key] = (pod.key.name, pod.rv)
        return True


_CHECKS = {
    ("", "nodes"): NodeRules._node,
    ("coordination.k8s.io", "leases"): NodeRules._lease,
    ("", "events"): NodeRules._event,
    ("", "persistentvolumes"): NodeRules._volume,
    ("", "pods"): NodeRules._pod,
    ("", "serviceaccounts"): NodeRules._account,
    ("", "secrets"): NodeRules._referred,
    ("", "configmaps"): NodeRules._referred,
    ("", "persistentvolumeclaims"): NodeRules._referred,
}


def references(pod: Raw) -> Iterator[tuple[str, str]]:
    """(plural, name) of all objects of its namespace that a pod refers to."""
    spec: Raw = pod["spec"]
    yield "serviceaccounts", spec.get("serviceAccountName", "")
    for secret in spec.get("imagePullSecrets") or []:
        yield "secrets", secret.get("name", "")
    for volume in spec.get("volumes") or []:
        yield from _of_volume(volume, pod["metadata"]["name"])
    for key in ("initContainers", "containers", "ephemeralContainers"):
        for container in spec.get(key) or []:
            yield from _of_container(container)


def _of_volume(volume: Raw, pod: str) -> Iterator[tuple[str, str]]:
    if found := volume.get("secret"):
        yield "secrets", found.get("secretName", "")
    if found := volume.get("configMap"):
        yield "configmaps", found.get("name", "")
    if found := volume.get("persistentVolumeClaim"):
        yield "persistentvolumeclaims", found.get("claimName", "")
    if "ephemeral" in volume:
        yield "persistentvolumeclaims", f"{pod}-{volume['name']}"
    if found := (volume.get("csi") or {}).get("nodePublishSecretRef"):
        yield "secrets", found.get("name", "")
    for source in (volume.get("projected") or {}).get("sources") or []:
        for key, plural in (("secret", "secrets"), ("configMap", "configmaps")):
            if found := source.get(key):
                yield plural, found.get("name", "")


def _of_container(container: Raw) -> Iterator[tuple[str, str]]:
    for source in container.get("envFrom") or []:
        for key, plural in (("secretRef", "secrets"), ("configMapRef", "configmaps")):
            if found := source.get(key):
                yield plural, found.get("name", "")
    for variable in container.get("env") or []:
        for key, plural in (("secretKeyRef", "secrets"), ("configMapKeyRef", "configmaps")):
            if found := (variable.get("valueFrom") or {}).get(key):
                yield plural, found.get("name", "")
