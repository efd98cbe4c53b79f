"""Many managers apply to and update one object, at random: what must hold after every step."""

from __future__ import annotations

import copy
from typing import Any

from hypothesis import given, settings
from hypothesis import strategies as st

from cuboid.kube import kinds
from cuboid.kube.apply import fieldset, managers, typed
from cuboid.kube.apply.managers import APPLY, UPDATE, Identity, Managers

NODE = kinds.builtin("Deployment", "apps").schema
NOTHING: dict[str, Any] = {}
PORTS = st.lists(
    st.fixed_dictionaries({"containerPort": st.sampled_from([80, 81])}, optional={"name": st.sampled_from("pq")}),
    max_size=2, unique_by=lambda port: port["containerPort"],
)  # fmt: skip
CONTAINERS = st.lists(
    st.fixed_dictionaries(
        {"name": st.sampled_from("abc")},
        optional={"image": st.sampled_from("12"), "args": st.lists(st.sampled_from("xy"), max_size=2), "ports": PORTS},
    ),
    max_size=3, unique_by=lambda container: container["name"],
)  # fmt: skip
SPECS = st.fixed_dictionaries(
    {},
    optional={
        "replicas": st.integers(0, 2),
        "paused": st.booleans(),
        "template": st.fixed_dictionaries({"spec": st.fixed_dictionaries({"containers": CONTAINERS})}),
    },
)
LABELS = st.dictionaries(st.sampled_from("lmn"), st.sampled_from("12"), max_size=2)
FINALIZERS = st.lists(st.sampled_from(["x/a", "x/b"]), max_size=2, unique=True)
METADATA = st.fixed_dictionaries({"name": st.just("web")}, optional={"labels": LABELS, "finalizers": FINALIZERS})
OBJECTS = st.fixed_dictionaries({"metadata": METADATA, "spec": SPECS})
STEPS = st.lists(st.tuples(st.sampled_from(["m1", "m2", "m3"]), st.booleans(), OBJECTS), min_size=1, max_size=6)


def step(
    live: dict[str, Any], owners: Managers, name: str, applies: bool, body: dict[str, Any], now: str
) -> tuple[dict[str, Any], Managers]:
    identity = Identity(name, APPLY if applies else UPDATE, "apps/v1")
    if not applies:
        return body, managers.updated(owners, NODE, live, body, identity, NOTHING, now)
    result = managers.applied(owners, NODE, live, body, identity, NOTHING, now, force=True)
    assert typed.merged(NODE, result.object, body) == result.object, "what was applied is in it"
    again = managers.applied(result.managers, NODE, result.object, body, identity, NOTHING, "later", force=False)
    assert (again.object, again.managers) == (result.object, result.managers), "and applying it again is nothing"
    return result.object, result.managers


@settings(deadline=None)
@given(OBJECTS, STEPS)
def test_owners_own_what_is_there_and_appliers_get_what_they_want(
    first: dict[str, Any], steps: list[tuple[str, bool, dict[str, Any]]]
) -> None:
    live = first
    owners = managers.born(NODE, live, Identity("creator", UPDATE, "apps/v1"), NOTHING, "00")
    for number, (name, applies, body) in enumerate(steps):
        before = copy.deepcopy((live, owners, body))
        new, after = step(live, owners, name, applies, body, f"{number + 1:02}")
        assert before == (live, owners, body), "nothing is changed in place"
        live, owners = new, after
        there = typed.whole(NODE, live)
        for identity, owned in owners.items():
            missing = {fieldset.text(path) for path in fieldset.paths(fieldset.difference(owned.fields, there))}
            assert not missing, (identity, missing)
        assert managers.decode(managers.encode(owners)) == owners


@settings(deadline=None)
@given(OBJECTS, OBJECTS)
def test_who_applies_nothing_any_more_leaves_what_was_there_before(
    first: dict[str, Any], config: dict[str, Any]
) -> None:
    creator = Identity("creator", UPDATE, "apps/v1")
    owners = managers.born(NODE, first, creator, NOTHING, "00")
    live, owners = step(first, owners, "m1", True, config, "01")
    live, owners = step(live, owners, "m1", True, {"metadata": {"name": "web"}, "spec": {}}, "02")
    left = typed.whole(NODE, live)
    for name in ("replicas", "paused"):
        overwritten = name in config["spec"] and first["spec"].get(name) != config["spec"][name]
        assert (f"f:{name}" in left["f:spec"]) == (name in first["spec"] and not overwritten)
