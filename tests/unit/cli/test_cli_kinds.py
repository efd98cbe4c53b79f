"""Kinds by their names, their fields, files of objects, nodes: what is found, and what is said of what is not."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from cuboid.cli import documents, nodes, resources, schemas, tables
from cuboid.cli.resources import DEPLOYMENTS, PODS, Resource
from cuboid.lib.errors import InvalidError, NotFoundError

Object = dict[str, Any]
KNOWN = [
    PODS._replace(short=("po",)),
    DEPLOYMENTS._replace(short=("deploy",)),
    Resource("", "v1", "events", "event", "Event", True),
    Resource("events.k8s.io", "v1", "events", "event", "Event", True),
    Resource("sea.example", "v1", "boats", "boat", "Boat", True),
]


@pytest.mark.parametrize(
    "word", ["deployments", "deployment", "Deployment", "deploy", "deployments.apps", "deploy.apps"]
)
def test_a_kind_is_found_by_any_of_its_names(word: str) -> None:
    assert resources.find(KNOWN, word).kind == "Deployment"


def test_a_group_tells_kinds_of_one_name_apart() -> None:
    assert resources.find(KNOWN, "events").group == ""
    assert resources.find(KNOWN, "events.events.k8s.io").group == "events.k8s.io"
    assert resources.find(KNOWN, "boats.v1.sea.example").kind == "Boat"


def test_what_is_near_is_named() -> None:
    with pytest.raises(NotFoundError) as caught:
        resources.find(KNOWN, "deploymnet")
    assert caught.value.hint == "deployment or deployments"
    with pytest.raises(NotFoundError) as caught:
        resources.of_kind(KNOWN, "extensions/v1beta1", "Deployment")
    assert caught.value.hint == "apiVersion: apps/v1"


def test_paths_are_quoted() -> None:
    assert DEPLOYMENTS.path("d", "a/../b", "scale") == "/apis/apps/v1/namespaces/d/deployments/a%2F..%2Fb/scale"
    assert PODS.path() == "/api/v1/pods"


def test_documents_of_a_folder_are_read_in_order_and_what_others_need_comes_first(tmp_path: Path) -> None:
    (tmp_path / "b.yaml").write_text("apiVersion: v1\nkind: Namespace\nmetadata: {name: n}\n---\n---\n")
    (tmp_path / "a.json").write_text('{"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": "c"}}')
    (tmp_path / "ignored.txt").write_text("}{")
    assert [row.object["metadata"]["name"] for row in documents.read([str(tmp_path)])] == ["n", "c"]


def test_files_that_can_not_be_read_are_named(tmp_path: Path) -> None:
    with pytest.raises(InvalidError, match="No such file"):
        documents.read([str(tmp_path / "none.yaml")])
    with pytest.raises(InvalidError, match=r"no \*.yaml"):
        documents.read([str(tmp_path)])
    (tmp_path / "x.yaml").write_bytes(b"\xff\xfe\x00")
    with pytest.raises(InvalidError):
        documents.read([str(tmp_path / "x.yaml")])


@given(st.text(max_size=200))
def test_any_text_is_objects_or_refused(text: str) -> None:
    try:
        for row in documents.parse("f", text):
            assert row.object["kind"] and row.object["metadata"]["name"]
    except InvalidError:
        pass


def test_deep_documents_are_refused_in_a_sentence() -> None:
    with pytest.raises(InvalidError):
        list(documents.parse("f", "[" * 100_000))


def test_a_document_that_grows_with_each_reference_is_refused_before_it_has() -> None:
    lines = ["a0: &a0 [x, x, x, x, x, x, x, x, x, x]"]
    lines += [f"a{n}: &a{n} [{', '.join([f'*a{n - 1}'] * 10)}]" for n in range(1, 12)]
    with pytest.raises(InvalidError, match="too much"):
        list(documents.parse("f", "\n".join(lines)))


def test_a_field_that_is_there_twice_is_refused() -> None:
    with pytest.raises(InvalidError, match="'env' is there twice"):
        list(documents.parse("f", "spec:\n  env: [1]\n  image: x\n  env: [2]\n"))


def test_values_stay_what_they_are() -> None:
    text = "apiVersion: v1\nkind: X\nmetadata: {name: x}\nspec: {2: a, true: 2020-01-01, c: 1.5, d: ~, e: [no, 0x10]}"
    (found,) = documents.parse("f", text)
    assert found.object["spec"] == {"2": "a", "true": "2020-01-01", "c": 1.5, "d": None, "e": [False, 16]}


SCHEMAS: Object = {
    "components": {
        "schemas": {
            "Boat": {
                "x-kubernetes-group-version-kind": [{"group": "sea.example", "version": "v1", "kind": "Boat"}],
                "type": "object",
                "description": "Floats. Mostly.",
                "required": ["spec"],
                "properties": {"spec": {"description": "Its build.", "allOf": [{"$ref": "#/components/schemas/Spec"}]}},
            },
            "Spec": {
                "type": "object",
                "description": "Hidden by the field's own words.",
                "properties": {
                    "masts": {"type": "array", "items": {"$ref": "#/components/schemas/Mast"}},
                    "flags": {"additionalProperties": {"type": "string"}, "type": "object"},
                    "self": {"$ref": "#/components/schemas/Spec"},
                },
            },
            "Mast": {
                "type": "object",
                "required": ["height"],
                "properties": {"wood": {"type": "string", "enum": ["oak", "pine"]}, "height": {"type": "integer"}},
            },
        }
    }
}


def test_fields_are_explained_through_references_and_lists() -> None:
    boat = KNOWN[-1]
    spec = schemas.find(SCHEMAS, boat, ["spec"])
    assert (spec.type, spec.required, spec.description) == ("object", True, "Its build.")
    assert {row.name: row.type for row in spec.fields} == {
        "masts": "[]object", "flags": "map[string]string", "self": "object"
    }  # fmt: skip
    masts = schemas.find(SCHEMAS, boat, ["spec", "masts"])
    assert [(row.name, row.required) for row in masts.fields] == [("height", True), ("wood", False)]
    assert schemas.find(SCHEMAS, boat, ["spec", "self", "self", "masts", "wood"]).values == ("oak", "pine")
    with pytest.raises(NotFoundError) as caught:
        schemas.find(SCHEMAS, boat, ["spec", "mast"])
    assert caught.value.hint == "masts"


def test_a_schema_that_refers_to_itself_ends() -> None:
    circle = {"$ref": "#/components/schemas/A"}
    document: Object = {
        "components": {
            "schemas": {
                "A": circle,
                "Boat": {
                    "x-kubernetes-group-version-kind": [{"group": "sea.example", "version": "v1", "kind": "Boat"}],
                    "properties": {"a": circle, "b": {"items": circle}},
                },
            }
        }
    }
    assert schemas.find(document, KNOWN[-1], ["a"]).type == "any"
    schemas.find(document, KNOWN[-1], ["b"])


def test_only_columns_that_matter_unless_wide() -> None:
    content = {
        "columnDefinitions": [{"name": "Name"}, {"name": "Node", "priority": 1}, {"name": "Ready"}],
        "rows": [{"cells": ["a", None, True], "object": {"metadata": {"namespace": "n"}}}],
    }
    assert tables.cells(content, wide=False, with_namespace=True) == (
        ["NAMESPACE", "NAME", "READY"],
        [["n", "a", "true"]],
    )
    assert tables.cells(content, wide=True, with_namespace=False)[1] == [["a", "<none>", "true"]]


def test_later_rows_of_a_watch_stand_under_the_first_columns(capsys: pytest.CaptureFixture[str]) -> None:
    rows = tables.Rows(wide=False, with_namespace=False)
    rows.print({"columnDefinitions": [{"name": "Name"}, {"name": "State"}], "rows": []})
    rows.print({"rows": [{"cells": ["long-name", "x\033[31m"]}]})
    rows.print({"rows": [{"cells": ["b", "y"]}]})
    assert capsys.readouterr().out == "NAME       STATE\nlong-name  x\\x1b[31m\nb          y\n"


def test_pods_of_a_node_are_sorted_by_what_becomes_of_them() -> None:
    def pod(name: str, kind: str = "", phase: str = "Running") -> Object:
        owners = [{"kind": kind, "controller": True}] if kind else []
        return {"metadata": {"name": name, "ownerReferences": owners}, "spec": {}, "status": {"phase": phase}}

    given = [pod("a", "ReplicaSet"), pod("b", "DaemonSet"), pod("c"), pod("d", phase="Succeeded")]
    movable, staying, lost = nodes.sort_out(given)
    assert [[row["metadata"]["name"] for row in rows] for rows in (movable, staying, lost)] == [
        ["a", "d"],
        ["b"],
        ["c"],
    ]


@pytest.mark.parametrize(
    ("text", "value"), [("250m", 0.25), ("2", 2.0), ("1Ki", 1024.0), ("1.5G", 1.5e9), ("x", 0.0), ("", 0.0)]
)
def test_amounts_are_numbers(text: str, value: float) -> None:
    assert nodes.amount(text) == value


def test_a_budget_covers_what_its_selector_says() -> None:
    pod: Object = {"metadata": {"labels": {"app": "web", "tier": "x"}}}
    terms = [{"key": "tier", "operator": "In", "values": ["x"]}, {"key": "old", "operator": "DoesNotExist"}]
    assert nodes.covers({"spec": {"selector": {"matchLabels": {"app": "web"}, "matchExpressions": terms}}}, pod)
    assert not nodes.covers({"spec": {"selector": {"matchLabels": {"app": "db"}}}}, pod)


def test_the_first_command_of_a_short_group_need_not_be_named() -> None:
    from typer.testing import CliRunner

    from cuboid.cli.main import build

    said = CliRunner().invoke(build(["job"]), ["job", "--count", "0", "img"])
    assert "Usage: root job run" in said.output or "job run" in said.output
    assert "Invalid value for '--count'" in said.output
    assert "Remove jobs" in CliRunner().invoke(build(["job"]), ["job", "rm", "-h"]).output
    assert "or ls, logs, rm" in CliRunner().invoke(build(["job"]), ["job", "-h"]).output
