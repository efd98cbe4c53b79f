"""Validation of where a pod may run: affinity, spread, tolerations. Source: kubernetes/pkg/apis/core/validation."""

from __future__ import annotations

from typing import Any

from cuboid.kube import syntax
from cuboid.kube.fields import Fields
from cuboid.kube.validate_meta import validate_labels
from cuboid.kube.validate_selectors import validate_selector

Raw = dict[str, Any]
EFFECTS = ("NoSchedule", "PreferNoSchedule", "NoExecute")
REQUIRED = "requiredDuringSchedulingIgnoredDuringExecution"
PREFERRED = "preferredDuringSchedulingIgnoredDuringExecution"
_POSITIVE = "must be greater than zero"
_WEIGHT = "must be in the range 1-100"


def validate_scheduling(spec: Raw, fields: Fields) -> None:
    validate_labels(spec.get("nodeSelector", {}), "spec.nodeSelector", fields)
    validate_tolerations(spec.get("tolerations", []), "spec.tolerations", fields)
    _validate_affinity(spec.get("affinity", {}), "spec.affinity", fields)
    _validate_spread(spec.get("topologySpreadConstraints", []), "spec.topologySpreadConstraints", fields)
    seen = set()
    for index, gate in enumerate(spec.get("schedulingGates", [])):
        path, name = f"spec.schedulingGates[{index}]", gate.get("name", "")
        fields.all_invalid(path, name, syntax.qualified_name(name))
        if name in seen:
            fields.duplicate(path, name)
        seen.add(name)


def validate_tolerations(tolerations: list[Raw], path: str, fields: Fields) -> None:
    for index, item in enumerate(tolerations):
        where = f"{path}[{index}]"
        key, operator, value = item.get("key", ""), item.get("operator", ""), item.get("value", "")
        if key:
            fields.all_invalid(f"{where}.key", key, syntax.qualified_name(key))
        elif operator != "Exists":
            why = 'operator must be Exists when `key` is empty, which means "match all values and all keys"'
            fields.invalid(f"{where}.operator", operator, why)
        if "tolerationSeconds" in item and item.get("effect") != "NoExecute":
            why = "effect must be 'NoExecute' when `tolerationSeconds` is set"
            fields.invalid(f"{where}.effect", item.get("effect", ""), why)
        if operator in ("Equal", ""):
            fields.all_invalid(f"{where}.operator", value, syntax.label_value(value))
        elif operator != "Exists":
            fields.unsupported(f"{where}.operator", operator, ("Equal", "Exists"))
        elif value:
            fields.invalid(f"{where}.operator", value, "value must be empty when `operator` is 'Exists'")
        if item.get("effect") and item["effect"] not in EFFECTS:
            fields.unsupported(f"{where}.effect", item["effect"], EFFECTS)


# --- affinity --------------------------------------------------------------------------------------------------------


def _validate_affinity(affinity: Raw, path: str, fields: Fields) -> None:
    node = affinity.get("nodeAffinity", {})
    if REQUIRED in node:
        validate_node_selector(node[REQUIRED], f"{path}.nodeAffinity.{REQUIRED}", fields)
    for index, item in enumerate(node.get(PREFERRED, [])):
        where = f"{path}.nodeAffinity.{PREFERRED}[{index}]"
        _validate_weight(item, where, fields)
        _validate_term(item.get("preference", {}), f"{where}.preference", fields, strict=False)
    for kind in ("podAffinity", "podAntiAffinity"):
        terms = affinity.get(kind, {})
        for index, term in enumerate(terms.get(REQUIRED, [])):
            _validate_pod_term(term, f"{path}.{kind}.{REQUIRED}[{index}]", fields)
        for index, item in enumerate(terms.get(PREFERRED, [])):
            where = f"{path}.{kind}.{PREFERRED}[{index}]"
            _validate_weight(item, where, fields)
            _validate_pod_term(item.get("podAffinityTerm", {}), f"{where}.podAffinityTerm", fields)


def _validate_weight(item: Raw, path: str, fields: Fields) -> None:
    if not 1 <= item.get("weight", 0) <= 100:
        fields.invalid(f"{path}.weight", item.get("weight", 0), _WEIGHT)


def validate_node_selector(selector: Raw, path: str, fields: Fields) -> None:
    """A `NodeSelector`: terms, one of which has to hold."""
    terms = selector.get("nodeSelectorTerms", [])
    if not terms:
        fields.required(f"{path}.nodeSelectorTerms", "must have at least one node selector term")
    for index, term in enumerate(terms):
        _validate_term(term, f"{path}.nodeSelectorTerms[{index}]", fields, strict=True)


def _validate_term(term: Raw, path: str, fields: Fields, *, strict: bool) -> None:
    """`strict` refuses values that no label can have."""
    for index, item in enumerate(term.get("matchExpressions", [])):
        _validate_requirement(item, f"{path}.matchExpressions[{index}]", fields, strict=strict)
    for index, item in enumerate(term.get("matchFields", [])):
        _validate_field(item, f"{path}.matchFields[{index}]", fields)


def _validate_requirement(item: Raw, path: str, fields: Fields, *, strict: bool) -> None:
    operator, values = item.get("operator", ""), item.get("values", [])
    if operator in ("In", "NotIn"):
        if not values:
            fields.required(f"{path}.values", "must be specified when `operator` is 'In' or 'NotIn'")
    elif operator in ("Exists", "DoesNotExist"):
        if values:
            fields.forbidden(f"{path}.values", "may not be specified when `operator` is 'Exists' or 'DoesNotExist'")
    elif operator in ("Gt", "Lt"):
        if len(values) != 1:
            fields.required(f"{path}.values", "must be specified single value when `operator` is 'Lt' or 'Gt'")
    else:
        fields.invalid(f"{path}.operator", operator, "not a valid selector operator")
    fields.all_invalid(f"{path}.key", item.get("key", ""), syntax.qualified_name(item.get("key", "")))
    for index, value in enumerate(values if strict else []):
        fields.all_invalid(f"{path}.values[{index}]", value, syntax.label_value(value))


def _validate_field(item: Raw, path: str, fields: Fields) -> None:
    values = item.get("values", [])
    if item.get("operator") not in ("In", "NotIn"):
        fields.invalid(f"{path}.operator", item.get("operator", ""), "not a valid selector operator")
    elif len(values) != 1:
        why = "must be only one value when `operator` is 'In' or 'NotIn' for node field selector"
        fields.required(f"{path}.values", why)
    if item.get("key") != "metadata.name":
        fields.invalid(f"{path}.key", item.get("key", ""), "not a valid field selector key")
        return
    for index, value in enumerate(values):
        fields.all_invalid(f"{path}.values[{index}]", value, syntax.dns_subdomain(value))


def _validate_pod_term(term: Raw, path: str, fields: Fields) -> None:
    for key in ("labelSelector", "namespaceSelector"):
        validate_selector(term.get(key), f"{path}.{key}", fields)
    for name in term.get("namespaces", []):
        fields.all_invalid(f"{path}.namespace", name, syntax.dns_label(name))
    match, mismatch = term.get("matchLabelKeys", []), term.get("mismatchLabelKeys", [])
    for key, names in (("matchLabelKeys", match), ("mismatchLabelKeys", mismatch)):
        _validate_label_keys(names, term.get("labelSelector"), f"{path}.{key}", fields)
    for index, name in enumerate(match):
        if name in mismatch:
            why = "exists in both matchLabelKeys and mismatchLabelKeys"
            fields.invalid(f"{path}.matchLabelKeys[{index}]", name, why)
    _validate_topology(term.get("topologyKey", ""), f"{path}.topologyKey", fields)


def _validate_label_keys(names: list[str], selector: Raw | None, path: str, fields: Fields) -> None:
    if names and selector is None:
        fields.forbidden(path, "must not be specified when labelSelector is not set")
    for index, name in enumerate(names):
        fields.all_invalid(f"{path}[{index}]", name, syntax.qualified_name(name))


def _validate_topology(key: str, path: str, fields: Fields) -> None:
    if not key:
        fields.required(path, "can not be empty")
    else:
        fields.all_invalid(path, key, syntax.qualified_name(key))


# --- spread ----------------------------------------------------------------------------------------------------------


def _validate_spread(constraints: list[Raw], path: str, fields: Fields) -> None:
    seen = set()
    for index, item in enumerate(constraints):
        where = f"{path}[{index}]"
        if item.get("maxSkew", 0) <= 0:
            fields.invalid(f"{where}.maxSkew", item.get("maxSkew", 0), _POSITIVE)
        key, action = item.get("topologyKey", ""), item.get("whenUnsatisfiable", "")
        _validate_topology(key, f"{where}.topologyKey", fields)
        if action not in ("DoNotSchedule", "ScheduleAnyway"):
            fields.unsupported(f"{where}.whenUnsatisfiable", action, ("DoNotSchedule", "ScheduleAnyway"))
        if (key, action) in seen:
            fields.duplicate(f"{where}.{{topologyKey, whenUnsatisfiable}}", f"{{{key}, {action}}}")
        seen.add((key, action))
        _validate_domains(item, f"{where}.minDomains", fields)
        for policy in ("nodeAffinityPolicy", "nodeTaintsPolicy"):
            if item.get(policy, "Honor") not in ("Honor", "Ignore"):
                fields.unsupported(f"{where}.{policy}", item[policy], ("Honor", "Ignore"))
        validate_selector(item.get("labelSelector"), f"{where}.labelSelector", fields)
        _validate_spread_keys(item, f"{where}.matchLabelKeys", fields)


def _validate_domains(item: Raw, path: str, fields: Fields) -> None:
    count = item.get("minDomains")
    if count is None:
        return
    if count <= 0:
        fields.invalid(path, count, _POSITIVE)
    if item.get("whenUnsatisfiable") != "DoNotSchedule":
        why = f"can only use minDomains if whenUnsatisfiable=DoNotSchedule, not {item.get('whenUnsatisfiable', '')}"
        fields.invalid(path, count, why)


def _validate_spread_keys(item: Raw, path: str, fields: Fields) -> None:
    names, selector = item.get("matchLabelKeys", []), item.get("labelSelector")
    _validate_label_keys(names, selector, path, fields)
    used = set((selector or {}).get("matchLabels", {}))
    used.update(other.get("key") for other in (selector or {}).get("matchExpressions", []))
    for index, name in enumerate(names):
        if name in used:
            fields.invalid(f"{path}[{index}]", name, "exists in both matchLabelKeys and labelSelector")
