"""Discovery, OpenAPI and request bodies as clients take them: a current kubectl, an old one, and typed clients."""

from __future__ import annotations

import hashlib
import json
import os
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest

from tests.contract.test_kube_crd import DEFINITIONS, GROUP, NAME, crontab, definition, gone
from tests.harness.kube_server import ServerProcess, serving
from tests.harness.platform import ROOT

CURRENT = ROOT / ".venv/bin/kubectl"
OLD = ROOT / "build/old-kubectl/kubectl"
AGGREGATED = "application/json;g=apidiscovery.k8s.io;v={};as=APIGroupDiscoveryList"
PROTOBUF = "application/com.github.proto-openapi.spec.v2@v1.0+protobuf"


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[ServerProcess]:
    with serving(tmp_path_factory.mktemp("openapi")) as running:
        yield running


@pytest.fixture
def http(server: ServerProcess) -> Iterator[httpx.Client]:
    with server.http() as client:
        yield client
        client.delete(f"{DEFINITIONS}/{NAME}")
        gone(client, f"{DEFINITIONS}/{NAME}")


class Kubectl:
    def __init__(self, program: Path, server: ServerProcess, cache: Path) -> None:
        self._program = program
        self._environment = {"KUBECONFIG": str(server.kubeconfig()), "HOME": str(cache), "PATH": os.environ["PATH"]}

    def __call__(self, *arguments: str, body: Any = None, code: int = 0) -> str:
        """Its output; with `body`, an object on its standard input."""
        given = None if body is None else json.dumps(body)
        done = subprocess.run(
            [self._program, *arguments], check=False, capture_output=True, text=True, input=given, timeout=50,
            env=self._environment,
        )  # fmt: skip
        assert done.returncode == code, f"{arguments}: {done.stdout}{done.stderr}"
        return done.stdout + done.stderr


@pytest.fixture(params=[CURRENT, OLD], ids=["current", "old"])
def kubectl(request: pytest.FixtureRequest, server: ServerProcess, tmp_path: Path) -> Kubectl:
    if not request.param.exists():
        pytest.skip(f"{request.param.name} is not there: tools/setup.sh --dev")
    return Kubectl(request.param, server, tmp_path)


# --- documents -------------------------------------------------------------------------------------------------------


def test_a_document_is_kept_by_its_hash_until_the_kinds_change(http: httpx.Client) -> None:
    def url() -> str:
        return str(http.get("/openapi/v3").json()["paths"].get(f"apis/{GROUP}/v1", {}).get("serverRelativeURL", ""))

    assert not url()
    http.post(DEFINITIONS, json=definition())
    first = url()
    answer = http.get(first)
    assert "immutable" in answer.headers["Cache-Control"]
    assert http.get(first, headers={"If-None-Match": answer.headers["ETag"]}).status_code == 304
    changed = http.get(f"{DEFINITIONS}/{NAME}").json()
    schema = changed["spec"]["versions"][0]["schema"]["openAPIV3Schema"]
    schema["properties"]["spec"]["properties"]["mode"] = {"type": "string"}
    del changed["metadata"]["resourceVersion"]
    assert http.put(f"{DEFINITIONS}/{NAME}", json=changed).status_code == 200
    assert url() != first
    moved = http.get(first)
    assert moved.status_code == 301 and moved.headers["Location"] == url()
    assert "mode" in http.get(url()).text


def test_every_reference_of_every_document_leads_somewhere(http: httpx.Client) -> None:
    http.post(DEFINITIONS, json=definition())
    documents = [http.get(f"/openapi/v3/{path}").json() for path in http.get("/openapi/v3").json()["paths"]]
    for document in [*documents, http.get("/openapi/v2").json()]:
        known = set(document.get("definitions") or document["components"]["schemas"])
        prefix = "#/definitions/" if "definitions" in document else "#/components/schemas/"
        assert {name.removeprefix(prefix) for name in references(document)} <= known
        operations = [one for item in document["paths"].values() for one in item.values() if isinstance(one, dict)]
        names = [operation["operationId"] for operation in operations]
        assert len(names) == len(set(names)), "two operations have one name"
        assert all("401" in operation["responses"] for operation in operations)


def references(value: Any) -> Iterator[str]:
    if isinstance(value, dict):
        if isinstance(value.get("$ref"), str):
            yield value["$ref"]
        for item in value.values():
            yield from references(item)
    elif isinstance(value, list):
        for item in value:
            yield from references(item)


def test_every_operation_of_a_kind_is_served_as_described(http: httpx.Client) -> None:
    """No path of a document is unknown to the server."""
    for place in http.get("/openapi/v3").json()["paths"]:
        for path, item in http.get(f"/openapi/v3/{place}").json()["paths"].items():
            url = path.replace("{namespace}", "default").replace("{name}", "none")
            if "get" in item and "{name}" not in path:
                assert http.get(url).status_code == 200, path
            elif "put" in item:
                answer = http.put(url, json=[])
                assert 400 <= answer.status_code < 500, path
                assert "could not find the requested resource" not in answer.text, path


def test_a_patch_says_which_forms_it_takes(http: httpx.Client) -> None:
    http.post(DEFINITIONS, json=definition())

    def forms(place: str, path: str) -> set[str]:
        document = http.get(f"/openapi/v3/{place}").json()
        return set(document["paths"][path]["patch"]["requestBody"]["content"])

    custom = forms(f"apis/{GROUP}/v1", f"/apis/{GROUP}/v1/namespaces/{{namespace}}/crontabs/{{name}}")
    built_in = forms("api/v1", "/api/v1/namespaces/{namespace}/pods/{name}")
    assert built_in - custom == {"application/strategic-merge-patch+json"}


def test_aggregated_discovery_has_two_versions_and_a_tag(http: httpx.Client) -> None:
    for version in ("v2", "v2beta1"):
        accept = {"Accept": f"{AGGREGATED.format(version)},application/json"}
        answer = http.get("/apis", headers=accept)
        assert answer.json()["apiVersion"] == f"apidiscovery.k8s.io/{version}"
        assert f"v={version}" in answer.headers["Content-Type"]
        again = http.get("/apis", headers={**accept, "If-None-Match": answer.headers["ETag"]})
        assert again.status_code == 304
    http.post(DEFINITIONS, json=definition())
    changed = http.get("/apis", headers={**accept, "If-None-Match": answer.headers["ETag"]})
    assert changed.status_code == 200 and GROUP in changed.text


def test_discovery_names_every_resource_once_with_its_singular(http: httpx.Client) -> None:
    for group in [{"versions": [{"groupVersion": "v1"}]}, *http.get("/apis").json()["groups"]]:
        for version in group["versions"]:
            path = version["groupVersion"]
            resources = http.get(f"/apis/{path}" if "/" in path else f"/api/{path}").json()["resources"]
            names = [row["name"] for row in resources]
            assert len(names) == len(set(names))
            assert all(row["singularName"] for row in resources if "/" not in row["name"]), path
            assert all(row["verbs"] for row in resources)


def test_health_says_which_checks_there_are(http: httpx.Client) -> None:
    assert http.get("/healthz").text == "ok" and http.get("/readyz/ping").text == "ok"
    text = http.get("/readyz?verbose").text
    assert "[+]store ok" in text and text.endswith("readyz check passed\n")
    assert http.get("/livez/nothing").status_code == 404
    assert "/apis/apps/v1" in http.get("/").json()["paths"]


# --- kubectl ---------------------------------------------------------------------------------------------------------


def test_kubectl_lives_with_a_custom_resource(kubectl: Kubectl, http: httpx.Client, tmp_path: Path) -> None:
    kubectl("apply", "-f", "-", body=definition())
    kubectl("wait", "--for=condition=Established", f"crd/{NAME}", "--timeout=20s")
    assert "crontabs" in kubectl("api-resources", f"--api-group={GROUP}")
    assert "When it runs." in kubectl("explain", "ct.spec.cronSpec")
    recursive = kubectl("explain", "crontab", "--recursive")
    assert "replicas\t<integer>" in recursive and "ownerReferences" in recursive
    assert "created" in kubectl("apply", "-f", "-", body=crontab(image="x"))
    assert "configured" in kubectl("apply", "-f", "-", body=crontab(image="y"))
    assert "unchanged" in kubectl("apply", "-f", "-", body=crontab(image="y"))
    assert 'unknown field "' in kubectl("apply", "-f", "-", body=crontab(nothing=1), code=1)
    assert "should match" in kubectl("apply", "-f", "-", body=crontab(cronSpec="x"), code=1)
    assert kubectl("get", "ct", "a", "-o", "jsonpath={.spec.image}") == "y"
    assert "REPLICAS" in kubectl("get", "ct") and "* * * * *" in kubectl("get", "all")
    kubectl("scale", "ct/a", "--replicas=3")
    kubectl("label", "ct/a", "x=y")
    assert kubectl("get", "ct", "-l", "x=y", "-o", "jsonpath={.items[*].spec.replicas}") == "3"
    kubectl("delete", "ct", "a")
    kubectl("delete", "crd", NAME)


def test_kubectl_completes_names_and_kinds(server: ServerProcess, http: httpx.Client, tmp_path: Path) -> None:
    kubectl = Kubectl(CURRENT, server, tmp_path)
    kubectl("apply", "-f", "-", body=definition())
    kubectl("apply", "-f", "-", body=crontab("completed"))
    assert "completed" in kubectl("__complete", "get", "ct", "").splitlines()
    assert "crontabs.stable.example.com" in kubectl("__complete", "get", "cront").splitlines()


COMMANDS = (
    ("configmap", "c", "--from-literal=a=b"),
    ("secret", "generic", "s", "--from-literal=a=b"),
    ("serviceaccount", "a"),
    ("deployment", "d", "--image=registry.example/app:1", "--replicas=0"),
    ("job", "j", "--image=registry.example/app:1"),
    ("service", "clusterip", "v", "--tcp=80:8080"),
    ("quota", "q", "--hard=pods=100"),
    ("role", "r", "--verb=get", "--resource=pods"),
    ("rolebinding", "b", "--role=r", "--user=u"),
    ("ingress", "i", "--rule=a.example/x=v:80"),
)


def test_kubectl_creates_what_it_has_a_command_for(kubectl: Kubectl, http: httpx.Client) -> None:
    """Typed commands of a current kubectl send protobuf."""
    kubectl("create", "namespace", "typed")
    for command in COMMANDS:
        assert "created" in kubectl("create", *command, "-n", "typed")
    found = http.get("/apis/apps/v1/namespaces/typed/deployments/d").json()["spec"]
    assert found["replicas"] == 0 and found["template"]["spec"]["containers"][0]["image"] == "registry.example/app:1"
    assert found["template"]["spec"]["terminationGracePeriodSeconds"] == 30
    ports = http.get("/api/v1/namespaces/typed/services/v").json()["spec"]["ports"]
    assert (ports[0]["port"], ports[0]["targetPort"], ports[0]["protocol"]) == (80, 8080, "TCP")
    quota = http.get("/api/v1/namespaces/typed/resourcequotas/q").json()["spec"]
    assert quota == {"hard": {"pods": "100"}}
    rules = http.get("/apis/rbac.authorization.k8s.io/v1/namespaces/typed/roles/r").json()["rules"]
    assert rules == [{"verbs": ["get"], "apiGroups": [""], "resources": ["pods"]}]
    paths = http.get("/apis/networking.k8s.io/v1/namespaces/typed/ingresses/i").json()["spec"]["rules"][0]["http"]
    assert paths["paths"][0]["backend"]["service"] == {"name": "v", "port": {"number": 80}}
    assert "server dry run" in kubectl("create", "deployment", "x", "--image=y", "--dry-run=server", "-n", "typed")
    kubectl("delete", "namespace", "typed", "--wait=false")
    end = time.monotonic() + 20
    while http.get("/api/v1/namespaces/typed").status_code != 404:
        assert time.monotonic() < end
        time.sleep(0.1)


def test_kubectl_explains_and_validates_built_in_kinds(kubectl: Kubectl) -> None:
    assert "List of ports to expose" in kubectl("explain", "pod.spec.containers.ports")
    assert "rollingUpdate" in kubectl("explain", "deployment", "--recursive")
    assert "working set" in kubectl("explain", "podmetrics.containers.usage", "--api-version=metrics.k8s.io/v1beta1")
    body = {"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": "z"}, "dta": {}}
    assert 'unknown field "dta"' in kubectl("apply", "-f", "-", body=body, code=1)


def test_the_old_form_of_openapi_is_made_once(http: httpx.Client) -> None:
    answers = [http.get("/openapi/v2", headers={"Accept": PROTOBUF}) for _ in range(2)]
    digests = {hashlib.sha256(answer.content).hexdigest() for answer in answers}
    assert len(digests) == 1 and answers[0].content.startswith(b"\x0a\x032.0")
    assert answers[0].headers["Content-Type"] == PROTOBUF.replace("@", ".")
