"""Validation of resource requirements, of containers and of whole pods. Source: kubernetes/pkg/apis/core/validation."""

from __future__ import annotations

from typing import Any

from cuboid.kube import quantity, quota_usage, syntax
from cuboid.kube.fields import Fields

Raw = dict[str, Any]
_STANDARD = ("cpu", "memory", "ephemeral-storage")
_RESIZED = ("cpu", "memory")
_RESTARTS = ("NotRequired", "RestartContainer")


def validate_resources(resources: Raw, path: str, fields: Fields) -> None:
    limits, requests = resources.get("limits", {}), resources.get("requests", {})
    for kind, amounts in (("limits", limits), ("requests", requests)):
        for name, amount in amounts.items():
            _validate_amount(name, amount, f"{path}.{kind}", fields)
    for name, amount in requests.items():
        _validate_request(name, amount, limits.get(name), path, fields)
    named = {*limits, *requests}
    if any(name.startswith("hugepages-") for name in named) and not named & {"cpu", "memory"}:
        fields.forbidden(path, "HugePages require cpu or memory")
    if resources.get("claims"):
        fields.forbidden(f"{path}.claims", "Cuboid has no dynamic resource allocation")


def _validate_amount(name: str, amount: str, path: str, fields: Fields) -> None:
    if "/" not in name and name not in _STANDARD and not name.startswith("hugepages-"):
        fields.invalid(path, name, "must be a standard resource type or fully qualified")
    elif "/" in name:
        fields.all_invalid(path, name, syntax.qualified_name(name))
    value = quantity.parse(amount)
    if value < 0:
        fields.invalid(f"{path}[{name}]", amount, "must be greater than or equal to 0")
    if name != "cpu" and value.denominator != 1:
        fields.invalid(f"{path}[{name}]", amount, "must be an integer")


def _validate_request(name: str, amount: str, limit: str | None, path: str, fields: Fields) -> None:
    whole = "/" in name or name.startswith("hugepages-")  # what can not be promised twice
    if limit is None:
        if whole:
            fields.required(f"{path}.limits", "Limit must be set for non overcommitable resources")
    elif whole and quantity.parse(amount) != quantity.parse(limit):
        fields.invalid(f"{path}.requests", amount, f"must be equal to {name} limit of {limit}")
    elif quantity.parse(amount) > quantity.parse(limit):
        fields.invalid(f"{path}.requests", amount, f"must be less than or equal to {name} limit of {limit}")


def validate_resize_policy(policies: list[Raw], path: str, restart: str, fields: Fields) -> None:
    """`restart` is the pod's own restart policy."""
    seen = set()
    for index, policy in enumerate(policies):
        name, action = policy.get("resourceName", ""), policy.get("restartPolicy", "")
        if name in seen:
            fields.duplicate(f"{path}[{index}]", name)
        seen.add(name)
        for value, known in ((name, _RESIZED), (action, _RESTARTS)):
            if not value:
                fields.required(path)
            elif value not in known:
                fields.unsupported(path, value, known)
        if restart == "Never" and action != "NotRequired":
            fields.invalid(path, action, "must be 'NotRequired' when `restartPolicy` is 'Never'")


def validate_pod_resources(spec: Raw, fields: Fields) -> None:
    """Resources of the pod as a whole have room for those of its containers."""
    resources, path = spec["resources"], "spec.resources"
    if "claims" in resources:
        fields.forbidden(f"{path}.claims", "claims cannot be set for Resources at pod-level")
    validate_resources({key: value for key, value in resources.items() if key != "claims"}, path, fields)
    limits, requests = resources.get("limits", {}), resources.get("requests", {})
    containers = spec.get("containers", [])
    own = {key: spec.get(key) for key in ("containers", "initContainers")}
    for name, total in sorted(quota_usage.pod_amounts(own, "requests").items()):
        if name in requests and total > quota_usage.amount(name, requests[name]):
            why = f"must be greater than or equal to aggregate container requests of {quota_usage.text(name, total)}"
            fields.invalid(f"{path}.requests[{name}]", requests[name], why)
    for index, container in enumerate(containers):
        for name, limit in container.get("resources", {}).get("limits", {}).items():
            if name in limits and quantity.parse(limit) > quantity.parse(limits[name]):
                why = f"must be less than or equal to pod limits of {limits[name]}"
                fields.invalid(f"{path}.containers[{index}][{name}].limits", limit, why)
