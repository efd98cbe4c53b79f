"""Autoscalers have two versions and one storage: kept as `autoscaling/v2`, translated to `autoscaling/v1` at the edge.

`v1` knows one metric, the utilization of CPU. Everything else of a `v2` object travels in annotations, in the form that
Kubernetes gives it, so that nothing is lost when a client of `v1` writes back what it read.
Source: kubernetes/pkg/apis/autoscaling/v1/conversion.go.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

from cuboid.kube import schema

Raw = dict[str, Any]
V2 = "io.k8s.api.autoscaling.v2.HorizontalPodAutoscaler"
_PREFIX = "autoscaling.alpha.kubernetes.io/"
METRICS, BEHAVIOR = _PREFIX + "metrics", _PREFIX + "behavior"
CURRENT, CONDITIONS = _PREFIX + "current-metrics", _PREFIX + "conditions"
_WANTED, _FOUND = "targetCPUUtilizationPercentage", "currentCPUUtilizationPercentage"
# Where a number is in the two versions; `target` stands for `current` in a status.
_NAMES = {
    "resource": {"averageUtilization": "{}AverageUtilization", "averageValue": "{}AverageValue"},
    "containerResource": {"averageUtilization": "{}AverageUtilization", "averageValue": "{}AverageValue"},
    "pods": {"averageValue": "{}AverageValue"},
    "object": {"value": "{}Value", "averageValue": "averageValue"},
    "external": {"value": "{}Value", "averageValue": "{}AverageValue"},
}
_KINDS = {"averageUtilization": "Utilization", "averageValue": "AverageValue", "value": "Value"}


def from_v2(document: Mapping[str, Any]) -> Raw:
    """An `autoscaling/v1` object."""
    spec, status = dict(document.get("spec", {})), dict(document.get("status", {}))
    notes = dict(document["metadata"].get("annotations", {}))
    metrics, current = spec.pop("metrics", []), status.pop("currentMetrics", [])
    cpu = next((metric for metric in metrics if _is_cpu(metric, "target")), None)
    if cpu is not None:
        spec[_WANTED] = cpu["resource"]["target"]["averageUtilization"]
    used = next((metric for metric in current if _is_cpu(metric, "current")), None)
    if used is not None:
        status[_FOUND] = used["resource"]["current"]["averageUtilization"]
    _note(notes, METRICS, [_flat(metric, "target") for metric in metrics if metric is not cpu])
    _note(notes, BEHAVIOR, spec.pop("behavior", None))
    _note(notes, CURRENT, [_flat(metric, "current") for metric in current if metric is not used])
    _note(notes, CONDITIONS, status.pop("conditions", None))
    return _made(document, "autoscaling/v1", spec, status, notes)


def to_v2(document: Mapping[str, Any]) -> Raw:
    """An `autoscaling/v2` object. An annotation that is no list of metrics (or the like) stays one; bad_request for
    one that holds metrics of wrong types."""
    spec, status = dict(document.get("spec", {})), dict(document.get("status", {}))
    notes = dict(document["metadata"].get("annotations", {}))
    metrics, current = _listed(notes, METRICS, "target"), _listed(notes, CURRENT, "current")
    if _WANTED in spec:
        metrics.insert(0, _cpu("target", {"type": "Utilization", "averageUtilization": spec.pop(_WANTED)}))
    if _FOUND in status:
        current.insert(0, _cpu("current", {"averageUtilization": status.pop(_FOUND)}))
    for holder, key, found in ((spec, "metrics", metrics), (status, "currentMetrics", current)):
        if found:
            holder[key] = found
    behavior, conditions = _read(notes, BEHAVIOR, dict), _read(notes, CONDITIONS, list)
    if behavior is not None:
        spec["behavior"] = behavior
    if conditions is not None:
        status["conditions"] = conditions
    made = _made(document, "autoscaling/v2", spec, status, notes)
    decoded: Raw = schema.decode(schema.node(V2), made, [])  # annotations are text of a client's
    return decoded


def _made(document: Mapping[str, Any], version: str, spec: Raw, status: Raw, notes: Raw) -> Raw:
    metadata = {key: value for key, value in document["metadata"].items() if key != "annotations"}
    if notes:
        metadata["annotations"] = notes
    made = {**document, "apiVersion": version, "metadata": metadata, "spec": spec}
    if status or "status" in document:
        made["status"] = status
    return made


def _is_cpu(metric: Raw, key: str) -> bool:
    source = metric.get("resource", {})
    return source.get("name") == "cpu" and "averageUtilization" in source.get(key, {})


def _cpu(key: str, amount: Raw) -> Raw:
    return {"type": "Resource", "resource": {"name": "cpu", key: amount}}


def _note(notes: Raw, key: str, value: Any) -> None:
    if value:
        notes[key] = json.dumps(value, separators=(",", ":"), sort_keys=True)
    else:
        notes.pop(key, None)


def _read(notes: Raw, key: str, kind: type) -> Any:
    """What an annotation holds, taken away; None if it is not there or nothing of this kind."""
    try:
        value = json.loads(notes.get(key, ""))
    except (ValueError, RecursionError):
        return None
    if not isinstance(value, kind):
        return None
    del notes[key]
    return value


def _listed(notes: Raw, key: str, what: str) -> list[Raw]:
    return [_deep(metric, what) for metric in _read(notes, key, list) or [] if isinstance(metric, dict)]


def _flat(metric: Raw, what: str) -> Raw:
    """A metric of `v2` in the form of `v1`; `what` is "target" or "current"."""
    made: Raw = {"type": metric.get("type", "")}
    for kind, names in _NAMES.items():
        if kind in metric:
            source = dict(metric[kind])
            amounts, identity = source.pop(what, {}), source.pop("metric", {})
            for key, name in names.items():
                if key in amounts:
                    source[name.format(what)] = amounts[key]
            if "describedObject" in source:
                source["target"] = source.pop("describedObject")
            if identity:
                source["metricName"] = identity.get("name", "")
                if "selector" in identity:
                    source["metricSelector" if kind == "external" else "selector"] = identity["selector"]
            made[kind] = source
    return made


def _deep(metric: Raw, what: str) -> Raw:
    """A metric of `v1` in the form of `v2`."""
    made: Raw = {"type": metric.get("type", "")}
    for kind, names in _NAMES.items():
        if isinstance(metric.get(kind), dict):
            source = dict(metric[kind])
            if kind == "object" and "target" in source:
                source["describedObject"] = source.pop("target")
            amounts = {key: source.pop(name.format(what)) for key, name in names.items() if name.format(what) in source}
            if what == "target":
                amounts["type"] = next((_KINDS[key] for key in amounts), "")
            if "metricName" in source:
                source["metric"] = {"name": source.pop("metricName")}
                for key in ("metricSelector", "selector"):
                    if key in source:
                        source["metric"]["selector"] = source.pop(key)
            made[kind] = {**source, what: amounts}
    return made
