"""`x-kubernetes-validations`: the rules of a schema on an object, in Kubernetes' words.

Source: k8s.io/apiextensions-apiserver/pkg/apiserver/schema/cel. What a rule may cost is bounded for each object; what
did not change under an update is not looked at again.
"""

from __future__ import annotations

import base64
import binascii
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from typing import Any

from cuboid.kube.crd.cel import Budget, CelError, Optional, compiled
from cuboid.kube.crd.cel.functions import FUNCTIONS
from cuboid.kube.crd.validation import NOWHERE
from cuboid.kube.crd.values import MISSING, Schema, old_item, subschemas, type_of
from cuboid.kube.fields import Fields
from cuboid.lib.clock import parse_rfc3339

MAX_STEPS = 100_000
"""Steps of all rules on one object: a quarter of a second."""
MAX_MESSAGE = 2048
MAX_RULES = 500
"""Rules on one value."""
REASONS = ("FieldValueDuplicate", "FieldValueForbidden", "FieldValueInvalid", "FieldValueRequired")
_KEY = "x-kubernetes-validations"
_BLOCKING = ("FieldValueRequired", "FieldValueTooLong", "FieldValueTooMany", "FieldValueTypeInvalid")
_SKIPPED = (
    "some validation rules were not checked because the object was invalid; correct the existing errors to complete "
    "validation"
)
Rule = Mapping[str, Any]


def has_rules(schema: Schema) -> bool:
    known, rest = subschemas(schema)
    items = schema.get("items")
    below = [*known.values(), *([rest] if rest else []), *([items] if isinstance(items, dict) else [])]
    return bool(schema.get(_KEY)) or any(has_rules(child) for child in below)


# --- when a definition is written ------------------------------------------------------------------------------------


def check_rules(schema: Schema, path: str, fields: Fields, loose: str = "", *, at_root: bool = False) -> None:
    """What is wrong with the rules of one schema. `loose`: it is within a list whose items have no identity."""
    given: Sequence[Rule] = schema.get(_KEY) or ()
    if len(given) > MAX_RULES:
        fields.too_many(f"{path}.{_KEY}", len(given), MAX_RULES)
    for index, rule in enumerate(given[:MAX_RULES]):
        where = f"{path}.{_KEY}[{index}]"
        if not rule.get("rule", "").strip():
            fields.required(f"{where}.rule", "rule is not specified")
            continue
        _compiles(rule["rule"], schema, f"{where}.rule", fields, at_root)
        if loose and _looks_back(rule["rule"]):
            why = f"oldSelf cannot be used on the uncorrelatable portion of the schema within {loose}"
            fields.invalid(f"{where}.rule", rule["rule"], why)
        if rule.get("messageExpression"):
            _compiles(rule["messageExpression"], schema, f"{where}.messageExpression", fields, at_root)
        if len(rule.get("message", "")) > MAX_MESSAGE:
            fields.too_long(f"{where}.message", MAX_MESSAGE)
        if rule.get("reason") and rule["reason"] not in REASONS:
            fields.unsupported(f"{where}.reason", rule["reason"], REASONS)


def _looks_back(text: str) -> bool:
    try:
        return "oldSelf" in compiled(text).names
    except (CelError, RecursionError):
        return False


def _compiles(text: str, schema: Schema, path: str, fields: Fields, at_root: bool) -> None:
    try:
        program = compiled(text)
    except (CelError, RecursionError) as error:
        fields.invalid(path, text, f"compilation failed: ERROR: <input>: {error}")
        return
    for way in sorted(program.paths, key=str):
        if missing := _undefined(schema, way[1:], at_root):
            fields.invalid(path, text, f"compilation failed: ERROR: <input>: undefined field '{missing}'")
            return


def _undefined(schema: Schema, steps: Sequence[str | None], at_root: bool) -> str:
    """The first field of the way that the schema does not know, "" where it knows all or can not say."""
    here: Any = schema
    for index, step in enumerate(steps):
        known, rest = subschemas(here)
        if step is None:
            here = here.get("items") or rest
        elif rest is not None:
            here = rest
        elif (
            here.get("x-kubernetes-preserve-unknown-fields")
            or here.get("x-kubernetes-embedded-resource")
            or (at_root and index == 0 and step in ("apiVersion", "kind", "metadata"))
        ):
            return ""
        elif here.get("type") == "object" and step not in known:
            return step
        else:
            here = known.get(step)
        if not isinstance(here, dict):
            return ""
    return ""


# --- when an object is written ---------------------------------------------------------------------------------------


def check(schema: Schema, value: Any, fields: Fields, old: Any = MISSING) -> None:
    """After validation by the schema; rules are not looked at when that found what they could not stand."""
    if any(error.type in _BLOCKING for error in fields.errors):
        fields.invalid(NOWHERE, None, _SKIPPED)
        return
    _Check(fields).value(schema, value, "", old)


class _Check:
    def __init__(self, fields: Fields) -> None:
        self._fields = fields
        self._budget = Budget(MAX_STEPS)

    def value(self, schema: Schema, value: Any, path: str, old: Any) -> None:
        if value is None or (old is not MISSING and old == value):
            return
        for rule in schema.get(_KEY) or ():
            if self._budget.spent:
                return
            self._one(rule, schema, value, path, old)
        if isinstance(value, dict):
            known, rest = subschemas(schema)
            before = old if isinstance(old, dict) else {}
            for key, item in value.items():
                if (child := known.get(key, rest)) is not None:
                    self.value(child, item, f"{path}.{key}" if path else key, before.get(key, MISSING))
        elif isinstance(value, list) and isinstance(items := schema.get("items"), dict):
            for index, item in enumerate(value):
                self.value(items, item, f"{path}[{index}]", old_item(schema, item, index, old))

    def _one(self, rule: Rule, schema: Schema, value: Any, path: str, old: Any) -> None:
        program = compiled(rule["rule"])
        names: dict[str, Any] = {}
        try:
            if "oldSelf" in program.names:
                if old is MISSING and not rule.get("optionalOldSelf"):
                    return
                before = None if old is MISSING else typed(schema, old, self._budget)
                names["oldSelf"] = Optional(before, old is not MISSING) if rule.get("optionalOldSelf") else before
            names["self"] = typed(schema, value, self._budget)
            if program.run(names, self._budget) is not True:
                self._failed(rule, value, path, self._message(rule, names))
        except CelError as error:
            text = f"{error} evaluating rule: {rule.get('message') or rule['rule']}"
            if self._budget.spent:
                text = "validation failed due to running out of cost budget, no further validation rules will be run"
            self._failed({}, value, path, text)

    def _message(self, rule: Rule, names: dict[str, Any]) -> str:
        if rule.get("messageExpression"):
            program = compiled(rule["messageExpression"])
            try:
                found = program.run({"oldSelf": None, **names}, self._budget)
            except CelError:
                found = None
            if isinstance(found, str) and found.strip() and "\n" not in found:
                return found[:MAX_MESSAGE]
        return rule.get("message") or f"failed rule: {rule['rule'].strip()}"

    def _failed(self, rule: Rule, value: Any, path: str, text: str) -> None:
        where = f"{path}{rule.get('fieldPath', '')}".lstrip(".") or NOWHERE
        shown = type_of(value) if isinstance(value, dict | list) else value
        tell = {
            "FieldValueRequired": lambda: self._fields.required(where, text),
            "FieldValueForbidden": lambda: self._fields.forbidden(where, text),
            "FieldValueDuplicate": lambda: self._fields.duplicate(where, shown),
        }
        tell.get(rule.get("reason", ""), lambda: self._fields.invalid(where, shown, text))()


def typed(schema: Schema, value: Any, budget: Budget) -> Any:
    """A value as rules see it: with the types that its schema names."""
    budget.spend()
    if isinstance(value, dict):
        known, rest = subschemas(schema)
        return {key: typed(known.get(key) or rest or {}, item, budget) for key, item in value.items()}
    if isinstance(value, list):
        items = schema.get("items")
        return [typed(items if isinstance(items, dict) else {}, item, budget) for item in value]
    if isinstance(value, str) and schema.get("format"):
        return _formatted(schema["format"], value)
    return float(value) if schema.get("type") == "number" and isinstance(value, int) else value


def _formatted(form: str, value: str) -> Any:
    try:
        if form in ("date-time", "datetime"):
            return datetime.fromtimestamp(parse_rfc3339(value), UTC)
        if form == "date":
            return datetime.fromisoformat(value).replace(tzinfo=UTC)
        if form == "duration":
            return FUNCTIONS["duration"](Budget(1000), value)
        if form == "byte":
            return base64.b64decode(value, validate=True)
    except (ValueError, binascii.Error, CelError, OverflowError):
        return value
    return value
