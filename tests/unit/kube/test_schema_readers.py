"""The quick decoding of what is well-formed gives what the walk with all its words gives, whatever comes."""

from __future__ import annotations

import copy
import random
from collections.abc import Iterator
from typing import Any

import pytest

from cuboid.kube import kinds, readers, schema
from cuboid.kube.kinds import Kind
from cuboid.lib.errors import InvalidError
from tests.unit.kube.test_kinds_hostile import anything

ODD = [
    None, True, 0, 1.0, 1.5, 2**31, 2**63, -(2**63) - 1, float(2**70), "", "x", "1.5Gi", "0.5", "1e400", "2026-01-01",
    "2026-01-01T00:00:00Z", [], [None], ["x", 1], {}, {"": None}, {"a": None, "b": "c"}, {"nobody": "knows"},
]  # fmt: skip


def places(value: Any) -> Iterator[tuple[Any, Any]]:
    """(container, key) of everything that is in a value."""
    rows = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    for key, item in rows:
        yield value, key
        yield from places(item)


def spoil(value: Any, pick: random.Random) -> None:
    """Put something in one place that may be wrong there, or a field that nobody knows beside it."""
    container, key = pick.choice(list(places(value)) or [(value, "kind")])
    container[key] = copy.deepcopy(pick.choice(ODD))
    if isinstance(container, dict) and pick.random() < 0.3:
        container[pick.choice(["unknown", "spec", "name", ""])] = copy.deepcopy(pick.choice(ODD))


def answer(decode: Any, node: schema.Node, value: Any) -> tuple[Any, list[str]]:
    unknown: list[str] = []
    try:
        return decode(node, copy.deepcopy(value), unknown), unknown
    except InvalidError as error:
        return error.message, []


@pytest.mark.parametrize("kind", kinds.KINDS, ids=[f"{kind.kind}-{kind.version}" for kind in kinds.KINDS])
def test_quick_decoding_and_the_walk_agree(kind: Kind) -> None:
    pick = random.Random(kind.kind)
    for turn in range(60):
        value = anything(kind.schema, pick, depth=2 if turn % 2 else 0)
        for _ in range(turn % 4):
            spoil(value, pick)
        quick, slow = answer(schema.decode, kind.schema, value), answer(schema.walk, kind.schema, value)
        assert repr(quick) == repr(slow)  # 1 and 1.0 and True are not the same here


def test_what_is_well_formed_is_read_without_the_walk() -> None:
    pod = {
        "apiVersion": "v1",
        "metadata": {"name": "x", "labels": {"a": "b"}, "creationTimestamp": None},
        "spec": {
            "containers": [{"name": "c", "resources": {"limits": {"cpu": "0.5"}}, "ports": [{"containerPort": 8}]}]
        },
    }
    clean = readers.reader(kinds.builtin("Pod").schema)(pod)
    assert clean["spec"]["containers"][0]["resources"] == {"limits": {"cpu": "500m"}}
    assert clean["metadata"] == {"name": "x", "labels": {"a": "b"}}


@pytest.mark.parametrize("wrong", [{"nobody": 1}, {"nobody": None}, {"apiVersion": 1}, {"spec": []}, [], "x", None])
def test_a_reader_gives_up_at_what_it_can_not_name(wrong: Any) -> None:
    with pytest.raises(readers.GIVEN_UP):
        readers.reader(kinds.builtin("Pod").schema)(wrong)
