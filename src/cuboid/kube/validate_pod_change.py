"""What may change of a pod. Source: kubernetes/pkg/apis/core/validation, ValidatePodUpdate."""

from __future__ import annotations

import copy
from typing import Any

from cuboid.kube.fields import Fields
from cuboid.kube.validate_scheduling import REQUIRED

Raw = dict[str, Any]
_MAX = 2**31 - 1
_CHANGE = (
    "pod updates may not change fields other than `spec.containers[*].image`,`spec.initContainers[*].image`,"
    "`spec.activeDeadlineSeconds`,`spec.tolerations` (only additions to existing tolerations),"
    "`spec.terminationGracePeriodSeconds` (allow it to be set to 1 if it was previously negative)"
)
_SELECTOR = "only additions to spec.nodeSelector are allowed (no mutations or deletions)"
_LISTS = ("containers", "initContainers")


def validate_pod_change(new: Raw, old: Raw, fields: Fields) -> None:
    """All but images, an earlier deadline, more tolerations and fewer gates is fixed; while a gate holds it back, a pod
    may also be bound to fewer nodes."""
    after, before = new.get("spec", {}), old.get("spec", {})
    for kind in _LISTS:
        if len(after.get(kind, [])) != len(before.get(kind, [])):
            fields.forbidden(f"spec.{kind}", "pod updates may not add or remove containers")
            return
    if not _validate_deadline(after, before, fields):
        return
    if not _only_added(after.get("tolerations", []), before.get("tolerations", [])):
        fields.forbidden("spec.tolerations", "existing toleration can not be modified except its tolerationSeconds")
    _validate_gates(after, before, fields)
    rest = _without_changeable(after, before)
    if before.get("schedulingGates"):
        _validate_narrower(rest, before, fields)
    if rest != _without_changeable(before, before):
        fields.forbidden("spec", _CHANGE)


def _validate_deadline(after: Raw, before: Raw, fields: Fields) -> bool:
    """Whether to look on."""
    new, old, path = (
        after.get("activeDeadlineSeconds"),
        before.get("activeDeadlineSeconds"),
        "spec.activeDeadlineSeconds",
    )
    if new is None:
        if old is not None:
            fields.invalid(path, new, "must not update from a positive integer to nil value")
        return True
    if not 0 <= new <= _MAX:
        fields.invalid(path, new, f"must be between 0 and {_MAX}, inclusive")
        return False
    if old is not None and old < new:
        fields.invalid(path, new, "must be less than or equal to previous value")
        return False
    return True


def _only_added(after: list[Raw], before: list[Raw]) -> bool:
    def identity(item: Raw) -> tuple[tuple[str, Any], ...]:
        return tuple(sorted((key, value) for key, value in item.items() if key != "tolerationSeconds"))

    return {identity(item) for item in before} <= {identity(item) for item in after}


def _validate_gates(after: Raw, before: Raw, fields: Fields) -> None:
    known = {gate.get("name") for gate in before.get("schedulingGates", [])}
    for index, gate in enumerate(after.get("schedulingGates", [])):
        if gate.get("name") not in known:
            why = f"only deletion is allowed, but found new scheduling gate '{gate.get('name', '')}'"
            fields.forbidden(f"spec.schedulingGates[{index}].name", why)


def _without_changeable(spec: Raw, before: Raw) -> Raw:
    rest = copy.copy(spec)
    for key in ("activeDeadlineSeconds", "tolerations", "schedulingGates"):
        rest.pop(key, None)
    for kind in _LISTS:
        rest[kind] = [{**container, "image": ""} for container in spec.get(kind, [])]
    if before.get("terminationGracePeriodSeconds", 0) < 0 and rest.get("terminationGracePeriodSeconds") == 1:
        rest["terminationGracePeriodSeconds"] = before["terminationGracePeriodSeconds"]
    return rest


# --- pods behind a gate ----------------------------------------------------------------------------------------------


def _validate_narrower(rest: Raw, before: Raw, fields: Fields) -> None:
    """Checks where the pod may run, and puts in `rest` what it was."""
    selector, old_selector = rest.get("nodeSelector", {}), before.get("nodeSelector", {})
    if not old_selector.items() <= selector.items():
        fields.invalid("spec.nodeSelector", selector, _SELECTOR)
    _put(rest, "nodeSelector", before.get("nodeSelector"))
    affinity, old_affinity = dict(rest.get("affinity", {})), before.get("affinity", {})
    old_node = old_affinity.get("nodeAffinity")
    if old_node is not None:
        _validate_terms(affinity.get("nodeAffinity", {}), old_node, fields)
    _put(affinity, "nodeAffinity", old_node)
    _put(rest, "affinity", affinity if affinity or "affinity" in before else None)


def _put(holder: Raw, key: str, value: Any) -> None:
    if value is None:
        holder.pop(key, None)
    else:
        holder[key] = value


def _validate_terms(node: Raw, old: Raw, fields: Fields) -> None:
    path = f"spec.affinity.nodeAffinity.{REQUIRED}.nodeSelectorTerms"
    terms = node.get(REQUIRED, {}).get("nodeSelectorTerms", [])
    old_terms = old.get(REQUIRED, {}).get("nodeSelectorTerms", [])
    if old_terms and len(terms) != len(old_terms):
        fields.invalid(path, terms, "no additions/deletions to non-empty NodeSelectorTerms list are allowed")
        return
    for index, (term, before) in enumerate(zip(terms, old_terms, strict=False)):
        if not all(
            item in term.get(key, []) for key in ("matchExpressions", "matchFields") for item in before.get(key, [])
        ):
            fields.invalid(f"{path}[{index}]", term, "only additions are allowed (no mutations or deletions)")
