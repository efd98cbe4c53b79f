"""Values under a structural schema: types, defaults, and which old value belongs to a new one."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

from cuboid.lib.errors import InvalidError

Schema = Mapping[str, Any]
MISSING: Any = object()
"""No value, which is something else than null."""
MAX_FILLED = 100_000
"""Values that defaults may add to one object."""
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
    """Fill in defaults below `value`, in place; drop nulls where none may be. InvalidError when they are too many."""
    _Filling().fill(schema, value)


class _Filling:
    def __init__(self) -> None:
        self._left = MAX_FILLED

    def fill(self, schema: Schema, value: Any) -> None:
        if isinstance(value, dict):
            known, rest = subschemas(schema)
            for key, child in known.items():
                self._field(child, value, key)
            if rest is not None:
                for key in [key for key in value if key not in known]:
                    self._field(rest, value, key)
        elif isinstance(value, list) and isinstance(items := schema.get("items"), dict):
            for index, item in enumerate(value):
                if item is None and "default" in items and not items.get("nullable"):
                    value[index] = self._copy(items["default"])
                self.fill(items, value[index])

    def _field(self, child: Schema, value: dict[str, Any], key: str) -> None:
        if value.get(key, MISSING) is None and not child.get("nullable"):
            del value[key]
        if key not in value and "default" in child:
            value[key] = self._copy(child["default"])
        if key in value:
            self.fill(child, value[key])

    def _copy(self, value: Any) -> Any:
        """A large default in each of many items would be more than the memory."""
        self._left -= 1 + (len(value) // 64 if isinstance(value, str) else 0)
        if self._left < 0:
            raise InvalidError(f"the defaults of the object have more than {MAX_FILLED} parts")
        if isinstance(value, dict):
            return {key: self._copy(item) for key, item in value.items()}
        return [self._copy(item) for item in value] if isinstance(value, list) else value


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
