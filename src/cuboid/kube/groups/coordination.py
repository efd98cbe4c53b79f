"""Rows of `coordination.k8s.io`."""

from __future__ import annotations

from cuboid.kube import columns as c
from cuboid.kube.core import LeaseStrategy
from cuboid.kube.kind import Kind

ROWS: tuple[Kind, ...] = (
    Kind(
        "coordination.k8s.io",
        "v1",
        "Lease",
        "leases",
        True,
        "io.k8s.api.coordination.v1.Lease",
        LeaseStrategy(),
        c.LEASE,
        c.lease,
    ),
)
