"""Validation of `metadata`, the same for every kind. Rules and words: apimachinery/pkg/api/validation."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from cuboid.kube import syntax
from cuboid.kube.fields import Fields

MAX_ANNOTATIONS = 256 * 1024
"""Bytes of all annotations together."""
NameRule = Callable[[str], list[str]]


def validate_meta(metadata: dict[str, Any], fields: Fields, rule: NameRule | None) -> None:
    """`rule` checks the name; None for an object whose name exists."""
    if rule is not None:
        _validate_name(metadata, fields, rule)
    validate_labels(metadata.get("labels", {}), "metadata.labels", fields)
    validate_annotations(metadata.get("annotations", {}), "metadata.annotations", fields)
    for index, finalizer in enumerate(metadata.get("finalizers", [])):
        fields.all_invalid(f"metadata.finalizers[{index}]", finalizer, syntax.qualified_name(finalizer))
    if {"orphan", "foregroundDeletion"} <= set(metadata.get("finalizers", [])):
        detail = "finalizer orphan and foregroundDeletion cannot be both set"
        fields.invalid("metadata.finalizers", metadata["finalizers"], detail)
    for index, owner in enumerate(metadata.get("ownerReferences", [])):
        _validate_owner(owner, f"metadata.ownerReferences[{index}]", fields)


def _validate_name(metadata: dict[str, Any], fields: Fields, rule: NameRule) -> None:
    prefix = metadata.get("generateName", "")
    if prefix and (problems := rule(prefix.rstrip("-.") + "a")):
        fields.all_invalid("metadata.generateName", prefix, problems)
    name = metadata.get("name", "")
    if not name:
        fields.required("metadata.name", "name or generateName is required")
    elif name in (".", "..") or "/" in name or "%" in name:
        fields.invalid("metadata.name", name, "may not be '.', '..' or contain '/' or '%'")
    else:
        fields.all_invalid("metadata.name", name, rule(name))


def validate_labels(labels: dict[str, str], path: str, fields: Fields) -> None:
    for key, value in labels.items():
        fields.all_invalid(path, key, syntax.qualified_name(key))
        fields.all_invalid(path, value, syntax.label_value(value))


def validate_annotations(annotations: dict[str, str], path: str, fields: Fields) -> None:
    for key in annotations:
        fields.all_invalid(path, key, syntax.qualified_name(key.lower()))
    if sum(len(key.encode()) + len(value.encode()) for key, value in annotations.items()) > MAX_ANNOTATIONS:
        fields.too_long(path, MAX_ANNOTATIONS)


def _validate_owner(owner: dict[str, Any], path: str, fields: Fields) -> None:
    for key, what in (("apiVersion", "version must not be empty"), ("kind", ""), ("name", ""), ("uid", "")):
        if not owner.get(key):
            fields.invalid(f"{path}.{key}", owner.get(key, ""), what or "must not be empty")


def validate_meta_update(new: dict[str, Any], old: dict[str, Any], fields: Fields) -> None:
    for key in ("name", "namespace", "uid", "creationTimestamp", "deletionTimestamp", "deletionGracePeriodSeconds"):
        if new.get(key) != old.get(key):
            fields.invalid(f"metadata.{key}", new.get(key), "field is immutable")
    added = set(new.get("finalizers", [])) - set(old.get("finalizers", []))
    if old.get("deletionTimestamp") and added:
        listed = ", ".join(f'"{name}"' for name in sorted(added))
        fields.forbidden(
            "metadata.finalizers",
            f"no new finalizers can be added if the object is being deleted, found new finalizers []string{{{listed}}}",
        )
