"""The schemas of OpenAPI documents: the built-in ones, and those of custom resources, in the form of each version.

Version 2 knows less (no alternatives, no null), and its readers take a field of no type for one of any.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

from cuboid.kube import schema
from cuboid.kube.kinds import Kind

V2, V3 = "#/definitions/", "#/components/schemas/"
META = "io.k8s.apimachinery.pkg.apis.meta.v1."
_INT_OR_STRING = "io.k8s.apimachinery.pkg.util.intstr.IntOrString"
_QUANTITY = "io.k8s.apimachinery.pkg.api.resource.Quantity"
_NOT_IN_V2 = ("oneOf", "anyOf", "allOf", "not", "nullable", "x-kubernetes-validations", "default", "enum")
_EMBEDDED = {
    "apiVersion": ("apiVersion defines the versioned schema of this representation of an object.", "string"),
    "kind": ("kind is a string value representing the type of this object.", "string"),
}


def definition_of(kind: Kind) -> str:
    """The name of its schema; that of a custom resource begins with the group, turned round."""
    if kind.definition:
        return kind.definition
    return ".".join([*reversed(kind.group.split(".")), kind.version, kind.kind])


def list_of(kind: Kind) -> str:
    name = definition_of(kind)
    return f"{name.rpartition('.')[0]}.{kind.list_kind}"


def definitions(served: Iterable[Kind], more: Iterable[str], prefix: str) -> dict[str, Any]:
    """Everything that these kinds, and the definitions named besides, reach."""
    raw = schema.definitions()
    found: dict[str, Any] = {}
    waiting = [name for name in more if name in raw]
    for kind in served:
        if kind.custom_schema is not None:
            found[definition_of(kind)] = _custom(kind, prefix)
        else:
            waiting.append(kind.definition)
        if list_of(kind) in raw:
            waiting.append(list_of(kind))
        else:
            found[list_of(kind)] = _list(kind, prefix)
            waiting += [META + "ObjectMeta", META + "ListMeta"]
    while waiting:
        name = waiting.pop()
        if name not in found:
            found[name] = _special(name, prefix) or _converted(raw[name], prefix, waiting)
    return found


def _special(name: str, prefix: str) -> dict[str, Any] | None:
    if name == _INT_OR_STRING:
        types = {"type": "string"} if prefix == V2 else {"oneOf": [{"type": "integer"}, {"type": "string"}]}
        return {**types, "format": "int-or-string"}
    if name == _QUANTITY:
        return {"type": "string"} if prefix == V2 else {"oneOf": [{"type": "string"}, {"type": "number"}]}
    return None


def _converted(value: Any, prefix: str, names: list[str]) -> Any:
    """References renamed, `null` taken out of types."""
    if isinstance(value, list):
        return [_converted(item, prefix, names) for item in value]
    if not isinstance(value, dict):
        return value
    result: dict[str, Any] = {}
    for key, item in value.items():
        if key == "$ref" and isinstance(item, str):
            names.append(item.rpartition("/")[2])
            result[key] = prefix + names[-1]
        elif key == "type" and isinstance(item, list):
            result[key] = next((kind for kind in item if kind != "null"), "object")
        elif key == "oneOf" and prefix == V2:
            result["type"] = "string"
        else:
            result[key] = _converted(item, prefix, names)
    if prefix == V3 and "$ref" in result and len(result) > 1:  # version 3.0 knows nothing beside a reference
        result["allOf"] = [{"$ref": result.pop("$ref")}]
    return result


# --- custom resources ------------------------------------------------------------------------------------------------


def _custom(kind: Kind, prefix: str) -> dict[str, Any]:
    made = custom(kind.custom_schema or {}, prefix)
    made.setdefault("properties", {}).update(_typed(prefix))
    made["x-kubernetes-group-version-kind"] = [_identity(kind)]
    return made


def _typed(prefix: str) -> dict[str, Any]:
    fields: dict[str, Any] = {key: {"description": text, "type": type_} for key, (text, type_) in _EMBEDDED.items()}
    reference: dict[str, Any] = {"$ref": f"{prefix}{META}ObjectMeta"}
    fields["metadata"] = reference if prefix == V2 else {"allOf": [reference]}
    return fields


def _list(kind: Kind, prefix: str) -> dict[str, Any]:
    typed = _typed(prefix)
    metadata = {"$ref": f"{prefix}{META}ListMeta"}
    return {
        "description": f"{kind.list_kind} is a list of {kind.kind}",
        "type": "object",
        "required": ["items"],
        "properties": {
            **typed,
            "metadata": metadata if prefix == V2 else {"allOf": [metadata]},
            "items": {"type": "array", "items": {"$ref": prefix + definition_of(kind)}},
        },
        "x-kubernetes-group-version-kind": [{**_identity(kind), "kind": kind.list_kind}],
    }


def _identity(kind: Kind) -> dict[str, str]:
    return {"group": kind.group, "version": kind.version, "kind": kind.kind}


def custom(given: Mapping[str, Any], prefix: str) -> dict[str, Any]:
    """A structural schema in the form of a document."""
    old = prefix == V2
    made: dict[str, Any] = {key: value for key, value in given.items() if not (old and key in _NOT_IN_V2)}
    if given.get("x-kubernetes-int-or-string"):
        return {**made, **(_special(_INT_OR_STRING, prefix) or {})} if old else made
    if old and (given.get("nullable") or given.get("x-kubernetes-preserve-unknown-fields")):
        for key in ("type", "properties", "items", "additionalProperties"):
            made.pop(key, None)
        return made
    if "properties" in made:
        made["properties"] = {key: custom(child, prefix) for key, child in made["properties"].items()}
    for key in ("items", "additionalProperties"):
        if isinstance(made.get(key), Mapping):
            made[key] = custom(made[key], prefix)
    if given.get("x-kubernetes-embedded-resource"):
        made["properties"] = {**made.get("properties", {}), **_typed(prefix)}
    return made
