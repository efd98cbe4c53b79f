"""Whether the schema of a custom resource is structural, in Kubernetes' words.

Source: k8s.io/apiextensions-apiserver, pkg/apiserver/schema and pkg/apis/apiextensions/validation.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

from cuboid.kube import schema as schemas
from cuboid.kube.crd import compile as compiling
from cuboid.kube.crd import patterns, rules, validation
from cuboid.kube.crd.values import Schema, subschemas
from cuboid.kube.fields import Fields
from cuboid.lib.errors import InvalidError

MAX_DEPTH = 64
"""Levels of a schema: what walks down one is recursive."""
MAX_NODES = 20_000
"""Schemas within one schema."""
MAX_PATTERNS = 200
"""Regular expressions within one schema: a hostile one takes 20 ms to compile."""
TYPES = ("array", "boolean", "integer", "number", "object", "string")
_UNSUPPORTED = (
    "$ref", "definitions", "dependencies", "deprecated", "discriminator", "id", "patternProperties", "readOnly",
    "writeOnly", "xml", "additionalItems",
)  # fmt: skip
_VALUE_ONLY = (
    "type", "default", "nullable", "title", "description", "additionalProperties",
    "x-kubernetes-preserve-unknown-fields", "x-kubernetes-embedded-resource", "x-kubernetes-int-or-string",
    "x-kubernetes-list-type", "x-kubernetes-list-map-keys", "x-kubernetes-map-type", "x-kubernetes-validations",
)  # fmt: skip
_LIST_TYPES = ("atomic", "map", "set")
_ANYTHING: Schema = {"x-kubernetes-preserve-unknown-fields": True}
_META_KEYS = ("name", "generateName")


def check_schema(schema: Schema, path: str, fields: Fields) -> None:
    """`path` ends in `openAPIV3Schema`."""
    if schema.get("type") != "object":
        if schema.get("type"):
            fields.invalid(f"{path}.type", schema["type"], "must be object at the root")
        else:
            fields.required(f"{path}.type", "must not be empty at the root")
    _metadata(schema, path, fields)
    _Walk(fields).value(schema, path, 0, at_root=True)


def _metadata(schema: Schema, path: str, fields: Fields) -> None:
    given = (schema.get("properties") or {}).get("metadata")
    if given is None:
        return
    if given.get("type") not in (None, "", "object"):
        fields.invalid(f"{path}.properties[metadata].type", given["type"], "must be object")
    others = set(given.get("properties") or {}) - set(_META_KEYS)
    if others or given.get("additionalProperties"):
        where = f"{path}.properties[metadata]"
        fields.forbidden(
            where, "must not specify anything other than name and generateName, but metadata is implicitly specified"
        )


class _Walk:
    def __init__(self, fields: Fields) -> None:
        self._fields = fields
        self._left = MAX_NODES
        self._patterns = 0
        self._loose = ""  # the path of the list in which an item of before can not be told from another

    def _within(self, path: str, depth: int) -> bool:
        self._left -= 1
        if self._left == 0:
            self._fields.forbidden(path, f"a schema must not have more than {MAX_NODES} parts")
        elif depth > MAX_DEPTH:
            self._fields.forbidden(path, f"a schema must not be more than {MAX_DEPTH} levels deep")
        return self._left > 0 and depth <= MAX_DEPTH

    def value(self, schema: Schema, path: str, depth: int, where: str = "", *, at_root: bool = False) -> None:
        """A schema that says what a value is; `where` names its place when it lacks a type."""
        if not self._within(path, depth):
            return
        self._typed(schema, path, where)
        self._common(schema, path)
        self._extensions(schema, path, at_root)
        self._children(schema, path, depth)
        _check_default(schema, path, self._fields)

    def _typed(self, schema: Schema, path: str, where: str) -> None:
        found = schema.get("type")
        loose = schema.get("x-kubernetes-preserve-unknown-fields") or schema.get("x-kubernetes-int-or-string")
        if found and found not in TYPES:
            self._fields.unsupported(f"{path}.type", found, TYPES)
        if not found and where and not loose:
            self._fields.required(f"{path}.type", f"must not be empty for {where}")
        if found and schema.get("x-kubernetes-int-or-string"):
            self._fields.invalid(f"{path}.type", found, "must be empty if x-kubernetes-int-or-string is true")
        if found == "array" and not schema.get("items"):
            self._fields.required(f"{path}.items", "must be specified")

    def _common(self, schema: Schema, path: str) -> None:
        for key in _UNSUPPORTED:
            if schema.get(key):
                self._fields.forbidden(f"{path}.{key}", f"{key} is not supported")
        if schema.get("uniqueItems"):
            why = "uniqueItems cannot be set to true since the runtime complexity becomes quadratic"
            self._fields.forbidden(f"{path}.uniqueItems", why)
        if schema.get("pattern"):
            self._pattern(schema["pattern"], path)
        if schema.get("multipleOf") is not None and schema["multipleOf"] <= 0:
            self._fields.invalid(f"{path}.multipleOf", schema["multipleOf"], "must be greater than 0")

    def _pattern(self, pattern: str, path: str) -> None:
        self._patterns += 1
        if self._patterns == MAX_PATTERNS + 1:
            self._fields.forbidden(f"{path}.pattern", f"a schema must not have more than {MAX_PATTERNS} patterns")
        if self._patterns <= MAX_PATTERNS:
            try:
                patterns.compiled(pattern)
            except InvalidError as error:
                why = f"must be a valid regular expression, but isn't: {error.message}"
                self._fields.invalid(f"{path}.pattern", pattern, why)

    def _extensions(self, schema: Schema, path: str, at_root: bool) -> None:
        fields = self._fields
        if schema.get("x-kubernetes-preserve-unknown-fields") is False:
            fields.invalid(f"{path}.x-kubernetes-preserve-unknown-fields", False, "must be true or undefined")
        if schema.get("x-kubernetes-embedded-resource"):
            self._embedded(schema, path, at_root)
        rules.check_rules(schema, path, fields, self._loose, at_root=at_root)
        listed = schema.get("x-kubernetes-list-type")
        if listed:
            self._list(schema, listed, path)
        elif schema.get("x-kubernetes-list-map-keys"):
            fields.required(f"{path}.x-kubernetes-list-type", "must be map if x-kubernetes-list-map-keys is non-empty")
        mapped = schema.get("x-kubernetes-map-type")
        if mapped and mapped not in ("atomic", "granular"):
            fields.unsupported(f"{path}.x-kubernetes-map-type", mapped, ("atomic", "granular"))
        if mapped and schema.get("type") != "object":
            fields.invalid(
                f"{path}.type", schema.get("type", ""), "must be object if x-kubernetes-map-type is specified"
            )

    def _embedded(self, schema: Schema, path: str, at_root: bool) -> None:
        if at_root:
            self._fields.forbidden(f"{path}.x-kubernetes-embedded-resource", "must not be used at the root")
        if schema.get("type") != "object":
            why = "must be object if x-kubernetes-embedded-resource is true"
            self._fields.invalid(f"{path}.type", schema.get("type", ""), why)
        if not schema.get("x-kubernetes-preserve-unknown-fields") and not schema.get("properties"):
            why = "must not be empty if x-kubernetes-embedded-resource is true"
            self._fields.required(f"{path}.properties", f"{why} without x-kubernetes-preserve-unknown-fields")

    def _list(self, schema: Schema, listed: str, path: str) -> None:
        fields = self._fields
        if listed not in _LIST_TYPES:
            fields.unsupported(f"{path}.x-kubernetes-list-type", listed, _LIST_TYPES)
        if schema.get("type") != "array":
            fields.invalid(
                f"{path}.type", schema.get("type", ""), "must be array if x-kubernetes-list-type is specified"
            )
        items = schema.get("items")
        if not isinstance(items, dict):
            return
        if listed == "set" and items.get("type") in ("object", "array"):
            atomic = items.get("x-kubernetes-map-type") == "atomic" or (
                items["type"] == "array" and items.get("x-kubernetes-list-type") in (None, "atomic")
            )
            if not atomic:
                kind = "map" if items["type"] == "object" else "list"
                why = f"{kind}s as items of sets must be atomic: x-kubernetes-{kind}-type"
                fields.forbidden(f"{path}.items.x-kubernetes-{kind}-type", why)
        if listed == "map":
            self._map_keys(schema, items, path)

    def _map_keys(self, schema: Schema, items: Schema, path: str) -> None:
        fields, keys = self._fields, schema.get("x-kubernetes-list-map-keys") or ()
        if items.get("type") != "object":
            why = "must be object if parent array's x-kubernetes-list-type is map"
            fields.invalid(f"{path}.items.type", items.get("type", ""), why)
        if not keys:
            why = "must not be empty if x-kubernetes-list-type is map"
            fields.required(f"{path}.x-kubernetes-list-map-keys", why)
        known = items.get("properties") or {}
        for index, key in enumerate(keys):
            where = f"{path}.x-kubernetes-list-map-keys[{index}]"
            if key not in known:
                fields.invalid(where, key, "entries must all be names of item properties")
            elif known[key].get("type") in ("object", "array"):
                fields.invalid(where, key, "entries must all be names of properties that are scalars")
            elif key not in (items.get("required") or ()) and "default" not in known[key]:
                why = "this property is in x-kubernetes-list-map-keys"
                where = f"{path}.items.properties[{key}].default"
                fields.required(where, f"{why}, so it must have a default or be a required property")

    def _children(self, schema: Schema, path: str, depth: int) -> None:
        fields = self._fields
        for key, child in (schema.get("properties") or {}).items():
            if not (key == "metadata" and depth == 0):
                self.value(child, f"{path}.properties[{key}]", depth + 1, "specified object fields")
        rest = schema.get("additionalProperties")
        if rest is False:
            fields.forbidden(f"{path}.additionalProperties", "additionalProperties cannot be set to false")
        if rest and schema.get("properties"):
            fields.forbidden(f"{path}.additionalProperties", "additionalProperties and properties are mutual exclusive")
        if rest and depth == 0:
            fields.forbidden(f"{path}.additionalProperties", "must not be used at the root")
        if isinstance(rest, dict):
            self.value(rest, f"{path}.additionalProperties", depth + 1, "specified object fields")
        items = schema.get("items")
        if isinstance(items, list):
            fields.forbidden(f"{path}.items", "items must be a schema object and not an array")
        elif isinstance(items, dict):
            outer = self._loose
            if schema.get("x-kubernetes-list-type") != "map":
                self._loose = outer or f"{path}.items"
            self.value(items, f"{path}.items", depth + 1, "specified array items")
            self._loose = outer
        self._junctors(schema, path, depth)

    def _junctors(self, schema: Schema, path: str, depth: int) -> None:
        owner = _Owner(schema, path, bool(schema.get("x-kubernetes-int-or-string")))
        for part, where in _parts(schema, path):
            self._condition(part, owner, where, depth + 1)

    def _condition(self, part: Schema, owner: _Owner, path: str, depth: int) -> None:
        """A schema that only says what a value must be like that `owner` describes."""
        if not self._within(path, depth):
            return
        self._common(part, path)
        for key in _VALUE_ONLY:
            if part.get(key) and not (owner.marked and key == "type"):
                self._fields.forbidden(f"{path}.{key}", "must be empty to be structural")
        for key, child in (part.get("properties") or {}).items():
            where, whole = f"{path}.properties[{key}]", owner.property(key)
            if whole is None:
                short = where.rpartition("openAPIV3Schema.")[2]
                self._fields.required(f"{owner.path}.properties[{key}]", f"because it is defined in {short}")
            else:
                self._condition(child, whole, where, depth + 1)
        if isinstance(items := part.get("items"), dict):
            self._condition(items, owner.items(), f"{path}.items", depth + 1)
        for inner, where in _parts(part, path):
            self._condition(inner, owner, where, depth + 1)


@dataclass(frozen=True)
class _Owner:
    """The schema that says what a value is, of which a condition tells more. `marked`: an integer or a string."""

    schema: Schema
    path: str
    marked: bool = False

    def _of(self, schema: Schema, path: str) -> _Owner:
        return _Owner(schema, f"{self.path}.{path}", bool(schema.get("x-kubernetes-int-or-string")))

    def property(self, key: str) -> _Owner | None:
        known, rest = subschemas(self.schema)
        if key in known:
            return self._of(known[key], f"properties[{key}]")
        if rest is not None:
            return self._of(rest, "additionalProperties")
        anything = self.schema.get("x-kubernetes-preserve-unknown-fields")
        return self._of(_ANYTHING, f"properties[{key}]") if anything else None

    def items(self) -> _Owner:
        found = self.schema.get("items")
        return self._of(found if isinstance(found, dict) else _ANYTHING, "items")


def _parts(schema: Schema, path: str) -> Iterator[tuple[Schema, str]]:
    for name in ("allOf", "anyOf", "oneOf"):
        for index, part in enumerate(schema.get(name) or ()):
            yield part, f"{path}.{name}[{index}]"
    if schema.get("not") is not None:
        yield schema["not"], f"{path}.not"


def _check_default(schema: Schema, path: str, fields: Fields) -> None:
    if "default" not in schema:
        return
    tried = Fields()
    value: Any = schema["default"]
    unknown: list[str] = []
    try:
        validation.check(schema, value, f"{path}.default", tried)
        if not fields.errors:  # else the schema may be one that can not be compiled
            schemas.decode(compiling.node(schema), value, unknown)
    except (InvalidError, RecursionError) as error:
        fields.invalid(f"{path}.default", "", str(error))
    if unknown:
        fields.invalid(
            f"{path}.default", value, f"must not have fields that the schema lacks: {', '.join(unknown[:5])}"
        )
    fields.errors += tried.errors
