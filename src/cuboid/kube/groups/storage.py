"""Rows of `storage.k8s.io`."""

from __future__ import annotations

from cuboid.kube import columns as c
from cuboid.kube.kind import Kind
from cuboid.kube.strategy import Strategy

ROWS: tuple[Kind, ...] = (
    Kind(
        "storage.k8s.io",
        "v1",
        "StorageClass",
        "storageclasses",
        False,
        "io.k8s.api.storage.v1.StorageClass",
        Strategy(),
        c.PLAIN,
        c.plain,
        ("sc",),
    ),
)
