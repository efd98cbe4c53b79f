"""How `kubectl get` prints autoscalers and disruption budgets. Source: kubernetes/pkg/printers/internalversion."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from cuboid.kube.columns import PLAIN, Column, age

Raw = Mapping[str, Any]
_NAME, _AGE = PLAIN
_SOURCES = {
    "ContainerResource": "containerResource",
    "External": "external",
    "Object": "object",
    "Pods": "pods",
    "Resource": "resource",
}
_SHOWN = 2

AUTOSCALER = (
    _NAME, Column("Reference"), Column("Targets"), Column("MinPods"), Column("MaxPods"), Column("Replicas"), _AGE,
)  # fmt: skip


def autoscaler(document: Raw, now: float) -> list[Any]:
    metadata, spec, status = document["metadata"], document.get("spec", {}), document.get("status", {})
    target = spec.get("scaleTargetRef", {})
    return [
        metadata["name"], f"{target.get('kind', '')}/{target.get('name', '')}",
        _metrics(spec.get("metrics", []), status.get("currentMetrics", [])), str(spec.get("minReplicas", "<unset>")),
        spec.get("maxReplicas", 0), status.get("currentReplicas", 0), age(metadata.get("creationTimestamp"), now),
    ]  # fmt: skip


def _metrics(wanted: list[Raw], found: list[Raw]) -> str:
    if not wanted:
        return "<none>"
    texts = [_metric(metric, found[i] if i < len(found) else {}) for i, metric in enumerate(wanted[:_SHOWN])]
    more = len(wanted) - _SHOWN
    return ", ".join(texts) + (f" + {more} more..." if more > 0 else "")


def _metric(wanted: Raw, found: Raw) -> str:
    kind = _SOURCES.get(wanted.get("type", ""))
    if kind is None:
        return "<unknown type>"
    source, current = wanted.get(kind, {}), found.get(kind, {}).get("current", {})
    target = source.get("target", {})
    if kind in ("resource", "containerResource"):
        return f"{source.get('name', '')}: {_resource(target, current)}"
    key = "averageValue" if "averageValue" in target else "value"
    suffix = " (avg)" if key == "averageValue" and kind != "pods" else ""
    return f"{current.get(key, '<unknown>')}/{target.get(key, '')}{suffix}"


def _resource(target: Raw, current: Raw) -> str:
    if "averageValue" in target:
        return f"{current.get('averageValue', '<unknown>')}/{target['averageValue']}"
    return f"{_percent(current, '<unknown>')}/{_percent(target, '<auto>')}"


def _percent(holder: Raw, missing: str) -> str:
    return f"{holder['averageUtilization']}%" if "averageUtilization" in holder else missing


BUDGET = (_NAME, Column("Min Available"), Column("Max Unavailable"), Column("Allowed Disruptions", "integer"), _AGE)


def budget(document: Raw, now: float) -> list[Any]:
    metadata, spec, status = document["metadata"], document.get("spec", {}), document.get("status", {})
    limits = [str(spec.get(key, "N/A")) for key in ("minAvailable", "maxUnavailable")]
    return [metadata["name"], *limits, status.get("disruptionsAllowed", 0), age(metadata.get("creationTimestamp"), now)]
