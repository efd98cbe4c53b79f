"""Label and field selectors: parsed once, matched against plain dictionaries.

Grammar: k8s.io/apimachinery/pkg/labels (`a=b,c in (d,e),!f,g!=h`, also `>` and `<`) and pkg/fields (`a=b,c!=d`).
"""

from __future__ import annotations

import re
from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass

from cuboid.kube import syntax
from cuboid.kube.status import bad_request

LIMIT = 8192
"""Longest selector, characters."""
_SET = re.compile(r"\s*([^\s=!<>,()]+)\s+(in|notin)\s*\(([^()]*)\)\s*", re.ASCII)
_COMPARE = re.compile(r"\s*([^\s=!<>,()]+)\s*(==|=|!=|<|>)\s*([^\s=!<>,()]*)\s*", re.ASCII)
_EXISTS = re.compile(r"\s*(!?)\s*([^\s=!<>,()]+)\s*", re.ASCII)
_ESCAPED = re.compile(r"\\([\\,=])")


@dataclass(frozen=True)
class Requirement:
    """One comparison. `operator` is one of = != in notin exists !exists < >."""

    key: str
    operator: str
    values: frozenset[str] = frozenset()

    def matches(self, labels: Mapping[str, str]) -> bool:
        return _OPERATORS[self.operator](labels.get(self.key), self.values)


Selector = tuple[Requirement, ...]


def matches(selector: Selector, labels: Mapping[str, str]) -> bool:
    return all(requirement.matches(labels) for requirement in selector)


def parse_labels(text: str) -> Selector:
    """The requirements of a label selector, all of which must hold; bad_request if it is none."""
    requirements: list[Requirement] = []
    rest = _bounded(text)
    while rest.strip():
        requirement, end = _first(rest, text)
        requirements.append(requirement)
        rest = rest[end:]
        if rest and not rest.startswith(","):
            raise _unparsable(text, f"found {rest[:1]!r}, expected: ',' or end")
        if rest and not rest[1:].strip():
            raise _unparsable(text, "found '', expected: identifier after ','")
        rest = rest[1:]
    return tuple(requirements)


def render(selector: Selector) -> str:
    """As text that `parse_labels` reads."""
    return ",".join(map(_text, selector))


def _text(requirement: Requirement) -> str:
    key, operator, values = requirement.key, requirement.operator, sorted(requirement.values)
    if operator in ("in", "notin"):
        return f"{key} {operator} ({','.join(values)})"
    if operator in ("exists", "!exists"):
        return key if operator == "exists" else f"!{key}"
    return f"{key}{operator}{values[0]}"


def parse_fields(text: str, known: Collection[str]) -> Selector:
    """The requirements of a field selector; only fields in `known` may be named."""
    requirements = []
    for part in _split_unescaped(_bounded(text)):
        match = re.fullmatch(r"\s*([^=!\s]+)\s*(==|=|!=)(.*)", part, re.DOTALL)
        if match is None:
            raise bad_request(f"invalid selector: {text!r}; can't understand {part!r}")
        key, operator, value = match.groups()
        if key not in known:
            raise bad_request(f"field label not supported: {key[:100]}")
        value = _ESCAPED.sub(r"\1", value)
        requirements.append(Requirement(key, "!=" if operator == "!=" else "=", frozenset((value,))))
    return tuple(requirements)


def match_fields(selector: Selector, fields: Mapping[str, str]) -> bool:
    """Like labels, but a field that is not set equals the empty string."""
    for requirement in selector:
        equal = fields.get(requirement.key, "") in requirement.values
        if equal != (requirement.operator == "="):
            return False
    return True


def _bounded(text: str) -> str:
    if len(text) > LIMIT:
        raise bad_request(f"a selector must not be longer than {LIMIT} characters")
    return text


def _first(rest: str, whole: str) -> tuple[Requirement, int]:
    if match := _SET.match(rest):
        values = frozenset(value.strip() for value in match[3].split(","))
        return _checked(match[1], match[2], values, whole), match.end()
    if match := _COMPARE.match(rest):
        operator = "=" if match[2] == "==" else match[2]
        return _checked(match[1], operator, frozenset((match[3],)), whole), match.end()
    if match := _EXISTS.match(rest):
        return _checked(match[2], "!exists" if match[1] else "exists", frozenset(), whole), match.end()
    raise _unparsable(whole, f"found {rest[:20]!r}, expected: '!', identifier, or 'end of string'")


def _checked(key: str, operator: str, values: frozenset[str], whole: str) -> Requirement:
    problems = syntax.qualified_name(key)
    for value in values:
        problems += syntax.label_value(value)
    if operator in "<>" and not all(re.fullmatch(r"[+-]?[0-9]+", value) for value in values):
        problems.append(f"for '{operator}' operator, the value must be an integer")
    if problems:
        raise _unparsable(whole, problems[0])
    return Requirement(key, operator, values)


def _unparsable(text: str, why: str) -> Exception:
    return bad_request(f"unable to parse requirement: {why} (selector {text[:200]!r})")


def _split_unescaped(text: str) -> list[str]:
    parts = re.split(r"(?<!\\),", text)
    return [part for part in parts if part.strip()]


def _integer(value: str | None) -> int | None:
    return int(value) if value is not None and re.fullmatch(r"[+-]?[0-9]{1,18}", value, re.ASCII) else None


def _compare(value: str | None, values: frozenset[str], sign: int) -> bool:
    left, right = _integer(value), _integer(next(iter(values)))
    return left is not None and right is not None and (left - right) * sign > 0


_OPERATORS: dict[str, Callable[[str | None, frozenset[str]], bool]] = {
    "=": lambda value, values: value is not None and value in values,
    "in": lambda value, values: value is not None and value in values,
    "!=": lambda value, values: value is None or value not in values,
    "notin": lambda value, values: value is None or value not in values,
    "exists": lambda value, values: value is not None,
    "!exists": lambda value, values: value is None,
    "<": lambda value, values: _compare(value, values, -1),
    ">": lambda value, values: _compare(value, values, 1),
}
