"""Rows of `apiextensions.k8s.io`: kinds that users define."""

from __future__ import annotations

from cuboid.kube import columns as c
from cuboid.kube.kind import Kind, status_of
from cuboid.kube.strategy import SpecStrategy

ROWS: tuple[Kind, ...] = (
    Kind(
        "apiextensions.k8s.io",
        "v1",
        "CustomResourceDefinition",
        "customresourcedefinitions",
        False,
        "io.k8s.apiextensions-apiserver.pkg.apis.apiextensions.v1.CustomResourceDefinition",
        SpecStrategy(),
        c.PLAIN,
        c.plain,
        (
            "crd",
            "crds",
        ),
        categories=("api-extensions",),
        subresources=(status_of("CustomResourceDefinition"),),
    ),
)
