"""Custom resources against their schema: what is pruned, what is filled in, and in which words they are refused."""

from __future__ import annotations

from typing import Any

import pytest

from cuboid.kube import schema as schemas
from cuboid.kube.crd import compile as compiling
from cuboid.kube.crd import patterns, validation
from cuboid.kube.crd.values import MISSING, default
from cuboid.kube.fields import Fields
from cuboid.lib.errors import InvalidError

ANY = {"x-kubernetes-preserve-unknown-fields": True}


def found(schema: dict[str, Any], value: Any, old: Any = MISSING) -> list[str]:
    """The errors of a value in `spec.x`."""
    fields = Fields()
    validation.check(schema, value, "spec.x", fields, old)
    return [str(error) for error in fields.errors]


def pruned(schema: dict[str, Any], value: Any) -> tuple[Any, list[str]]:
    unknown: list[str] = []
    root = {"type": "object", "properties": {"spec": schema}}
    return schemas.decode(compiling.root(root), {"spec": value}, unknown)["spec"], unknown


@pytest.mark.parametrize(
    ("schema", "value", "error"),
    [
        ({"type": "string"}, 1, 'spec.x: Invalid value: "integer": spec.x in body must be of type string: "integer"'),
        ({"type": "integer"}, "a", 'spec.x: Invalid value: "string": spec.x in body must be of type integer: "string"'),
        ({"type": "integer"}, 1.5, 'spec.x: Invalid value: "number": spec.x in body must be of type integer: "number"'),
        ({"type": "boolean"}, 1, 'spec.x: Invalid value: "integer": spec.x in body must be of type boolean: "integer"'),
        ({"type": "object"}, [], 'spec.x: Invalid value: "array": spec.x in body must be of type object: "array"'),
        ({"type": "array"}, {}, 'spec.x: Invalid value: "object": spec.x in body must be of type array: "object"'),
        ({"type": "string"}, None, 'spec.x: Invalid value: "null": spec.x in body must be of type string: "null"'),
        (
            {"x-kubernetes-int-or-string": True},
            True,
            'spec.x: Invalid value: "boolean": spec.x in body must be of type integer,string: "boolean"',
        ),
        ({"enum": ["b", "a"]}, "c", 'spec.x: Unsupported value: "c": supported values: "b", "a"'),
        ({"enum": [1]}, True, 'spec.x: Unsupported value: true: supported values: "1"'),
        ({"pattern": "^a$"}, "b", "spec.x: Invalid value: \"b\": spec.x in body should match '^a$'"),
        ({"minLength": 3}, "é", 'spec.x: Invalid value: "é": spec.x in body should be at least 3 chars long'),
        ({"maxLength": 1}, "ab", "spec.x: Too long: may not be more than 1 bytes"),
        ({"minimum": 1}, 0, "spec.x: Invalid value: 0: spec.x in body should be greater than or equal to 1"),
        ({"maximum": 1}, 2, "spec.x: Invalid value: 2: spec.x in body should be less than or equal to 1"),
        (
            {"minimum": 1, "exclusiveMinimum": True},
            1,
            "spec.x: Invalid value: 1: spec.x in body should be greater than 1",
        ),
        ({"maximum": 1, "exclusiveMaximum": True}, 1, "spec.x: Invalid value: 1: spec.x in body should be less than 1"),
        ({"multipleOf": 0.1}, 0.25, "spec.x: Invalid value: 0.25: spec.x in body should be a multiple of 0.1"),
        ({"minItems": 2}, [1], "spec.x: Invalid value: 1: spec.x in body should have at least 2 items"),
        ({"maxItems": 1}, [1, 2], "spec.x: Too many: 2: must have at most 1 items"),
        ({"minProperties": 1}, {}, "spec.x: Invalid value: 0: spec.x in body should have at least 1 properties"),
        ({"maxProperties": 0}, {"a": 1}, "spec.x: Too many: 1: must have at most 0 items"),
        ({"required": ["a"]}, {}, "spec.x.a: Required value"),
        ({"format": "ipv4"}, "1.2.3", 'spec.x: Invalid value: "1.2.3": spec.x in body must be of type ipv4: "1.2.3"'),
        ({"not": {"minimum": 1}}, 1, '<nil>: Invalid value: "": "spec.x" must not validate the schema (not)'),
        ({"x-kubernetes-list-type": "set"}, ["a", "b", "a"], 'spec.x[2]: Duplicate value: "a"'),
        (
            {"x-kubernetes-list-type": "map", "x-kubernetes-list-map-keys": ["n"]},
            [{"n": 1, "v": 1}, {"n": 1, "v": 2}],
            'spec.x[1]: Duplicate value: {"n":1}',
        ),
        (
            {"items": {"type": "object", "properties": {"a": {"type": "string"}}}},
            [{}, {"a": 1}],
            'spec.x[1].a: Invalid value: "integer": spec.x[1].a in body must be of type string: "integer"',
        ),
        (
            {"additionalProperties": {"type": "string"}},
            {"k": 1},
            'spec.x.k: Invalid value: "integer": spec.x.k in body must be of type string: "integer"',
        ),
    ],
)
def test_a_wrong_value_is_refused_in_kubernetes_words(schema: dict[str, Any], value: Any, error: str) -> None:
    assert found(schema, value) == [error]


@pytest.mark.parametrize(
    ("schema", "value"),
    [
        ({"type": "number"}, 1),
        ({"type": "integer"}, 2.0),
        ({"type": "string", "nullable": True}, None),
        ({"x-kubernetes-int-or-string": True, "anyOf": [{"type": "integer"}, {"type": "string"}]}, "25%"),
        ({"oneOf": [{"minimum": 5}, {"maximum": 1}]}, 1),
        ({"anyOf": [{"minimum": 5}, {"minimum": 0}]}, 1),
        ({"multipleOf": 0.1}, 0.3),
        ({"format": "something-new"}, "x"),
        ({"format": "date-time"}, "2026-01-01T00:00:00Z"),
        (ANY, {"a": [1, None, {"b": 2}]}),
    ],
)
def test_a_fitting_value_is_taken(schema: dict[str, Any], value: Any) -> None:
    assert found(schema, value) == []


def test_alternatives_that_all_fail_also_tell_what_the_nearest_lacks() -> None:
    schema = {"oneOf": [{"required": ["a", "b"]}, {"required": ["c"]}]}
    assert found(schema, {}) == [
        '<nil>: Invalid value: "": "spec.x" must validate one and only one schema (oneOf). Found none valid',
        "spec.x.c: Required value",
    ]
    assert found(schema, {"a": 1, "b": 1, "c": 1}) == [
        '<nil>: Invalid value: "": "spec.x" must validate one and only one schema (oneOf). Found 2 valid alternatives'
    ]


def test_what_was_wrong_before_and_is_not_touched_stays() -> None:
    schema = {"type": "object", "properties": {"a": {"maximum": 1}, "b": {"type": "integer"}}}
    assert found(schema, {"a": 5, "b": 2}, {"a": 5, "b": 1}) == []
    assert len(found(schema, {"a": 6, "b": 1}, {"a": 5, "b": 1})) == 1


def test_unknown_fields_are_taken_out_and_named() -> None:
    schema = {
        "type": "object",
        "properties": {
            "a": {"type": "string"},
            "list": {"type": "array", "items": {"type": "object", "properties": {"b": {"type": "string"}}}},
            "map": {"type": "object", "additionalProperties": {"type": "object"}},
            "free": {"type": "object", **ANY, "properties": {"c": {"type": "object"}}},
        },
    }
    value = {
        "a": "x",
        "no": 1,
        "list": [{"b": "x", "no": 1}],
        "map": {"k": {"no": 1}},
        "free": {"z": 1, "c": {"no": 1}},
    }
    clean, unknown = pruned(schema, value)
    assert clean == {"a": "x", "list": [{"b": "x"}], "map": {"k": {}}, "free": {"z": 1, "c": {}}}
    assert unknown == ["spec.no", "spec.list[0].no", "spec.map.k.no", "spec.free.c.no"]


def test_an_embedded_object_keeps_its_type_and_metadata() -> None:
    schema = {
        "type": "object",
        "x-kubernetes-embedded-resource": True,
        "properties": {"spec": {"type": "object", **ANY}},
    }
    value = {"apiVersion": "v1", "kind": "Pod", "metadata": {"name": "a", "no": 1}, "spec": {"x": 1}, "no": 1}
    clean, unknown = pruned(schema, value)
    assert clean == {"apiVersion": "v1", "kind": "Pod", "metadata": {"name": "a"}, "spec": {"x": 1}}
    assert unknown == ["spec.metadata.no", "spec.no"]
    assert found(schema, {"spec": {}}) == [
        "spec.x.apiVersion: Required value: must not be empty",
        "spec.x.kind: Required value: must not be empty",
    ]


def test_defaults_are_filled_in_at_every_level_and_in_place_of_nulls() -> None:
    schema = {
        "type": "object",
        "properties": {
            "a": {"type": "integer", "default": 1},
            "null": {"type": "string", "nullable": True, "default": "x"},
            "gone": {"type": "string"},
            "deep": {"type": "object", "default": {}, "properties": {"b": {"type": "string", "default": "y"}}},
            "list": {
                "type": "array",
                "items": {"type": "object", "properties": {"c": {"type": "integer", "default": 2}}},
            },
            "map": {"additionalProperties": {"type": "object", "properties": {"d": {"type": "integer", "default": 3}}}},
        },
    }
    value: dict[str, Any] = {"a": None, "null": None, "gone": None, "list": [{}, {"c": 5}], "map": {"k": {}}}
    default(schema, value)
    assert value == {
        "a": 1,
        "null": None,
        "deep": {"b": "y"},
        "list": [{"c": 2}, {"c": 5}],
        "map": {"k": {"d": 3}},
    }


def test_a_default_is_not_shared_between_objects() -> None:
    schema: dict[str, Any] = {"type": "object", "properties": {"a": {"type": "array", "default": [1]}}}
    one: dict[str, Any] = {}
    two: dict[str, Any] = {}
    default(schema, one)
    default(schema, two)
    one["a"].append(2)
    assert two == {"a": [1]} and schema["properties"]["a"]["default"] == [1]


def test_a_large_default_times_items_has_an_end() -> None:
    schema = {"type": "array", "items": {"type": "object", "properties": {"a": {"default": list(range(1_000))}}}}
    with pytest.raises(InvalidError, match="the defaults of the object"):
        default(schema, [{} for _ in range(10_000)])


def test_alternatives_times_items_have_an_end() -> None:
    schema = {"type": "array", "items": {"anyOf": [{"enum": [f"a{i}"]} for i in range(2_000)]}}
    with pytest.raises(InvalidError, match="steps to validate"):
        found(schema, ["a1999"] * 10_000)


def test_a_pattern_that_backtracks_elsewhere_takes_linear_time() -> None:
    assert found({"pattern": "^(a+)+$"}, "a" * 50_000 + "b") != []


@pytest.mark.parametrize(
    "pattern",
    [
        r"^.{1,1000}$",
        r"^[\p{L}\p{N}_.-]{1,30}$",
        r"^[a-z0-9]([-a-z0-9]{0,61}[a-z0-9])?(\.[a-z0-9]([-a-z0-9]{0,61}[a-z0-9])?)*$",
    ],
)
def test_patterns_in_use_are_not_too_large(pattern: str) -> None:
    assert found({"pattern": pattern}, "abc") == []


def test_a_pattern_that_needs_too_much_memory_is_none() -> None:
    with pytest.raises(InvalidError, match="too large"):
        patterns.compiled(r"^\p{L}{1,1000}$")
