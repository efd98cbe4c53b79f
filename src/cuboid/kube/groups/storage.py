"""Rows of `storage.k8s.io`."""

from __future__ import annotations

from cuboid.kube.groups.storage_strategy import ClassStrategy
from cuboid.kube.kind import Kind
from cuboid.kube.printing import storage

ROWS: tuple[Kind, ...] = (
    Kind(
        "storage.k8s.io",
        "v1",
        "StorageClass",
        "storageclasses",
        False,
        "io.k8s.api.storage.v1.StorageClass",
        ClassStrategy(),
        storage.CLASS,
        storage.class_,
        ("sc",),
    ),
)
