"""Validation of quotas and of ranges of limits. Source: kubernetes/pkg/apis/core/validation."""

from __future__ import annotations

from typing import Any

from cuboid.kube import quantity, syntax
from cuboid.kube.fields import Fields

Raw = dict[str, Any]
_COMPUTE = ("cpu", "memory", "ephemeral-storage")
_COUNTS = frozenset((
    "configmaps", "persistentvolumeclaims", "pods", "replicationcontrollers", "resourcequotas", "secrets", "services",
    "services.loadbalancers", "services.nodeports",
))  # fmt: skip
_QUOTA = frozenset((
    *_COUNTS, *_COMPUTE, *(f"{side}.{name}" for side in ("requests", "limits") for name in _COMPUTE),
    "requests.storage",
))  # fmt: skip
_TYPES = ("Container", "PersistentVolumeClaim", "Pod")
_RANGE = (*_COMPUTE, "storage")
_SCOPES = (
    "BestEffort", "CrossNamespacePodAffinity", "NotBestEffort", "NotTerminating", "PriorityClass", "Terminating",
    "VolumeAttributesClass",
)  # fmt: skip
_OF_PODS = frozenset(("pods", *(name for name in _QUOTA if name.split(".")[-1] in _COMPUTE)))
_BARE = ("BestEffort", "NotBestEffort", "Terminating", "NotTerminating", "CrossNamespacePodAffinity")
"""Scopes that a pod is in or not, without a value."""
_BARE_TEXT = (
    "ResourceQuotaScopeTerminating, ResourceQuotaScopeNotTerminating, ResourceQuotaScopeBestEffort, "
    "ResourceQuotaScopeNotBestEffort or ResourceQuotaScopeCrossNamespacePodAffinity"
)
_PAIRS = ({"BestEffort", "NotBestEffort"}, {"Terminating", "NotTerminating"})


def validate_amounts(amounts: Raw, path: str, fields: Fields) -> None:
    """Of a quota: what it names, and how much of it."""
    for name, amount in amounts.items():
        where = f"{path}[{name}]"
        fields.all_invalid(where, name, syntax.qualified_name(name))
        if "/" not in name and name not in _QUOTA and not name.removeprefix("requests.").startswith("hugepages-"):
            fields.invalid(where, name, "must be a standard resource for quota")
        value = quantity.parse(amount)
        if value < 0:
            fields.invalid(where, amount, "must be greater than or equal to 0")
        if (name in _COUNTS or name.startswith("count/")) and value.denominator != 1:
            fields.invalid(where, amount, "must be an integer")


def validate_quota(spec: Raw, fields: Fields) -> None:
    hard = spec.get("hard", {})
    validate_amounts(hard, "spec.hard", fields)
    scopes = spec.get("scopes", [])
    _validate_scopes(scopes, scopes, hard, "spec.scopes", fields)
    rows = spec.get("scopeSelector", {}).get("matchExpressions", [])
    path = "spec.scopeSelector.matchExpressions"
    _validate_scopes([row.get("scopeName", "") for row in rows], rows, hard, f"{path}.scopeName", fields)
    for row in rows:
        operator, values = row.get("operator", ""), row.get("values", [])
        if row.get("scopeName", "") in _BARE and operator != "Exists":
            fields.invalid(f"{path}.operator", operator, f"must be 'Exist' when scope is any of {_BARE_TEXT}")
        if operator in ("In", "NotIn"):
            if not values:
                why = "must be at least one value when `operator` is 'In' or 'NotIn' for scope selector"
                fields.required(f"{path}.values", why)
        elif operator in ("Exists", "DoesNotExist"):
            if values:
                why = "must be no value when `operator` is 'Exist' or 'DoesNotExist' for scope selector"
                fields.invalid(f"{path}.values", values, why)
        else:
            fields.invalid(f"{path}.operator", operator, "not a valid selector operator")


def _validate_scopes(scopes: list[str], shown: Any, hard: Raw, path: str, fields: Fields) -> None:
    for scope in scopes:
        if scope not in _SCOPES:
            fields.invalid(path, shown, "unsupported scope")
        elif scope != "VolumeAttributesClass":
            allowed = {"pods"} if scope == "BestEffort" else _OF_PODS
            if any(name not in allowed for name in hard if not name.startswith(("count/", "requests.hugepages-"))):
                fields.invalid(path, shown, "unsupported scope applied to resource")
    if any(pair <= set(scopes) for pair in _PAIRS):
        fields.invalid(path, shown, "conflicting scopes")


def validate_quota_change(new: Raw, old: Raw, fields: Fields) -> None:
    if set(new.get("scopes", [])) != set(old.get("scopes", [])):
        fields.invalid("spec.scopes", new.get("scopes", []), "field is immutable")


# --- ranges ----------------------------------------------------------------------------------------------------------


def validate_range(spec: Raw, fields: Fields) -> None:
    seen = set()
    for index, item in enumerate(spec.get("limits", [])):
        path, kind = f"spec.limits[{index}]", item.get("type", "")
        fields.all_invalid(f"{path}.type", kind, syntax.qualified_name(kind))
        if "/" not in kind and kind not in _TYPES:
            fields.invalid(f"{path}.type", kind, "must be a standard limit type or fully qualified")
        if kind in seen:
            fields.duplicate(f"{path}.type", kind)
        seen.add(kind)
        _validate_item(item, kind, path, fields)


def _validate_item(item: Raw, kind: str, path: str, fields: Fields) -> None:
    for key in ("max", "min", "default", "defaultRequest", "maxLimitRequestRatio"):
        for name in item.get(key, {}):
            fields.all_invalid(f"{path}.{key}[{name}]", name, syntax.qualified_name(name))
            if "/" not in name and name not in _RANGE and not name.startswith("hugepages-"):
                why = "must be a standard resource type or fully qualified"
                fields.invalid(f"{path}.{key}[{name}]", name, why)
    if kind == "Pod":
        for key in ("default", "defaultRequest"):
            if item.get(key):
                fields.forbidden(f"{path}.{key}", "may not be specified when `type` is 'Pod'")
    if kind == "PersistentVolumeClaim" and not any("storage" in item.get(key, {}) for key in ("min", "max")):
        why = "either minimum or maximum storage value is required, but neither was provided"
        fields.required(f"{path}.limits", why)
    for name in sorted({name for key in ("max", "min", "default", "defaultRequest") for name in item.get(key, {})}):
        _validate_order(item, name, path, fields)
    for name, ratio in item.get("maxLimitRequestRatio", {}).items():
        _validate_ratio(item, name, ratio, path, fields)


_WORDS = {"min": "min", "defaultRequest": "default request", "default": "default", "max": "max"}
_ORDER = (
    ("min", "max", "min", "min"),
    ("min", "defaultRequest", "defaultRequest", "defaultRequest"),
    ("defaultRequest", "max", "defaultRequest", "defaultRequest"),
    ("defaultRequest", "default", "defaultRequest", "defaultRequest"),
    ("min", "default", "default", "min"),
    ("default", "max", "default", "max"),
)
"""What may not be more than what, at which of the two it is said, and whose value is shown."""


def _validate_order(item: Raw, name: str, path: str, fields: Fields) -> None:
    for low, high, told, shown in _ORDER:
        less, more = item.get(low, {}).get(name), item.get(high, {}).get(name)
        if less is not None and more is not None and quantity.parse(less) > quantity.parse(more):
            high_word = "default limit" if (low, high) == ("defaultRequest", "default") else _WORDS[high]
            why = f"{_WORDS[low]} value {less} is greater than {high_word} value {more}"
            fields.invalid(f"{path}.{told}[{name}]", item[shown][name], why)
    limit, request = (item.get(key, {}).get(name) for key in ("default", "defaultRequest"))
    whole = "/" in name or name.startswith("hugepages-")  # what can not be promised twice
    if whole and limit is not None and request is not None and quantity.parse(limit) != quantity.parse(request):
        why = f"default value {limit} must equal to defaultRequest value {request} in {name}"
        fields.invalid(f"{path}.defaultRequest[{name}]", request, why)


def _validate_ratio(item: Raw, name: str, ratio: str, path: str, fields: Fields) -> None:
    where = f"{path}.maxLimitRequestRatio[{name}]"
    value = quantity.parse(ratio)
    if value < 1:
        fields.invalid(where, ratio, f"ratio {ratio} is less than 1")
    low, high = (item.get(key, {}).get(name) for key in ("min", "max"))
    if low is not None and high is not None and quantity.parse(low) > 0:
        most = quantity.parse(high) / quantity.parse(low)
        if value > most:
            fields.invalid(where, ratio, f"ratio {ratio} is greater than max/min = {float(most):f}")
