"""Validation of a custom resource by its schema, in the words of kube-apiserver.

Source: k8s.io/kube-openapi/pkg/validation and k8s.io/apiextensions-apiserver/pkg/apiserver/validation. What was wrong
before an update and was not touched stays (ratcheting). The schema is structural, so its depth bounds the recursion.
"""

from __future__ import annotations

from fractions import Fraction
from typing import Any

from cuboid.kube.crd import formats, patterns
from cuboid.kube.crd.values import MISSING, Schema, identity, key_of, old_item, subschemas, type_of, whole
from cuboid.kube.fields import Fields
from cuboid.lib.errors import InvalidError

NOWHERE = "<nil>"
"""The path of an error about alternatives, as Kubernetes has it."""
MAX_ERRORS = 200
"""Errors told of one object: a hostile one has more."""
MAX_STEPS = 200_000
"""Values, enumerated and required ones among them, looked at for one object: about half a second."""
_TRIED = 10  # steps of an alternative: it makes errors that nobody may see


class Tally(Fields):
    """Errors, and how many steps are left to find more."""

    def __init__(self, left: list[int] | None = None) -> None:
        super().__init__()
        self.left = left or [MAX_STEPS]

    def spend(self, steps: int) -> None:
        self.left[0] -= steps
        if self.left[0] < 0:
            raise InvalidError(
                f"the object takes more than {MAX_STEPS} steps to validate", hint="make it or its schema smaller"
            )


def check(schema: Schema, value: Any, path: str, fields: Fields, old: Any = MISSING) -> None:
    """Add what is wrong to `fields`; `old` is the value before an update. InvalidError when that takes too long."""
    tally = Tally()
    validate(schema, value, path, tally, old)
    fields.errors += tally.errors


def validate(schema: Schema, value: Any, path: str, fields: Tally, old: Any = MISSING) -> None:
    """Equal values before and after are not looked at."""
    fields.spend(1 + len(schema.get("enum") or ()) + len(schema.get("required") or ()))
    if (old is not MISSING and old == value) or len(fields.errors) >= MAX_ERRORS:
        return
    if value is None and schema.get("nullable"):
        return
    if not _type(schema, value, path, fields):
        return
    if "enum" in schema and not any(_same(value, known) for known in schema["enum"]):
        fields.not_one_of(path, value, schema["enum"])
    _CHECKS.get(type(value), _nothing)(schema, value, path, fields, old)
    _alternatives(schema, value, path, fields)


def _same(left: Any, right: Any) -> bool:
    return bool(left == right) and isinstance(left, bool) == isinstance(right, bool)


def _type(schema: Schema, value: Any, path: str, fields: Tally) -> bool:
    found = type_of(value)
    if schema.get("x-kubernetes-int-or-string"):
        fine, wanted = found in ("integer", "string") or whole(value), "integer,string"
    else:
        wanted = schema.get("type", "")
        fine = not wanted or found == wanted or (wanted == "number" and found == "integer")
        fine = fine or (wanted == "integer" and whole(value))
    if not fine:
        fields.type_invalid(path or NOWHERE, found, f'{path} in body must be of type {wanted}: "{found}"')
    return fine


def _nothing(schema: Schema, value: Any, path: str, fields: Tally, old: Any) -> None:
    """Of a boolean or null there is nothing to check but its type."""


def _string(schema: Schema, value: str, path: str, fields: Tally, old: Any) -> None:
    most, least = schema.get("maxLength"), schema.get("minLength")
    if most is not None and len(value) > most:
        fields.too_long(path, most)
    if least is not None and len(value) < least:
        fields.invalid(path, value, f"{path} in body should be at least {least} chars long")
    pattern = schema.get("pattern")
    if pattern and not patterns.found(pattern, value):
        fields.invalid(path, value, f"{path} in body should match '{pattern}'")
    form = schema.get("format", "")
    if form and not formats.fits(form, value):
        fields.invalid(path, value, f'{path} in body must be of type {form}: "{value[:200]}"')


def _number(schema: Schema, value: float, path: str, fields: Tally, old: Any) -> None:
    most, least, step = schema.get("maximum"), schema.get("minimum"), schema.get("multipleOf")
    if most is not None:
        exclusive = schema.get("exclusiveMaximum")
        if value > most or (exclusive and value == most):
            words = "less than" if exclusive else "less than or equal to"
            fields.invalid(path, value, f"{path} in body should be {words} {_plain(most)}")
    if least is not None:
        exclusive = schema.get("exclusiveMinimum")
        if value < least or (exclusive and value == least):
            words = "greater than" if exclusive else "greater than or equal to"
            fields.invalid(path, value, f"{path} in body should be {words} {_plain(least)}")
    if step and Fraction(str(value)) % Fraction(str(step)):
        fields.invalid(path, value, f"{path} in body should be a multiple of {_plain(step)}")
    low, high = formats.RANGES.get(schema.get("format", ""), (value, value))
    if not low <= value <= high:
        form = schema["format"]
        fields.invalid(path, value, f"Checked value must be of type integer with format {form} in {path}")


def _plain(value: float) -> str:
    return str(int(value)) if whole(value) else str(value)


def _array(schema: Schema, value: list[Any], path: str, fields: Tally, old: Any) -> None:
    most, least = schema.get("maxItems"), schema.get("minItems")
    if most is not None and len(value) > most:
        fields.too_many(path, len(value), most)
        return
    if least is not None and len(value) < least:
        fields.invalid(path, len(value), f"{path} in body should have at least {least} items")
    if schema.get("x-kubernetes-list-type") in ("set", "map"):
        _unique(schema, value, path, fields)
    items = schema.get("items")
    if isinstance(items, dict):
        for index, item in enumerate(value):
            validate(items, item, f"{path}[{index}]", fields, old_item(schema, item, index, old))


def _unique(schema: Schema, value: list[Any], path: str, fields: Tally) -> None:
    seen: set[str] = set()
    fields.spend(len(value))
    for index, item in enumerate(value):
        mark = identity(schema, item)
        if mark in seen:
            fields.duplicate(f"{path}[{index}]", key_of(schema, item))
        seen.add(mark)


def _object(schema: Schema, value: dict[str, Any], path: str, fields: Tally, old: Any) -> None:
    most, least = schema.get("maxProperties"), schema.get("minProperties")
    if most is not None and len(value) > most:
        fields.too_many(path or NOWHERE, len(value), most)
    if least is not None and len(value) < least:
        fields.invalid(path or NOWHERE, len(value), f"{path} in body should have at least {least} properties")
    for key in schema.get("required") or ():
        if key not in value:
            fields.required(_join(path, key))
    known, rest = subschemas(schema)
    before = old if isinstance(old, dict) else {}
    for key, item in value.items():
        child = known.get(key, rest)
        if child is not None:
            validate(child, item, _join(path, key), fields, before.get(key, MISSING))
    if schema.get("x-kubernetes-embedded-resource"):
        _embedded(value, path, fields)


def _embedded(value: dict[str, Any], path: str, fields: Tally) -> None:
    for key in ("apiVersion", "kind"):
        if not value.get(key):
            fields.required(_join(path, key), "must not be empty")


def _join(path: str, key: str) -> str:
    return f"{path}.{key}" if path else key


_CHECKS: dict[type, Any] = {
    str: _string,
    int: _number,
    float: _number,
    list: _array,
    dict: _object,
}


def _alternatives(schema: Schema, value: Any, path: str, fields: Tally) -> None:
    for part in schema.get("allOf") or ():
        validate(part, value, path, fields)
    if (parts := schema.get("anyOf")) and not (schema.get("x-kubernetes-int-or-string") and _is_marker(parts)):
        _any_of(parts, value, path, fields)
    if parts := schema.get("oneOf"):
        _one_of(parts, value, path, fields)
    if (part := schema.get("not")) is not None and not _errors(part, value, path, fields):
        fields.invalid(NOWHERE, "", f'"{path}" must not validate the schema (not)')


def _is_marker(parts: list[Any]) -> bool:
    """The `anyOf` that says once more that a value is an integer or a string."""
    return [part.get("type") for part in parts] == ["integer", "string"]


def _errors(schema: Schema, value: Any, path: str, fields: Tally) -> Tally | None:
    """None where the value fits."""
    fields.spend(_TRIED)
    tried = Tally(fields.left)
    validate(schema, value, path, tried)
    return tried if tried.errors else None


def _any_of(parts: list[Schema], value: Any, path: str, fields: Tally) -> None:
    tried = [_errors(part, value, path, fields) for part in parts]
    if all(tried):
        fields.invalid(NOWHERE, "", f'"{path}" must validate at least one schema (anyOf)')
        _best(tried, fields)


def _one_of(parts: list[Schema], value: Any, path: str, fields: Tally) -> None:
    tried = [_errors(part, value, path, fields) for part in parts]
    fitting = sum(1 for errors in tried if errors is None)
    if fitting != 1:
        why = f"Found {fitting} valid alternatives" if fitting else "Found none valid"
        fields.invalid(NOWHERE, "", f'"{path}" must validate one and only one schema (oneOf). {why}')
    if not fitting:
        _best(tried, fields)


def _best(tried: list[Tally | None], fields: Tally) -> None:
    """Also what the alternative lacks that came nearest."""
    least = min((errors for errors in tried if errors), key=lambda errors: len(errors.errors))
    fields.errors += least.errors
