"""Which names of a definition are free, and the conditions that say so. Pure.

Source: k8s.io/apiextensions-apiserver/pkg/controller/status.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

Object = dict[str, Any]
Names = Mapping[str, Any]
_NONE: Object = {"kind": "", "plural": ""}
_CHECKS = (
    ("plural", "PluralConflict"),
    ("singular", "SingularConflict"),
    ("shortNames", "ShortNamesConflict"),
    ("kind", "KindConflict"),
    ("listKind", "ListKindConflict"),
)


def conflict(names: Names, taken: Iterable[Names]) -> tuple[str, str]:
    """Reason and message of the first name that another in the group has, or two empty ones."""
    resources: set[str] = set()
    kinds: set[str] = set()
    for other in taken:
        resources.update((other.get("plural", ""), other.get("singular", ""), *(other.get("shortNames") or ())))
        kinds.update((other.get("kind", ""), other.get("listKind", "")))
    for key, reason in _CHECKS:
        known = kinds if key.lower().endswith("kind") else resources
        given = names.get(key) or ()
        for name in (given,) if isinstance(given, str) else given:
            if name and name in known:
                return reason, f'"{name}" is already in use'
    return "", ""


def established(document: Object) -> bool:
    return any(
        item.get("type") == "Established" and item.get("status") == "True"
        for item in document.get("status", {}).get("conditions") or ()
    )


def judged(document: Object, taken: Iterable[Names], now: str) -> Object:
    """The status with the conditions and names that a definition gets beside those whose names are `taken`."""
    status: Object = dict(document.get("status") or {})
    names = document["spec"]["names"]
    reason, message = conflict(names, taken)
    if not reason:
        status["acceptedNames"] = dict(names)
        found = [("NamesAccepted", "True", "NoConflicts", "no conflicts found")]
    else:
        status.setdefault("acceptedNames", dict(_NONE))
        found = [("NamesAccepted", "False", reason, message)]
    if not reason or established(document):
        found.append(("Established", "True", "InitialNamesAccepted", "the initial names have been accepted"))
    else:
        found.append(("Established", "False", "NotAccepted", "not all names are accepted"))
    conditions = status.get("conditions") or []
    for row in found:
        conditions = with_condition(conditions, row, now)
    return {**status, "conditions": conditions}


def with_condition(conditions: list[Object], row: tuple[str, str, str, str], now: str) -> list[Object]:
    """(type, status, reason, message) put in its place; the time is that of the last change of the status."""
    kind, value, reason, message = row
    made = {"type": kind, "status": value, "lastTransitionTime": now, "reason": reason, "message": message}
    result = list(conditions)
    for index, item in enumerate(result):
        if item.get("type") == kind:
            if item.get("status") == value:
                made["lastTransitionTime"] = item.get("lastTransitionTime", now)
            result[index] = made
            return result
    return [*result, made]
