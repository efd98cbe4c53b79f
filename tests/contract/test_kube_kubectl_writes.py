"""A current kubectl writes to a real server: apply on either side, conflicts, strictness, scale, cascades, eviction."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.harness.kube_server import ServerProcess, serving

KUBECTL = Path(sys.executable).parent / "kubectl"
Kubectl = Callable[..., "subprocess.CompletedProcess[str]"]
WEB = """
apiVersion: apps/v1
kind: Deployment
metadata: {name: %(name)s}
spec:
  replicas: %(replicas)d
  selector: {matchLabels: {app: %(name)s}}
  template:
    metadata: {labels: {app: %(name)s}}
    spec: {schedulerName: nobody, containers: [{name: c, image: "example/app:%(tag)s"}]}
"""


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[ServerProcess]:
    with serving(tmp_path_factory.mktemp("kubectl")) as running:
        yield running


@pytest.fixture
def kubectl(server: ServerProcess) -> Kubectl:
    environment = {"KUBECONFIG": str(server.kubeconfig()), "HOME": str(server.root), "PATH": "/bin:/usr/bin"}

    def run(*args: str, stdin: str = "", code: int = 0) -> subprocess.CompletedProcess[str]:
        done = subprocess.run(
            [KUBECTL, *args], input=stdin, env=environment, capture_output=True, text=True, timeout=30, check=False
        )
        assert done.returncode == code, (args, done.stdout, done.stderr)
        return done

    return run


def web(name: str, replicas: int = 0, tag: str = "1") -> str:
    return WEB % {"name": name, "replicas": replicas, "tag": tag}


def managers(kubectl: Kubectl, what: str) -> set[tuple[str, str]]:
    found = json.loads(kubectl("get", what, "-o", "json", "--show-managed-fields").stdout)
    return {(entry["manager"], entry["operation"]) for entry in found["metadata"]["managedFields"]}


def test_a_server_side_apply_meets_the_owner_of_a_field(kubectl: Kubectl) -> None:
    kubectl("apply", "--server-side", "-f", "-", stdin=web("ssa"))
    kubectl("scale", "deployment/ssa", "--replicas=3")
    refused = kubectl("apply", "--server-side", "-f", "-", stdin=web("ssa", replicas=1), code=1)
    assert (
        'Apply failed with 1 conflict: conflict with "kubectl" with subresource "scale" using apps/v1: .spec.replicas'
        in refused.stderr
    )
    kubectl("apply", "--server-side", "--force-conflicts", "-f", "-", stdin=web("ssa", replicas=1))
    assert kubectl("get", "deployment/ssa", "-o", "jsonpath={.spec.replicas}").stdout == "1"
    assert "managedFields" not in kubectl("get", "deployment/ssa", "-o", "yaml").stdout
    diff = kubectl("diff", "--server-side", "-f", "-", stdin=web("ssa", replicas=2), code=1)
    assert "+  replicas: 2" in diff.stdout


def test_a_client_side_apply_is_taken_over_by_a_server_side_one(kubectl: Kubectl) -> None:
    kubectl("apply", "-f", "-", stdin=web("moved"))
    assert ("kubectl-client-side-apply", "Update") in managers(kubectl, "deployment/moved")
    kubectl("apply", "--server-side", "-f", "-", stdin=web("moved", tag="2"))
    found = managers(kubectl, "deployment/moved")
    assert ("kubectl", "Apply") in found and ("kubectl-client-side-apply", "Update") not in found
    last = "jsonpath={.metadata.annotations.kubectl\\.kubernetes\\.io/last-applied-configuration}"
    assert "example/app:2" in kubectl("get", "deployment/moved", "-o", last).stdout
    kubectl("apply", "-f", "-", stdin=web("moved", tag="3"))
    image = "jsonpath={.spec.template.spec.containers[0].image}"
    assert kubectl("get", "deployment/moved", "-o", image).stdout == "example/app:3"


def test_unknown_and_double_fields_are_refused_by_the_server(kubectl: Kubectl) -> None:
    text = '{"apiVersion":"v1","kind":"ConfigMap","metadata":{"name":"strict"},"dat":{"a":"1"}}'
    assert 'unknown field "dat"' in kubectl("create", "-f", "-", stdin=text, code=1).stderr
    warned = kubectl("create", "--validate=warn", "-f", "-", stdin=text)
    assert 'Warning: unknown field "dat"' in warned.stderr


def test_patches_of_every_kind_and_a_replace(kubectl: Kubectl) -> None:
    kubectl("create", "configmap", "patched", "--from-literal=a=1")
    kubectl("patch", "cm/patched", "--type=merge", "-p", '{"data":{"b":"2"}}')
    kubectl("patch", "cm/patched", "--type=json", "-p", '[{"op":"remove","path":"/data/a"}]')
    kubectl("label", "cm/patched", "x=y")
    kubectl("annotate", "cm/patched", "note=here")
    found: dict[str, Any] = json.loads(kubectl("get", "cm/patched", "-o", "json").stdout)
    assert found["data"] == {"b": "2"} and found["metadata"]["labels"] == {"x": "y"}
    found["data"] = {"c": "3"}
    kubectl("replace", "-f", "-", stdin=json.dumps(found))
    found["metadata"]["resourceVersion"] = "1"
    assert "the object has been modified" in kubectl("replace", "-f", "-", stdin=json.dumps(found), code=1).stderr
    dry = kubectl("patch", "cm/patched", "--dry-run=server", "-p", '{"data":{"d":"4"}}')
    assert "configmap/patched patched" in dry.stdout
    assert kubectl("get", "cm/patched", "-o", "jsonpath={.data}").stdout == '{"c":"3"}'


def test_status_and_scale_are_seen_as_sub_resources(kubectl: Kubectl) -> None:
    kubectl("create", "-f", "-", stdin=web("parts"))
    scale = json.loads(kubectl("get", "deployment/parts", "--subresource=scale", "-o", "json").stdout)
    assert scale["kind"] == "Scale" and scale["status"]["selector"] == "app=parts"
    kubectl("patch", "deployment/parts", "--subresource=scale", "--type=merge", "-p", '{"spec":{"replicas":2}}')
    assert kubectl("get", "deployment/parts", "-o", "jsonpath={.spec.replicas}").stdout == "2"
    assert "parts" in kubectl("get", "deployment/parts", "--subresource=status").stdout


def test_a_deletion_in_the_orphan_way_leaves_the_mark_for_the_collector(kubectl: Kubectl) -> None:
    text = '{"apiVersion":"v1","kind":"ConfigMap","metadata":{"name":"kept","finalizers":["example.com/hold"]}}'
    kubectl("create", "-f", "-", stdin=text)
    kubectl("delete", "cm/kept", "--cascade=orphan", "--wait=false")
    found = json.loads(kubectl("get", "cm/kept", "-o", "json").stdout)
    assert found["metadata"]["finalizers"][0] == "example.com/hold" and found["metadata"]["deletionTimestamp"]
    kubectl("patch", "cm/kept", "--type=merge", "-p", '{"metadata":{"finalizers":null}}')
    assert "not found" in kubectl("get", "cm/kept", code=1).stderr


def test_lists_in_chunks_are_the_whole_list(kubectl: Kubectl) -> None:
    for number in range(5):
        kubectl("create", "configmap", f"chunk-{number}")
    chunked = kubectl("get", "cm", "--chunk-size=2", "-o", "name").stdout
    assert chunked == kubectl("get", "cm", "--chunk-size=0", "-o", "name").stdout
    assert chunked.count("chunk-") == 5
