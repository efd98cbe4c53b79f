"""Rows of `scheduling.k8s.io`."""

from __future__ import annotations

from cuboid.kube.groups.class_strategy import PriorityStrategy
from cuboid.kube.kind import Kind
from cuboid.kube.printing import cluster

ROWS: tuple[Kind, ...] = (
    Kind(
        "scheduling.k8s.io",
        "v1",
        "PriorityClass",
        "priorityclasses",
        False,
        "io.k8s.api.scheduling.v1.PriorityClass",
        PriorityStrategy(),
        cluster.PRIORITY,
        cluster.priority,
        ("pc",),
    ),
)
