"""Which controllers there are, and which of them a real cluster lacks."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from cuboid.controllers.accounts import RootCaController, ServiceAccountController
from cuboid.controllers.aggregation import Aggregation
from cuboid.controllers.balancers import Balancers
from cuboid.controllers.cronjob import CronJobs
from cuboid.controllers.daemonset import DaemonSets
from cuboid.controllers.deployment import Deployments
from cuboid.controllers.disruption import DisruptionController
from cuboid.controllers.disruption_stale import StaleDisruption
from cuboid.controllers.endpoints import EndpointsController
from cuboid.controllers.endpointslice_mirror import EndpointSliceMirrorController
from cuboid.controllers.endpointslices import EndpointSliceController
from cuboid.controllers.expiry import EventExpiry
from cuboid.controllers.garbage import Garbage
from cuboid.controllers.garbage_kinds import CachedObjects
from cuboid.controllers.job import Jobs
from cuboid.controllers.job_orphans import JobOrphans
from cuboid.controllers.namespace_content import CachedContent, SeenContent
from cuboid.controllers.namespaces import NamespaceEnds
from cuboid.controllers.nodelife import NodeLifecycleController
from cuboid.controllers.nodelife_pods import by_looking, in_cache
from cuboid.controllers.podgc import Cached, PodGarbage
from cuboid.controllers.quota import QuotaController
from cuboid.controllers.replicaset import ReplicaSets
from cuboid.controllers.statefulset import StatefulSets
from cuboid.controllers.taints import TaintController
from cuboid.controllers.tenant import Tenants
from cuboid.controllers.ttl import FinishedJobs
from cuboid.controllers.volumes import VolumeBinder
from cuboid.controllers.volumes_reclaim import ClaimProtection, VolumeReclaimer
from cuboid.kube.controller.view import Controller
from cuboid.kube.kinds import Kinds
from cuboid.kube.registry import Registry


@dataclass(frozen=True)
class Row:
    """`make` gives a new one. `everywhere`: a real Kubernetes does not have it, so it is started there as well."""

    make: Callable[[], Controller]
    everywhere: bool = False


ALL: tuple[Row, ...] = (
    Row(Deployments),
    Row(ReplicaSets),
    Row(StatefulSets),
    Row(DaemonSets),
    Row(Jobs),
    Row(JobOrphans),
    Row(FinishedJobs),
    Row(CronJobs),
    Row(EventExpiry),
    Row(EndpointsController),
    Row(EndpointSliceController),
    Row(EndpointSliceMirrorController),
    Row(Balancers),
    Row(DisruptionController),
    Row(StaleDisruption),
    Row(QuotaController),
    Row(ServiceAccountController),
    Row(RootCaController),
    Row(VolumeBinder),
    Row(VolumeReclaimer),
    Row(ClaimProtection),
    Row(Tenants, everywhere=True),
    Row(Aggregation),
)


def chosen(*, embedded: bool, registry: Registry | None = None) -> list[Controller]:
    """New controllers: all of them for the embedded API server, else only those that Kubernetes lacks.

    In the server's own process `registry` is its: those that look after all kinds look into its cache.
    """
    found = [row.make() for row in ALL if embedded or row.everywhere]
    if embedded:
        pods_on = by_looking if registry is None else in_cache(registry)
        found += [NodeLifecycleController(pods_on), TaintController(pods_on)]
    if embedded and registry is not None:
        found += [Garbage(registry.kinds, CachedObjects(registry)), NamespaceEnds(CachedContent(registry))]
        found.append(PodGarbage(Cached(registry)))
    elif embedded:
        found += [Garbage(Kinds()), NamespaceEnds(SeenContent(Kinds())), PodGarbage()]
    return found
