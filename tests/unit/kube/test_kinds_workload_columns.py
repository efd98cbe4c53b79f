"""`kubectl get` prints workloads as with any other Kubernetes."""

# ruff: noqa: E501 - a case is a line

from __future__ import annotations

from typing import Any

import pytest

from cuboid.kube import kinds
from cuboid.lib.clock import parse_rfc3339

BORN = "2026-01-01T00:00:00Z"
NOW = parse_rfc3339("2026-01-01T00:05:00Z")
TEMPLATE = {
    "spec": {"containers": [{"name": "a", "image": "i"}, {"name": "b", "image": "j:1"}], "nodeSelector": {"d": "e"}}
}
PODS: dict[str, Any] = {
    "replicas": 3,
    "template": TEMPLATE,
    "selector": {"matchLabels": {"b": "c"}, "matchExpressions": [{"key": "a", "operator": "In", "values": ["y", "x"]}]},
}
WIDE = {"Containers": "a,b", "Images": "i,j:1", "Selector": "a in (x,y),b=c"}
AT = {"Name": "x", "Age": "5m"}


def true(*names: str) -> list[dict[str, str]]:
    return [{"type": name, "status": "True"} for name in names]


def printed(group: str, kind: str, spec: dict[str, Any], status: dict[str, Any], **more: Any) -> dict[str, Any]:
    row = kinds.builtin(kind, group)
    document = {
        "metadata": {"name": "x", "creationTimestamp": BORN, **more.pop("metadata", {})},
        "spec": spec,
        "status": status,
        **more,
    }
    return dict(zip([column.name for column in row.columns], row.cells(document, NOW), strict=True))


CASES: list[tuple[str, str, dict[str, Any], dict[str, Any], dict[str, Any]]] = [
    ("apps", "Deployment", PODS, {"readyReplicas": 2, "updatedReplicas": 1, "availableReplicas": 2},
     {"Ready": "2/3", "Up-to-date": 1, "Available": 2, **AT, **WIDE}),
    ("apps", "ReplicaSet", PODS, {"replicas": 2, "readyReplicas": 1}, {"Desired": 3, "Current": 2, "Ready": 1, **AT, **WIDE}),
    ("apps", "StatefulSet", PODS, {"readyReplicas": 1}, {"Ready": "1/3", **AT, "Containers": "a,b", "Images": "i,j:1"}),
    ("apps", "DaemonSet", PODS, {"desiredNumberScheduled": 4, "currentNumberScheduled": 3, "numberReady": 2, "updatedNumberScheduled": 1},
     {"Desired": 4, "Current": 3, "Ready": 2, "Up-to-date": 1, "Available": 0, "Node Selector": "d=e", **AT, **WIDE}),
    ("batch", "CronJob", {"schedule": "@daily", "jobTemplate": {"spec": {"template": TEMPLATE}}}, {},
     {"Schedule": "@daily", "Timezone": "<none>", "Suspend": "False", "Active": 0, "Last Schedule": "<none>", **AT, **WIDE, "Selector": "<none>"}),
    ("batch", "CronJob", {"schedule": "@daily", "timeZone": "UTC", "suspend": True}, {"active": [{}], "lastScheduleTime": "2026-01-01T00:04:00Z"},
     {"Schedule": "@daily", "Timezone": "UTC", "Suspend": "True", "Active": 1, "Last Schedule": "60s", **AT, "Containers": "", "Images": "", "Selector": "<none>"}),
    ("policy", "PodDisruptionBudget", {"minAvailable": "50%"}, {"disruptionsAllowed": 2},
     {"Min Available": "50%", "Max Unavailable": "N/A", "Allowed Disruptions": 2, **AT}),
]  # fmt: skip


@pytest.mark.parametrize(
    ("group", "kind", "spec", "status", "expected"), CASES, ids=[f"{i}-{c[1]}" for i, c in enumerate(CASES)]
)
def test_the_cells_of_a_row(
    group: str, kind: str, spec: dict[str, Any], status: dict[str, Any], expected: dict[str, Any]
) -> None:
    assert printed(group, kind, spec, status) == expected


@pytest.mark.parametrize(
    ("spec", "status", "deleted", "state", "completions", "took"),
    [
        ({"completions": 3}, {}, False, "Running", "0/3", ""),
        ({"completions": 3}, {"succeeded": 1, "startTime": BORN}, False, "Running", "1/3", "5m"),
        ({"parallelism": 4}, {"succeeded": 1}, False, "Running", "1/1 of 4", ""),
        ({"parallelism": 1}, {"conditions": true("Suspended")}, False, "Suspended", "0/1", ""),
        ({"completions": 1}, {"conditions": true("FailureTarget")}, False, "FailureTarget", "0/1", ""),
        ({"completions": 1}, {"conditions": true("SuccessCriteriaMet")}, False, "SuccessCriteriaMet", "0/1", ""),
        ({"completions": 1}, {"conditions": true("FailureTarget", "Failed")}, True, "Failed", "0/1", ""),
        ({"completions": 1}, {"conditions": true("Suspended")}, True, "Terminating", "0/1", ""),
        ({"completions": 1}, {"succeeded": 1, "startTime": BORN, "completionTime": "2026-01-01T00:00:07Z", "conditions": true("Complete")}, False, "Complete", "1/1", "7s"),
    ],
)  # fmt: skip
def test_a_job_in_each_state(
    spec: dict[str, Any], status: dict[str, Any], deleted: bool, state: str, completions: str, took: str
) -> None:
    metadata = {"deletionTimestamp": BORN} if deleted else {}
    cells = printed("batch", "Job", spec, status, metadata=metadata)
    assert (cells["Status"], cells["Completions"], cells["Duration"]) == (state, completions, took)


def resource(name: str, **target: Any) -> dict[str, Any]:
    return {"type": "Resource", "resource": {"name": name, "target": target}}


@pytest.mark.parametrize(
    ("metrics", "current", "expected"),
    [
        ([], [], "<none>"),
        ([resource("cpu", averageUtilization=80)], [], "cpu: <unknown>/80%"),
        ([resource("cpu", averageUtilization=80)], [{"resource": {"current": {"averageUtilization": 12}}}], "cpu: 12%/80%"),
        ([resource("memory", averageValue="1Gi")], [{"resource": {"current": {"averageValue": "2Gi"}}}], "memory: 2Gi/1Gi"),
        ([{"type": "Pods", "pods": {"target": {"averageValue": "5"}}}], [], "<unknown>/5"),
        ([{"type": "External", "external": {"target": {"averageValue": "5"}}}], [], "<unknown>/5 (avg)"),
        ([{"type": "Object", "object": {"target": {"value": "5"}}}], [{"object": {"current": {"value": "4"}}}], "4/5"),
        ([resource("cpu", averageUtilization=1)] * 4, [], "cpu: <unknown>/1%, cpu: <unknown>/1% + 2 more..."),
    ],
)  # fmt: skip
def test_the_targets_of_an_autoscaler(metrics: list[Any], current: list[Any], expected: str) -> None:
    spec = {
        "scaleTargetRef": {"kind": "Deployment", "name": "web"},
        "minReplicas": 1,
        "maxReplicas": 9,
        "metrics": metrics,
    }
    cells = printed("autoscaling", "HorizontalPodAutoscaler", spec, {"currentReplicas": 2, "currentMetrics": current})
    assert cells == {
        "Reference": "Deployment/web",
        "Targets": expected,
        "MinPods": "1",
        "MaxPods": 9,
        "Replicas": 2,
        **AT,
    }


def test_a_revision_names_its_controller() -> None:
    owner = {"apiVersion": "apps/v1", "kind": "StatefulSet", "name": "web", "controller": True}
    cells = printed("apps", "ControllerRevision", {}, {}, metadata={"ownerReferences": [owner]}, revision=3)
    assert cells == {"Controller": "statefulset.apps/web", "Revision": 3, **AT}
    assert printed("apps", "ControllerRevision", {}, {})["Controller"] == "<none>"
