"""What a tenant may not do, though its role allows the write: choose a node, take its ports, rank above others, touch
what holds it."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from cuboid.kube import kinds, objects, tenants
from cuboid.kube.admission import Request
from cuboid.kube.admit.plug import CREATE, DELETE, UPDATE, Plug, is_master, refusal
from cuboid.kube.cache import Filter
from cuboid.kube.kind import Kind
from cuboid.kube.registry import Registry
from cuboid.kube.types import NAMED_VOLUME_DRIVER

Raw = Mapping[str, Any]
_NAMESPACE = kinds.builtin("Namespace")
_TENANT = kinds.builtin("Tenant", tenants.GROUP)
_QUOTA = kinds.builtin("ResourceQuota")
_HELD = (
    ("", "limitranges"),
    ("", "resourcequotas"),
    ("rbac.authorization.k8s.io", "rolebindings"),
)
_STORAGE = {"requests.storage", "persistentvolumeclaims", "count/persistentvolumeclaims"}
"""What a quota that bounds storage names."""
_TRUSTED = "system:"
"""Users of the platform itself; service accounts are not among them."""


class TenantGuard(Plug):
    """`node_ports` lets tenants have ports of the machine: Services of type NodePort, and `hostPort` of containers."""

    operations = (CREATE, UPDATE, DELETE)

    def __init__(self, registry: Registry, *, node_ports: bool) -> None:
        self._registry = registry
        self._node_ports = node_ports

    def handles(self, kind: Kind, operation: str, sub: str) -> bool:
        if sub or operation not in self.operations:
            return False
        stored = kind.stored_as
        return stored in _HELD or (operation != DELETE and stored in (("", "pods"), ("", "services")))

    def admit(self, request: Request) -> None:
        if _is_platform(request) and not _made_for_another(request):
            return
        stored = request.kind.stored_as
        if stored in _HELD:
            self._held(request)
        tenant = self._tenant(request.namespace)
        if not tenant or request.new is None:
            return
        spec: Raw = request.new.get("spec") or {}
        if stored == ("", "pods") and request.operation == CREATE:
            self._pod(request, spec, tenant)
        elif stored == ("", "services"):
            self._service(request, spec)

    def _tenant(self, namespace: str) -> str:
        entry = self._registry.of(_NAMESPACE).get("", namespace)
        return "" if entry is None else entry.labels.get(tenants.LABEL, "")

    def _held(self, request: Request) -> None:
        for document in (request.old, request.new):
            if document and objects.labels(document).get(tenants.MANAGED_LABEL) == tenants.MANAGED:
                raise refusal(request, "it is kept by the platform for the tenant and can not be changed")

    def _pod(self, request: Request, spec: Raw, tenant: str) -> None:
        if spec.get("nodeName"):
            raise refusal(request, "spec.nodeName may not be set by a tenant: the scheduler chooses the node")
        if spec.get("overhead") and not spec.get("runtimeClassName"):
            raise refusal(request, "spec.overhead may not be set by a tenant: the platform does")
        name = spec.get("priorityClassName", "")
        if name and name not in self._priorities(tenant):
            raise refusal(request, f"priority class {name} is not one that tenant {tenant} may use")
        if not self._node_ports and any(_host_ports(spec)):
            raise refusal(request, "hostPort, a port of the node, may not be had by a tenant: use a Service")
        if name := next(_inline_volumes(spec), ""):
            self._inline(request, name)
        others = sorted(set(_looked_into(spec)) - {request.namespace})
        if others:
            raise refusal(
                request, "affinity to pods of other namespaces is not a tenant's: where they are would be told by it"
            )

    def _inline(self, request: Request, volume: str) -> None:
        """A named volume stays when its pod is gone, and only claims are counted."""
        for entry in self._registry.of(_QUOTA).select(Filter(request.namespace)):
            if _STORAGE & (entry.object().get("spec", {}).get("hard") or {}).keys():
                raise refusal(
                    request,
                    f"volume {volume} would not be counted by the quota {entry.key.name}, which bounds storage: use a "
                    "PersistentVolumeClaim",
                )

    def _priorities(self, tenant: str) -> list[str]:
        entry = self._registry.of(_TENANT).get("", tenant)
        return [] if entry is None else list(entry.object().get("spec", {}).get("priorityClasses") or [])

    def _service(self, request: Request, spec: Raw) -> None:
        before = (request.old or {}).get("spec") or {}
        if spec.get("externalIPs") and spec["externalIPs"] != before.get("externalIPs"):
            raise refusal(request, "spec.externalIPs may not be set by a tenant: the addresses may be another's")
        if spec.get("type") == "LoadBalancer" and before.get("type") != "LoadBalancer":
            raise refusal(request, "any port of the machine would be had by type LoadBalancer: a tenant has ClusterIP")
        if not self._node_ports and _more_of_the_node(spec, before):
            raise refusal(request, "a port of the node may not be had by a tenant: use type ClusterIP")


def _host_ports(spec: Raw) -> Iterator[int]:
    for key in ("containers", "initContainers"):
        for container in spec.get(key) or []:
            yield from (port.get("hostPort") or 0 for port in container.get("ports") or [])


def _inline_volumes(spec: Raw) -> Iterator[str]:
    """Volumes of a pod that are named volumes of its node without a claim."""
    for volume in spec.get("volumes") or []:
        if (volume.get("csi") or {}).get("driver") == NAMED_VOLUME_DRIVER:
            yield str(volume.get("name", ""))


def _more_of_the_node(spec: Raw, before: Raw) -> bool:
    """Whether a service has, or will be given, ports of the node that it did not have: whatever its type, a number that
    is written into it is taken from all others."""
    ports, kept = spec.get("ports") or [], before.get("ports") or []
    exposed, was = (document.get("type") in ("NodePort", "LoadBalancer") for document in (spec, before))
    numbers, held = ({port["nodePort"] for port in some if port.get("nodePort")} for some in (ports, kept))
    return not numbers <= held or (exposed and (not was or len(ports) > len(kept)))


def _looked_into(spec: Raw) -> Iterator[str]:
    """Namespaces that terms of pod (anti-)affinity look into, "*" for a selector of namespaces."""
    affinity = spec.get("affinity") or {}
    for side in ("podAffinity", "podAntiAffinity"):
        given = affinity.get(side) or {}
        soft = given.get("preferredDuringSchedulingIgnoredDuringExecution") or []
        terms = [*(given.get("requiredDuringSchedulingIgnoredDuringExecution") or [])]
        for term in [*terms, *(row.get("podAffinityTerm") or {} for row in soft)]:
            yield from term.get("namespaces") or []
            if term.get("namespaceSelector") is not None:
                yield "*"


def _made_for_another(request: Request) -> bool:
    """A pod that a controller makes from a template which the tenant wrote."""
    return request.operation == CREATE and request.new is not None and objects.controller(request.new) is not None


def _is_platform(request: Request) -> bool:
    name = request.user.name
    own = name.startswith(_TRUSTED) and not name.startswith("system:serviceaccount:")
    return own or is_master(request.user)
