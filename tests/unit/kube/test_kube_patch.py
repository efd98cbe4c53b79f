"""The three patches: examples from their specifications, and properties."""

from __future__ import annotations

import copy
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from cuboid.kube import patch, schema
from cuboid.lib.errors import InvalidError

json_values = st.recursive(
    st.none() | st.booleans() | st.integers(-100, 100) | st.text(max_size=4),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=3), inner, max_size=4),
    max_leaves=20,
)
objects = st.dictionaries(st.text(max_size=3), json_values, max_size=5)


@pytest.mark.parametrize(
    ("target", "change", "result"),
    [  # RFC 7386, appendix A
        ({"a": "b"}, {"a": "c"}, {"a": "c"}),
        ({"a": "b"}, {"b": "c"}, {"a": "b", "b": "c"}),
        ({"a": "b"}, {"a": None}, {}),
        ({"a": "b", "b": "c"}, {"a": None}, {"b": "c"}),
        ({"a": ["b"]}, {"a": "c"}, {"a": "c"}),
        ({"a": "c"}, {"a": ["b"]}, {"a": ["b"]}),
        ({"a": {"b": "c"}}, {"a": {"b": "d", "c": None}}, {"a": {"b": "d"}}),
        ({"a": [{"b": "c"}]}, {"a": [1]}, {"a": [1]}),
        ({"e": None}, {"a": 1}, {"e": None, "a": 1}),
        ([1, 2], {"a": "b", "c": None}, {"a": "b"}),
        ({}, {"a": {"bb": {"ccc": None}}}, {"a": {"bb": {}}}),
    ],
)
def test_merge_patch_follows_its_rfc(target: Any, change: Any, result: Any) -> None:
    assert patch.merge(target, change) == result


@given(json_values, json_values)
def test_merging_twice_is_merging_once_and_changes_no_argument(target: Any, change: Any) -> None:
    before = copy.deepcopy((target, change))
    once = patch.merge(target, change)
    assert patch.merge(once, change) == once
    assert (target, change) == before


@pytest.mark.parametrize(
    ("document", "operations", "result"),
    [
        ({"a": [1, 2]}, [{"op": "add", "path": "/a/1", "value": 9}], {"a": [1, 9, 2]}),
        ({"a": [1]}, [{"op": "add", "path": "/a/-", "value": 2}], {"a": [1, 2]}),
        ({"a": 1}, [{"op": "remove", "path": "/a"}], {}),
        ({"a": 1}, [{"op": "replace", "path": "/a", "value": 2}], {"a": 2}),
        ({"a": {"b": 1}}, [{"op": "move", "from": "/a/b", "path": "/c"}], {"a": {}, "c": 1}),
        ({"a": 1}, [{"op": "copy", "from": "/a", "path": "/b"}], {"a": 1, "b": 1}),
        (
            {"a/b": 1, "m~n": 2},
            [{"op": "test", "path": "/a~1b", "value": 1}, {"op": "remove", "path": "/m~0n"}],
            {"a/b": 1},
        ),
        ({"a": 1}, [{"op": "add", "path": "", "value": {"z": 0}}], {"z": 0}),
    ],
)
def test_json_patch_follows_its_rfc(document: Any, operations: Any, result: Any) -> None:
    assert patch.json_patch(document, operations) == result


@pytest.mark.parametrize(
    "operations",
    [
        {},
        [1],
        [{"op": "spin", "path": "/a"}],
        [{"op": "remove", "path": "/nope"}],
        [{"op": "remove", "path": ""}],
        [{"op": "replace", "path": "/l/5", "value": 1}],
        [{"op": "add", "path": "/l/01", "value": 1}],
        [{"op": "add", "path": "a", "value": 1}],
        [{"op": "add", "path": "/a"}],
        [{"op": "test", "path": "/t", "value": 1}],
        [{"op": "move", "from": "/o", "path": "/o/x"}],
        [{"op": "add", "path": "/l/-/x", "value": 1}],
        [{"op": "copy", "from": "/o", "path": f"/o/x{i}"} for i in range(60)],
    ],
)
def test_a_wrong_json_patch_is_refused_and_changes_nothing(operations: Any) -> None:
    document = {"l": [1], "t": True, "o": {"p": "q"}}
    before = copy.deepcopy(document)
    with pytest.raises(InvalidError):
        patch.json_patch(document, operations)
    assert document == before


operation = st.fixed_dictionaries(
    {"op": st.sampled_from(["add", "remove", "replace", "move", "copy", "test"])},
    optional={"path": st.text("/ab0-~1", max_size=6), "from": st.text("/ab0", max_size=5), "value": json_values},
)


@given(objects, st.lists(operation, max_size=6))
def test_no_json_patch_breaks_the_server(document: dict[str, Any], operations: list[Any]) -> None:
    try:
        patch.json_patch(document, operations)
    except InvalidError:
        return


POD = schema.node("io.k8s.api.core.v1.Pod")


def containers(*items: dict[str, Any]) -> dict[str, Any]:
    return {"spec": {"containers": list(items)}}


@pytest.mark.parametrize(
    ("target", "change", "result"),
    [
        (
            containers({"name": "a", "image": "1"}, {"name": "b", "image": "1"}),
            containers({"name": "b", "image": "2"}),
            containers({"name": "a", "image": "1"}, {"name": "b", "image": "2"}),
        ),
        (
            containers({"name": "a"}, {"name": "b"}),
            containers({"name": "a", "$patch": "delete"}),
            containers({"name": "b"}),
        ),
        (
            containers({"name": "a"}),
            containers({"$patch": "replace"}, {"name": "z"}),
            containers({"name": "z"}),
        ),
        (
            containers({"name": "a", "args": ["x"]}),
            containers({"name": "a", "args": ["y"]}),
            containers({"name": "a", "args": ["y"]}),
        ),
        (
            {"metadata": {"finalizers": ["a", "b"]}},
            {"metadata": {"finalizers": ["c"], "$deleteFromPrimitiveList/finalizers": ["a"]}},
            {"metadata": {"finalizers": ["b", "c"]}},
        ),
        (
            {"spec": {"volumes": [{"name": "v", "emptyDir": {}}]}},
            {"spec": {"volumes": [{"name": "v", "configMap": {"name": "c"}, "$retainKeys": ["name", "configMap"]}]}},
            {"spec": {"volumes": [{"name": "v", "configMap": {"name": "c"}}]}},
        ),
        (
            containers({"name": "a"}, {"name": "b"}),
            {"spec": {"$setElementOrder/containers": [{"name": "b"}, {"name": "a"}]}},
            containers({"name": "b"}, {"name": "a"}),
        ),
        (
            {"metadata": {"labels": {"a": "1", "b": "2"}}},
            {"metadata": {"labels": {"a": None}}},
            {"metadata": {"labels": {"b": "2"}}},
        ),
        ({"spec": {"dnsConfig": {"searches": ["x"]}}}, {"spec": {"dnsConfig": {"$patch": "delete"}}}, {"spec": {}}),
    ],
)  # fmt: skip
def test_strategic_merge_follows_the_merge_keys(target: Any, change: Any, result: Any) -> None:
    assert patch.strategic_merge(POD, target, change) == result


@pytest.mark.parametrize(
    "change", [[], containers({"image": "x"}), {"spec": {"$patch": "spin"}}, {"spec": {"$retainKeys": "x"}}]
)
def test_a_wrong_strategic_merge_is_refused(change: Any) -> None:
    with pytest.raises(InvalidError):
        patch.strategic_merge(POD, containers({"name": "a"}), change)


pods = st.fixed_dictionaries(
    {},
    optional={
        "metadata": st.dictionaries(
            st.sampled_from(["labels", "annotations", "finalizers", "$retainKeys"]), json_values
        ),
        "spec": st.dictionaries(
            st.sampled_from(["containers", "volumes", "nodeSelector", "$setElementOrder/containers", "$patch"]),
            json_values,
        ),
    },
)


@given(pods, pods)
def test_no_strategic_merge_breaks_the_server(target: Any, change: Any) -> None:
    try:
        patch.strategic_merge(POD, target, change)
    except InvalidError:
        return


names = st.lists(st.sampled_from("abcdef"), unique=True, max_size=6)


@given(names, names, names)
def test_lists_with_merge_keys_hold_each_name_once(old: list[str], new: list[str], order: list[str]) -> None:
    target = containers(*({"name": name, "image": "1"} for name in old))
    change = containers(*({"name": name, "image": "2"} for name in new))
    change["spec"]["$setElementOrder/containers"] = [{"name": name} for name in order]
    result = patch.strategic_merge(POD, target, change)["spec"].get("containers", [])
    found = [item["name"] for item in result]
    assert sorted(found) == sorted({*old, *new})
    assert [name for name in found if name in order] == [name for name in order if name in found]
    assert all(item["image"] == ("2" if item["name"] in new else "1") for item in result)


def test_long_lists_of_a_stranger_take_no_time() -> None:
    """Compared with each other, these would take hours."""
    node = schema.node("io.k8s.api.core.v1.Pod")
    names = [f"c{number}" for number in range(30_000)]
    listed = [{"name": name} for name in names]
    change = {"containers": listed, "$setElementOrder/containers": listed[::-1]}
    merged = patch.strategic_merge(node, {"spec": {"containers": listed[:15_000]}}, {"spec": change})
    assert [item["name"] for item in merged["spec"]["containers"]] == names[::-1]
    finalizers = {"metadata": {"finalizers": names, "$deleteFromPrimitiveList/finalizers": names[:15_000]}}
    merged = patch.strategic_merge(node, {"metadata": {"finalizers": names}}, finalizers)
    assert merged["metadata"]["finalizers"] == names[15_000:]
