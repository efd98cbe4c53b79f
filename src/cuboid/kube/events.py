"""Events have two faces, `v1` and `events.k8s.io/v1`, and one storage: kept as the first, translated at the edge.

Source of the correspondence: kubernetes/pkg/apis/events/v1/conversion.go.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

_TO_CORE = {
    "regarding": "involvedObject",
    "note": "message",
    "reportingController": "reportingComponent",
    "deprecatedSource": "source",
    "deprecatedFirstTimestamp": "firstTimestamp",
    "deprecatedLastTimestamp": "lastTimestamp",
    "deprecatedCount": "count",
}
_FROM_CORE = {core: new for new, core in _TO_CORE.items()}


def to_core(document: Mapping[str, Any]) -> dict[str, Any]:
    """A `v1` Event from an `events.k8s.io/v1` one."""
    renamed = {_TO_CORE.get(key, key): value for key, value in document.items()}
    return {**renamed, "apiVersion": "v1", "kind": "Event"}


def from_core(document: Mapping[str, Any]) -> dict[str, Any]:
    renamed = {_FROM_CORE.get(key, key): value for key, value in document.items()}
    return {**renamed, "apiVersion": "events.k8s.io/v1", "kind": "Event"}
