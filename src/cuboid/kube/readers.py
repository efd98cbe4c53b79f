"""Decoding of what is well-formed, as almost all is: one function per type, made of its schema when first needed.

A reader knows no paths and no words. At anything that is not plainly right (an unknown field, a wrong type, a number
written as 1.0) it gives up, and the walk in `schema`, which can say what is wrong and where, starts anew: so both
give the same, and a document that is wrong costs at most twice what it did. Types that contain themselves and custom
resources are the walk's.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from cuboid.kube import quantity
from cuboid.lib.clock import parse_rfc3339
from cuboid.lib.errors import InvalidError

if TYPE_CHECKING:
    from cuboid.kube.schema import Node

Reader = Callable[[Any], Any]
GIVEN_UP = (KeyError, ValueError, InvalidError)
"""What a reader raises that leaves a document to the walk."""
INTEGER_LIMITS = {"int32": 2**31, "int64": 2**63}
_NOTHING = object
"""The exact type of no value in JSON."""
_EXACT: dict[str, type] = {"string": str, "boolean": bool}


def reader(node: Node) -> Reader:
    """The function of a type: a clean copy of a value, or one of `GIVEN_UP`. Kept with the node."""
    if node.reader is None:
        node.reader = _odd  # as seen by what is below: who contains himself is left to the walk
        node.reader = _made(node)
    return node.reader


def _odd(value: Any) -> Any:
    raise ValueError


def _made(node: Node) -> Reader:
    if node.loose:
        return _odd
    if node.kind == "object":
        return _object(node)
    if node.items is not None and node.kind in ("array", "map"):
        exact, read = _EXACT.get(node.items.kind, _NOTHING), reader(node.items)
        if node.items.loose:
            return _odd
        return _array(exact, read) if node.kind == "array" else _map(exact, read)
    if node.kind == "integer":
        return _integer(INTEGER_LIMITS.get(node.format, 2**63))
    return _SCALARS.get(node.kind, _odd)


def _object(node: Node) -> Reader:
    """Text and truth are most of what there is: they are seen without a call."""
    fields = {
        key: (_NOTHING if child.loose else _EXACT.get(child.kind, _NOTHING), reader(child))
        for key, child in node.properties.items()
    }

    def read(value: Any) -> dict[str, Any]:
        if type(value) is not dict:
            raise ValueError
        clean = {}
        for key, item in value.items():
            exact, inner = fields[key]
            if type(item) is exact:
                clean[key] = item
            elif item is not None:
                clean[key] = inner(item)
        return clean

    return read


def _array(exact: type, inner: Reader) -> Reader:
    def read(value: Any) -> list[Any]:
        if type(value) is not list:
            raise ValueError
        return [item if type(item) is exact else inner(item) for item in value if item is not None]

    return read


def _map(exact: type, inner: Reader) -> Reader:
    def read(value: Any) -> dict[str, Any]:
        if type(value) is not dict:
            raise ValueError
        return {key: item if type(item) is exact else inner(item) for key, item in value.items()}

    return read


def _integer(limit: int) -> Reader:
    def read(value: Any) -> int:
        if type(value) is int and -limit <= value < limit:
            return value
        raise ValueError

    return read


def _number(value: Any) -> Any:
    if type(value) is int or type(value) is float:
        return value
    raise ValueError


def _int_or_string(value: Any) -> Any:
    if type(value) is int or type(value) is str:
        return value
    raise ValueError


def _quantity(value: Any) -> str:
    if type(value) is str or type(value) is int:
        return quantity.canonical(value)
    raise ValueError


def _time(value: Any) -> str:
    if type(value) is not str:
        raise ValueError
    parse_rfc3339(value)
    return value


def _any(value: Any) -> Any:
    if value is None:  # in a map it stands for an empty text
        raise ValueError
    return value


_SCALARS: dict[str, Reader] = {
    "number": _number,
    "int-or-string": _int_or_string,
    "quantity": _quantity,
    "time": _time,
    "any": _any,
}
