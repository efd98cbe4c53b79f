"""Who owns which field after updates and applies, and what an apply makes of an object."""

from __future__ import annotations

import copy
from typing import Any

import pytest

from cuboid.kube import kinds
from cuboid.kube.apply import fieldset, managers, typed
from cuboid.kube.apply.managers import APPLY, MAX_UPDATERS, UPDATE, Applied, Identity, Managers, Owned
from cuboid.lib.errors import ConflictError, InvalidError

NODE = kinds.builtin("Deployment", "apps").schema
STATUS: dict[str, Any] = {"f:status": {}}
NOW = "2026-01-01T00:00:00Z"
LATER = "2026-01-01T00:00:05Z"
V1 = "apps/v1"


def who(name: str, operation: str = UPDATE, sub: str = "") -> Identity:
    return Identity(name, operation, V1, sub)


def deployment(**spec: Any) -> dict[str, Any]:
    return {
        "apiVersion": V1,
        "kind": "Deployment",
        "metadata": {"name": "web", "uid": "1", "labels": {"app": "web"}},
        "spec": spec,
    }


def containers(*items: dict[str, Any]) -> dict[str, Any]:
    return {"template": {"spec": {"containers": list(items)}}}


def owned(found: Managers, identity: Identity) -> set[str]:
    return set(map(fieldset.text, fieldset.paths(found[identity].fields)))


def apply(
    found: Managers, live: dict[str, Any], config: dict[str, Any], name: str = "me", force: bool = False
) -> Applied:
    before = copy.deepcopy((live, config))
    result = managers.applied(found, NODE, live, config, who(name, APPLY), STATUS, LATER, force=force)
    assert before == (live, config), "what was given is not changed"
    return result


def test_a_creator_owns_all_but_what_the_server_sets_and_the_status() -> None:
    new = {**deployment(replicas=2, selector={"matchLabels": {"a": "b"}}), "status": {"replicas": 0}}
    found = managers.born(NODE, new, who("create"), STATUS, NOW)
    assert owned(found, who("create")) == {
        ".metadata.labels", ".metadata.labels.app", ".spec.replicas", ".spec.selector",
    }  # fmt: skip


def test_an_update_takes_what_it_changes_from_the_others() -> None:
    old, new = deployment(replicas=1, paused=True), deployment(replicas=2)
    born = managers.born(NODE, old, who("a"), STATUS, NOW)
    found = managers.updated(born, NODE, old, new, who("b"), STATUS, LATER)
    assert owned(found, who("b")) == {".spec.replicas"}
    assert owned(found, who("a")) == {".metadata.labels", ".metadata.labels.app"}, "what was removed is nobody's"
    assert (found[who("a")].time, found[who("b")].time) == (NOW, LATER)


def test_a_status_is_owned_through_its_sub_resource() -> None:
    old = deployment(replicas=1)
    born = managers.born(NODE, old, who("a"), STATUS, NOW)
    new = {**old, "status": {"readyReplicas": 1}}
    found = managers.updated(born, NODE, old, new, who("c", sub="status"), {"f:spec": {}}, LATER)
    assert owned(found, who("c", sub="status")) >= {".status.readyReplicas"}
    assert ".spec.replicas" in owned(found, who("a"))


def test_an_update_of_what_nobody_owns_is_not_tracked() -> None:
    assert managers.updated({}, NODE, deployment(replicas=1), deployment(replicas=2), who("a"), STATUS, NOW) == {}


def test_the_oldest_of_many_updaters_become_one() -> None:
    live = deployment()
    found = managers.born(NODE, live, who("creator"), STATUS, NOW)
    for number in range(20):
        new = copy.deepcopy(live)
        new["metadata"]["labels"][f"l{number}"] = "x"
        found = managers.updated(found, NODE, live, new, who(f"m{number:02}"), STATUS, f"2026-01-01T00:01:{number:02}Z")
        live = new
    assert len(found) == MAX_UPDATERS
    assert ".metadata.labels.l0" in owned(found, who(managers.ANCIENT))
    assert owned(found, who("m19")) == {".metadata.labels.l19"}
    everything = set().union(*(owned(found, identity) for identity in found))
    assert {f".metadata.labels.l{number}" for number in range(20)} <= everything


def test_what_others_own_otherwise_is_a_conflict_in_kubernetes_words() -> None:
    live = deployment(replicas=3)
    found = {who("kubectl-edit"): Owned({"f:spec": {"f:replicas": {}}}, NOW)}
    with pytest.raises(ConflictError) as caught:
        apply(found, live, deployment(replicas=1))
    assert str(caught.value) == (
        'Apply failed with 1 conflict: conflict with "kubectl-edit" using apps/v1: .spec.replicas'
    )
    assert caught.value.details["causes"] == [
        {
            "reason": "FieldManagerConflict",
            "message": 'conflict with "kubectl-edit" using apps/v1',
            "field": ".spec.replicas",
        }
    ]


def test_what_an_apply_can_not_write_is_no_conflict() -> None:
    live = {**deployment(replicas=3), "status": {"replicas": 3}}
    found = {who("controller", sub="status"): Owned({"f:status": {"f:replicas": {}}}, NOW)}
    result = apply(found, live, {**deployment(paused=True), "status": {"replicas": 0}})
    assert ".status.replicas" in owned(result.managers, who("controller", sub="status"))
    assert not any(path.startswith(".status") for path in owned(result.managers, who("me", APPLY)))


def test_several_conflicts_are_listed_by_manager() -> None:
    live = deployment(replicas=3, paused=True)
    found = {
        who("b", APPLY): Owned({"f:spec": {"f:replicas": {}}}, NOW),
        who("a", sub="scale"): Owned({"f:spec": {"f:paused": {}}}, NOW),
    }
    with pytest.raises(ConflictError) as caught:
        apply(found, live, deployment(replicas=1, paused=False))
    assert str(caught.value) == (
        'Apply failed with 2 conflicts: conflicts with "a" with subresource "scale" using apps/v1:\n- .spec.paused\n'
        'conflicts with "b":\n- .spec.replicas'
    )


def test_force_takes_the_fields_and_equal_values_are_shared() -> None:
    live = deployment(replicas=3, paused=True)
    found = {who("b", APPLY): Owned({"f:spec": {"f:replicas": {}, "f:paused": {}}}, NOW)}
    result = apply(found, live, deployment(replicas=1, paused=True), force=True)
    assert result.object["spec"] == {"replicas": 1, "paused": True}
    assert owned(result.managers, who("b", APPLY)) == {".spec.paused"}
    assert owned(result.managers, who("me", APPLY)) >= {".spec.replicas", ".spec.paused"}


def test_what_is_no_longer_applied_goes_unless_another_has_it() -> None:
    start = {who("x"): Owned({"f:metadata": {"f:labels": {"f:app": {}}}}, NOW)}
    first = apply(start, deployment(), deployment(replicas=2, paused=True))
    second = apply(first.managers, first.object, deployment())
    assert second.object["spec"] == {}
    shared = {**first.managers, who("other", APPLY): Owned({"f:spec": {"f:replicas": {}}}, NOW)}
    assert apply(shared, first.object, deployment()).object["spec"] == {"replicas": 2}


def test_items_of_lists_are_merged_by_key_and_removed_with_what_nobody_owns_in_them() -> None:
    start = {who("x"): Owned({"f:metadata": {"f:labels": {"f:app": {}}}}, NOW)}
    config = deployment(**containers({"name": "a", "image": "1"}, {"name": "b", "image": "1"}))
    first = apply(start, deployment(), config)
    live = copy.deepcopy(first.object)
    for item in live["spec"]["template"]["spec"]["containers"]:
        item["imagePullPolicy"] = "Always"  # a default, owned by nobody
    second = apply(first.managers, live, deployment(**containers({"name": "b", "image": "2"})))
    assert second.object["spec"]["template"]["spec"]["containers"] == [
        {"name": "b", "image": "2", "imagePullPolicy": "Always"}
    ]


def test_an_injected_container_stays_when_others_are_applied() -> None:
    injected: dict[str, Any] = {"f:spec": {"f:template": {"f:spec": {"f:containers": {'k:{"name":"proxy"}': {}}}}}}
    live = deployment(**containers({"name": "proxy", "image": "p"}))
    result = apply({who("webhook"): Owned(injected, NOW)}, live, deployment(**containers({"name": "a", "image": "1"})))
    names = [item["name"] for item in result.object["spec"]["template"]["spec"]["containers"]]
    assert names == ["proxy", "a"]


def test_a_port_without_a_protocol_is_the_tcp_port() -> None:
    live = deployment(
        **containers({"name": "a", "image": "1", "ports": [{"containerPort": 80, "protocol": "TCP", "name": "web"}]})
    )
    config = deployment(**containers({"name": "a", "image": "1", "ports": [{"containerPort": 80}]}))
    result = apply({who("x"): Owned({"f:metadata": {}}, NOW)}, live, config)
    ports = result.object["spec"]["template"]["spec"]["containers"][0]["ports"]
    assert ports == [{"containerPort": 80, "protocol": "TCP", "name": "web"}]


def test_the_first_apply_to_what_nobody_owns_meets_what_was_there_before() -> None:
    with pytest.raises(ConflictError, match="before-first-apply"):
        apply({}, deployment(replicas=1), deployment(replicas=2))


def test_applying_the_same_again_changes_nothing_not_even_a_time() -> None:
    first = apply({who("x"): Owned({"f:metadata": {"f:labels": {}}}, NOW)}, deployment(), deployment(replicas=2))
    again = managers.applied(
        first.managers, NODE, first.object, deployment(replicas=2), who("me", APPLY), STATUS, "2027-01-01T00:00:00Z"
    )
    assert again.object == first.object and again.managers == first.managers


@pytest.mark.parametrize(
    ("items", "words"),
    [
        ([{"image": "1"}], 'omits key field "name"'),
        ([{"name": "a"}, {"name": "a"}], r'duplicate entries for key \[name="a"\]'),
        (["a"], "omits key field"),
    ],
)
def test_list_items_that_can_not_be_told_apart_are_refused(items: list[Any], words: str) -> None:
    with pytest.raises(InvalidError, match=words):
        typed.check_lists(NODE, deployment(**containers(*items)))


def test_what_is_stored_is_read_again_in_kubernetes_order() -> None:
    found: Managers = {
        who("z"): Owned({"f:spec": {}}, NOW),
        who("a"): Owned({"f:spec": {}}, LATER),
        who("s", APPLY, "status"): Owned({"f:status": {}}, LATER),
    }
    encoded = managers.encode(found)
    assert [entry["manager"] for entry in encoded] == ["s", "z", "a"]
    assert managers.decode(encoded) == found
    assert managers.stored({"metadata": {"managedFields": encoded}}) == found


@pytest.mark.parametrize(
    "sent",
    [
        [{"manager": "x", "operation": "Steal", "fieldsType": "FieldsV1", "fieldsV1": {}}],
        [{"manager": "x", "operation": "Apply", "fieldsType": "FieldsV9", "fieldsV1": {}}],
        [{"manager": "x", "operation": "Apply", "fieldsType": "FieldsV1", "fieldsV1": {"nonsense": {}}}],
    ],
)
def test_a_client_that_sends_nonsense_changes_no_ownership_and_one_that_resets_does(sent: Any) -> None:
    live = {who("x"): Owned({"f:spec": {}}, NOW)}
    assert managers.given(live, {"metadata": {"managedFields": sent}}, "") == live
    assert managers.given(live, {"metadata": {"managedFields": []}}, "") == live
    assert managers.given(live, {"metadata": {"managedFields": [{}]}}, "") == {}
    assert managers.given(live, {"metadata": {"managedFields": [{}]}}, "status") == live


def test_a_comparison_names_the_leaves_that_differ() -> None:
    old = deployment(**containers({"name": "a", "image": "1", "args": ["x", "y"]}))
    new = deployment(**containers({"name": "a", "image": "2", "args": ["x"]}, {"name": "b"}))
    added, removed, modified = typed.compare(NODE, old, new)
    place = ".spec.template.spec.containers"
    assert set(map(fieldset.text, fieldset.paths(modified))) == {f'{place}[name="a"].image', f'{place}[name="a"].args'}
    assert set(map(fieldset.text, fieldset.paths(added))) == {f'{place}[name="b"]', f'{place}[name="b"].name'}
    assert removed == {}


def test_sets_are_merged_by_value_and_atomic_lists_as_a_whole() -> None:
    live = {**deployment(), "metadata": {"name": "web", "finalizers": ["x.io/a", "x.io/b"]}}
    config = {**deployment(), "metadata": {"name": "web", "finalizers": ["x.io/c"]}}
    assert typed.merged(NODE, live, config)["metadata"]["finalizers"] == ["x.io/a", "x.io/b", "x.io/c"]
    live = deployment(**containers({"name": "a", "command": ["x", "y"]}))
    config = deployment(**containers({"name": "a", "command": ["z"]}))
    merged = typed.merged(NODE, live, config)["spec"]["template"]["spec"]["containers"][0]
    assert merged["command"] == ["z"]


def test_without_a_schema_maps_are_granular_and_lists_are_not() -> None:
    assert typed.merged(None, {"a": {"b": 1}, "l": [1, 2]}, {"a": {"c": 2}, "l": [3]}) == {
        "a": {"b": 1, "c": 2},
        "l": [3],
    }
    assert set(map(fieldset.text, fieldset.paths(typed.fields_of(None, {"a": {"c": 2}, "l": [3]})))) == {
        ".a", ".a.c", ".l",
    }  # fmt: skip
