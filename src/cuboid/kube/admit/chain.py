"""The plug-ins of a server in their order: first what changes an object, then what refuses, last what counts."""

from __future__ import annotations

from dataclasses import dataclass

from cuboid.kube.admission import Chain
from cuboid.kube.admit.accounts import ServiceAccounts
from cuboid.kube.admit.addresses import ServiceAddresses
from cuboid.kube.admit.guard import TenantGuard
from cuboid.kube.admit.limits import LimitRanger
from cuboid.kube.admit.namespaces import PermanentNamespaces
from cuboid.kube.admit.node import NodeRestriction
from cuboid.kube.admit.quota import ResourceQuota
from cuboid.kube.admit.rights import Allows, Creation, Escalation, OwnerReferences
from cuboid.kube.admit.scheduling import DefaultTolerationSeconds, Priority, RuntimeClasses
from cuboid.kube.names import SERVICE_SUBNET
from cuboid.kube.rbac.policy import Policy
from cuboid.kube.registry import Registry


@dataclass(frozen=True)
class Options:
    """See the server's settings of the same names."""

    pod_overhead_mib: int = 0
    toleration_seconds: int = 300
    mount_account_tokens: bool = False
    tenant_node_ports: bool = False
    service_subnet: str = SERVICE_SUBNET


def make(registry: Registry, policy: Policy, allows: Allows, options: Options) -> Chain:
    """The guard comes before what fills in classes and overhead: it is about what the caller wrote."""
    return Chain(
        PermanentNamespaces(),
        Creation(allows),
        NodeRestriction(),
        TenantGuard(registry, node_ports=options.tenant_node_ports),
        Priority(registry),
        RuntimeClasses(registry, overhead_mib=options.pod_overhead_mib),
        ServiceAccounts(registry, mount=options.mount_account_tokens),
        DefaultTolerationSeconds(seconds=options.toleration_seconds),
        LimitRanger(registry),
        Escalation(policy, allows),
        OwnerReferences(registry.kinds, allows),
        ServiceAddresses(registry, subnet=options.service_subnet),
        ResourceQuota(registry),
    )
