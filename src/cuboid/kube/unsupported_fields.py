"""Warnings about fields that are taken and have no effect: what a client asks for in vain, it is told.

Nearly no object has such a field, so a quick look without paths comes before the walk that names them. Both follow the
schema, and only into what can hold such a field.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from cuboid.kube.field_tables import IGNORED, Ignored
from cuboid.kube.kind import Kind
from cuboid.kube.schema import Node

MOST = 20
"""Warnings of one answer: each is a header."""
_EMPTY: tuple[Any, ...] = (None, "", [], {})
_interesting: dict[int, tuple[Node, bool]] = {}  # by the identity of a node, which is kept so that it stays its own
_looks: dict[int, _Look] = {}  # as well


def warnings(kind: Kind, document: dict[str, Any]) -> tuple[str, ...]:
    """One per field, in the order of the document."""
    if kind.structure is not None or not _leads_somewhere(kind.schema):
        return ()
    if not _look(kind.schema).sees(document):
        return ()
    found: list[str] = []
    for path, why in _walk(kind.schema, document, ""):
        if len(found) == MOST:
            found[-1] = "more fields have no effect: see docs/reference/api.md"
            break
        found.append(f"{path} has no effect: {why}")
    return tuple(found)


def _walk(node: Node, value: Any, path: str) -> Iterator[tuple[str, str]]:
    if node.kind == "array" and node.items is not None and isinstance(value, list):
        for index, item in enumerate(value):
            yield from _walk(node.items, item, f"{path}[{index}]")
    elif node.properties and isinstance(value, dict):
        ignored = IGNORED.get(node.name, {})
        for key, item in value.items():
            where = f"{path}.{key}" if path else key
            row = ignored.get(key)
            if row is not None and without_effect(row, item):
                yield where, row.why
            elif (child := node.properties.get(key)) is not None and _leads_somewhere(child):
                yield from _walk(child, item, where)


class _Look:
    """Whether there is such a field in a value of one type; made of its schema, where `_leads_somewhere`."""

    __slots__ = ("_below", "_items", "_node", "_rows")

    def __init__(self, node: Node) -> None:
        self._node = node
        self._rows: dict[str, Ignored] = {}
        self._below: dict[str, _Look] = {}
        self._items: _Look | None = None
        if node.kind == "array" and node.items is not None:
            self._items = _look(node.items)
        elif node.properties:
            self._rows = IGNORED.get(node.name, {})
            self._below = {key: _look(child) for key, child in node.properties.items() if _leads_somewhere(child)}

    def sees(self, value: Any) -> bool:
        if self._items is not None:
            return isinstance(value, list) and any(map(self._items.sees, value))
        if not isinstance(value, dict):
            return False
        rows, below = self._rows, self._below
        for key in value.keys() & rows.keys():
            if without_effect(rows[key], value[key]):
                return True
        return any(below[key].sees(value[key]) for key in value.keys() & below.keys())


def _look(node: Node) -> _Look:
    known = _looks.get(id(node))
    if known is None:
        known = _looks[id(node)] = _Look(node)
    return known


def without_effect(row: Ignored, value: Any) -> bool:
    return value not in _EMPTY and value not in row.neutral


def _leads_somewhere(node: Node) -> bool:
    """Whether a struct with such fields can be below. Structs that contain themselves hold none."""
    known = _interesting.get(id(node))
    if known is None:
        _interesting[id(node)] = (node, False)
        children = [*node.properties.values(), *([node.items] if node.items is not None else [])]
        known = _interesting[id(node)] = (node, node.name in IGNORED or any(map(_leads_somewhere, children)))
    return known[1]
