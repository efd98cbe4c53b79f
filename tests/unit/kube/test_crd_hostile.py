"""Whatever a tenant writes as a schema, a rule, a path or an object: an answer, never a crash and never a long time."""

from __future__ import annotations

from typing import Any

from hypothesis import given, settings
from hypothesis import strategies as st

from cuboid.kube import kinds, schema
from cuboid.kube.crd import compile as compiling
from cuboid.kube.crd import custom, jsonpath, rules, structural, validation
from cuboid.kube.crd.cel import Budget, CelError, compiled
from cuboid.kube.crd.values import default
from cuboid.kube.fields import Fields
from cuboid.lib.errors import CuboidError, InvalidError

NUMBERS = st.one_of(st.integers(-(2**63), 2**63 - 1), st.floats(allow_nan=False))
SCALARS = st.one_of(st.none(), st.booleans(), NUMBERS, st.text(max_size=8))
KEYS = st.sampled_from(["a", "b", "c", "metadata", "kind"])
RULES = st.sampled_from(["self.a == 1", "self > oldSelf", "size(self) < 2", "("])
VALUES = st.recursive(
    SCALARS,
    lambda inner: st.one_of(st.lists(inner, max_size=4), st.dictionaries(KEYS, inner, max_size=4)),
    max_leaves=15,
)
KEYWORDS: dict[str, st.SearchStrategy[Any]] = {
    "type": st.sampled_from(["object", "array", "string", "integer", "number", "boolean", "", "null"]),
    "nullable": st.booleans(),
    "format": st.sampled_from(["int32", "date-time", "ipv4", "cidr", "byte", "duration", "uri", "email", "odd"]),
    "pattern": st.text(max_size=10),
    "minimum": st.floats(-10, 10),
    "maximum": st.floats(-10, 10),
    "multipleOf": st.floats(0, 5),
    "maxLength": st.integers(0, 5),
    "minItems": st.integers(0, 3),
    "maxProperties": st.integers(0, 3),
    "enum": st.lists(VALUES, min_size=1, max_size=3),
    "default": VALUES,
    "required": st.lists(st.sampled_from(["a", "b"]), max_size=2),
    "uniqueItems": st.booleans(),
    "x-kubernetes-preserve-unknown-fields": st.booleans(),
    "x-kubernetes-embedded-resource": st.booleans(),
    "x-kubernetes-int-or-string": st.booleans(),
    "x-kubernetes-list-type": st.sampled_from(["set", "map", "atomic", "odd"]),
    "x-kubernetes-list-map-keys": st.lists(st.sampled_from(["a", "b"]), max_size=2),
    "x-kubernetes-validations": st.lists(RULES.map(lambda rule: {"rule": rule}), max_size=2),
}


def _schema(inner: st.SearchStrategy[Any]) -> st.SearchStrategy[Any]:
    nested = {
        "properties": st.dictionaries(st.sampled_from(["a", "b", "c", "metadata"]), inner, max_size=3),
        "items": inner,
        "additionalProperties": st.one_of(inner, st.booleans()),
        "anyOf": st.lists(inner, max_size=2),
        "oneOf": st.lists(inner, max_size=2),
        "allOf": st.lists(inner, max_size=2),
        "not": inner,
    }
    return st.fixed_dictionaries({}, optional={**KEYWORDS, **nested})


SCHEMAS = st.recursive(st.fixed_dictionaries({}, optional=KEYWORDS), _schema, max_leaves=6)
DEFINITION = kinds.builtin("CustomResourceDefinition", "apiextensions.k8s.io")


@settings(max_examples=100)
@given(SCHEMAS, VALUES)
def test_any_schema_is_refused_or_works_on_any_value(raw: Any, value: Any) -> None:
    root = {**raw, "type": "object"}
    node = schema.node("io.k8s.apiextensions-apiserver.pkg.apis.apiextensions.v1.JSONSchemaProps")
    try:
        root = schema.decode(node, root, [])
    except InvalidError:
        return
    fields = Fields()
    structural.check_schema(root, "S", fields)
    if fields.errors:
        return
    document = schema.decode(compiling.root(root), {"a": value, "metadata": {"name": "x"}}, [])
    default(root, document)
    found = Fields()
    validation.check(root, document, "", found)
    rules.check(root, document, found)
    assert all(str(error) for error in found.errors)


@given(VALUES, VALUES)
def test_any_definition_is_refused_or_makes_kinds(spec: Any, version: Any) -> None:
    names = {"plural": "foos", "kind": "Foo"}
    base = {"group": "example.com", "scope": "Namespaced", "names": names, "versions": [version]}
    body = {"metadata": {"name": "foos.example.com"}, "spec": {**base, **(spec if isinstance(spec, dict) else {})}}
    fields = Fields()
    try:
        document = schema.decode(DEFINITION.schema, body, [])
    except InvalidError:
        return
    document.setdefault("metadata", {})
    DEFINITION.strategy.default(document)
    DEFINITION.strategy.validate(document, fields)
    if not fields.errors:
        assert custom.rows(document)


WORDS = st.sampled_from(
    "self . a ( ) [ ] { } 1 'x' + - == && || ! ? : , in has all map size x optional .? 1u 1.5 true null cel bind "
    "sets contains".split()
)


@settings(max_examples=150)
@given(st.one_of(st.lists(WORDS, max_size=20).map(" ".join), st.text(max_size=30)), VALUES)
def test_any_expression_is_a_value_or_a_sentence(text: str, value: Any) -> None:
    try:
        compiled(text).run({"self": value, "oldSelf": None}, Budget(1000))
    except CelError as error:
        assert str(error)


@settings(max_examples=100)
@given(st.one_of(st.text(alphabet=".[]'\"*?@()=a0:-\\ ", max_size=20), st.text(max_size=20)), VALUES)
def test_any_path_finds_something_or_is_refused(path: str, value: Any) -> None:
    try:
        assert isinstance(jsonpath.find(path, value), list)
    except CuboidError as error:
        assert str(error)
