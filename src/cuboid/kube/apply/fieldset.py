"""Sets of field paths, kept as `FieldsV1` spells them: nested objects, so that reading and writing them costs nothing.

A path is a row of elements: `f:name` for a field, `k:{"name":"web"}` for an item of a list by its keys, `v:"x"` for an
item of a set, `i:3` for one by its place. An object without elements is a member; one with elements below it is a
member too when it has the element `.`. Sets are never changed in place and may share parts.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import msgspec

FieldSet = dict[str, Any]
SELF = "."
MAX_DEPTH = 100
"""Elements of the longest path."""
_KINDS = ("f:", "k:", "v:", "i:")


def is_member(node: FieldSet) -> bool:
    return not node or SELF in node


def with_self(node: FieldSet | None) -> FieldSet:
    """A node that is a member, whatever is below it."""
    if not node or SELF in node:
        return node or {}
    return {SELF: {}, **node}


def valid(given: Any, depth: int = 0) -> bool:
    """Whether it is a set of fields at all."""
    if not isinstance(given, dict) or depth > MAX_DEPTH:
        return False
    return all(
        (key == SELF and node == {}) or (key.startswith(_KINDS) and valid(node, depth + 1))
        for key, node in given.items()
    )


def union(left: FieldSet, right: FieldSet) -> FieldSet:
    """Both are sets from the root, or both are members or not alike."""
    if not left or left is right:
        return right
    if not right:
        return left
    result = dict(left)
    for key, node in right.items():
        mine = result.get(key)
        result[key] = node if mine is None else _joined(mine, node)
    return result


def _joined(left: FieldSet, right: FieldSet) -> FieldSet:
    """Of two nodes, where an empty one is a member."""
    joined = union(left, right)
    return with_self(joined) if is_member(left) or is_member(right) else joined


def difference(left: FieldSet, right: FieldSet) -> FieldSet:
    """Members of `left` that are none of `right`."""
    return _without(left, right, recursive=False) or {}


def recursive_difference(left: FieldSet, right: FieldSet) -> FieldSet:
    """As well, without what is below members of `right`."""
    return _without(left, right, recursive=True) or {}


def _without(left: FieldSet, right: FieldSet, *, recursive: bool) -> FieldSet | None:
    """Of two roots or of two inner nodes; None when nothing is left."""
    result: FieldSet = {}
    for key, node in left.items():
        other = right.get(key)
        if other is None:
            result[key] = node
        elif key != SELF and (rest := _node_without(node, other, recursive)) is not None:
            result[key] = rest
    return result or None


def _node_without(node: FieldSet, other: FieldSet, recursive: bool) -> FieldSet | None:
    gone = is_member(other)
    if recursive and gone:
        return None
    keeps = is_member(node) and not gone
    below = _without({key: value for key, value in node.items() if key != SELF}, other, recursive=recursive)
    return with_self(below) if keeps else below


def intersection(left: FieldSet, right: FieldSet) -> FieldSet:
    """Members of both."""
    result: FieldSet = {}
    for key, node in left.items():
        other = right.get(key)
        if other is None or key == SELF:
            continue
        below = intersection(node, other)
        if is_member(node) and is_member(other):
            result[key] = with_self(below)
        elif below:
            result[key] = below
    return result


def paths(given: FieldSet) -> Iterator[tuple[str, ...]]:
    """Every member, as its elements."""
    for key, node in given.items():
        if key == SELF:
            continue
        if is_member(node):
            yield (key,)
        for rest in paths(node):
            yield (key, *rest)


def text(path: tuple[str, ...]) -> str:
    """`.spec.containers[name="web"].image`, as Kubernetes prints it."""
    return "".join(map(_element, path))


def _element(element: str) -> str:
    kind, value = element[:2], element[2:]
    if kind == "f:":
        return f".{value}"
    if kind == "i:":
        return f"[{value}]"
    if kind == "v:":
        return f"[={value}]"
    try:
        keys = msgspec.json.decode(value)
        return "[" + ",".join(f"{key}={msgspec.json.encode(keys[key]).decode()}" for key in sorted(keys)) + "]"
    except (msgspec.DecodeError, TypeError, AttributeError):
        return f"[{value}]"
