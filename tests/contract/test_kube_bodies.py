"""What a request may look like, over real HTTPS: formats, strictness, options that do not go together, old tokens."""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any

import httpx
import pytest

from tests.harness.kube_server import ServerProcess, pod, serving

MAPS = "/api/v1/namespaces/default/configmaps"
PODS = "/api/v1/namespaces/default/pods"
MERGE = {"Content-Type": "application/merge-patch+json"}
APPLY = {"Content-Type": "application/apply-patch+yaml"}
YAML = {"Content-Type": "application/yaml"}


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[ServerProcess]:
    with serving(tmp_path_factory.mktemp("bodies")) as running:
        yield running


@pytest.fixture
def http(server: ServerProcess) -> Iterator[httpx.Client]:
    with server.http() as client:
        yield client


def test_yaml_is_taken_and_json_answered(http: httpx.Client) -> None:
    answer = http.post(MAPS, content="metadata: {name: yaml}\ndata:\n  a: |\n    text\n", headers=YAML)
    assert answer.status_code == 201 and answer.json()["data"] == {"a": "text\n"}
    bomb = "a: &a [x, x, x, x, x, x, x, x, x, x]\n" + "".join(
        f"b{n}: &b{n} [{', '.join(['*a' if n == 0 else f'*b{n - 1}'] * 10)}]\n" for n in range(9)
    )
    assert http.post(MAPS, content=bomb, headers=YAML).status_code == 400
    assert http.post(MAPS, content="[" * 100_000, headers=YAML).status_code == 400
    assert http.post(MAPS, content="x", headers={"Content-Type": "text/plain"}).status_code == 415


def test_fields_that_come_twice_are_refused_strictly_or_warned_of(http: httpx.Client) -> None:
    text = '{"metadata": {"name": "%s"}, "data": {"a": "1", "a": "2"}, "foo": 1}'
    strict = http.post(MAPS, content=text % "dup", params={"fieldValidation": "Strict"})
    assert strict.status_code == 400
    assert 'strict decoding error: duplicate field "data.a", unknown field "foo"' in strict.json()["message"]
    warned = http.post(MAPS, content=text % "dup")
    assert warned.status_code == 201 and warned.json()["data"] == {"a": "2"}
    assert warned.headers.get_list("Warning", split_commas=False) == [
        '299 - "duplicate field \\"data.a\\""',
        '299 - "unknown field \\"foo\\""',
    ]
    silent = http.post(MAPS, content=text % "dup2", params={"fieldValidation": "Ignore"})
    assert silent.status_code == 201 and "Warning" not in silent.headers
    patch = '{"data": {"b": "1", "b": "2"}}'
    refused = http.patch(f"{MAPS}/dup", content=patch, headers=MERGE, params={"fieldValidation": "Strict"})
    assert refused.status_code == 400 and 'duplicate field "data.b"' in refused.json()["message"]


def test_an_apply_is_yaml_with_a_manager(http: httpx.Client) -> None:
    text = "apiVersion: v1\nkind: ConfigMap\nmetadata: {name: applied}\ndata: {a: '1'}\n"
    nobody = http.patch(f"{MAPS}/applied", content=text, headers=APPLY)
    assert nobody.status_code == 422
    assert "fieldManager: Required value: is required for apply patch" in nobody.json()["message"]
    dry = http.patch(f"{MAPS}/applied", content=text, headers=APPLY, params={"fieldManager": "me", "dryRun": "All"})
    assert dry.status_code == 201 and http.get(f"{MAPS}/applied").status_code == 404
    made = http.patch(f"{MAPS}/applied", content=text, headers=APPLY, params={"fieldManager": "me"})
    assert made.status_code == 201
    again = http.patch(f"{MAPS}/applied", content=text, headers=APPLY, params={"fieldManager": "me"})
    assert again.status_code == 200 and again.json() == made.json()


@pytest.mark.parametrize(
    ("method", "path", "query", "code", "words"),
    [
        ("PATCH", f"{MAPS}/x", {"force": "true"}, 422, "force: Forbidden: may not be specified for non-apply patch"),
        ("PATCH", f"{MAPS}/x", {"fieldManager": "m" * 129}, 422, "fieldManager: Too long"),
        ("PATCH", f"{MAPS}/x", {"fieldManager": "a\nb"}, 422, "should only contain printable characters"),
        ("DELETE", f"{MAPS}/x", {"propagationPolicy": "Later"}, 422, 'propagationPolicy: Unsupported value: "Later"'),
        (
            "DELETE", f"{MAPS}/x", {"propagationPolicy": "Orphan", "orphanDependents": "true"}, 422,
            "OrphanDependents and DeletionPropagation cannot be both set",
        ),
        ("GET", MAPS, {"resourceVersionMatch": "Exact"}, 422, "is forbidden unless resourceVersion is provided"),
        ("GET", MAPS, {"resourceVersionMatch": "Exact", "resourceVersion": "0"}, 422, '"exact" is forbidden'),
        ("GET", MAPS, {"resourceVersionMatch": "Odd", "resourceVersion": "1"}, 422, 'Unsupported value: "Odd"'),
        ("GET", MAPS, {"sendInitialEvents": "true"}, 422, "sendInitialEvents is forbidden for list"),
        ("GET", MAPS, {"watch": "1", "sendInitialEvents": "true"}, 422, "requires setting resourceVersionMatch"),
        ("GET", MAPS, {"watch": "1", "continue": "x"}, 422, "continue is forbidden for watch"),
        ("GET", MAPS, {"labelSelector": "a in ("}, 400, "unable to parse requirement"),
        ("GET", MAPS, {"fieldSelector": "data.a=b"}, 400, "field label not supported: data.a"),
        ("GET", MAPS, {"watch": "1", "fieldSelector": "data.a=b"}, 400, "field label not supported: data.a"),
        ("GET", MAPS, {"resourceVersion": "999999999"}, 504, "Too large resource version"),
        ("GET", f"{MAPS}/kube-root-ca.crt", {"resourceVersion": "999999999"}, 504, "Too large resource version"),
    ],
)  # fmt: skip
def test_options_that_make_no_sense_are_refused(
    http: httpx.Client, method: str, path: str, query: dict[str, str], code: int, words: str
) -> None:
    content = {"content": "{}", "headers": MERGE} if method == "PATCH" else {}
    answer = http.request(method, path, params=query, **content)  # type: ignore[arg-type]
    assert answer.status_code == code, answer.text
    assert words in answer.json()["message"]


def test_a_forgotten_list_is_gone_on_with_as_it_is_now(http: httpx.Client) -> None:
    for number in range(4):
        http.post(MAPS, json={"metadata": {"name": f"forgotten-{number}", "labels": {"forgotten": "1"}}})
    query = {"labelSelector": "forgotten=1", "limit": "2"}
    token = http.get(MAPS, params=query).json()["metadata"]["continue"]
    for _ in range(70):  # more lists than are kept
        http.get(MAPS, params={"limit": "1"})
    http.delete(f"{MAPS}/forgotten-2")
    gone = http.get(MAPS, params={**query, "continue": token})
    body = gone.json()
    assert (gone.status_code, body["reason"]) == (410, "Expired")
    assert "inconsistent list" in body["message"]
    rest = http.get(MAPS, params={**query, "continue": body["metadata"]["continue"]}).json()
    assert [item["metadata"]["name"] for item in rest["items"]] == ["forgotten-3"]


def watched(http: httpx.Client, path: str, query: dict[str, str], accept: str = "application/json") -> list[Any]:
    query = {"watch": "1", "timeoutSeconds": "1", **query}
    with http.stream("GET", path, params=query, headers={"Accept": accept}) as answer:
        return [json.loads(line) for line in answer.iter_lines() if line]


def test_one_object_is_watched_by_its_name(http: httpx.Client) -> None:
    since = http.get(MAPS).json()["metadata"]["resourceVersion"]
    for name in ("watched", "unwatched"):
        http.post(MAPS, json={"metadata": {"name": name}})
    http.delete(f"{MAPS}/watched")
    seen = watched(http, MAPS, {"fieldSelector": "metadata.name=watched", "resourceVersion": since})
    assert [(event["type"], event["object"]["metadata"]["name"]) for event in seen] == [
        ("ADDED", "watched"),
        ("DELETED", "watched"),
    ]


@pytest.mark.parametrize("form", ["Table", "PartialObjectMetadata"])
def test_a_watch_comes_in_the_form_that_was_asked_for(http: httpx.Client, form: str) -> None:
    http.post(MAPS, json={"metadata": {"name": f"formed-{form.lower()}"}})
    accept = f"application/json;as={form};v=v1;g=meta.k8s.io"
    query = {"fieldSelector": f"metadata.name=formed-{form.lower()}", "resourceVersion": "0"}
    [event] = watched(http, MAPS, query, accept)
    assert (event["type"], event["object"]["kind"]) == ("ADDED", form)


def test_a_pod_is_bound_by_its_namespace_too(http: httpx.Client) -> None:
    http.post(PODS, json=pod("by-namespace", schedulerName="nobody"))
    binding = {"metadata": {"name": "by-namespace"}, "target": {"name": "n1"}}
    path = "/api/v1/namespaces/default/bindings"
    assert http.post(path, json=binding).status_code == 201
    assert http.get(f"{PODS}/by-namespace").json()["spec"]["nodeName"] == "n1"
    assert http.post(path, json={"target": {"name": "n1"}}).status_code == 400
    assert http.get(path).status_code == 405
    rows = {row["name"]: row["verbs"] for row in http.get("/api/v1").json()["resources"]}
    assert rows["bindings"] == ["create"]


def test_a_collection_is_deleted_by_selector_with_options(http: httpx.Client) -> None:
    for name, tier in (("swept-1", "x"), ("swept-2", "x"), ("swept-3", "y")):
        http.post(MAPS, json={"metadata": {"name": name, "labels": {"tier": tier}}})
    query = {"labelSelector": "tier=x", "propagationPolicy": "Foreground", "dryRun": "All"}
    dry = http.delete(MAPS, params=query)
    assert [item["metadata"]["name"] for item in dry.json()["items"]] == ["swept-1", "swept-2"]
    assert http.get(f"{MAPS}/swept-1").json()["metadata"].get("deletionTimestamp") is None
    http.delete(MAPS, params={"labelSelector": "tier=x"})
    assert [http.get(f"{MAPS}/swept-{n}").status_code for n in (1, 2, 3)] == [404, 404, 200]
