"""The structure of Kubernetes objects, read from the JSON schemas that `kubernetes-validate` brings.

Only what the kinds we serve reach is compiled, on first use, into small nodes without descriptions; the text (1.8 MB)
is let go again. A node also says how lists merge under a patch. Decoding with a node drops unknown fields (and names
them), drops nulls, puts quantities in canonical form, and refuses wrong types in the words of Kubernetes' decoder.
"""

from __future__ import annotations

import functools
import importlib.util
from pathlib import Path
from typing import Any

import msgspec

from cuboid.kube import own, quantity, readers
from cuboid.kube.status import bad_request
from cuboid.lib.clock import parse_rfc3339
from cuboid.lib.errors import InvalidError, UnsupportedError

VERSION = "1.37"
MAX_UNKNOWN = 100
"""Unknown fields named in one answer."""
_META = "io.k8s.apimachinery.pkg.apis.meta.v1."
_SPECIAL = {
    "io.k8s.apimachinery.pkg.api.resource.Quantity": "quantity",
    "io.k8s.apimachinery.pkg.util.intstr.IntOrString": "int-or-string",
    _META + "Time": "time",
    _META + "MicroTime": "time",
    _META + "FieldsV1": "any",
    "io.k8s.apiextensions-apiserver.pkg.apis.apiextensions.v1.JSONSchemaPropsOrArray": "schemas",
    "io.k8s.apiextensions-apiserver.pkg.apis.apiextensions.v1.JSONSchemaPropsOrBool": "schemas",
}


class Node:
    """One type.

    `kind`: object, map, array, string, integer, number, boolean, quantity, int-or-string, time, any, schemas.

    A node is loose in a custom resource: decoding takes unknown fields out, and wrong types are left to validation,
    which names all of them. `preserve` keeps unknown fields.
    """

    __slots__ = (
        "atomic", "format", "items", "kind", "list_keys", "list_type", "loose", "merge_key", "name", "preserve",
        "properties", "reader", "strategy",
    )  # fmt: skip

    def __init__(self, kind: str, name: str = "", form: str = "") -> None:
        self.kind = kind
        self.name = name  # short name of a struct: "PodSpec"
        self.format = form
        self.properties: dict[str, Field] = {}
        self.items: Node | None = None  # of an array or map
        self.list_keys: tuple[str, ...] = ()
        self.merge_key = ""
        self.strategy: tuple[str, ...] = ()
        self.atomic = False
        self.list_type = ""  # atomic, set or map: how a list merges under server-side apply
        self.loose = False
        self.preserve = False
        self.reader: readers.Reader | None = None  # see `readers`


Field = Node


@functools.cache
def node(definition: str) -> Node:
    """The compiled node of a definition, `io.k8s.api.core.v1.Pod`."""
    return _compiler().definition(definition)


def definitions() -> dict[str, Any]:
    """All definitions with descriptions, for OpenAPI. Large: do not keep."""
    spec = importlib.util.find_spec("kubernetes_validate")  # not imported: it would bring jsonschema, 11 MB
    if spec is None or spec.origin is None:
        raise UnsupportedError("the package kubernetes-validate is not installed", hint="run make setup")
    file = Path(spec.origin).parent / "kubernetes-json-schema" / f"v{VERSION}.0-local" / "_definitions.json"
    found: dict[str, Any] = msgspec.json.decode(file.read_bytes())["$defs"]
    return {**found, **own.DEFINITIONS}


@functools.cache
def _compiler() -> _Compiler:
    return _Compiler()


class _Compiler:
    """Compiles all that one root reaches; knows the raw text only while it works."""

    def __init__(self) -> None:
        self._nodes: dict[str, Node] = {}
        self._raw: dict[str, Any] | None = None

    def definition(self, name: str) -> Node:
        self._raw = definitions()
        try:
            return self._named(name)
        finally:
            self._raw = None

    def _named(self, name: str) -> Node:
        if name in self._nodes:
            return self._nodes[name]
        short = name.rpartition(".")[2]
        if name in _SPECIAL:
            made = self._nodes[name] = Node(_SPECIAL[name], short)
            if made.kind == "schemas":
                made.items = self._named(name.removesuffix("OrArray").removesuffix("OrBool"))
            return made
        if self._raw is None or name not in self._raw:
            raise InvalidError(f"there is no schema named {name!r}")
        made = self._nodes[name] = Node("object", short)
        self._fill(made, self._raw[name])
        return made

    def _fill(self, made: Node, raw: dict[str, Any]) -> None:
        made.atomic = raw.get("x-kubernetes-map-type") == "atomic"
        for key, value in raw.get("properties", {}).items():
            made.properties[key] = self._field(value)
        if not made.properties:
            made.kind = "any"

    def _field(self, raw: dict[str, Any]) -> Node:
        if "$ref" in raw:
            target = self._named(raw["$ref"].rpartition("/")[2])
            return target if not _has_patch_hints(raw) else _with_hints(_copy(target), raw)
        kinds = raw.get("type", "any")
        kind = next((k for k in kinds if k != "null"), "any") if isinstance(kinds, list) else kinds
        made = Node(kind, form=raw.get("format", ""))
        if kind == "object":
            values = raw.get("additionalProperties")
            made.kind = "map" if values else "any"
            made.items = self._field(values) if values else None
        if kind == "array":
            made.items = self._field(raw["items"])
        return _with_hints(made, raw)


def _has_patch_hints(raw: dict[str, Any]) -> bool:
    return "x-kubernetes-patch-strategy" in raw or "x-kubernetes-map-type" in raw


def _copy(source: Node) -> Node:
    made = Node(source.kind, source.name, source.format)
    made.properties, made.items, made.atomic = source.properties, source.items, source.atomic
    return made


def _with_hints(made: Node, raw: dict[str, Any]) -> Node:
    made.merge_key = raw.get("x-kubernetes-patch-merge-key", "")
    made.strategy = tuple(raw.get("x-kubernetes-patch-strategy", "").split(",")) if _has_patch_hints(raw) else ()
    made.list_keys = tuple(raw.get("x-kubernetes-list-map-keys", ()))
    made.list_type = raw.get("x-kubernetes-list-type", "")
    made.atomic = made.atomic or "atomic" in (raw.get("x-kubernetes-list-type"), raw.get("x-kubernetes-map-type"))
    return made


# --- decoding --------------------------------------------------------------------------------------------------------


def decode(root: Node, value: Any, unknown: list[str]) -> Any:
    """A clean copy of `value`; appends the paths of unknown fields to `unknown`. bad_request on a wrong type."""
    try:
        return readers.reader(root)(value)
    except readers.GIVEN_UP:
        return walk(root, value, unknown)


def walk(root: Node, value: Any, unknown: list[str]) -> Any:
    """The same, slower, with all that there is to say of a value that is not as it should be."""
    return _decode(root, value, "", "", unknown)


def _decode(node: Node, value: Any, path: str, owner: str, unknown: list[str]) -> Any:
    kind = node.kind
    if node.loose:
        return _prune(node, value, path, unknown)
    if kind == "object":
        return _decode_object(node, value, path, owner, unknown)
    if kind == "array":
        _expect(isinstance(value, list), node, value, path, owner)
        items = node.items
        assert items is not None
        return [_decode(items, v, f"{path}[{i}]", owner, unknown) for i, v in enumerate(value) if v is not None]
    if kind == "map":
        _expect(isinstance(value, dict), node, value, path, owner)
        items = node.items
        assert items is not None
        return {k: _decode(items, "" if v is None else v, f"{path}.{k}", owner, unknown) for k, v in value.items()}
    if kind == "schemas":
        return _decode_schemas(node, value, path, owner, unknown)
    return _decode_scalar(node, value, path, owner)


def _decode_schemas(node: Node, value: Any, path: str, owner: str, unknown: list[str]) -> Any:
    """A schema, or a list of them, or whether there may be anything."""
    assert node.items is not None
    if isinstance(value, list):
        return [_decode(node.items, item, f"{path}[{i}]", owner, unknown) for i, item in enumerate(value)]
    return value if isinstance(value, bool) else _decode(node.items, value, path, owner, unknown)


def _prune(node: Node, value: Any, path: str, unknown: list[str]) -> Any:
    """Of a custom resource: without unknown fields. Nulls stay for defaulting, wrong types for validation."""
    if node.kind == "object" and isinstance(value, dict):
        return _prune_object(node, value, path, unknown)
    items = node.items
    if node.kind == "map" and isinstance(value, dict) and items is not None:
        return {key: _decode(items, item, f"{path}.{key}", "", unknown) for key, item in value.items()}
    if node.kind == "array" and isinstance(value, list) and items is not None:
        return [_decode(items, item, f"{path}[{i}]", "", unknown) for i, item in enumerate(value)]
    if node.kind == "integer" and isinstance(value, float) and value.is_integer() and abs(value) < 2**63:
        return int(value)
    return value


def _prune_object(node: Node, value: dict[str, Any], path: str, unknown: list[str]) -> dict[str, Any]:
    clean = {}
    for key, item in value.items():
        child = node.properties.get(key)
        where = f"{path}.{key}" if path else key
        if child is None:
            if node.preserve:
                clean[key] = item
            elif len(unknown) < MAX_UNKNOWN:
                unknown.append(where)
        elif item is not None or child.loose:
            clean[key] = _decode(child, item, where, node.name, unknown)
    return clean


def _decode_object(node: Node, value: Any, path: str, owner: str, unknown: list[str]) -> dict[str, Any]:
    _expect(isinstance(value, dict), node, value, path, owner)
    clean = {}
    properties = node.properties
    for key, item in value.items():
        child = properties.get(key)
        where = f"{path}.{key}" if path else key
        if child is None:
            if len(unknown) < MAX_UNKNOWN:
                unknown.append(where)
        elif item is not None:
            clean[key] = _decode(child, item, where, node.name, unknown)
    return clean


def _decode_scalar(node: Node, value: Any, path: str, owner: str) -> Any:
    kind = node.kind
    if kind == "string":
        _expect(isinstance(value, str), node, value, path, owner)
    elif kind == "integer":
        _expect(type(value) is int or (type(value) is float and value.is_integer()), node, value, path, owner)
        value = int(value)
        limit = readers.INTEGER_LIMITS.get(node.format, 2**63)
        _expect(-limit <= value < limit, node, value, path, owner)
    elif kind == "boolean":
        _expect(isinstance(value, bool), node, value, path, owner)
    elif kind == "number":
        _expect(type(value) in (int, float), node, value, path, owner)
    elif kind == "int-or-string":
        _expect(type(value) in (int, str), node, value, path, owner)
    elif kind == "quantity":
        return _decode_quantity(value, path)
    elif kind == "time":
        return _decode_time(node, value, path, owner)
    return value


def _decode_quantity(value: Any, path: str) -> str:
    try:
        if isinstance(value, bool) or not isinstance(value, str | int | float):
            raise InvalidError("not a quantity")
        return quantity.canonical(value)
    except InvalidError as error:
        raise bad_request(
            f"unable to parse quantity's value at {path}: quantities must match the regular expression "
            "'^([+-]?[0-9.]+)([eEinumkKMGTP]*[-+]?[0-9]*)$'"
        ) from error


def _decode_time(node: Node, value: Any, path: str, owner: str) -> str:
    _expect(isinstance(value, str), node, value, path, owner)
    text = str(value)
    try:
        parse_rfc3339(text)
    except ValueError as error:
        raise bad_request(f'parsing time "{text[:64]}" as "2006-01-02T15:04:05Z07:00" failed at {path}') from error
    return text


def _expect(fine: bool, node: Node, value: Any, path: str, owner: str) -> None:
    if fine:
        return
    shape = {dict: "object", list: "array", str: "string", bool: "bool"}.get(type(value), "number")
    bare = "".join(part.partition("]")[2] if i else part for i, part in enumerate(path.split("[")))
    where = f"Go struct field {owner}.{bare}" if owner else "Go value"
    raise bad_request(f"json: cannot unmarshal {shape} into {where} of type {go_type(node)}")


def go_type(node: Node) -> str:
    """The name that Kubernetes' decoder has for a type."""
    if node.kind == "array":
        return "[]" + go_type(node.items) if node.items else "[]"
    if node.kind == "map":
        return "map[string]" + (go_type(node.items) if node.items else "")
    named = {
        "object": f"v1.{node.name}",
        "boolean": "bool",
        "integer": node.format or "int64",
        "time": f"v1.{node.name}",
    }
    return named.get(node.kind, node.kind)
