"""Validation of label selectors, and of the numbers that may be percentages. Source: apimachinery/pkg/apis/meta/v1."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

from cuboid.kube import objects, selectors, syntax
from cuboid.kube.fields import Fields
from cuboid.kube.validate_meta import validate_labels

Raw = dict[str, Any]
UNMATCHED = "`selector` does not match template `labels`"
_PERCENT = re.compile(r"[0-9]+%", re.ASCII)


def validate_selector(selector: Raw | None, path: str, fields: Fields) -> bool:
    """Whether it is well-formed; None is."""
    before = len(fields.errors)
    if selector is not None:
        validate_labels(selector.get("matchLabels", {}), f"{path}.matchLabels", fields)
        for index, item in enumerate(selector.get("matchExpressions", [])):
            _validate_requirement(item, f"{path}.matchExpressions[{index}]", fields)
    return len(fields.errors) == before


def _validate_requirement(item: Raw, path: str, fields: Fields) -> None:
    operator, values = item.get("operator", ""), item.get("values", [])
    if operator in ("In", "NotIn"):
        if not values:
            fields.required(f"{path}.values", "must be specified when `operator` is 'In' or 'NotIn'")
    elif operator in ("Exists", "DoesNotExist"):
        if values:
            fields.forbidden(f"{path}.values", "may not be specified when `operator` is 'Exists' or 'DoesNotExist'")
    else:
        fields.invalid(f"{path}.operator", operator, "not a valid selector operator")
    fields.all_invalid(f"{path}.key", item.get("key", ""), syntax.qualified_name(item.get("key", "")))
    for index, value in enumerate(values):
        fields.all_invalid(f"{path}.values[{index}]", value, syntax.label_value(value))


def is_empty(selector: Raw) -> bool:
    return not selector.get("matchLabels") and not selector.get("matchExpressions")


def selects(selector: Raw | None, labels: Mapping[str, str]) -> bool:
    """Whether a well-formed selector selects `labels`; None selects nothing."""
    parsed = objects.label_selector(selector)
    return parsed is not None and selectors.matches(parsed, labels)


def validate_matching(selector: Raw | None, template: Raw, path: str, fields: Fields) -> None:
    """A well-formed selector has to select the pods of the template, whose path is `path`."""
    labels = template.get("metadata", {}).get("labels", {})
    if not selects(selector, labels):
        fields.invalid(f"{path}.metadata.labels", labels, UNMATCHED)


# --- numbers or percentages ------------------------------------------------------------------------------------------


def validate_amount(value: int | str, path: str, fields: Fields, *, bounded: bool = True) -> None:
    """A number or a percentage, `bounded` up to 100 %."""
    if isinstance(value, int):
        fields.negative(path, value)
    elif not _PERCENT.fullmatch(value):
        fields.invalid(
            path,
            value,
            "a valid percent string must be a numeric string followed by an ending '%' (e.g. '1%',  or '93%', regex "
            "used for validation is '[0-9]+%')",
        )
    elif bounded and int(value[:-1][:9]) > 100:
        fields.invalid(path, value, "must not be greater than 100%")


def amount(value: int | str) -> int:
    """The bare number: of a percentage the one before the sign, 0 for what is none."""
    if isinstance(value, int):
        return value
    return int(value[:-1][:9]) if _PERCENT.fullmatch(value) else 0
