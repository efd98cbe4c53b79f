"""Validation of HorizontalPodAutoscalers, as `autoscaling/v2`. Source: kubernetes/pkg/apis/autoscaling/validation."""

from __future__ import annotations

from typing import Any

from cuboid.kube import quantity, syntax
from cuboid.kube.fields import Fields

Raw = dict[str, Any]
MAX_PERIOD = 1800
"""Seconds of a scaling policy."""
MAX_WINDOW = 3600
"""Seconds of stabilization."""
SOURCES = {
    "ContainerResource": "containerResource",
    "External": "external",
    "Object": "object",
    "Pods": "pods",
    "Resource": "resource",
}
_EITHER = "must set either a target raw value or a target utilization"
_BOTH = "may not set both a target raw value and a target utilization"
_POPULATE = "must populate information for the given metric source"


def validate_autoscaler(spec: Raw, fields: Fields) -> None:
    low, high = spec["minReplicas"], spec.get("maxReplicas", 0)
    if low < 1:
        fields.invalid("spec.minReplicas", low, "must be greater than or equal to 1")
    if high < 1:
        fields.invalid("spec.maxReplicas", high, "must be greater than 0")
    if high < low:
        fields.invalid("spec.maxReplicas", high, "must be greater than or equal to `minReplicas`")
    _validate_reference(spec.get("scaleTargetRef", {}), "spec.scaleTargetRef", fields)
    for index, metric in enumerate(spec["metrics"]):
        _validate_metric(metric, f"spec.metrics[{index}]", fields)
    for key, rules in spec.get("behavior", {}).items():
        _validate_rules(rules, f"spec.behavior.{key}", fields)


def validate_autoscaler_status(status: Raw, fields: Fields) -> None:
    for key in ("currentReplicas", "desiredReplicas"):
        fields.negative(f"status.{key}", status.get(key))


def _validate_reference(reference: Raw, path: str, fields: Fields) -> None:
    for key in ("kind", "name"):
        _validate_segment(reference.get(key, ""), f"{path}.{key}", "", fields)


def _validate_segment(name: str, path: str, missing: str, fields: Fields) -> None:
    if not name:
        fields.required(path, missing)
    fields.all_invalid(path, name, syntax.path_segment(name))


# --- metrics ---------------------------------------------------------------------------------------------------------


def _validate_metric(metric: Raw, path: str, fields: Fields) -> None:
    kind = metric.get("type", "")
    if not kind:
        fields.required(f"{path}.type", "must specify a metric source type")
    if kind not in SOURCES:
        fields.unsupported(f"{path}.type", kind, SOURCES)
    present = [key for key in ("object", "external", "pods", "resource", "containerResource") if key in metric]
    for key in present[:1]:
        _validate_source(key, metric[key], f"{path}.{key}", fields)
    expected = SOURCES.get(kind, "")
    if expected and expected not in present:
        fields.required(f"{path}.{expected}", _POPULATE)
    if len(present) > 1:
        for key in present:
            if key != expected:
                fields.forbidden(f"{path}.{key}", "must populate the given metric source only")


def _validate_source(kind: str, source: Raw, path: str, fields: Fields) -> None:
    target = source.get("target", {})
    if kind == "object":
        _validate_reference(source.get("describedObject", {}), f"{path}.describedObject", fields)
    if kind in ("object", "external", "pods"):
        name = source.get("metric", {}).get("name", "")
        _validate_segment(name, f"{path}.metric.name", "must specify a metric name", fields)
    elif not source.get("name"):
        fields.required(f"{path}.name", "must specify a resource name")
    if kind == "containerResource":
        _validate_container(source.get("container", ""), f"{path}.container", fields)
    _validate_target(target, f"{path}.target", fields)
    _validate_amounts(kind, target, f"{path}.target", fields)


def _validate_container(name: str, path: str, fields: Fields) -> None:
    if not name:
        fields.required(path, "must specify a container")
    else:
        fields.all_invalid(path, name, syntax.dns_label(name))


def _validate_target(target: Raw, path: str, fields: Fields) -> None:
    kind = target.get("type", "")
    if not kind:
        fields.required(f"{path}.type", "must specify a metric target type")
    if kind not in ("Utilization", "Value", "AverageValue"):
        fields.invalid(f"{path}.type", kind, "must be either Utilization, Value, or AverageValue")
    for key in ("value", "averageValue"):
        if key in target and quantity.parse(target[key]) <= 0:
            fields.invalid(f"{path}.{key}", target[key], "must be positive")
    if target.get("averageUtilization", 1) < 1:
        fields.invalid(f"{path}.averageUtilization", target["averageUtilization"], "must be greater than 0")


def _validate_amounts(kind: str, target: Raw, path: str, fields: Fields) -> None:
    """Which amounts a kind of source needs."""
    value, average, utilization = (key in target for key in ("value", "averageValue", "averageUtilization"))
    if kind == "pods" and not average:
        fields.required(f"{path}.averageValue", "must specify a positive target averageValue")
    if kind == "object" and not value and not average:
        fields.required(f"{path}.averageValue", "must set either a target value or averageValue")
    if kind == "external" and not value and not average:
        fields.required(f"{path}.averageValue", "must set either a target value for metric or a per-pod target")
    if kind == "external" and value and average:
        fields.forbidden(f"{path}.value", "may not set both a target value for metric and a per-pod target")
    if kind in ("resource", "containerResource"):
        if not average and not utilization:
            fields.required(f"{path}.averageUtilization", _EITHER)
        if average and utilization:
            fields.forbidden(f"{path}.averageValue", _BOTH)


# --- behavior --------------------------------------------------------------------------------------------------------


def _validate_rules(rules: Raw, path: str, fields: Fields) -> None:
    window, select = rules.get("stabilizationWindowSeconds", 0), rules.get("selectPolicy", "Max")
    if window < 0:
        fields.invalid(f"{path}.stabilizationWindowSeconds", window, "must be greater than or equal to zero")
    if window > MAX_WINDOW:
        fields.invalid(f"{path}.stabilizationWindowSeconds", window, f"must be less than or equal to {MAX_WINDOW}")
    if select not in ("Max", "Min", "Disabled"):
        fields.unsupported(f"{path}.selectPolicy", select, ("Disabled", "Max", "Min"))
    if "tolerance" in rules and quantity.parse(rules["tolerance"]) < 0:
        fields.invalid(f"{path}.tolerance", rules["tolerance"], "must be greater than or equal to 0")
    if not rules.get("policies"):
        fields.required(f"{path}.policies", "must specify at least one Policy")
    for index, policy in enumerate(rules.get("policies", [])):
        _validate_policy(policy, f"{path}.policies[{index}]", fields)


def _validate_policy(policy: Raw, path: str, fields: Fields) -> None:
    value, period = policy.get("value", 0), policy.get("periodSeconds", 0)
    if policy.get("type") not in ("Pods", "Percent"):
        fields.unsupported(f"{path}.type", policy.get("type", ""), ("Percent", "Pods"))
    if value <= 0:
        fields.invalid(f"{path}.value", value, "must be greater than zero")
    if period <= 0:
        fields.invalid(f"{path}.periodSeconds", period, "must be greater than zero")
    if period > MAX_PERIOD:
        fields.invalid(f"{path}.periodSeconds", period, f"must be less than or equal to {MAX_PERIOD}")
