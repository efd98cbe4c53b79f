"""Services, volumes, roles and classes with a real kubectl against a real server: applied twice, printed, warned about."""

# ruff: noqa: E501 - a manifest is a line

from __future__ import annotations

import json
import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.harness.kube_server import ServerProcess, serving

KUBECTL = Path(sys.executable).parent / "kubectl"
RBAC = "rbac.authorization.k8s.io"
ROLE = {
    "roleRef": {"apiGroup": RBAC, "kind": "ClusterRole", "name": "view"},
    "subjects": [{"kind": "User", "name": "u", "apiGroup": RBAC}],
}
BACKEND = {"service": {"name": "web", "port": {"number": 80}}}
PATHS = {"paths": [{"path": "/", "pathType": "Prefix", "backend": BACKEND}]}
OBJECTS: list[tuple[str, str, dict[str, Any], str]] = [
    ("v1", "Service", {"spec": {"ports": [{"port": 80}], "selector": {"a": "b"}}}, "NAME TYPE CLUSTER-IP EXTERNAL-IP PORT(S) AGE SELECTOR"),
    ("v1", "Endpoints", {"subsets": [{"addresses": [{"ip": "10.77.0.9"}], "ports": [{"port": 80}]}]}, "NAME ENDPOINTS AGE"),
    ("v1", "PersistentVolume", {"spec": {"capacity": {"storage": "1Gi"}, "accessModes": ["ReadWriteOnce"], "nfs": {"server": "s", "path": "/p"}}}, "NAME CAPACITY ACCESS MODES RECLAIM POLICY STATUS CLAIM STORAGECLASS VOLUMEATTRIBUTESCLASS REASON AGE VOLUMEMODE"),
    ("v1", "PersistentVolumeClaim", {"spec": {"accessModes": ["ReadWriteOnce"], "resources": {"requests": {"storage": "1Gi"}}}}, "NAME STATUS VOLUME CAPACITY ACCESS MODES STORAGECLASS VOLUMEATTRIBUTESCLASS AGE VOLUMEMODE"),
    ("v1", "ResourceQuota", {"spec": {"hard": {"pods": "100"}}}, "NAME REQUEST LIMIT AGE"),
    ("v1", "LimitRange", {"spec": {"limits": [{"type": "Container", "max": {"cpu": "64"}}]}}, "NAME CREATED AT"),
    (f"{RBAC}/v1", "Role", {"rules": [{"verbs": ["get"], "apiGroups": [""], "resources": ["pods"]}]}, "NAME CREATED AT"),
    (f"{RBAC}/v1", "RoleBinding", ROLE, "NAME ROLE AGE USERS GROUPS SERVICEACCOUNTS"),
    ("scheduling.k8s.io/v1", "PriorityClass", {"value": 7}, "NAME VALUE GLOBAL-DEFAULT PREEMPTIONPOLICY AGE"),
    ("storage.k8s.io/v1", "StorageClass", {"provisioner": "a.example/p"}, "NAME PROVISIONER RECLAIMPOLICY VOLUMEBINDINGMODE ALLOWVOLUMEEXPANSION AGE"),
    ("node.k8s.io/v1", "RuntimeClass", {"handler": "cuboid"}, "NAME HANDLER AGE"),
    ("networking.k8s.io/v1", "Ingress", {"spec": {"rules": [{"host": "a.example", "http": PATHS}]}}, "NAME CLASS HOSTS ADDRESS PORTS AGE"),
    ("networking.k8s.io/v1", "IngressClass", {"spec": {"controller": "a.example/c"}}, "NAME CONTROLLER PARAMETERS AGE"),
    ("networking.k8s.io/v1", "NetworkPolicy", {"spec": {"podSelector": {}}}, "NAME POD-SELECTOR AGE"),
    ("discovery.k8s.io/v1", "EndpointSlice", {"addressType": "IPv4", "endpoints": [{"addresses": ["10.77.0.9"]}], "ports": [{"port": 80}]}, "NAME ADDRESSTYPE PORTS ENDPOINTS AGE"),
]  # fmt: skip


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[ServerProcess]:
    with serving(tmp_path_factory.mktemp("kinds")) as running:
        yield running


def kubectl(server: ServerProcess, *args: str, stdin: object = None) -> subprocess.CompletedProcess[str]:
    text = json.dumps(stdin) if stdin is not None else ""
    command = [str(KUBECTL), f"--kubeconfig={server.kubeconfig()}", f"--cache-dir={server.root}/cache", *args]
    return subprocess.run(command, check=False, input=text, capture_output=True, text=True, timeout=60)


def done(server: ServerProcess, *args: str, stdin: object = None) -> str:
    answer = kubectl(server, *args, stdin=stdin)
    assert answer.returncode == 0, answer.stderr
    return answer.stdout


def manifest(version: str, kind: str, body: dict[str, Any], name: str = "web") -> dict[str, Any]:
    return {"apiVersion": version, "kind": kind, "metadata": {"name": name}, **body}


@pytest.mark.parametrize(("version", "kind", "body", "header"), OBJECTS, ids=[row[1] for row in OBJECTS])
def test_kubectl_applies_prints_and_applies_again(
    server: ServerProcess, version: str, kind: str, body: dict[str, Any], header: str
) -> None:
    name, group = kind.lower(), version.rpartition("/")[0]
    document, resource = manifest(version, kind, body, name), f"{name}.v1.{group}" if group else name
    assert "created" in done(server, "apply", "-f", "-", stdin=document)
    printed = done(server, "get", resource, name, "-o", "wide").splitlines()[0]
    assert re.sub(r"\s+", " ", printed).strip() == header
    assert name in done(server, "apply", "-f", "-", stdin=document)
    done(server, "apply", "--server-side", "--force-conflicts", "-f", "-", stdin=document)
    assert done(server, "describe", resource, name)
    done(server, "delete", resource, name, "--timeout=20s")


def test_the_services_of_the_platform_are_there_from_the_start(server: ServerProcess) -> None:
    lines = [line.split() for line in done(server, "get", "service", "kubernetes", "--no-headers").splitlines()]
    assert lines[0][:5] == ["kubernetes", "ClusterIP", "10.96.0.1", "<none>", "443/TCP"]
    port = server.url.rpartition(":")[2]
    assert f"127.0.0.1:{port}" in done(server, "get", "endpoints", "kubernetes")
    classes = done(server, "get", "priorityclasses", "--no-headers")
    assert "system-node-critical" in classes and "2000001000" in classes


def test_a_service_is_exposed_changed_and_kept(server: ServerProcess) -> None:
    made = done(server, "create", "service", "nodeport", "front", "--tcp=80:8080")
    assert made == "service/front created\n"
    before = json.loads(done(server, "get", "service", "front", "-o", "json"))["spec"]
    assert before["clusterIP"].startswith("10.96.") and 30_000 <= before["ports"][0]["nodePort"] <= 32_767
    done(server, "patch", "service", "front", "-p", '{"spec":{"selector":{"app":"x"}}}')
    after = json.loads(done(server, "get", "service", "front", "-o", "json"))["spec"]
    assert (after["clusterIP"], after["ports"]) == (before["clusterIP"], before["ports"])
    taken = manifest("v1", "Service", {"spec": {"clusterIP": before["clusterIP"], "ports": [{"port": 1}]}}, "other")
    refused = kubectl(server, "create", "-f", "-", stdin=taken)
    assert f"failed to allocate IP {before['clusterIP']}: provided IP is already allocated" in refused.stderr
    moved = kubectl(server, "patch", "service", "front", "-p", '{"spec":{"clusterIP":"10.96.3.3"}}', "--type=merge")
    assert "may not change once set" in moved.stderr
    done(server, "delete", "service", "front")
    done(server, "create", "-f", "-", stdin=taken)
    done(server, "delete", "service", "other")


def test_kubectl_shows_warnings_about_what_has_no_effect(server: ServerProcess) -> None:
    spec = {"ports": [{"port": 80}], "externalIPs": ["192.0.2.1"], "trafficDistribution": "PreferClose"}
    answer = kubectl(server, "create", "-f", "-", stdin=manifest("v1", "Service", {"spec": spec}, "balanced"))
    assert answer.returncode == 0
    assert "Warning: spec.externalIPs has no effect: " in answer.stderr
    assert "Warning: spec.trafficDistribution has no effect: " in answer.stderr
    quiet = kubectl(server, "patch", "service", "balanced", "-p", '{"metadata":{"labels":{"a":"b"}}}')
    assert (quiet.returncode, quiet.stderr) == (0, "")
    done(server, "delete", "service", "balanced")
