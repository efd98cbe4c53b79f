"""Rows of `discovery.k8s.io`."""

from __future__ import annotations

from cuboid.kube import columns as c
from cuboid.kube.kind import Kind
from cuboid.kube.strategy import Strategy

ROWS: tuple[Kind, ...] = (
    Kind(
        "discovery.k8s.io",
        "v1",
        "EndpointSlice",
        "endpointslices",
        True,
        "io.k8s.api.discovery.v1.EndpointSlice",
        Strategy(),
        c.PLAIN,
        c.plain,
    ),
)
