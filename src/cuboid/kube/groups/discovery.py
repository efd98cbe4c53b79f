"""Rows of `discovery.k8s.io`."""

from __future__ import annotations

from cuboid.kube.groups.network_strategy import SliceStrategy
from cuboid.kube.kind import Kind
from cuboid.kube.printing import network

ROWS: tuple[Kind, ...] = (
    Kind(
        "discovery.k8s.io",
        "v1",
        "EndpointSlice",
        "endpointslices",
        True,
        "io.k8s.api.discovery.v1.EndpointSlice",
        SliceStrategy(),
        network.SLICE,
        network.endpoint_slice,
    ),
)
