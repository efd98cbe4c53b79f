"""Custom resources against a real server process: from the definition to its end, and over a restart."""

from __future__ import annotations

import copy
import json
import time
from collections.abc import Iterator
from typing import Any

import httpx
import pytest

from tests.harness.kube_server import ServerProcess, serving

DEFINITIONS = "/apis/apiextensions.k8s.io/v1/customresourcedefinitions"
GROUP = "stable.example.com"
ITEMS = f"/apis/{GROUP}/v1/namespaces/default/crontabs"
NAME = f"crontabs.{GROUP}"
SCHEMA: dict[str, Any] = {
    "type": "object",
    "properties": {
        "spec": {
            "type": "object",
            "required": ["cronSpec"],
            "properties": {
                "cronSpec": {"type": "string", "description": "When it runs.", "pattern": r"^\S+( \S+){4}$"},
                "image": {"type": "string"},
                "replicas": {"type": "integer", "minimum": 1, "maximum": 10, "default": 1},
                "steps": {
                    "type": "array",
                    "x-kubernetes-list-type": "map",
                    "x-kubernetes-list-map-keys": ["name"],
                    "items": {
                        "type": "object",
                        "required": ["name"],
                        "properties": {"name": {"type": "string"}, "run": {"type": "string"}},
                    },
                },
            },
        },
        "status": {
            "type": "object",
            "properties": {"replicas": {"type": "integer"}, "selector": {"type": "string"}},
        },
    },
}


def definition(**changes: Any) -> dict[str, Any]:
    """`crontabs`; `changes` are fields of its one version."""
    version = {
        "name": "v1",
        "served": True,
        "storage": True,
        "schema": {"openAPIV3Schema": copy.deepcopy(SCHEMA)},
        "subresources": {
            "status": {},
            "scale": {
                "specReplicasPath": ".spec.replicas",
                "statusReplicasPath": ".status.replicas",
                "labelSelectorPath": ".status.selector",
            },
        },
        "additionalPrinterColumns": [
            {"name": "Spec", "type": "string", "jsonPath": ".spec.cronSpec"},
            {"name": "Replicas", "type": "integer", "jsonPath": ".spec.replicas"},
            {"name": "Steps", "type": "string", "jsonPath": ".spec.steps[*].name", "priority": 1},
            {"name": "Age", "type": "date", "jsonPath": ".metadata.creationTimestamp"},
        ],
        "selectableFields": [{"jsonPath": ".spec.image"}],
    }
    names = {
        "plural": "crontabs",
        "singular": "crontab",
        "kind": "CronTab",
        "shortNames": ["ct"],
        "categories": ["all"],
    }
    return {
        "apiVersion": "apiextensions.k8s.io/v1",
        "kind": "CustomResourceDefinition",
        "metadata": {"name": NAME},
        "spec": {"group": GROUP, "scope": "Namespaced", "names": names, "versions": [{**version, **changes}]},
    }


def crontab(name: str = "a", **spec: Any) -> dict[str, Any]:
    body = {"cronSpec": "* * * * *", **spec}
    return {"apiVersion": f"{GROUP}/v1", "kind": "CronTab", "metadata": {"name": name}, "spec": body}


def gone(http: httpx.Client, path: str) -> None:
    end = time.monotonic() + 10
    while http.get(path).status_code != 404:
        assert time.monotonic() < end, f"{path} is still there"
        time.sleep(0.05)


def conditions(http: httpx.Client, name: str = NAME) -> dict[str, tuple[str, str]]:
    """Type to status and reason, once there are any."""
    end = time.monotonic() + 10
    while time.monotonic() < end:
        found = http.get(f"{DEFINITIONS}/{name}").json()["status"].get("conditions") or []
        if found:
            return {item["type"]: (item["status"], item["reason"]) for item in found}
        time.sleep(0.02)
    raise AssertionError("no conditions")


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[ServerProcess]:
    with serving(tmp_path_factory.mktemp("crd")) as running:
        yield running


@pytest.fixture
def http(server: ServerProcess) -> Iterator[httpx.Client]:
    with server.http() as client:
        yield client
    with server.http() as client:
        for item in client.get(DEFINITIONS).json()["items"]:
            client.delete(f"{DEFINITIONS}/{item['metadata']['name']}")
            gone(client, f"{DEFINITIONS}/{item['metadata']['name']}")


def made(http: httpx.Client, body: dict[str, Any], path: str = DEFINITIONS) -> dict[str, Any]:
    answer = http.post(path, json=body)
    assert answer.status_code == 201, answer.text
    found: dict[str, Any] = answer.json()
    return found


def test_a_defined_kind_is_served_at_once_everywhere(http: httpx.Client) -> None:
    made(http, definition())
    assert made(http, crontab(), ITEMS)["spec"]["replicas"] == 1
    groups = {group["name"]: group for group in http.get("/apis").json()["groups"]}
    assert groups[GROUP]["preferredVersion"]["version"] == "v1"
    rows = {row["name"]: row for row in http.get(f"/apis/{GROUP}/v1").json()["resources"]}
    assert set(rows) == {"crontabs", "crontabs/status", "crontabs/scale"}
    assert (rows["crontabs"]["singularName"], rows["crontabs"]["shortNames"]) == ("crontab", ["ct"])
    assert rows["crontabs/scale"]["kind"] == "Scale" and rows["crontabs/scale"]["group"] == "autoscaling"
    assert f"apis/{GROUP}/v1" in http.get("/openapi/v3").json()["paths"]
    spec = http.get(f"/openapi/v3/apis/{GROUP}/v1").json()["components"]["schemas"]
    shown = spec["com.example.stable.v1.CronTab"]["properties"]["spec"]["properties"]["cronSpec"]
    assert shown["description"] == "When it runs."
    assert conditions(http) == {
        "NamesAccepted": ("True", "NoConflicts"),
        "Established": ("True", "InitialNamesAccepted"),
    }
    status = http.get(f"{DEFINITIONS}/{NAME}").json()["status"]
    assert status["acceptedNames"]["listKind"] == "CronTabList" and status["storedVersions"] == ["v1"]


def test_objects_are_validated_pruned_and_printed(http: httpx.Client) -> None:
    made(http, definition())
    answer = http.post(ITEMS, json=crontab(cronSpec="x", replicas=11, image=7))
    assert answer.status_code == 422
    assert {(cause["field"], cause["reason"]) for cause in answer.json()["details"]["causes"]} == {
        ("spec.cronSpec", "FieldValueInvalid"),
        ("spec.replicas", "FieldValueInvalid"),
        ("spec.image", "FieldValueTypeInvalid"),
    }
    assert 'CronTab.stable.example.com "a" is invalid' in answer.json()["message"]
    strict = http.post(ITEMS, json=crontab(no=1), params={"fieldValidation": "Strict"})
    assert strict.status_code == 400 and 'unknown field "spec.no"' in strict.json()["message"]
    warned = http.post(ITEMS, json=crontab(no=1, steps=[{"name": "x"}, {"name": "y"}]))
    assert warned.headers["Warning"] == '299 - "unknown field \\"spec.no\\""' and "no" not in warned.json()["spec"]
    twice = http.post(ITEMS, json=crontab("b", steps=[{"name": "x"}, {"name": "x"}]))
    assert 'spec.steps[1]: Duplicate value: {"name":"x"}' in twice.json()["message"]
    table = http.get(ITEMS, headers={"Accept": "application/json;as=Table;v=v1;g=meta.k8s.io"}).json()
    assert [column["name"] for column in table["columnDefinitions"]] == ["Name", "Spec", "Replicas", "Steps", "Age"]
    assert table["rows"][0]["cells"][:4] == ["a", "* * * * *", 1, "x y"]


def test_rules_are_kept_on_every_write(http: httpx.Client) -> None:
    body = definition()
    spec = body["spec"]["versions"][0]["schema"]["openAPIV3Schema"]["properties"]["spec"]
    spec["x-kubernetes-validations"] = [
        {"rule": "self.replicas < 5 || has(self.image)", "message": "many replicas need an image"},
        {"rule": "!has(oldSelf.image) || self.image == oldSelf.image", "message": "the image is immutable"},
    ]
    made(http, body)
    refused = http.post(ITEMS, json=crontab(replicas=7))
    assert refused.status_code == 422
    cause = refused.json()["details"]["causes"][0]
    assert (cause["field"], cause["message"]) == ("spec", 'Invalid value: "object": many replicas need an image')
    made(http, crontab(replicas=7, image="x"), ITEMS)
    merge = {"Content-Type": "application/merge-patch+json"}
    changed = http.patch(f"{ITEMS}/a", content=b'{"spec":{"image":"y"}}', headers=merge)
    assert changed.status_code == 422 and "the image is immutable" in changed.text
    body["metadata"]["name"], body["spec"]["names"] = f"others.{GROUP}", {"plural": "others", "kind": "Other"}
    spec["x-kubernetes-validations"] = [{"rule": "self.replicas <"}]
    wrong = http.post(DEFINITIONS, json=body)
    assert wrong.status_code == 422 and "compilation failed" in wrong.text


def test_status_and_generation(http: httpx.Client) -> None:
    made(http, definition())
    created = made(http, {**crontab(), "status": {"replicas": 3}}, ITEMS)
    assert "status" not in created and created["metadata"]["generation"] == 1
    merge = {"Content-Type": "application/merge-patch+json"}
    body = {"spec": {"replicas": 5}, "status": {"replicas": 2}, "metadata": {"labels": {"a": "b"}}}
    changed = http.patch(f"{ITEMS}/a/status", content=json.dumps(body), headers=merge).json()
    assert changed["status"] == {"replicas": 2} and changed["spec"]["replicas"] == 1
    assert changed["metadata"]["generation"] == 1 and "labels" not in changed["metadata"]
    changed = http.patch(f"{ITEMS}/a", content=json.dumps(body), headers=merge).json()
    assert changed["status"] == {"replicas": 2} and changed["spec"]["replicas"] == 5
    assert changed["metadata"]["generation"] == 2


def test_the_scale_is_where_the_definition_says(http: httpx.Client) -> None:
    made(http, definition())
    made(http, crontab(replicas=2), ITEMS)
    merge = {"Content-Type": "application/merge-patch+json"}
    status = {"status": {"replicas": 1, "selector": "a=b"}}
    http.patch(f"{ITEMS}/a/status", content=json.dumps(status), headers=merge)
    scale = http.get(f"{ITEMS}/a/scale").json()
    assert (scale["kind"], scale["spec"], scale["status"]) == (
        "Scale",
        {"replicas": 2},
        {"replicas": 1, "selector": "a=b"},
    )
    scale["spec"]["replicas"] = 7
    assert http.put(f"{ITEMS}/a/scale", json=scale).json()["spec"] == {"replicas": 7}
    assert http.get(f"{ITEMS}/a").json()["spec"]["replicas"] == 7


def test_server_side_apply_follows_the_lists_of_the_schema(http: httpx.Client) -> None:
    made(http, definition())
    headers = {"Content-Type": "application/apply-patch+yaml"}
    for manager, step in (("one", "x"), ("two", "y")):
        body = crontab(steps=[{"name": step, "run": manager}])
        applied = http.patch(
            f"{ITEMS}/a", json=body, headers=headers, params={"fieldManager": manager, "force": "true"}
        )
        assert applied.status_code in (200, 201), applied.text
    assert [step["name"] for step in applied.json()["spec"]["steps"]] == ["x", "y"]
    body = crontab(steps=[{"name": "x", "run": "other"}])
    refused = http.patch(f"{ITEMS}/a", json=body, headers=headers, params={"fieldManager": "two"})
    assert refused.status_code == 409
    assert refused.json()["details"]["causes"][0]["field"] == '.spec.steps[name="x"].run'


def test_fields_that_are_named_can_be_selected_by(http: httpx.Client) -> None:
    made(http, definition())
    for name in ("a", "b"):
        made(http, crontab(name, image=f"image-{name}"), ITEMS)
    found = http.get(ITEMS, params={"fieldSelector": "spec.image=image-b"}).json()["items"]
    assert [item["metadata"]["name"] for item in found] == ["b"]
    assert http.get(ITEMS, params={"fieldSelector": "spec.cronSpec=x"}).status_code == 400


def test_versions_differ_by_their_name(http: httpx.Client) -> None:
    body = definition()
    first = body["spec"]["versions"][0]
    body["spec"]["versions"].append({**first, "name": "v1beta1", "storage": False, "deprecated": True})
    made(http, body)
    made(http, crontab(), ITEMS)
    old = http.get(ITEMS.replace("/v1/", "/v1beta1/") + "/a")
    assert old.json()["apiVersion"] == f"{GROUP}/v1beta1"
    assert old.headers["Warning"] == f'299 - "{GROUP}/v1beta1 CronTab is deprecated"'
    listed = http.get(ITEMS.replace("/v1/", "/v1beta1/")).json()
    assert {item["apiVersion"] for item in listed["items"]} == {f"{GROUP}/v1beta1"}
    group = http.get(f"/apis/{GROUP}").json()
    assert [version["version"] for version in group["versions"]] == ["v1", "v1beta1"]


def test_a_changed_schema_shows_in_what_was_stored_before(http: httpx.Client) -> None:
    made(http, definition())
    made(http, crontab(image="x"), ITEMS)
    current = http.get(f"{DEFINITIONS}/{NAME}").json()
    spec = current["spec"]["versions"][0]["schema"]["openAPIV3Schema"]["properties"]["spec"]["properties"]
    del spec["image"]
    spec["mode"] = {"type": "string", "default": "fast"}
    del current["spec"]["versions"][0]["selectableFields"]
    conditions(http)
    current["metadata"].pop("resourceVersion")
    assert http.put(f"{DEFINITIONS}/{NAME}", json=current).status_code == 200
    shown = http.get(f"{ITEMS}/a").json()["spec"]
    assert "image" not in shown and shown["mode"] == "fast"
    assert http.get(ITEMS).json()["items"][0]["spec"]["mode"] == "fast"


def test_names_that_are_taken_are_not_served(http: httpx.Client) -> None:
    made(http, definition())
    made(http, crontab(), ITEMS)
    other = definition()
    other["metadata"]["name"] = f"others.{GROUP}"
    other["spec"]["names"] = {"plural": "others", "singular": "other", "kind": "CronTab"}
    made(http, other)
    assert conditions(http, f"others.{GROUP}") == {
        "NamesAccepted": ("False", "KindConflict"),
        "Established": ("False", "NotAccepted"),
    }
    assert http.get(f"/apis/{GROUP}/v1/others").status_code == 404
    http.delete(f"{DEFINITIONS}/{NAME}")
    gone(http, f"{DEFINITIONS}/{NAME}")
    end = time.monotonic() + 10
    while http.get(f"/apis/{GROUP}/v1/others").status_code != 200:  # the names are free now
        assert time.monotonic() < end
        time.sleep(0.05)


def test_a_definition_takes_its_objects_and_watches_along(http: httpx.Client) -> None:
    made(http, definition())
    held = crontab()
    held["metadata"]["finalizers"] = ["example.com/hold"]
    made(http, held, ITEMS)
    made(http, crontab("b"), ITEMS)
    with http.stream("GET", ITEMS, params={"watch": "true"}) as stream:
        lines = stream.iter_lines()
        assert {json.loads(next(lines))["object"]["metadata"]["name"] for _ in range(2)} == {"a", "b"}
        asked = http.delete(f"{DEFINITIONS}/{NAME}").json()
        assert asked["metadata"]["finalizers"] == ["customresourcecleanup.apiextensions.k8s.io"]
        gone(http, f"{ITEMS}/b")
        refused = http.post(ITEMS, json=crontab("c"))
        assert refused.status_code == 405 and "is terminating" in refused.json()["message"]
        assert conditions(http)["Terminating"] == ("True", "InstanceDeletionInProgress")
        merge = {"Content-Type": "application/merge-patch+json"}
        http.patch(f"{ITEMS}/a", content=b'{"metadata":{"finalizers":null}}', headers=merge)
        gone(http, f"{DEFINITIONS}/{NAME}")
        events = [json.loads(line)["type"] for line in lines]
        assert events.count("DELETED") == 2 and "ERROR" not in events  # it just ends
    assert http.get(ITEMS).status_code == 404
    assert GROUP not in {group["name"] for group in http.get("/apis").json()["groups"]}
    made(http, definition())
    assert http.get(ITEMS).json()["items"] == []


def test_everything_is_there_after_the_server_was_killed(server: ServerProcess, http: httpx.Client) -> None:
    made(http, definition())
    version = made(http, crontab("kept"), ITEMS)["metadata"]["resourceVersion"]
    made(http, crontab("late"), ITEMS)
    server.kill()
    server.start()
    with server.http() as again:
        names = [item["metadata"]["name"] for item in again.get(ITEMS).json()["items"]]
        assert names == ["kept", "late"]
        watched = {"watch": "true", "resourceVersion": version, "timeoutSeconds": "1"}
        lines = again.get(ITEMS, params=watched).text.splitlines()
        assert json.loads(lines[0])["object"]["metadata"]["name"] == "late"
        assert again.put(f"{ITEMS}/kept", json=crontab("kept", replicas=20)).status_code == 422


def test_a_cluster_scoped_kind(http: httpx.Client) -> None:
    body = definition()
    body["spec"]["scope"] = "Cluster"
    made(http, body)
    path = f"/apis/{GROUP}/v1/crontabs"
    assert "namespace" not in made(http, crontab(), path)["metadata"]
    assert http.get(ITEMS).status_code == 404
