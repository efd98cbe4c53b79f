"""The columns of `kubectl get` that a definition names.

Source: k8s.io/apiextensions-apiserver/pkg/registry/customresource/tableconvertor.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from cuboid.kube import columns
from cuboid.kube.columns import Column
from cuboid.kube.crd import jsonpath

Raw = Mapping[str, Any]
Cells = Callable[[Raw, float], list[Any]]
DEFAULT: tuple[dict[str, Any], ...] = (
    {
        "name": "Age",
        "type": "date",
        "jsonPath": ".metadata.creationTimestamp",
        "description": columns.PLAIN[1].description,
    },
)
"""What is printed beside the name where a definition names nothing."""


def printed(given: Sequence[Mapping[str, Any]]) -> tuple[tuple[Column, ...], Cells]:
    """Column definitions, and the function that fills a row."""
    rows = given or DEFAULT
    made = tuple(_column(row) for row in rows)

    def cells(document: Raw, now: float) -> list[Any]:
        name = document["metadata"].get("name", "")
        return [name, *(_cell(row["type"], jsonpath.find(row["jsonPath"], document), now) for row in rows)]

    return (columns.PLAIN[0], *made), cells


def _column(row: Mapping[str, Any]) -> Column:
    about = row.get("description") or f"Custom resource definition column (in JSONPath format): {row['jsonPath']}"
    return Column(row["name"], row["type"], row.get("priority", 0), about, row.get("format", ""))


def _cell(kind: str, found: Sequence[Any], now: float) -> Any:
    if not found or found[0] is None:
        return None
    value = found[0]
    if kind == "integer":
        return int(value) if isinstance(value, int | float) and not isinstance(value, bool) else None
    if kind == "number":
        return float(value) if isinstance(value, int | float) and not isinstance(value, bool) else None
    if kind == "boolean":
        return value if isinstance(value, bool) else None
    if kind == "date":
        return _age(value, now)
    return " ".join(_text(item) for item in found)


def _age(value: Any, now: float) -> str:
    try:
        return columns.age(value, now) if isinstance(value, str) else "<invalid>"
    except ValueError:
        return "<invalid>"


def _text(value: Any) -> str:
    return value if isinstance(value, str) else json.dumps(value, separators=(",", ":"), ensure_ascii=False)
