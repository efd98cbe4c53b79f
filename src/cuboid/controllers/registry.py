"""Which controllers there are, and which of them a real cluster lacks."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from cuboid.controllers.accounts import RootCaController, ServiceAccountController
from cuboid.controllers.cronjob import CronJobs
from cuboid.controllers.daemonset import DaemonSets
from cuboid.controllers.deployment import Deployments
from cuboid.controllers.disruption import DisruptionController
from cuboid.controllers.endpoints import EndpointsController
from cuboid.controllers.endpointslice_mirror import EndpointSliceMirrorController
from cuboid.controllers.endpointslices import EndpointSliceController
from cuboid.controllers.job import Jobs
from cuboid.controllers.job_orphans import JobOrphans
from cuboid.controllers.nodelife import NodeLifecycleController
from cuboid.controllers.quota import QuotaController
from cuboid.controllers.replicaset import ReplicaSets
from cuboid.controllers.statefulset import StatefulSets
from cuboid.controllers.taints import TaintController
from cuboid.controllers.tenant import Tenants
from cuboid.controllers.ttl import FinishedJobs
from cuboid.controllers.volumes import VolumeBinder
from cuboid.controllers.volumes_reclaim import ClaimProtection, VolumeReclaimer
from cuboid.kube.controller.view import Controller


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
    Row(EndpointsController),
    Row(EndpointSliceController),
    Row(EndpointSliceMirrorController),
    Row(NodeLifecycleController),
    Row(TaintController),
    Row(DisruptionController),
    Row(QuotaController),
    Row(ServiceAccountController),
    Row(RootCaController),
    Row(VolumeBinder),
    Row(VolumeReclaimer),
    Row(ClaimProtection),
    Row(Tenants, everywhere=True),
)


def chosen(*, embedded: bool) -> list[Controller]:
    """New controllers: all of them for the embedded API server, else only those that Kubernetes lacks."""
    return [row.make() for row in ALL if embedded or row.everywhere]
