"""A structural schema as nodes of `cuboid.kube.schema`: for decoding, patches and server-side apply."""

from __future__ import annotations

from typing import Any

from cuboid.kube import schema
from cuboid.kube.crd.values import Schema
from cuboid.kube.schema import Node

_META = "io.k8s.apimachinery.pkg.apis.meta.v1.ObjectMeta"


def root(raw: Schema) -> Node:
    """Of a whole object."""
    made = node(raw)
    made.kind = "object"
    _embed(made)
    return made


def _embed(made: Node) -> None:
    """It is an object of the API: has type and metadata, whatever its schema says of them."""
    made.properties["apiVersion"] = Node("string")
    made.properties["kind"] = Node("string")
    made.properties["metadata"] = schema.node(_META)


def node(raw: Schema) -> Node:
    """Of a part of an object."""
    made = Node(_kind(raw), form=raw.get("format", ""))
    made.loose = True
    made.preserve = bool(raw.get("x-kubernetes-preserve-unknown-fields"))
    if made.kind == "object":
        made.properties = {key: node(child) for key, child in (raw.get("properties") or {}).items()}
    elif made.kind == "map":
        values = raw["additionalProperties"]
        made.items = node(values) if isinstance(values, dict) else _any()
    elif made.kind == "array":
        items = raw.get("items")
        made.items = node(items) if isinstance(items, dict) else _any()
    if raw.get("x-kubernetes-embedded-resource"):
        _embed(made)
    return _with_lists(made, raw)


def _any() -> Node:
    made = Node("any")
    made.loose = True
    return made


def _kind(raw: Schema) -> str:
    if raw.get("x-kubernetes-int-or-string"):
        return "int-or-string"
    found: str = raw.get("type") or "any"
    if raw.get("x-kubernetes-embedded-resource"):
        return "object"
    if found == "object" and raw.get("additionalProperties"):
        return "map"
    if found == "any" and raw.get("properties"):
        return "object"
    return found


def _with_lists(made: Node, raw: dict[str, Any] | Schema) -> Node:
    made.list_type = raw.get("x-kubernetes-list-type", "")
    made.list_keys = tuple(raw.get("x-kubernetes-list-map-keys") or ())
    kinds = (made.list_type, raw.get("x-kubernetes-map-type"))
    made.atomic = "atomic" in kinds or (made.kind == "array" and made.list_type in ("", "atomic"))
    return made
