"""Bodies of requests: JSON and YAML of strangers, and fields that come twice."""

from __future__ import annotations

import json
from typing import Any

import pytest
import yaml
from hypothesis import given
from hypothesis import strategies as st

from cuboid.lib.errors import InvalidError, UnsupportedError
from cuboid.server import bodies, yaml_body

TEXT = st.text(st.characters(codec="ascii", exclude_characters="\x7f0123456789"), max_size=8)
SCALARS = st.none() | st.booleans() | st.integers(-(2**40), 2**40) | st.floats(-1e6, 1e6, allow_nan=False) | TEXT
VALUES = st.recursive(
    SCALARS, lambda inner: st.lists(inner, max_size=4) | st.dictionaries(TEXT, inner, max_size=4), max_leaves=20
)


def read(text: str) -> Any:
    return bodies.parse_yaml(text.encode()).value


@given(VALUES)
def test_json_is_yaml(value: Any) -> None:
    if "<<" not in json.dumps(value):
        assert bodies.parse_yaml(json.dumps(value).encode()).value == value


@given(VALUES)
def test_what_another_writer_of_yaml_writes_is_read(value: Any) -> None:
    if "<<" not in json.dumps(value):
        assert read(yaml.safe_dump(value)) == value


@given(st.binary(max_size=200))
def test_whatever_comes_is_a_value_or_refused(data: bytes) -> None:
    for media in (bodies.JSON, bodies.YAML):
        try:
            bodies.parse(data, media)
        except InvalidError:
            continue


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("a: yes", {"a": True}),
        ("a: 'yes'", {"a": "yes"}),
        ("a: 0777", {"a": 511}),
        ("a: 0o17", {"a": 15}),
        ("a: 0x1F", {"a": 31}),
        ("a: 2026-01-01", {"a": "2026-01-01"}),
        ("a: 12:30", {"a": "12:30"}),
        ("a: 1_000", {"a": 1000}),
        ("a: 089", {"a": 89}),
        ("a: .inf", {"a": ".inf"}),
        ("a: 1e999", {"a": "1e999"}),
        ("80: x\ntrue: y", {"80": "x", "true": "y"}),
        ("a: !!str 5", {"a": "5"}),
        ("a: &x [1, 2]\nb: *x", {"a": [1, 2], "b": [1, 2]}),
        ("", None),
    ],
)
def test_scalars_are_read_as_kubernetes_does(text: str, value: Any) -> None:
    assert read(text) == value


@pytest.mark.parametrize(
    "text",
    [
        "a: &x [*x]",
        "a: *nobody",
        "a: 1\n---\nb: 2",
        "a: !!python/object:os.system x",
        "? [a]\n: b",
        "a: [",
        "<<: {a: 1}",
        "[" * 5000,
        "a: " + "{a: " * 300,
    ],
)
def test_what_json_can_not_say_is_refused(text: str) -> None:
    with pytest.raises(InvalidError):
        read(text)


def test_aliases_of_a_long_text_are_counted_by_their_characters() -> None:
    """300,000 aliases of one text of a megabyte were 300 GB as soon as somebody wrote them down."""
    few = f'a: &x "{"z" * 1_000_000}"\nb: [*x, *x]\nc: {{*x : *x}}'
    assert len(read(few)["b"][1]) == 1_000_000
    for alias in ("*x", "*y"):
        many = f'a: &y [&x "{"z" * 1_000_000}", 1]\nb: [{", ".join([alias] * 6)}]'
        with pytest.raises(InvalidError, match="more than 6291456 characters"):
            read(many)


def test_what_is_repeated_is_not_shared() -> None:
    """Whoever fills in defaults of one would fill in the other's."""
    value = read("a: &x {b: [1]}\nc: *x")
    value["a"]["b"].append(2)
    assert value["c"] == {"b": [1]}


def test_aliases_of_aliases_are_counted_as_what_they_stand_for() -> None:
    lines = ["a0: &a0 [x, x, x, x, x, x, x, x, x, x]"]
    lines += [f"a{n}: &a{n} [{', '.join([f'*a{n - 1}'] * 10)}]" for n in range(1, 9)]
    with pytest.raises(InvalidError, match=f"more than {yaml_body.MAX_NODES} values"):
        read("\n".join(lines))


@pytest.mark.parametrize("media", [bodies.JSON, bodies.YAML])
def test_fields_that_come_twice_are_named_and_the_last_counts(media: str) -> None:
    text = '{"spec": {"replicas": 1, "list": [{}, {"a": 1, "a": 2, "a": 3}], "replicas": 2}, "x": 1, "x": {}}'
    body = bodies.parse(text.encode(), media)
    assert body.value == {"spec": {"replicas": 2, "list": [{}, {"a": 3}]}, "x": {}}
    assert sorted(set(body.duplicates)) == ["spec.list[1].a", "spec.replicas", "x"]


@pytest.mark.parametrize("text", ['{"a":1,"b":{"c":[1,2]}}\n', '{"a": 1, "b": "\\u00e9", "c": 1e2}', "[]", "1"])
def test_bodies_without_duplicates_name_none(text: str) -> None:
    assert bodies.parse_json(text.encode()).duplicates == ()


def test_another_format_is_refused_with_those_that_are_not() -> None:
    with pytest.raises(UnsupportedError, match="accepted media types include: application/json, application/yaml"):
        bodies.parse(b"", "text/plain")


def test_an_applied_configuration_is_json_or_yaml() -> None:
    assert bodies.parse_apply(b'{"a": 1}').value == bodies.parse_apply(b"a: 1").value == {"a": 1}
