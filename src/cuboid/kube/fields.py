"""Field errors in Kubernetes' words, and the paths they name (`spec.containers[0].name`).

Source of types and wording: k8s.io/apimachinery/pkg/util/validation/field.
"""

from __future__ import annotations

import json
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True)
class FieldError:
    """`type` is a `metav1.CauseType`; `text` is the message without the path."""

    type: str
    path: str
    text: str

    def __str__(self) -> str:
        return f"{self.path}: {self.text}"


class Fields:
    """Collects the errors of one object."""

    def __init__(self) -> None:
        self.errors: list[FieldError] = []
        self._prefix = ""

    def under(self, prefix: str) -> Fields:
        """For a part that is checked like a whole object: the same errors, and paths that begin with `prefix`."""
        part = Fields()
        part.errors = self.errors
        part._prefix = f"{self._prefix}{prefix}."
        return part

    def _add(self, kind: str, path: str, text: str) -> None:
        self.errors.append(FieldError(kind, self._prefix + path, text))

    def required(self, path: str, detail: str = "") -> None:
        self._add("FieldValueRequired", path, "Required value" + (f": {detail}" if detail else ""))

    def invalid(self, path: str, value: Any, detail: str) -> None:
        self._add("FieldValueInvalid", path, f"Invalid value: {_shown(value)}: {detail}")

    def invalid_part(self, path: str, detail: str) -> None:
        """An invalid value that is too large to be shown."""
        self._add("FieldValueInvalid", path, f"Invalid value: {detail}")

    def negative(self, path: str, value: int | None) -> None:
        """Complain about a number below zero."""
        if value is not None and value < 0:
            self.invalid(path, value, "must be greater than or equal to 0")

    def immutable(self, path: str, new: Any, old: Any) -> None:
        """Complain about a change."""
        if new != old:
            self.invalid(path, new, "field is immutable")

    def type_invalid(self, path: str, value: Any, detail: str) -> None:
        """A value of the wrong type: `value` names the type that was found."""
        self._add("FieldValueTypeInvalid", path, f"Invalid value: {_shown(value)}: {detail}")

    def not_one_of(self, path: str, value: Any, known: Iterable[Any]) -> None:
        """As `unsupported`, in the order that the values were given in."""
        listed = ", ".join(_shown(str(item)) for item in known)
        self._add("FieldValueNotSupported", path, f"Unsupported value: {_shown(value)}: supported values: {listed}")

    def unsupported(self, path: str, value: Any, known: Iterable[str]) -> None:
        listed = ", ".join(f'"{name}"' for name in sorted(known))
        self._add("FieldValueNotSupported", path, f"Unsupported value: {_shown(value)}: supported values: {listed}")

    def duplicate(self, path: str, value: Any) -> None:
        self._add("FieldValueDuplicate", path, f"Duplicate value: {_shown(value)}")

    def forbidden(self, path: str, detail: str) -> None:
        self._add("FieldValueForbidden", path, f"Forbidden: {detail}")

    def not_found(self, path: str, value: Any) -> None:
        self._add("FieldValueNotFound", path, f"Not found: {_shown(value)}")

    def too_long(self, path: str, limit: int) -> None:
        self._add("FieldValueTooLong", path, f"Too long: may not be more than {limit} bytes")

    def too_many(self, path: str, count: int, limit: int) -> None:
        self._add("FieldValueTooMany", path, f"Too many: {count}: must have at most {limit} items")

    def all_invalid(self, path: str, value: Any, details: Iterable[str]) -> None:
        for detail in details:
            self.invalid(path, value, detail)


def _shown(value: Any) -> str:
    text = json.dumps(value, ensure_ascii=False, separators=(",", ":"))
    return text if len(text) <= 1000 else text[:1000] + "…"
