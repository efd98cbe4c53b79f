"""Whatever passes the schema is accepted or refused by a kind's rules, and never breaks them: no request is a 500."""

from __future__ import annotations

import copy
import random
from typing import Any

import pytest

from cuboid.kube import kinds, schema
from cuboid.kube.fields import Fields
from cuboid.kube.kinds import Kind

KINDS = [kind for kind in kinds.KINDS if kind.kind != "CustomResourceDefinition"]  # see test_crd_hostile.py
STRINGS = ["", "a", "A", "-", "a/b", "..", "x" * 300, "50%", "101%", "*", "0-2,1", "UTC", "\u0000", "\U0001f9ca"]
WORDS = [
    "Always", "Never", "OnFailure", "In", "NotIn", "Exists", "Gt", "RollingUpdate", "Recreate", "OnDelete", "Indexed",
    "NonIndexed", "FailIndex", "Resource", "Pods", "Object", "External", "Utilization", "Localhost", "Memory", "cpu",
    "True", "Complete", "Failed", "Suspended", "DoNotSchedule", "Windows", "linux", "* * * * *", "@every 1s", "None",
]  # fmt: skip
NUMBERS = [-(2**31), -1, 0, 1, 2, 3, 100, 2**31 - 1]
QUANTITIES = ["-1", "0", "1", "100m", "1Gi", "9e18"]
TIMES = ["2026-01-01T00:00:00Z", "2026-01-01T00:00:01Z"]

SCALARS: dict[str, list[Any]] = {
    "integer": NUMBERS,
    "number": NUMBERS,
    "quantity": QUANTITIES,
    "int-or-string": [*NUMBERS, *STRINGS],
    "time": TIMES,
    "any": [{}, [], {"a": 1}, "x"],
}


def anything(node: schema.Node, pick: random.Random, depth: int = 0) -> Any:
    """A value of this type, more often small than large."""
    if node.kind == "object":
        chance = 0.8 if depth < 3 else min(0.5, 4 / len(node.properties))
        return {
            key: anything(child, pick, depth + 1) for key, child in node.properties.items() if pick.random() < chance
        }
    if node.kind in ("array", "map") and node.items is not None:
        items = [anything(node.items, pick, depth + 1) for _ in range(pick.choice((0, 1, 1, 2)) if depth < 12 else 0)]
        return items if node.kind == "array" else {pick.choice([*STRINGS, "cpu", "app"]): item for item in items}
    if node.kind == "boolean":
        return pick.random() < 0.5
    return pick.choice(SCALARS.get(node.kind) or (STRINGS if pick.random() < 0.4 else WORDS))


def document(kind: Kind, pick: random.Random) -> dict[str, Any]:
    made = anything(kind.schema, pick)
    metadata = {"name": "x", "namespace": "d", "labels": {"app": "a"}}
    made = {**made, "apiVersion": kind.api_version, "kind": kind.kind, "metadata": metadata}
    clean: dict[str, Any] = schema.decode(kind.schema, made, [])
    return kind.to_storage(clean)


@pytest.mark.parametrize("kind", KINDS, ids=[f"{kind.kind}-{kind.version}" for kind in KINDS])
@pytest.mark.parametrize("seed", range(4))
def test_the_rules_of_a_kind_answer_whatever_they_are_given(kind: Kind, seed: int) -> None:
    pick = random.Random(seed)
    for _ in range(20):
        treat(kind, document(kind, pick), document(kind, pick))


def treat(kind: Kind, old: dict[str, Any], new: dict[str, Any]) -> None:
    """All that a server does with an object of a kind: birth, update, status, printing, selection."""
    strategy, fields = kind.strategy, Fields()
    status = copy.deepcopy(new.get("status", {}))
    for made in (old, new):
        strategy.prepare_create(made, TIMES[0])
        made["metadata"] |= {"uid": "u", "creationTimestamp": TIMES[0]}
        strategy.default(made)
        strategy.named(made)
        strategy.validate(made, fields)
    changed = copy.deepcopy(new)
    strategy.prepare_update(changed, old)
    strategy.validate_update(changed, old, fields)
    reported = {**copy.deepcopy(new), "status": status}
    strategy.prepare_status(reported, old)
    strategy.validate_status(reported, old, fields)
    for shown in (new, reported):
        assert len(kind.cells(kind.from_storage(shown), 0.0)) == len(kind.columns)
        assert all(isinstance(value, str) for value in strategy.selectable(shown).values())
        strategy.grace_seconds(shown, None)
    assert all(str(error).isprintable() or error.text for error in fields.errors)
