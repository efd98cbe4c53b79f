"""Sets of fields: the algebra that ownership rests on."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from cuboid.kube.apply import fieldset
from cuboid.kube.apply.fieldset import FieldSet

NAMES = st.sampled_from(["f:a", "f:b", 'k:{"name":"x"}', 'v:"y"'])
PATHS = st.sets(st.lists(NAMES, min_size=1, max_size=4).map(tuple), max_size=8)


def made(paths: set[tuple[str, ...]]) -> FieldSet:
    """A set with exactly these members."""
    root: FieldSet = {}
    for path in sorted(paths):
        node = root
        for element in path:
            node = node.setdefault(element, {})
            node.setdefault("?", {})
        node["."] = {}
    return _cleaned(root)


def _cleaned(node: FieldSet) -> FieldSet:
    below = {key: _cleaned(value) for key, value in node.items() if key not in ("?", ".")}
    return {".": {}, **below} if "." in node and below else below


def members(found: FieldSet) -> set[tuple[str, ...]]:
    return set(fieldset.paths(found))


@given(PATHS, PATHS)
def test_the_operations_are_those_of_sets_of_paths(left: set[tuple[str, ...]], right: set[tuple[str, ...]]) -> None:
    assert members(made(left)) == left
    assert members(fieldset.union(made(left), made(right))) == left | right
    assert members(fieldset.difference(made(left), made(right))) == left - right
    assert members(fieldset.intersection(made(left), made(right))) == left & right


@given(PATHS, PATHS)
def test_a_recursive_difference_takes_what_is_below_as_well(
    left: set[tuple[str, ...]], right: set[tuple[str, ...]]
) -> None:
    kept = {path for path in left if not any(path[: len(other)] == other for other in right)}
    assert members(fieldset.recursive_difference(made(left), made(right))) == kept


@given(PATHS, PATHS)
def test_nothing_is_changed_in_place(left: set[tuple[str, ...]], right: set[tuple[str, ...]]) -> None:
    first, second = made(left), made(right)
    for operation in (fieldset.union, fieldset.difference, fieldset.intersection, fieldset.recursive_difference):
        operation(first, second)
    assert (first, second) == (made(left), made(right))


@pytest.mark.parametrize(
    ("path", "text"),
    [
        (("f:spec", "f:replicas"), ".spec.replicas"),
        (("f:spec", 'k:{"name":"web"}', "f:image"), '.spec[name="web"].image'),
        (('k:{"containerPort":80,"protocol":"TCP"}',), '[containerPort=80,protocol="TCP"]'),
        (("f:finalizers", 'v:"a.example/b"'), '.finalizers[="a.example/b"]'),
        (("i:3",), "[3]"),
        (("k:garbage",), "[garbage]"),
    ],
)
def test_paths_are_printed_as_kubernetes_does(path: tuple[str, ...], text: str) -> None:
    assert fieldset.text(path) == text


@pytest.mark.parametrize("wrong", [None, [], "x", {"spec": {}}, {"f:a": 1}, {".": {"f:a": {}}}, {"f:a": {"x:b": {}}}])
def test_what_is_no_set_of_fields_is_known_as_such(wrong: Any) -> None:
    assert not fieldset.valid(wrong)


def test_a_set_nested_without_end_is_refused() -> None:
    deep: FieldSet = {}
    for _ in range(fieldset.MAX_DEPTH + 2):
        deep = {"f:a": deep}
    assert not fieldset.valid(deep)
