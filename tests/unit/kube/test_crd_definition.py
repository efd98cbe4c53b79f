"""Definitions of custom resources: what of them is refused, and in which words."""

from __future__ import annotations

import copy
from typing import Any

import pytest

from cuboid.kube import kinds, schema
from cuboid.kube.crd import custom, names
from cuboid.kube.fields import Fields
from cuboid.kube.strategy import Object

STRATEGY = kinds.builtin("CustomResourceDefinition", "apiextensions.k8s.io").strategy
BASE: Object = {
    "metadata": {"name": "foos.example.com"},
    "spec": {
        "group": "example.com",
        "scope": "Namespaced",
        "names": {"plural": "foos", "kind": "Foo"},
        "versions": [
            {"name": "v1", "served": True, "storage": True, "schema": {"openAPIV3Schema": {"type": "object"}}}
        ],
    },
}
SCHEMA = "spec.versions[0].schema.openAPIV3Schema"


def errors(path: str, value: Any) -> list[str]:
    """Of the smallest definition with one field set (deleted with None)."""
    document = copy.deepcopy(BASE)
    place: Any = document
    *parents, last = [int(part) if part.isdigit() else part for part in path.split("/")]
    for part in parents:
        place = place.setdefault(part, {}) if isinstance(place, dict) else place[part]
    if value is None:
        del place[last]
    else:
        place[last] = value
    STRATEGY.default(document)
    fields = Fields()
    STRATEGY.validate(document, fields)
    return [str(error) for error in fields.errors]


def schema_errors(properties: dict[str, Any]) -> list[str]:
    found = errors("spec/versions/0/schema/openAPIV3Schema", {"type": "object", "properties": properties})
    return [text.replace(SCHEMA, "S") for text in found]


def test_the_smallest_definition_is_taken() -> None:
    assert errors("metadata/name", "foos.example.com") == []


@pytest.mark.parametrize(
    ("path", "value", "error"),
    [
        ("metadata/name", "x", 'metadata.name: Invalid value: "x": must be spec.names.plural+"."+spec.group'),
        ("spec/scope", "Galaxy", 'spec.scope: Unsupported value: "Galaxy": supported values: "Cluster", "Namespaced"'),
        ("spec/scope", None, "spec.scope: Required value"),
        ("spec/versions", [], "spec.versions: Required value: must have at least one version"),
        (
            "spec/versions/0/storage",
            False,
            'spec.versions: Invalid value: ["v1"]: must have exactly one version marked as storage version',
        ),
        ("spec/versions/0/schema", {}, f"{SCHEMA}: Required value: schemas are required"),
        (
            "spec/conversion",
            {"strategy": "Webhook"},
            'spec.conversion.strategy: Unsupported value: "Webhook": supported values: "None"',
        ),
        (
            "spec/conversion",
            {"strategy": "None", "webhook": {"conversionReviewVersions": ["v1"]}},
            "spec.conversion.webhook: Forbidden: should not be set when strategy is not set to Webhook",
        ),
        ("spec/names/kind", None, "spec.names.kind: Required value"),
        (
            "spec/versions/0/additionalPrinterColumns",
            [{"name": "a", "type": "text", "jsonPath": ".a"}],
            'spec.versions[0].additionalPrinterColumns[0].type: Invalid value: "text": must be one of '
            "boolean,date,integer,number,string",
        ),
        (
            "spec/versions/0/subresources",
            {"scale": {"specReplicasPath": ".status.a", "statusReplicasPath": ".status.a"}},
            'spec.versions[0].subresources.scale.specReplicasPath: Invalid value: ".status.a": should be a json path '
            "under .spec",
        ),
        (
            "spec/versions/0/selectableFields",
            [{"jsonPath": ".spec.a"}],
            'spec.versions[0].selectableFields[0].jsonPath: Invalid value: ".spec.a": is an invalid path: does not '
            "refer to a valid field",
        ),
    ],
)
def test_a_wrong_definition_is_refused(path: str, value: Any, error: str) -> None:
    assert error in errors(path, value)


@pytest.mark.parametrize(
    ("schema", "error"),
    [
        ({}, "S.properties[x].type: Required value: must not be empty for specified object fields"),
        (
            {"type": "text"},
            'S.properties[x].type: Unsupported value: "text": supported values: "array", "boolean", "integer", '
            '"number", "object", "string"',
        ),
        ({"type": "array"}, "S.properties[x].items: Required value: must be specified"),
        (
            {"type": "array", "items": {"nullable": True}},
            "S.properties[x].items.type: Required value: must not be empty for specified array items",
        ),
        (
            {"type": "object", "properties": {"a": {"type": "string"}}, "additionalProperties": True},
            "S.properties[x].additionalProperties: Forbidden: additionalProperties and properties are mutual exclusive",
        ),
        (
            {"type": "object", "additionalProperties": False},
            "S.properties[x].additionalProperties: Forbidden: additionalProperties cannot be set to false",
        ),
        (
            {"type": "array", "uniqueItems": True, "items": {"type": "string"}},
            "S.properties[x].uniqueItems: Forbidden: uniqueItems cannot be set to true since the runtime complexity "
            "becomes quadratic",
        ),
        (
            {"type": "string", "anyOf": [{"type": "string"}]},
            "S.properties[x].anyOf[0].type: Forbidden: must be empty to be structural",
        ),
        (
            {"type": "object", "oneOf": [{"properties": {"b": {"minimum": 1}}}]},
            "S.properties[x].properties[b]: Required value: because it is defined in "
            "properties[x].oneOf[0].properties[b]",
        ),
        ({"type": "string", "$ref": "#/x"}, "S.properties[x].$ref: Forbidden: $ref is not supported"),
        (
            {"type": "array", "items": {"type": "object"}, "x-kubernetes-list-type": "map"},
            "S.properties[x].x-kubernetes-list-map-keys: Required value: must not be empty if x-kubernetes-list-type "
            "is map",
        ),
        (
            {"type": "string", "x-kubernetes-list-type": "set"},
            'S.properties[x].type: Invalid value: "string": must be array if x-kubernetes-list-type is specified',
        ),
        (
            {"type": "integer", "default": "a"},
            'S.properties[x].default: Invalid value: "string": S.properties[x].default in body must be of type '
            'integer: "string"',
        ),
        (
            {"type": "object", "properties": {"a": {"type": "string"}}, "default": {"a": "x", "b": 1}},
            'S.properties[x].default: Invalid value: {"a":"x","b":1}: must not have fields that the schema lacks: b',
        ),
        (
            {"type": "array", "items": {"type": "string", "x-kubernetes-validations": [{"rule": "self == oldSelf"}]}},
            'S.properties[x].items.x-kubernetes-validations[0].rule: Invalid value: "self == oldSelf": oldSelf cannot '
            "be used on the uncorrelatable portion of the schema within S.properties[x].items",
        ),
    ],
)
def test_a_schema_that_is_not_structural_is_refused(schema: dict[str, Any], error: str) -> None:
    assert error in schema_errors({"x": schema})


def test_a_pattern_that_go_would_refuse_is_refused() -> None:
    (error,) = schema_errors({"x": {"type": "string", "pattern": "(?<=a)b"}})
    assert error.startswith('S.properties[x].pattern: Invalid value: "(?<=a)b": must be a valid regular expression')


def test_a_schema_has_a_greatest_depth_and_size() -> None:
    deep: dict[str, Any] = {"type": "string"}
    for _ in range(200):
        deep = {"type": "object", "properties": {"a": deep}}
    assert any("levels deep" in error for error in schema_errors({"x": deep}))
    many = {f"f{i}": {"type": "string", "pattern": f"^{i}$"} for i in range(201)}
    assert schema_errors(many)[-1].endswith("a schema must not have more than 200 patterns")
    wide = {f"f{i}": {"type": "string"} for i in range(20_100)}
    assert any("more than 20000 parts" in error for error in schema_errors(wide))


def test_what_may_not_change() -> None:
    new, old = copy.deepcopy(BASE), copy.deepcopy(BASE)
    new["spec"]["scope"] = "Cluster"
    new["status"] = old["status"] = {"storedVersions": ["v0", "v1"]}
    fields = Fields()
    STRATEGY.validate_change(new, old, fields)
    found = [str(error) for error in fields.errors]
    assert found[0] == 'spec.scope: Invalid value: "Cluster": field is immutable'
    assert found[1].startswith('status.storedVersions[0]: Invalid value: "v0": missing from spec.versions; v0 was')


def test_a_protected_group_needs_an_approval() -> None:
    assert any("protected groups" in error for error in errors("spec/group", "foo.k8s.io"))


@pytest.mark.parametrize(
    ("other", "reason"),
    [
        ({"plural": "foos"}, "PluralConflict"),
        ({"shortNames": ["foos"]}, "PluralConflict"),
        ({"singular": "foo"}, "SingularConflict"),
        ({"plural": "f"}, "ShortNamesConflict"),
        ({"kind": "Foo"}, "KindConflict"),
        ({"kind": "FooList"}, "ListKindConflict"),
        ({"kind": "foos"}, ""),
    ],
)
def test_a_name_that_another_has_is_a_conflict(other: dict[str, Any], reason: str) -> None:
    mine = {"plural": "foos", "singular": "foo", "shortNames": ["f"], "kind": "Foo", "listKind": "FooList"}
    assert names.conflict(mine, [other])[0] == reason


NUMBER = r"(([0-9]+(\.[0-9]*)?)|(\.[0-9]+))"
QUANTITY = rf"^(\+|-)?{NUMBER}(([KMGTPE]i)|[numkMGTPE]|([eE](\+|-)?{NUMBER}))?$"
DOMAIN = r"[a-z0-9]([-a-z0-9]*[a-z0-9])?(\.[a-z0-9]([-a-z0-9]*[a-z0-9])?)*"
CONDITION = rf"^({DOMAIN}/)?(([A-Za-z0-9][-A-Za-z0-9_.]*)?[A-Za-z0-9])$"
FREE = {"x-kubernetes-preserve-unknown-fields": True}
GENERATED: dict[str, Any] = {
    "apiVersion": {"type": "string", "description": "..."},
    "kind": {"type": "string"},
    "metadata": {"type": "object"},
    "spec": {
        "type": "object",
        "properties": {
            "resources": {
                "type": "object",
                "additionalProperties": {
                    "anyOf": [{"type": "integer"}, {"type": "string"}],
                    "pattern": QUANTITY,
                    "x-kubernetes-int-or-string": True,
                },
            },
            "ports": {
                "type": "array",
                "x-kubernetes-list-type": "map",
                "x-kubernetes-list-map-keys": ["containerPort", "protocol"],
                "items": {
                    "type": "object",
                    "required": ["containerPort"],
                    "properties": {
                        "containerPort": {"type": "integer", "format": "int32"},
                        "protocol": {"type": "string", "default": "TCP"},
                    },
                },
            },
            "selector": {
                "type": "object",
                "x-kubernetes-map-type": "atomic",
                "properties": {"matchLabels": {"type": "object", "additionalProperties": {"type": "string"}}},
            },
            "template": {"type": "object", "x-kubernetes-embedded-resource": True, **FREE},
            "values": FREE,
            "target": {"type": "object", "oneOf": [{"required": ["a"]}, {"required": ["b"]}],
                       "properties": {"a": {"type": "string"}, "b": {"type": "string"}}},
            "kinds": {"type": "array", "x-kubernetes-list-type": "set", "items": {"type": "string"}},
            "hours": {"type": "integer", "nullable": True, "format": "int64", "minimum": 0},
        },
    },
    "status": {
        "type": "object",
        "properties": {
            "conditions": {
                "type": "array",
                "x-kubernetes-list-type": "map",
                "x-kubernetes-list-map-keys": ["type"],
                "items": {
                    "type": "object",
                    "required": ["type", "status"],
                    "properties": {
                        "type": {"type": "string", "maxLength": 316, "pattern": CONDITION},
                        "status": {"type": "string", "enum": ["True", "False", "Unknown"]},
                        "lastTransitionTime": {"type": "string", "format": "date-time"},
                        "observedGeneration": {"type": "integer", "format": "int64", "minimum": 0},
                    },
                },
            },
        },
    },
}  # fmt: skip


def test_a_schema_as_generators_write_it_is_taken_and_works() -> None:
    assert schema_errors(GENERATED) == []
    document = copy.deepcopy(BASE)
    document["spec"]["versions"][0]["schema"]["openAPIV3Schema"]["properties"] = GENERATED
    (kind,) = custom.rows(document)
    new = {
        "metadata": {"name": "a"},
        "spec": {
            "resources": {"cpu": 1, "memory": "1.5Gi"},
            "ports": [{"containerPort": 80}, {"containerPort": 80, "protocol": "UDP"}],
            "template": {"apiVersion": "v1", "kind": "Pod", "metadata": {"name": "x"}, "spec": {"any": [1]}},
            "values": [{"a": None}],
            "target": {"a": "x"},
            "kinds": ["a", "b"],
            "hours": None,
        },
    }
    unknown: list[str] = []
    clean = schema.decode(kind.schema, new, unknown)
    kind.strategy.default(clean)
    fields = Fields()
    kind.strategy.validate(clean, fields)
    assert unknown == [] and fields.errors == []
    assert clean["spec"]["ports"][0]["protocol"] == "TCP" and clean["spec"]["values"] == [{"a": None}]
    clean["spec"]["resources"]["cpu"] = "many"
    kind.strategy.validate(clean, fields)
    assert "spec.resources.cpu in body should match" in str(fields.errors[0])
