"""Rows of `apiextensions.k8s.io`: kinds that users define."""

from __future__ import annotations

from cuboid.kube import columns as c
from cuboid.kube.crd.definition import DefinitionStrategy
from cuboid.kube.kind import Kind, status_of

ROWS: tuple[Kind, ...] = (
    Kind(
        "apiextensions.k8s.io",
        "v1",
        "CustomResourceDefinition",
        "customresourcedefinitions",
        False,
        "io.k8s.apiextensions-apiserver.pkg.apis.apiextensions.v1.CustomResourceDefinition",
        DefinitionStrategy(),
        (c.PLAIN[0], c.Column("Created At", "date")),
        lambda document, now: [document["metadata"]["name"], document["metadata"].get("creationTimestamp")],
        (
            "crd",
            "crds",
        ),
        categories=("api-extensions",),
        subresources=(status_of("CustomResourceDefinition"),),
    ),
)
