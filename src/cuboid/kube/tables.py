"""`meta.k8s.io/v1` Table and PartialObjectMetadata: what `kubectl get` asks for."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

from cuboid.kube.kinds import Kind

META = "meta.k8s.io/v1"


def partial(document: Mapping[str, Any]) -> dict[str, Any]:
    return {"kind": "PartialObjectMetadata", "apiVersion": META, "metadata": document["metadata"]}


def table(
    kind: Kind, documents: Iterable[Mapping[str, Any]], metadata: Mapping[str, Any], include: str, now: float
) -> dict[str, Any]:
    """`include` is what a row carries of its object: None, Metadata (the default) or Object."""
    return {
        "kind": "Table",
        "apiVersion": META,
        "metadata": metadata,
        "columnDefinitions": [column.definition() for column in kind.columns],
        "rows": [row(kind, document, include, now) for document in documents],
    }


def row(kind: Kind, document: Mapping[str, Any], include: str, now: float) -> dict[str, Any]:
    """One line of a table."""
    made: dict[str, Any] = {"cells": kind.cells(document, now)}
    if include != "None":
        made["object"] = document if include == "Object" else partial(document)
    return made
