"""Values under a structural schema: types, defaults, and which old value belongs to a new one."""

from __future__ import annotations

import copy
import json
from collections.abc import Mapping
from typing import Any

Schema = Mapping[str, Any]
MISSING: Any = object()
"""No value, which is something else than null."""
_NAMES = {dict: "object", list: "array", str: "string", bool: "boolean", int: "integer", float: "number"}


def type_of(value: Any) -> str:
    """The name that schemas have for the type of a decoded value."""
    return "null" if value is None else _NAMES[type(value)]


def whole(value: Any) -> bool:
    return type(value) is int or (type(value) is float and value.is_integer())


def subschemas(schema: Schema) -> tuple[Mapping[str, Schema], Schema | None]:
    """Of an object: the schemas of known fields, and that of all others (None when there is none)."""
    rest = schema.get("additionalProperties")
    return schema.get("properties") or {}, rest if isinstance(rest, dict) else None


def default(schema: Schema, value: Any) -> None:
    """Fill in defaults below `value`, in place; drop nulls where none may be."""
    if isinstance(value, dict):
        known, rest = subschemas(schema)
        for key, child in known.items():
            _default_field(child, value, key)
        if rest is not None:
            for key in [key for key in value if key not in known]:
                _default_field(rest, value, key)
    elif isinstance(value, list) and isinstance(items := schema.get("items"), dict):
        for index, item in enumerate(value):
            if item is None and "default" in items and not items.get("nullable"):
                value[index] = copy.deepcopy(items["default"])
            default(items, value[index])


def _default_field(child: Schema, value: dict[str, Any], key: str) -> None:
    if value.get(key, MISSING) is None and not child.get("nullable"):
        del value[key]
    if key not in value and "default" in child:
        value[key] = copy.deepcopy(child["default"])
    if key in value:
        default(child, value[key])


def old_item(schema: Schema, item: Any, index: int, old: Any) -> Any:
    """The old item that a new one of a list stands for: that with its keys in a map, none in another list."""
    keys = schema.get("x-kubernetes-list-map-keys")
    if not isinstance(old, list) or schema.get("x-kubernetes-list-type") != "map" or not keys:
        return MISSING
    wanted = identity(schema, item)
    return next((before for before in old if identity(schema, before) == wanted), MISSING)


def identity(schema: Schema, item: Any) -> str:
    """What two items of a set, or of a list that is a map, must not have in common."""
    return json.dumps(key_of(schema, item), sort_keys=True)


def key_of(schema: Schema, item: Any) -> Any:
    if schema.get("x-kubernetes-list-type") != "map" or not isinstance(item, dict):
        return item
    return {key: item[key] for key in schema.get("x-kubernetes-list-map-keys") or () if key in item}
