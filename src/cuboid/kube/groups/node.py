"""Rows of `node.k8s.io`."""

from __future__ import annotations

from cuboid.kube.groups.class_strategy import RuntimeStrategy
from cuboid.kube.kind import Kind
from cuboid.kube.printing import cluster

ROWS: tuple[Kind, ...] = (
    Kind(
        "node.k8s.io",
        "v1",
        "RuntimeClass",
        "runtimeclasses",
        False,
        "io.k8s.api.node.v1.RuntimeClass",
        RuntimeStrategy(),
        cluster.RUNTIME,
        cluster.runtime,
    ),
)
