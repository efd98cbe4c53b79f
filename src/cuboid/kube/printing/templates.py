"""Cells that several kinds share: containers and images of a template, selectors, labels."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from cuboid.kube.columns import Column

Raw = Mapping[str, Any]
NONE = "<none>"
CONTAINERS = Column("Containers", priority=1, description="Names of each container in the template.")
IMAGES = Column("Images", priority=1, description="Images referenced by each container in the template.")
SELECTOR = Column("Selector", priority=1, description="Label selector for pods.")


def containers(template: Raw) -> list[str]:
    """Names and images, comma-separated."""
    listed = template.get("spec", {}).get("containers", [])
    return [",".join(str(item.get(key, "")) for item in listed) for key in ("name", "image")]


def selector(given: Raw | None) -> str:
    """A label selector as one would type it."""
    if not given:
        return NONE
    parts = [(key, f"{key}={value}") for key, value in given.get("matchLabels", {}).items()]
    for item in given.get("matchExpressions", []):
        parts.append((item.get("key", ""), _requirement(item)))
    return ",".join(text for _, text in sorted(parts)) or NONE


def _requirement(item: Raw) -> str:
    key, operator = item.get("key", ""), item.get("operator", "")
    if operator == "Exists":
        return str(key)
    if operator == "DoesNotExist":
        return f"!{key}"
    return f"{key} {operator.lower()} ({','.join(sorted(item.get('values', [])))})"


def labels(given: Raw | None) -> str:
    return ",".join(f"{key}={value}" for key, value in sorted((given or {}).items())) or NONE
