"""No tenant reads, writes, watches, guesses or learns of what is another's: every verb on every resource that discovery
names, so that a new kind is covered by being served. Custom resources and sub-resources are among them."""

from __future__ import annotations

import json
import time
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import httpx
import pytest

from tests.contract.test_auth_identity import bearing, made, tenant_token
from tests.harness.kube_server import ServerProcess, node, pod, serving

Object = dict[str, Any]
SECRET = "only-the-rival-knows"
METHODS = {
    "get": "GET", "list": "GET", "watch": "GET", "create": "POST", "update": "PUT", "patch": "PATCH",
    "delete": "DELETE", "deletecollection": "DELETE",
}  # fmt: skip
OWN = ("selfsubjectreviews", "selfsubjectaccessreviews", "selfsubjectrulesreviews")
"""What everybody may ask about themselves."""


@dataclass(frozen=True)
class Row:
    """One verb on one resource, as discovery names it."""

    base: str  # /api/v1 or /apis/GROUP/VERSION
    name: str
    namespaced: bool
    verb: str

    def path(self, namespace: str, name: str) -> str:
        main, _, sub = self.name.partition("/")
        place = f"/namespaces/{namespace}" if self.namespaced and namespace else ""
        whole = f"{self.base}{place}/{main}"
        if self.verb not in ("list", "watch", "deletecollection") and (sub or self.verb != "create"):
            whole += f"/{name}"
        return whole + (f"/{sub}" if sub else "") + ("?watch=true&timeoutSeconds=1" if self.verb == "watch" else "")


@dataclass
class Neighbours:
    """`acme` has the highest role in its own namespace; `robot` is a service account there, bound to edit."""

    server: ServerProcess
    admin: httpx.Client
    acme: httpx.Client
    robot: httpx.Client


def widgets(scope: str, group: str) -> Object:
    schema = {"type": "object", "x-kubernetes-preserve-unknown-fields": True}
    version = {"name": "v1", "served": True, "storage": True, "schema": {"openAPIV3Schema": schema}}
    names = {"plural": "widgets", "singular": "widget", "kind": "Widget", "listKind": "WidgetList"}
    spec = {"group": group, "scope": scope, "names": names, "versions": [{**version, "subresources": {"status": {}}}]}
    return {
        "apiVersion": "apiextensions.k8s.io/v1", "kind": "CustomResourceDefinition",
        "metadata": {"name": f"widgets.{group}"}, "spec": spec,
    }  # fmt: skip


@pytest.fixture(scope="module")
def neighbours(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Neighbours]:
    with serving(tmp_path_factory.mktemp("tenancy")) as server, server.http() as admin:
        token = tenant_token(admin, "acme", "acme-admin", "admin", seconds=3600)
        tenant_token(admin, "rival", "rival-admin", "admin", seconds=3600)
        made(admin, "/api/v1/nodes", node())
        _fill(admin)
        spec: Object = {"spec": {}}
        ref = {"apiGroup": "rbac.authorization.k8s.io", "kind": "ClusterRole", "name": "edit"}
        subject = {"kind": "ServiceAccount", "name": "robot", "namespace": "acme"}
        with bearing(server, token) as acme:
            made(acme, "/api/v1/namespaces/acme/serviceaccounts", {"metadata": {"name": "robot"}})
            binding = {"metadata": {"name": "robot"}, "roleRef": ref, "subjects": [subject]}
            made(acme, "/apis/rbac.authorization.k8s.io/v1/namespaces/acme/rolebindings", binding)
            given = made(acme, "/api/v1/namespaces/acme/serviceaccounts/robot/token", spec)
            with bearing(server, given["status"]["token"]) as robot:
                yield Neighbours(server, admin, acme, robot)


def _fill(admin: httpx.Client) -> None:
    """Things of the rival's, all named `known`."""
    core, apps = "/api/v1/namespaces/rival", "/apis/apps/v1/namespaces/rival"
    labels = {"matchLabels": {"app": "known"}}
    template = {"metadata": {"labels": {"app": "known"}}, "spec": pod()["spec"]}
    made(admin, f"{core}/pods", pod("known"))
    for plural in ("configmaps", "secrets"):
        key = "data" if plural == "configmaps" else "stringData"
        made(admin, f"{core}/{plural}", {"metadata": {"name": "known"}, key: {"a": SECRET}})
    made(admin, f"{core}/services", {"metadata": {"name": "known"}, "spec": {"ports": [{"port": 80}]}})
    deployment = {"metadata": {"name": "known"}, "spec": {"replicas": 0, "selector": labels, "template": template}}
    made(admin, f"{apps}/deployments", deployment)
    definitions = "/apis/apiextensions.k8s.io/v1/customresourcedefinitions"
    for scope, group in (("Namespaced", "spaces.example.com"), ("Cluster", "cluster.example.com")):
        made(admin, definitions, widgets(scope, group))
        place = "/namespaces/rival" if scope == "Namespaced" else ""
        body = {"apiVersion": f"{group}/v1", "kind": "Widget", "metadata": {"name": "known"}, "spec": {"a": SECRET}}
        end = time.monotonic() + 20
        while (answer := admin.post(f"/apis/{group}/v1{place}/widgets", json=body)).status_code != 201:
            assert time.monotonic() < end, answer.text
            time.sleep(0.1)


def rows(admin: httpx.Client) -> list[Row]:
    """All that is served."""
    groups = admin.get("/apis").json()["groups"]
    bases = ["/api/v1", *(f"/apis/{version['groupVersion']}" for group in groups for version in group["versions"])]
    found = []
    for base in bases:
        for resource in admin.get(base).json()["resources"]:
            found += [Row(base, resource["name"], resource["namespaced"], verb) for verb in resource["verbs"]]
    return found


def ask(client: httpx.Client, row: Row, path: str) -> httpx.Response:
    body: Object | None = {"metadata": {"name": "known"}} if row.verb in ("create", "update", "patch") else None
    kind = "application/merge-patch+json" if row.verb == "patch" else "application/json"
    content = None if body is None else json.dumps(body)
    return client.request(METHODS[row.verb], path, content=content, headers={"Content-Type": kind})


def test_no_verb_on_any_resource_reaches_another_tenant(neighbours: Neighbours) -> None:
    served, wrong = rows(neighbours.admin), []
    assert len(served) > 300, "discovery tells of everything"
    assert any("widgets" in row.name for row in served) and any(row.name == "pods/exec" for row in served)
    for row in served:
        if row.name in OWN:
            continue
        for client in (neighbours.acme, neighbours.robot):
            for namespace in ("rival", "") if row.namespaced else ("",):
                answer = ask(client, row, row.path(namespace, "known"))
                if answer.status_code != 403 or SECRET in answer.text:
                    wrong.append((row.verb, row.path(namespace, "known"), answer.status_code, answer.text[:200]))
    assert not wrong, wrong


def test_an_answer_does_not_tell_whether_something_exists(neighbours: Neighbours) -> None:
    for row in rows(neighbours.admin):
        if not row.namespaced or row.name in OWN:
            continue
        there = ask(neighbours.acme, row, row.path("rival", "known"))
        for namespace, name in (("rival", "never"), ("never", "known"), ("never", "never")):
            other = ask(neighbours.acme, row, row.path(namespace, name))
            told = other.text.replace("never", "known") if name == "never" else other.text
            told = told.replace('namespace \\"known\\"', 'namespace \\"never\\"')
            expected = there.text.replace('namespace \\"rival\\"', f'namespace \\"{namespace}\\"')
            assert other.status_code == there.status_code == 403
            assert _without_place(told) == _without_place(expected), row


def _without_place(text: str) -> Object:
    """A Status without the names of what was asked for: those the asker gave."""
    status: Object = json.loads(text)
    message = status["message"]
    for word in ("rival", "known", "never"):
        message = message.replace(f'"{word}"', '"..."')
    return {**status, "message": message, "details": {**status.get("details", {}), "name": "..."}}


def test_a_namespace_of_another_is_as_unknown_as_none(neighbours: Neighbours) -> None:
    for method in ("GET", "DELETE", "PUT", "PATCH"):
        rival, never = (neighbours.acme.request(method, f"/api/v1/namespaces/{name}") for name in ("rival", "never"))
        assert rival.status_code == never.status_code == 403
        assert rival.text.replace("rival", "never") == never.text


def test_its_own_namespace_is_a_tenants_to_use(neighbours: Neighbours) -> None:
    """The matrix above is no proof if everything is refused."""
    base = "/api/v1/namespaces/acme"
    assert neighbours.acme.get(base).status_code == 200
    for client, name in ((neighbours.acme, "a"), (neighbours.robot, "b")):
        made(client, f"{base}/pods", pod(name))
        made(client, f"{base}/secrets", {"metadata": {"name": name}})
        assert client.get(f"{base}/pods").status_code == 200
        assert client.get(f"{base}/secrets/{name}").status_code == 200
        assert client.get(f"{base}/pods/{name}/exec").status_code == 400, "allowed, and then no WebSocket"
    assert neighbours.acme.get("/apis/apps/v1/namespaces/acme/deployments").status_code == 200


@pytest.mark.parametrize("sub", ["exec", "attach", "portforward"])
def test_a_websocket_to_another_tenants_pod_is_refused_at_its_handshake(neighbours: Neighbours, sub: str) -> None:
    handshake = {
        "Connection": "Upgrade", "Upgrade": "websocket", "Sec-WebSocket-Version": "13",
        "Sec-WebSocket-Key": "dGhlIHNhbXBsZSBub25jZQ==", "Sec-WebSocket-Protocol": "v5.channel.k8s.io",
    }  # fmt: skip
    for name in ("known", "never"):
        path = f"/api/v1/namespaces/rival/pods/{name}/{sub}?command=id&stdout=1&ports=80"
        assert neighbours.acme.get(path, headers=handshake).status_code == 403


@pytest.mark.parametrize(
    "path",
    [
        "/api/v1/pods?fieldSelector=metadata.namespace%3Dacme",
        "/api/v1/secrets?fieldSelector=metadata.name%3Dknown",
        "/api/v1/secrets?labelSelector=a%3Db&limit=1",
        "/api/v1/namespaces/acme/../rival/secrets/known",
        "/api/v1/namespaces/acme/%2e%2e/rival/secrets/known",
        "/api/v1/namespaces/acme%2f..%2frival/secrets/known",
        "/api/v1/namespaces/rival%2fsecrets/known",
        "/api/v1//namespaces/rival/secrets/known",
        "/api/v1/namespaces/acme//secrets/../../rival/secrets/known",
        "/api/v1/namespaces/rival/secrets/known/",
        "//api/v1/namespaces/rival/secrets/known",
        "/api/v1/watch/namespaces/rival/secrets",
        "/api/v1/namespaces/acme/secrets%3f/../../rival/secrets/known",
        "/api/v1/nodes/node-1/proxy/pods",
        "/api/v1/namespaces/acme/pods/known/proxy/",
        "/apis/metrics.k8s.io/v1beta1/namespaces/rival/pods",
        "/apis/metrics.k8s.io/v1beta1/namespaces/rival/pods/known",
        "/apis/metrics.k8s.io/v1beta1/pods",
        "/apis/metrics.k8s.io/v1beta1/nodes",
        "/apis/metrics.k8s.io/v1beta1//pods",
        "/metrics",
        "/logs/",
    ],
)
def test_no_spelling_of_a_path_gets_around_authorization(neighbours: Neighbours, path: str) -> None:
    for headers in ({}, {"Host": "x/api/v1/namespaces/rival/secrets/known?"}):
        request = neighbours.acme.build_request("GET", neighbours.server.url, headers=headers)
        request.url = request.url.copy_with(raw_path=path.encode())
        answer = neighbours.acme.send(request)
        assert answer.status_code in (400, 403, 404), answer.text
        assert SECRET not in answer.text and "known-" not in answer.text


def test_probing_tokens_and_rights_of_others_is_refused(neighbours: Neighbours) -> None:
    local = "/apis/authorization.k8s.io/v1/namespaces/rival/localsubjectaccessreviews"
    for path in (
        "/apis/authentication.k8s.io/v1/tokenreviews",
        "/apis/authorization.k8s.io/v1/subjectaccessreviews",
        local,
    ):
        assert neighbours.acme.post(path, json={"spec": {"token": neighbours.server.token}}).status_code == 403
    rules = made(
        neighbours.acme, "/apis/authorization.k8s.io/v1/selfsubjectrulesreviews", {"spec": {"namespace": "rival"}}
    )["status"]["resourceRules"]
    assert all(row["apiGroups"] in (["authorization.k8s.io"], ["authentication.k8s.io"]) for row in rules)


def test_events_about_others_are_not_written(neighbours: Neighbours) -> None:
    about = {"kind": "Pod", "namespace": "rival", "name": "known"}
    body = {"metadata": {"name": "e"}, "involvedObject": about, "reason": "x", "message": "x", "type": "Normal"}
    assert neighbours.acme.post("/api/v1/namespaces/acme/events", json=body).status_code == 422
    body["metadata"] = {"generateName": "e"}
    assert neighbours.acme.post("/api/v1/namespaces/rival/events", json=body).status_code == 403


def test_the_garbage_collector_is_no_lever_on_others(neighbours: Neighbours) -> None:
    """An object of one's own that names another's as owner, and is removed with all it owns, takes nothing with it."""
    rival = neighbours.admin.get("/api/v1/namespaces/rival/configmaps/known").json()
    ref = {"apiVersion": "v1", "kind": "ConfigMap", "name": "known", "uid": rival["metadata"]["uid"]}
    space = neighbours.admin.get("/api/v1/namespaces/rival").json()["metadata"]["uid"]
    owner = {"apiVersion": "v1", "kind": "Namespace", "name": "rival", "uid": space, "blockOwnerDeletion": True}
    base = "/api/v1/namespaces/acme/configmaps"
    made(neighbours.acme, base, {"metadata": {"name": "child", "ownerReferences": [ref]}})
    blocked = neighbours.acme.post(base, json={"metadata": {"name": "brake", "ownerReferences": [owner]}})
    assert blocked.status_code == 403 and "cannot set blockOwnerDeletion" in blocked.text
    neighbours.acme.request("DELETE", f"{base}/child", json={"propagationPolicy": "Foreground"})
    time.sleep(1.0)
    kept = neighbours.admin.get("/api/v1/namespaces/rival/configmaps/known").json()
    assert kept["metadata"]["uid"] == rival["metadata"]["uid"] and "deletionTimestamp" not in kept["metadata"]


def test_pages_of_a_list_do_not_go_on_in_another_namespace(neighbours: Neighbours) -> None:
    """A continue token is no right."""
    page = neighbours.admin.get("/api/v1/configmaps?limit=1").json()["metadata"]["continue"]
    answer = neighbours.acme.get("/api/v1/namespaces/acme/configmaps", params={"limit": 500, "continue": page})
    assert SECRET not in answer.text and "rival" not in answer.text
    assert neighbours.acme.get("/api/v1/configmaps", params={"continue": page}).status_code == 403


def test_discovery_and_openapi_are_the_same_for_everybody(neighbours: Neighbours) -> None:
    for path in ("/api/v1", "/apis", "/apis/apps/v1", "/apis/spaces.example.com/v1"):
        assert neighbours.acme.get(path).json() == neighbours.admin.get(path).json()
