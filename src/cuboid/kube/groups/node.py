"""Rows of `node.k8s.io`."""

from __future__ import annotations

from cuboid.kube import columns as c
from cuboid.kube.kind import Kind
from cuboid.kube.strategy import Strategy

ROWS: tuple[Kind, ...] = (
    Kind(
        "node.k8s.io",
        "v1",
        "RuntimeClass",
        "runtimeclasses",
        False,
        "io.k8s.api.node.v1.RuntimeClass",
        Strategy(),
        c.PLAIN,
        c.plain,
    ),
)
