"""Workload kinds with a real kubectl against a real server: made, printed, changed and refused as with any Kubernetes."""

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
CONTAINERS = [{"name": "c", "image": "registry.example/a:1"}]
TEMPLATE: dict[str, Any] = {"metadata": {"labels": {"app": "a"}}, "spec": {"containers": CONTAINERS}}
ENDING = {"spec": {"containers": CONTAINERS, "restartPolicy": "Never"}}
SELECTOR = {"matchLabels": {"app": "a"}}
IDLE: dict[str, Any] = {"replicas": 0, "selector": SELECTOR, "template": TEMPLATE}
TARGET = {"apiVersion": "apps/v1", "kind": "Deployment", "name": "web"}
CLAIM = {
    "metadata": {"name": "data"},
    "spec": {"accessModes": ["ReadWriteOnce"], "resources": {"requests": {"storage": "1Gi"}}},
}
WIDE = "CONTAINERS IMAGES SELECTOR"
OBJECTS: list[tuple[str, str, dict[str, Any], str]] = [
    ("apps/v1", "Deployment", IDLE, f"NAME READY UP-TO-DATE AVAILABLE AGE {WIDE}"),
    ("apps/v1", "ReplicaSet", IDLE, f"NAME DESIRED CURRENT READY AGE {WIDE}"),
    ("apps/v1", "StatefulSet", {**IDLE, "serviceName": "web", "volumeClaimTemplates": [CLAIM]}, "NAME READY AGE CONTAINERS IMAGES"),
    ("apps/v1", "DaemonSet", {"selector": SELECTOR, "template": TEMPLATE}, f"NAME DESIRED CURRENT READY UP-TO-DATE AVAILABLE NODE SELECTOR AGE {WIDE}"),
    ("batch/v1", "Job", {"template": ENDING, "suspend": True}, f"NAME STATUS COMPLETIONS DURATION AGE {WIDE}"),
    ("batch/v1", "CronJob", {"schedule": "0 3 1 1 *", "timeZone": "Europe/Berlin", "jobTemplate": {"spec": {"template": ENDING}}}, f"NAME SCHEDULE TIMEZONE SUSPEND ACTIVE LAST SCHEDULE AGE {WIDE}"),
    ("policy/v1", "PodDisruptionBudget", {"minAvailable": "50%", "selector": SELECTOR}, "NAME MIN AVAILABLE MAX UNAVAILABLE ALLOWED DISRUPTIONS AGE"),
    ("autoscaling/v2", "HorizontalPodAutoscaler", {"scaleTargetRef": TARGET, "maxReplicas": 4}, "NAME REFERENCE TARGETS MINPODS MAXPODS REPLICAS AGE"),
]  # fmt: skip


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[ServerProcess]:
    with serving(tmp_path_factory.mktemp("kinds")) as running:
        yield running


def kubectl(server: ServerProcess, *arguments: str, stdin: Any = None) -> subprocess.CompletedProcess[str]:
    command = [str(KUBECTL), "--kubeconfig", str(server.kubeconfig()), *arguments]
    text = None if stdin is None else json.dumps(stdin)
    return subprocess.run(command, input=text, capture_output=True, text=True, timeout=40, check=False)


def done(server: ServerProcess, *arguments: str, stdin: Any = None) -> str:
    answer = kubectl(server, *arguments, stdin=stdin)
    assert answer.returncode == 0, answer
    return answer.stdout


def manifest(version: str, kind: str, name: str, spec: dict[str, Any]) -> dict[str, Any]:
    return {"apiVersion": version, "kind": kind, "metadata": {"name": name}, "spec": spec}


def read(server: ServerProcess, *what: str) -> dict[str, Any]:
    found: dict[str, Any] = json.loads(done(server, "get", *what, "-o", "json"))
    return found


@pytest.mark.parametrize(("version", "kind", "spec", "header"), OBJECTS, ids=[case[1] for case in OBJECTS])
def test_kubectl_applies_prints_and_applies_again(
    server: ServerProcess, version: str, kind: str, spec: dict[str, Any], header: str
) -> None:
    document, plural = manifest(version, kind, "web", spec), f"{kind}.{version.partition('/')[0]}"
    assert "created" in done(server, "apply", "-f", "-", stdin=document)
    printed = done(server, "get", plural, "web", "-o", "wide").splitlines()[0]
    assert re.sub(r"\s+", " ", printed).strip() == header
    done(server, "apply", "-f", "-", stdin=document)
    done(server, "apply", "--server-side", "--force-conflicts", "-f", "-", stdin=document)
    assert read(server, plural, "web")["metadata"]["generation"] == 1
    done(server, "delete", plural, "web", "--wait=false")


REFUSED: list[tuple[str, str, dict[str, Any], str]] = [
    ("apps/v1", "Deployment", {**IDLE, "selector": {"matchLabels": {"app": "b"}}},
     'The Deployment "wrong" is invalid: spec.template.metadata.labels: Invalid value: {"app":"a"}: `selector` does not match template `labels`'),
    ("apps/v1", "DaemonSet", {"selector": SELECTOR, "template": {**TEMPLATE, **ENDING}},
     'The DaemonSet "wrong" is invalid: spec.template.spec.restartPolicy: Unsupported value: "Never": supported values: "Always"'),
    ("batch/v1", "Job", {"template": TEMPLATE},
     'The Job "wrong" is invalid: spec.template.spec.restartPolicy: Required value: valid values: "OnFailure", "Never"'),
    ("batch/v1", "CronJob", {"schedule": "61 * * * *", "jobTemplate": {"spec": {"template": ENDING}}},
     'The CronJob "wrong" is invalid: spec.schedule: Invalid value: "61 * * * *": end of range (61) above maximum (59): 61'),
    ("policy/v1", "PodDisruptionBudget", {"minAvailable": 1, "maxUnavailable": 1},
     "minAvailable and maxUnavailable cannot be both set"),
    ("autoscaling/v2", "HorizontalPodAutoscaler", {"scaleTargetRef": TARGET, "maxReplicas": 0},
     "spec.maxReplicas: Invalid value: 0: must be greater than 0"),
]  # fmt: skip


@pytest.mark.parametrize(("version", "kind", "spec", "words"), REFUSED, ids=[case[1] for case in REFUSED])
def test_a_wrong_manifest_is_refused_with_the_reason(
    server: ServerProcess, version: str, kind: str, spec: dict[str, Any], words: str
) -> None:
    answer = kubectl(server, "create", "-f", "-", stdin=manifest(version, kind, "wrong", spec))
    assert answer.returncode == 1 and words in answer.stderr, answer


def test_a_job_is_made_from_a_cron_job_and_knows_its_pods(server: ServerProcess) -> None:
    done(server, "create", "cronjob", "tick", "--image=registry.example/a:1", "--schedule=0 3 1 1 *")
    done(server, "create", "job", "now", "--from=cronjob/tick")
    job = read(server, "job", "now")
    labels, uid = job["spec"]["template"]["metadata"]["labels"], job["metadata"]["uid"]
    assert labels["batch.kubernetes.io/job-name"] == labels["job-name"] == "now"
    assert job["spec"]["selector"] == {"matchLabels": {"batch.kubernetes.io/controller-uid": uid}}
    done(server, "delete", "cronjob/tick", "--wait=false")


def test_an_autoscaler_has_two_versions_and_is_one_object(server: ServerProcess) -> None:
    done(server, "apply", "-f", "-", stdin=manifest("apps/v1", "Deployment", "scaled", IDLE))
    done(server, "autoscale", "deployment", "scaled", "--min=1", "--max=5", "--cpu=70%")
    assert (
        read(server, "horizontalpodautoscalers.v1.autoscaling", "scaled")["spec"]["targetCPUUtilizationPercentage"]
        == 70
    )
    newer = read(server, "horizontalpodautoscalers.v2.autoscaling", "scaled")["spec"]["metrics"]
    assert newer == [
        {"type": "Resource", "resource": {"name": "cpu", "target": {"type": "Utilization", "averageUtilization": 70}}}
    ]
    old = {"scaleTargetRef": TARGET, "maxReplicas": 2, "targetCPUUtilizationPercentage": 30}
    done(server, "apply", "-f", "-", stdin=manifest("autoscaling/v1", "HorizontalPodAutoscaler", "older", old))
    assert "cpu: <unknown>/30%" in done(server, "get", "hpa", "older")
    done(server, "delete", "hpa/scaled", "hpa/older", "deploy/scaled", "--wait=false")


def test_a_selector_can_not_be_changed_and_an_image_can(server: ServerProcess) -> None:
    done(server, "apply", "-f", "-", stdin=manifest("apps/v1", "Deployment", "fixed", IDLE))
    patch = {"spec": {"selector": {"matchLabels": {"b": "c"}}, "template": {"metadata": {"labels": {"b": "c"}}}}}
    refused = kubectl(server, "patch", "deployment", "fixed", "-p", json.dumps(patch))
    assert "spec.selector: Invalid value" in refused.stderr and "field is immutable" in refused.stderr
    done(server, "set", "image", "deployment/fixed", "c=registry.example/a:2")
    assert read(server, "deployment", "fixed")["metadata"]["generation"] == 2
    done(server, "delete", "deployment/fixed", "--wait=false")
