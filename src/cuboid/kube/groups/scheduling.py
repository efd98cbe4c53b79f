"""Rows of `scheduling.k8s.io`."""

from __future__ import annotations

from cuboid.kube import columns as c
from cuboid.kube.kind import Kind
from cuboid.kube.strategy import Strategy

ROWS: tuple[Kind, ...] = (
    Kind(
        "scheduling.k8s.io",
        "v1",
        "PriorityClass",
        "priorityclasses",
        False,
        "io.k8s.api.scheduling.v1.PriorityClass",
        Strategy(),
        c.PLAIN,
        c.plain,
        ("pc",),
    ),
)
