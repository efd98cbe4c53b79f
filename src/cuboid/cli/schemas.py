"""Fields of kinds, read from an OpenAPI v3 document. Pure."""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import Any, NamedTuple

from cuboid.cli.resources import Resource, near
from cuboid.lib.errors import NotFoundError, UnsupportedError

Object = dict[str, Any]
_DEPTH = 20  # references that lead to each other


class Field(NamedTuple):
    """`type` in words, as `[]string`; `fields` of what is an object, or a list of objects."""

    name: str
    type: str
    description: str = ""
    required: bool = False
    values: tuple[str, ...] = ()
    fields: tuple[Field, ...] = ()

    def as_json(self) -> Object:
        return {**self._asdict(), "values": list(self.values), "fields": [row.as_json() for row in self.fields]}


def find(document: Object, resource: Resource, path: Sequence[str]) -> Field:
    """The field at the path of a kind, with those below it. NotFoundError that names what is near."""
    schema = _of_kind(document, resource)
    name, required = resource.noun, False
    walked = [resource.noun]
    for name in path:
        below = _inner(document, schema)
        properties = below.get("properties", {})
        if name not in properties:
            known = near(name, sorted(properties)) or f"cuboid explain {'.'.join(walked)}"
            raise NotFoundError(f"{'.'.join(walked)} has no field {name!r}", hint=known)
        required = name in below.get("required", [])
        schema = properties[name]
        walked.append(name)
    return _field(document, name, schema, required, deep=True)


def _of_kind(document: Object, resource: Resource) -> Object:
    wanted = {"group": resource.group, "version": resource.version, "kind": resource.kind}
    for schema in document.get("components", {}).get("schemas", {}).values():
        if wanted in schema.get("x-kubernetes-group-version-kind", []):
            found: Object = schema
            return found
    raise UnsupportedError(f"the API does not tell what a {resource.kind} is made of")


def _resolve(document: Object, schema: Object) -> Object:
    """With what it refers to; its own words win."""
    for _ in range(_DEPTH):
        reference = schema.get("$ref") or next((row["$ref"] for row in schema.get("allOf", []) if "$ref" in row), "")
        if not reference:
            return schema
        target = document["components"]["schemas"].get(reference.rsplit("/", 1)[-1], {})
        own = {key: value for key, value in schema.items() if key not in ("$ref", "allOf")}
        schema = {**target, **own}
    return schema


def _inner(document: Object, schema: Object) -> Object:
    """The object that a field is, or holds many of."""
    for _ in range(_DEPTH):
        schema = _resolve(document, schema)
        more = schema.get("additionalProperties")
        if "items" in schema:
            schema = schema["items"]
        elif isinstance(more, dict) and not schema.get("properties"):
            schema = more
        else:
            return schema
    return schema


def _type(document: Object, schema: Object, depth: int = 0) -> str:
    schema = _resolve(document, schema)
    more = schema.get("additionalProperties")
    if depth < _DEPTH and "items" in schema:
        return f"[]{_type(document, schema['items'], depth + 1)}"
    if depth < _DEPTH and isinstance(more, dict) and not schema.get("properties"):
        return f"map[string]{_type(document, more, depth + 1)}"
    if "oneOf" in schema or schema.get("x-kubernetes-int-or-string"):
        return "string or number"
    return str(schema.get("type", "any"))


def _field(document: Object, name: str, schema: Object, required: bool, *, deep: bool) -> Field:
    whole = _resolve(document, schema)
    rows: tuple[Field, ...] = ()
    if deep:
        below = _inner(document, whole)
        needed = below.get("required", [])
        rows = tuple(
            _field(document, key, below["properties"][key], key in needed, deep=False)
            for key in sorted(below.get("properties", {}), key=lambda key: (key not in needed, key))
        )
    values = tuple(str(value) for value in whole.get("enum", []))
    return Field(name, _type(document, schema), str(whole.get("description", "")), required, values, rows)


def first_sentence(text: str) -> str:
    found = re.match(r".+?[.:](?=\s|$)", text, re.DOTALL)
    return found.group() if found else text
