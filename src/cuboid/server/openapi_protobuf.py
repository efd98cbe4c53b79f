"""OpenAPI version 2 in protobuf: the form that kubectl before 1.27 asks for, and the only one that it reads.

What those clients look at is written: the definitions, and parameters of PATCH operations (does the server know
`dryRun`?). Source of the numbers: OpenAPIv2.proto of google/gnostic.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from typing import Any

Object = Mapping[str, Any]


def document(spec: Object) -> bytes:
    paths = b"".join(_bytes(2, _named(path, _path_item(item))) for path, item in spec["paths"].items())
    schemas = b"".join(_bytes(1, _named(name, schema(item))) for name, item in spec["definitions"].items())
    info = _text(1, spec["info"]["title"]) + _text(2, spec["info"]["version"])
    return _text(1, spec["swagger"]) + _bytes(2, info) + _bytes(8, paths) + _bytes(9, schemas)


def _varint(number: int) -> bytes:
    found = bytearray()
    while number > 0x7F:
        found.append(number & 0x7F | 0x80)
        number >>= 7
    found.append(number)
    return bytes(found)


def _bytes(field: int, value: bytes) -> bytes:
    return _varint(field << 3 | 2) + _varint(len(value)) + value


def _text(field: int, value: str) -> bytes:
    return _bytes(field, value.encode("utf-8", "replace"))


def _named(name: str, value: bytes) -> bytes:
    return _text(1, name) + _bytes(2, value)


def _extensions(field: int, owner: Object) -> bytes:
    """Values are YAML, of which JSON is a part."""
    return b"".join(
        _bytes(field, _named(key, _text(2, json.dumps(value) + "\n")))
        for key, value in owner.items()
        if key.startswith("x-")
    )


def schema(given: Object) -> bytes:
    """A message `Schema`."""
    parts = [_text(number, given[key]) for key, number in (("$ref", 1), ("format", 2), ("title", 3)) if given.get(key)]
    if given.get("description"):
        parts.append(_text(4, given["description"]))
    parts += [_text(19, name) for name in given.get("required") or ()]
    rest = given.get("additionalProperties")
    if isinstance(rest, Mapping):
        parts.append(_bytes(21, _bytes(1, schema(rest))))
    elif rest:
        parts.append(_bytes(21, _varint(2 << 3) + b"\x01"))
    if given.get("type"):
        parts.append(_bytes(22, _text(1, given["type"])))
    if isinstance(given.get("items"), Mapping):
        parts.append(_bytes(23, _bytes(1, schema(given["items"]))))
    if given.get("properties"):
        fields = (_bytes(1, _named(name, schema(child))) for name, child in given["properties"].items())
        parts.append(_bytes(25, b"".join(fields)))
    parts.append(_extensions(31, given))
    return b"".join(parts)


def _path_item(item: Object) -> bytes:
    patch = item.get("patch")
    return b"" if patch is None else _bytes(8, _operation(patch))


def _operation(given: Object) -> bytes:
    return _text(5, given["operationId"]) + _parameters(given["parameters"]) + _extensions(13, given)


def _parameters(given: Iterable[Object]) -> bytes:
    found = b""
    for one in given:
        if one["in"] == "query":
            query = _text(2, "query") + _text(4, one["name"]) + _text(6, one["type"])
            found += _bytes(8, _bytes(1, _bytes(2, _bytes(3, query))))
    return found
