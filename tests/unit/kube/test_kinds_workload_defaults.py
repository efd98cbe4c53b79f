"""Workloads get the defaults that Kubernetes gives them."""

# ruff: noqa: E501 - a case is a line

from __future__ import annotations

import copy
from typing import Any

import pytest

from cuboid.kube import kinds

CONTAINERS = [{"name": "a", "image": "i", "resources": {"limits": {"cpu": "1"}}}]
TEMPLATE = {"metadata": {"labels": {"app": "a"}}, "spec": {"containers": CONTAINERS}}
GROUPS = {kind.kind: kind.group for kind in kinds.KINDS}


def born(kind: str, spec: dict[str, Any], **metadata: Any) -> dict[str, Any]:
    """What the server makes of a new object."""
    strategy = kinds.builtin(kind, GROUPS[kind]).strategy
    new = {"metadata": {"name": "x", "namespace": "d", **metadata}, "spec": copy.deepcopy(spec)}
    strategy.prepare_create(new, "2026-01-01T00:00:00Z")
    new["metadata"]["uid"] = "u1"
    strategy.default(new)
    strategy.named(new)
    return new


CASES: list[tuple[str, dict[str, Any], dict[str, Any]]] = [
    ("Deployment", {"template": TEMPLATE}, {
        "replicas": 1, "revisionHistoryLimit": 10, "progressDeadlineSeconds": 600,
        "strategy": {"type": "RollingUpdate", "rollingUpdate": {"maxUnavailable": "25%", "maxSurge": "25%"}}}),
    ("Deployment", {"template": TEMPLATE, "strategy": {"type": "Recreate"}}, {"strategy": {"type": "Recreate"}}),
    ("Deployment", {"replicas": 0, "strategy": {"rollingUpdate": {"maxSurge": 1}}}, {
        "replicas": 0, "strategy": {"type": "RollingUpdate", "rollingUpdate": {"maxUnavailable": "25%", "maxSurge": 1}}}),
    ("ReplicaSet", {"template": TEMPLATE}, {"replicas": 1}),
    ("StatefulSet", {"template": TEMPLATE, "volumeClaimTemplates": [{"metadata": {"name": "c"}}]}, {
        "replicas": 1, "revisionHistoryLimit": 10, "podManagementPolicy": "OrderedReady", "serviceName": "",
        "updateStrategy": {"type": "RollingUpdate", "rollingUpdate": {"partition": 0}},
        "persistentVolumeClaimRetentionPolicy": {"whenDeleted": "Retain", "whenScaled": "Retain"},
        "volumeClaimTemplates": [{"apiVersion": "v1", "kind": "PersistentVolumeClaim", "metadata": {"name": "c"},
                                  "spec": {"volumeMode": "Filesystem"}, "status": {"phase": "Pending"}}]}),
    ("DaemonSet", {"template": TEMPLATE}, {
        "revisionHistoryLimit": 10,
        "updateStrategy": {"type": "RollingUpdate", "rollingUpdate": {"maxUnavailable": 1, "maxSurge": 0}}}),
    ("DaemonSet", {"updateStrategy": {"type": "OnDelete"}}, {"updateStrategy": {"type": "OnDelete"}}),
    ("Job", {"template": TEMPLATE}, {
        "parallelism": 1, "completions": 1, "backoffLimit": 6, "completionMode": "NonIndexed", "suspend": False,
        "manualSelector": False, "podReplacementPolicy": "TerminatingOrFailed",
        "selector": {"matchLabels": {"batch.kubernetes.io/controller-uid": "u1"}}}),
    ("Job", {"completions": 3, "completionMode": "Indexed", "backoffLimitPerIndex": 1}, {
        "parallelism": 1, "completions": 3, "backoffLimit": 2147483647}),
    ("Job", {"podFailurePolicy": {"rules": [{"action": "Ignore", "onPodConditions": [{"type": "X"}]}]}}, {
        "podReplacementPolicy": "Failed",
        "podFailurePolicy": {"rules": [{"action": "Ignore", "onPodConditions": [{"type": "X", "status": "True"}]}]}}),
    ("CronJob", {"schedule": "* * * * *", "jobTemplate": {"spec": {"template": TEMPLATE}}}, {
        "concurrencyPolicy": "Allow", "suspend": False, "successfulJobsHistoryLimit": 3, "failedJobsHistoryLimit": 1}),
    ("HorizontalPodAutoscaler", {"maxReplicas": 3}, {
        "minReplicas": 1,
        "metrics": [{"type": "Resource", "resource": {
            "name": "cpu", "target": {"type": "Utilization", "averageUtilization": 80}}}]}),
    ("HorizontalPodAutoscaler", {"behavior": {"scaleDown": {"selectPolicy": "Disabled"}}}, {
        "behavior": {
            "scaleUp": {"stabilizationWindowSeconds": 0, "selectPolicy": "Max", "policies": [
                {"type": "Pods", "value": 4, "periodSeconds": 15}, {"type": "Percent", "value": 100, "periodSeconds": 15}]},
            "scaleDown": {"selectPolicy": "Disabled", "policies": [
                {"type": "Percent", "value": 100, "periodSeconds": 15}]}}}),
]  # fmt: skip


@pytest.mark.parametrize(("kind", "given", "expected"), CASES, ids=[f"{i}-{case[0]}" for i, case in enumerate(CASES)])
def test_what_is_not_set_gets_kubernetes_defaults(kind: str, given: dict[str, Any], expected: dict[str, Any]) -> None:
    spec = born(kind, given)["spec"]
    assert {key: spec[key] for key in expected} == expected


@pytest.mark.parametrize("kind", ["Deployment", "ReplicaSet", "StatefulSet", "DaemonSet", "Job"])
def test_a_template_gets_less_than_a_pod(kind: str) -> None:
    spec = born(kind, {"template": TEMPLATE})["spec"]["template"]["spec"]
    assert spec.pop("containers") == [
        {
            "name": "a", "image": "i", "resources": {"limits": {"cpu": "1"}}, "imagePullPolicy": "Always",
            "terminationMessagePath": "/dev/termination-log", "terminationMessagePolicy": "File",
        }
    ]  # fmt: skip
    assert spec == {
        "restartPolicy": "Always", "terminationGracePeriodSeconds": 30, "dnsPolicy": "ClusterFirst",
        "schedulerName": "default-scheduler", "securityContext": {},
    }  # fmt: skip


@pytest.mark.parametrize("kind", sorted({case[0] for case in CASES}))
def test_defaults_given_again_change_nothing(kind: str) -> None:
    for name, given, _ in CASES:
        if name == kind:
            once = born(kind, given)
            twice = copy.deepcopy(once)
            kinds.builtin(kind, GROUPS[kind]).strategy.default(twice)
            assert twice == once


def test_the_pods_of_a_job_are_labelled_with_its_name_and_uid() -> None:
    labels = {
        "app": "a", "batch.kubernetes.io/job-name": "x", "job-name": "x",
        "batch.kubernetes.io/controller-uid": "u1", "controller-uid": "u1",
    }  # fmt: skip
    job = born("Job", {"template": TEMPLATE})
    assert job["spec"]["template"]["metadata"]["labels"] == labels
    assert job["metadata"]["labels"] == labels


def test_a_job_with_a_selector_of_its_own_gets_no_labels() -> None:
    job = born("Job", {"template": TEMPLATE, "manualSelector": True, "selector": {"matchLabels": {"app": "a"}}})
    assert job["spec"]["template"]["metadata"]["labels"] == {"app": "a"}
    assert job["spec"]["selector"] == {"matchLabels": {"app": "a"}}


@pytest.mark.parametrize(
    ("kind", "status"),
    [
        ("Deployment", {}),
        ("ReplicaSet", {"replicas": 0}),
        ("StatefulSet", {"replicas": 0, "availableReplicas": 0}),
        ("CronJob", {}),
        ("HorizontalPodAutoscaler", {"desiredReplicas": 0}),
    ],
)
def test_the_status_at_birth(kind: str, status: dict[str, Any]) -> None:
    assert born(kind, {})["status"] == status
