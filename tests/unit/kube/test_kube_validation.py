"""Pods are refused with the field paths and words of Kubernetes."""

# ruff: noqa: E501 - a case is a line

from __future__ import annotations

import copy
from typing import Any

import pytest

from cuboid.kube import kinds
from cuboid.kube.fields import Fields
from cuboid.kube.qos import qos_class
from cuboid.kube.registry import Registry
from cuboid.kube.strategy import Strategy

POD = next(kind for kind in kinds.KINDS if kind.kind == "Pod")
STRATEGIES = {kind.kind: kind.strategy for kind in kinds.KINDS}


def pod(**spec: Any) -> dict[str, Any]:
    container = {"name": "a", "image": "i"}
    return {"metadata": {"name": "p", "namespace": "d"}, "spec": {"containers": [container], **spec}}


def with_container(**fields: Any) -> dict[str, Any]:
    return pod(containers=[{"name": "a", "image": "i", **fields}])


def complaints(document: dict[str, Any], strategy: Strategy = POD.strategy) -> list[str]:
    new = copy.deepcopy(document)
    strategy.prepare_create(new, "2026-01-01T00:00:00Z")
    strategy.default(new)
    fields = Fields()
    strategy.validate(new, fields)
    return [str(error) for error in fields.errors]


CASES: list[tuple[dict[str, Any], str]] = [
    (pod(containers=[]), "spec.containers: Required value"),
    (pod(restartPolicy="Sometimes"), 'spec.restartPolicy: Unsupported value: "Sometimes": supported values: "Always", "Never", "OnFailure"'),
    (pod(dnsPolicy="None"), "spec.dnsConfig: Required value: must provide `dnsConfig` when `dnsPolicy` is None"),
    (pod(activeDeadlineSeconds=0), "spec.activeDeadlineSeconds: Invalid value: 0: must be between 1 and"),
    (pod(terminationGracePeriodSeconds=-1), "spec.terminationGracePeriodSeconds: Invalid value: -1: must be greater than or equal to 0"),
    (pod(hostNetwork=True), "spec.hostNetwork: Forbidden: a pod is a virtual machine and shares no namespace with the host"),
    (pod(hostname="A"), 'spec.hostname: Invalid value: "A": a lowercase RFC 1123 label'),
    (pod(nodeSelector={"a b": "c"}), 'spec.nodeSelector: Invalid value: "a b": name part must consist of'),
    (pod(hostAliases=[{"ip": "x"}]), 'spec.hostAliases[0].ip: Invalid value: "x": must be a valid IP address'),
    (pod(tolerations=[{"operator": "Is", "key": "a"}]), 'spec.tolerations[0].operator: Unsupported value: "Is"'),
    (pod(securityContext={"runAsUser": -1}), "spec.securityContext.runAsUser: Invalid value: -1: must be between 0 and"),
    (pod(securityContext={"sysctls": [{"name": "a b", "value": ""}]}), "spec.securityContext.sysctls[0].name: Invalid value"),
    (pod(containers=[{"name": "a", "image": "i"}] * 2), 'spec.containers[1].name: Duplicate value: "a"'),
    (pod(initContainers=[{"name": "a", "image": "i"}]), 'spec.initContainers[0].name: Duplicate value: "a"'),
    (pod(ephemeralContainers=[{"name": "e"}]), "spec.ephemeralContainers: Forbidden: cannot be set on create"),
    (with_container(name=""), "spec.containers[0].name: Required value"),
    (with_container(image=""), "spec.containers[0].image: Required value"),
    (with_container(image=" i"), 'spec.containers[0].image: Invalid value: " i": must not have leading or trailing whitespace'),
    (with_container(imagePullPolicy="Maybe"), 'spec.containers[0].imagePullPolicy: Unsupported value: "Maybe"'),
    (with_container(restartPolicy="Always"), "spec.containers[0].restartPolicy: Forbidden: may not be set for non-init containers"),
    (with_container(ports=[{"containerPort": 0}]), "spec.containers[0].ports[0].containerPort: Required value"),
    (with_container(ports=[{"containerPort": 1, "protocol": "ICMP"}]), 'spec.containers[0].ports[0].protocol: Unsupported value: "ICMP"'),
    (with_container(ports=[{"containerPort": 1, "name": "-"}]), 'spec.containers[0].ports[0].name: Invalid value: "-"'),
    (with_container(ports=[{"containerPort": 1, "hostPort": 80}, {"containerPort": 2, "hostPort": 80}]), "spec.containers[0].ports[1].hostPort: Duplicate value"),
    (with_container(env=[{"name": "A=B"}]), "spec.containers[0].env[0].name: Invalid value"),
    (with_container(env=[{"name": "A", "value": "x", "valueFrom": {"fieldRef": {"fieldPath": "metadata.name"}}}]), "may not be specified when `value` is not empty"),
    (with_container(env=[{"name": "A", "valueFrom": {"fieldRef": {"fieldPath": "spec.x"}}}]), 'fieldPath: Unsupported value: "spec.x"'),
    (with_container(envFrom=[{}]), "spec.containers[0].envFrom[0]: Invalid value"),
    (with_container(volumeMounts=[{"name": "v", "mountPath": "/x"}]), 'spec.containers[0].volumeMounts[0].name: Not found: "v"'),
    (with_container(resources={"limits": {"memory": "-1"}}), "spec.containers[0].resources.limits[memory]: Invalid value"),
    (with_container(resources={"limits": {"cpu": "1"}, "requests": {"cpu": "2"}}), "must be less than or equal to cpu limit of 1"),
    (with_container(resources={"limits": {"disk": "1"}}), 'Invalid value: "disk": must be a standard resource type or fully qualified'),
    (with_container(livenessProbe={}), "spec.containers[0].livenessProbe: Required value: must specify a handler type"),
    (with_container(livenessProbe={"exec": {"command": ["a"]}, "tcpSocket": {"port": 1}}), "may not specify more than 1 handler type"),
    (with_container(livenessProbe={"exec": {"command": ["a"]}, "successThreshold": 2}), "livenessProbe.successThreshold: Invalid value: 2: must be 1"),
    (with_container(readinessProbe={"httpGet": {"port": 70000}}), "httpGet.port: Invalid value: 70000"),
    (with_container(lifecycle={"preStop": {}}), "spec.containers[0].lifecycle.preStop: Required value: must specify a handler type"),
    (pod(initContainers=[{"name": "i", "image": "i", "livenessProbe": {"exec": {"command": ["a"]}}}]), "may not be set for init containers without restartPolicy=Always"),
    (pod(volumes=[{"name": "v", "emptyDir": {}}, {"name": "v", "emptyDir": {}}]), 'spec.volumes[1].name: Duplicate value: "v"'),
    (pod(volumes=[{"name": "v", "emptyDir": {}, "secret": {"secretName": "s"}}]), "may not specify more than 1 volume type"),
    (pod(volumes=[{"name": "v", "hostPath": {"path": "/"}}]), "spec.volumes[0].hostPath: Forbidden: a pod is a virtual machine"),
    (pod(volumes=[{"name": "v", "secret": {}}]), "spec.volumes[0].secret.secretName: Required value"),
    (pod(volumes=[{"name": "v", "configMap": {"name": "c", "items": [{"key": "k", "path": "../x"}]}}]), "must not contain '..'"),
    (pod(volumes=[{"name": "v", "csi": {"driver": "other"}}]), 'spec.volumes[0].csi.driver: Unsupported value: "other"'),
    (pod(volumes=[{"name": "v", "csi": {"driver": "nfs.csi.k8s.io", "volumeAttributes": {"server": "nas"}}}]),
     "spec.volumes[0].csi.volumeAttributes[share]: Required value"),
    (pod(volumes=[{"name": "v", "nfs": {"server": "s", "path": "x"}}]), "must be an absolute path"),
    (pod(volumes=[{"name": "v", "projected": {"sources": [{"clusterTrustBundle": {}}]}}]), "Forbidden: not supported by Cuboid"),
    ({"metadata": {"name": "A"}, "spec": pod()["spec"]}, 'metadata.name: Invalid value: "A": a lowercase RFC 1123 subdomain'),
    ({"metadata": {}, "spec": pod()["spec"]}, "metadata.name: Required value: name or generateName is required"),
    ({"metadata": {"name": "a", "labels": {"k": "-"}}, "spec": pod()["spec"]}, 'metadata.labels: Invalid value: "-": a valid label must be'),
]  # fmt: skip


@pytest.mark.parametrize(("document", "expected"), CASES, ids=[f"{i}" for i in range(len(CASES))])
def test_a_wrong_pod_is_refused_in_kubernetes_words(document: dict[str, Any], expected: str) -> None:
    found = complaints(document)
    assert any(expected in complaint for complaint in found), found


def test_a_full_pod_is_accepted() -> None:
    full = pod(
        initContainers=[
            {"name": "side", "image": "s", "restartPolicy": "Always", "startupProbe": {"grpc": {"port": 9}}}
        ],
        volumes=[
            {"name": "named", "csi": {"driver": "volume.cuboid.dev", "volumeAttributes": {"name": "data"}}},
            {
                "name": "all",
                "projected": {"sources": [{"configMap": {"name": "c"}}, {"serviceAccountToken": {"path": "t"}}]},
            },
            {
                "name": "down",
                "downwardAPI": {"items": [{"path": "l", "fieldRef": {"fieldPath": "metadata.labels['a']"}}]},
            },
            {"name": "tmp", "emptyDir": {"medium": "Memory", "sizeLimit": "64Mi"}},
        ],
        dnsPolicy="None",
        dnsConfig={"nameservers": ["1.1.1.1"], "searches": ["a.b"], "options": [{"name": "ndots", "value": "2"}]},
        tolerations=[{"operator": "Exists"}],
    )
    full["spec"]["containers"][0] |= {
        "volumeMounts": [{"name": "named", "mountPath": "/data"}],
        "env": [{"name": "IP", "valueFrom": {"fieldRef": {"fieldPath": "status.podIP"}}}],
        "lifecycle": {"preStop": {"sleep": {"seconds": 3}}},
        "resources": {"limits": {"cpu": "1", "memory": "1Gi"}},
    }
    assert complaints(full) == []


@pytest.mark.parametrize(
    ("image", "policy"),
    [
        ("nginx", "Always"),
        ("nginx:latest", "Always"),
        ("nginx:1", "IfNotPresent"),
        ("host:5000/nginx", "Always"),
        ("nginx@sha256:0", "IfNotPresent"),
    ],
)
def test_the_pull_policy_follows_the_tag(image: str, policy: str) -> None:
    new = with_container(image=image)
    POD.strategy.default(new)
    assert new["spec"]["containers"][0]["imagePullPolicy"] == policy


def test_defaults_do_not_change_when_applied_again() -> None:
    once = with_container(livenessProbe={"httpGet": {"port": 80}}, resources={"limits": {"cpu": "1"}})
    POD.strategy.default(once)
    twice = copy.deepcopy(once)
    POD.strategy.default(twice)
    assert once == twice
    container = once["spec"]["containers"][0]
    assert container["resources"]["requests"] == {"cpu": "1"}
    assert container["livenessProbe"] == {
        "httpGet": {"port": 80, "path": "/", "scheme": "HTTP"},
        "timeoutSeconds": 1,
        "periodSeconds": 10,
        "successThreshold": 1,
        "failureThreshold": 3,
    }


@pytest.mark.parametrize(
    ("resources", "expected"),
    [
        ({}, "BestEffort"),
        ({"requests": {"cpu": "1"}}, "Burstable"),
        ({"limits": {"cpu": "1", "memory": "1Gi"}}, "Guaranteed"),
        ({"limits": {"cpu": "1", "memory": "1Gi"}, "requests": {"cpu": "500m"}}, "Burstable"),
        ({"requests": {"cpu": "0"}}, "BestEffort"),
    ],
)
def test_the_quality_of_service_is_kubernetes(resources: dict[str, Any], expected: str) -> None:
    assert qos_class(with_container(resources=resources)["spec"]) == expected


@pytest.mark.parametrize(
    ("change", "refused"),
    [
        (lambda spec: spec["containers"][0].update(image="new"), ""),
        (lambda spec: spec.update(activeDeadlineSeconds=5), ""),
        (lambda spec: spec["tolerations"].append({"operator": "Exists"}), ""),
        (lambda spec: spec["containers"].append({"name": "b", "image": "i"}), "pod updates may not add or remove containers"),
        (lambda spec: spec.update(hostname="x"), "pod updates may not change fields other than"),
        (lambda spec: spec["tolerations"].clear(), "existing toleration can not be modified"),
        (lambda spec: spec["containers"][0].update(env=[{"name": "A"}]), "pod updates may not change fields other than"),
    ],
)  # fmt: skip
def test_only_what_kubernetes_lets_change_may_change(change: Any, refused: str) -> None:
    old = pod(tolerations=[{"key": "a", "operator": "Exists"}])
    POD.strategy.default(old)
    new = copy.deepcopy(old)
    change(new["spec"])
    fields = Fields()
    POD.strategy.default(new)
    POD.strategy.validate_update(new, old, fields)
    text = "; ".join(str(error) for error in fields.errors)
    assert (refused in text) if refused else not text, text


@pytest.mark.parametrize(
    ("kind", "document", "expected"),
    [
        ("Secret", {"data": {"k": "no base64!"}}, "data[k]: Invalid value"),
        ("Secret", {"data": {"a b": ""}}, "a valid config key must consist of"),
        ("Secret", {"type": "kubernetes.io/tls", "data": {}}, "data[tls.crt]: Required value"),
        ("ConfigMap", {"data": {"k": "v"}, "binaryData": {"k": "dg=="}}, "duplicate of key present in binaryData"),
        ("ConfigMap", {"data": {"k": "x" * (1024 * 1024 + 1)}}, "Too long"),
        ("Node", {"spec": {"taints": [{"key": "k", "effect": "Never"}]}}, 'Unsupported value: "Never"'),
        ("Namespace", {"metadata": {"name": "a.b"}}, "a lowercase RFC 1123 label"),
        ("Lease", {"spec": {"leaseDurationSeconds": 0}}, "must be greater than 0"),
    ],
)
def test_the_other_kinds_have_their_rules(kind: str, document: dict[str, Any], expected: str) -> None:
    found = complaints({"metadata": {"name": "x"}, **document}, STRATEGIES[kind])
    assert any(expected in complaint for complaint in found), found


def test_an_immutable_config_map_stays_as_it_is() -> None:
    old = {"metadata": {"name": "x"}, "data": {"a": "1"}, "immutable": True}
    fields = Fields()
    STRATEGIES["ConfigMap"].validate_update({**old, "data": {"a": "2"}}, old, fields)
    assert "field is immutable when `immutable` is set" in str(fields.errors[0])


def test_versions_in_queries_are_numbers() -> None:
    assert Registry.parse_version("") == 0 and Registry.parse_version("12") == 12
