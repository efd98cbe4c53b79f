"""Workloads of `apps` are refused, and changed, as Kubernetes does."""

# ruff: noqa: E501 - a case is a line

from __future__ import annotations

import copy
from typing import Any

import pytest

from cuboid.kube import kinds
from cuboid.kube.fields import Fields

LABELS = {"app": "a"}
TEMPLATE: dict[str, Any] = {"metadata": {"labels": LABELS}, "spec": {"containers": [{"name": "a", "image": "i"}]}}
SELECTOR = {"matchLabels": LABELS}
KINDS = ("Deployment", "ReplicaSet", "StatefulSet", "DaemonSet")


def workload(kind: str, **spec: Any) -> dict[str, Any]:
    new = {
        "metadata": {"name": "x", "namespace": "d"},
        "spec": copy.deepcopy({"selector": SELECTOR, "template": TEMPLATE, **spec}),
    }
    strategy = kinds.builtin(kind, "apps").strategy
    strategy.prepare_create(new, "2026-01-01T00:00:00Z")
    strategy.default(new)
    return new


def pods(**spec: Any) -> dict[str, Any]:
    return {**TEMPLATE, "spec": {**TEMPLATE["spec"], **spec}}


def complaints(kind: str, new: dict[str, Any]) -> list[str]:
    fields = Fields()
    kinds.builtin(kind, "apps").strategy.validate(new, fields)
    return [str(error) for error in fields.errors]


def changes(kind: str, new: dict[str, Any], old: dict[str, Any]) -> list[str]:
    fields = Fields()
    kinds.builtin(kind, "apps").strategy.validate_update(new, old, fields)
    return [str(error) for error in fields.errors]


UNMATCHED = 'spec.template.metadata.labels: Invalid value: {"app":"a"}: `selector` does not match template `labels`'
EVERY: list[tuple[dict[str, Any], str]] = [
    ({"selector": {"matchLabels": {"app": "b"}}}, UNMATCHED),
    ({"selector": {"matchExpressions": [{"key": "app", "operator": "NotIn", "values": ["a"]}]}}, UNMATCHED),
    ({"selector": None}, "spec.selector: Required value"),
    ({"selector": None}, UNMATCHED),
    ({"selector": {}}, "spec.selector: Invalid value: {}: empty selector is invalid for "),
    ({"selector": {"matchLabels": {"a b": "c"}}}, 'spec.selector.matchLabels: Invalid value: "a b": name part must consist of'),
    ({"selector": {"matchExpressions": [{"key": "a", "operator": "Like"}]}}, 'spec.selector.matchExpressions[0].operator: Invalid value: "Like": not a valid selector operator'),
    ({"selector": {"matchExpressions": [{"key": "a", "operator": "In"}]}}, "spec.selector.matchExpressions[0].values: Required value: must be specified when `operator` is 'In' or 'NotIn'"),
    ({"selector": {"matchExpressions": [{"key": "a", "operator": "Exists", "values": ["b"]}]}}, "spec.selector.matchExpressions[0].values: Forbidden: may not be specified when `operator` is 'Exists' or 'DoesNotExist'"),
    ({"selector": {"matchExpressions": [{"key": "a", "operator": "In", "values": ["-"]}]}}, 'spec.selector.matchExpressions[0].values[0]: Invalid value: "-": a valid label must be'),
    ({"minReadySeconds": -1}, "spec.minReadySeconds: Invalid value: -1: must be greater than or equal to 0"),
    ({"template": pods(restartPolicy="OnFailure")}, 'spec.template.spec.restartPolicy: Unsupported value: "OnFailure": supported values: "Always"'),
    ({"template": pods(activeDeadlineSeconds=5)}, "spec.template.spec.activeDeadlineSeconds: Forbidden: activeDeadlineSeconds in "),
    ({"template": pods(containers=[])}, "spec.template.spec.containers: Required value"),
    ({"template": pods(containers=[{"name": "a"}])}, "spec.template.spec.containers[0].image: Required value"),
    ({"template": pods(ephemeralContainers=[{"name": "e"}])}, "spec.template.spec.ephemeralContainers: Forbidden: ephemeral containers not allowed in pod template"),
    ({"template": {**TEMPLATE, "metadata": {"labels": {**LABELS, "b": "-"}}}}, 'spec.template.labels: Invalid value: "-": a valid label must be'),
]  # fmt: skip


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize(("spec", "expected"), EVERY, ids=[f"{i}" for i in range(len(EVERY))])
def test_every_workload_is_refused_alike(kind: str, spec: dict[str, Any], expected: str) -> None:
    new = workload(kind, **spec)
    if new["spec"]["selector"] is None:
        del new["spec"]["selector"]
    found = complaints(kind, new)
    assert any(complaint.startswith(expected) for complaint in found), found


CASES: list[tuple[str, dict[str, Any], str]] = [
    ("Deployment", {"replicas": -1}, "spec.replicas: Invalid value: -1: must be greater than or equal to 0"),
    ("Deployment", {"revisionHistoryLimit": -1}, "spec.revisionHistoryLimit: Invalid value: -1: must be greater than or equal to 0"),
    ("Deployment", {"minReadySeconds": 600}, "spec.progressDeadlineSeconds: Invalid value: 600: must be greater than minReadySeconds"),
    ("Deployment", {"strategy": {"type": "Never"}}, 'spec.strategy: Unsupported value: {"type":"Never"}: supported values: "Recreate", "RollingUpdate"'),
    ("Deployment", {"strategy": {"type": "Recreate", "rollingUpdate": {}}}, "spec.strategy.rollingUpdate: Forbidden: may not be specified when strategy `type` is 'Recreate'"),
    ("Deployment", {"strategy": {"rollingUpdate": {"maxSurge": 0, "maxUnavailable": "0%"}}}, 'spec.strategy.rollingUpdate.maxUnavailable: Invalid value: "0%": may not be 0 when `maxSurge` is 0'),
    ("Deployment", {"strategy": {"rollingUpdate": {"maxSurge": "x"}}}, "spec.strategy.rollingUpdate.maxSurge: Invalid value: \"x\": a valid percent string must be a numeric string followed by an ending '%'"),
    ("Deployment", {"strategy": {"rollingUpdate": {"maxSurge": -1}}}, "spec.strategy.rollingUpdate.maxSurge: Invalid value: -1: must be greater than or equal to 0"),
    ("Deployment", {"strategy": {"rollingUpdate": {"maxUnavailable": "101%"}}}, 'spec.strategy.rollingUpdate.maxUnavailable: Invalid value: "101%": must not be greater than 100%'),
    ("ReplicaSet", {"replicas": -1}, "spec.replicas: Invalid value: -1: must be greater than or equal to 0"),
    ("StatefulSet", {"replicas": -1}, "spec.replicas: Invalid value: -1: must be greater than or equal to 0"),
    ("StatefulSet", {"podManagementPolicy": "Wild"}, "spec.podManagementPolicy: Invalid value: \"Wild\": must be 'OrderedReady' or 'Parallel'"),
    ("StatefulSet", {"updateStrategy": {"type": "X"}}, "spec.updateStrategy: Invalid value: {\"type\":\"X\"}: must be 'RollingUpdate' or 'OnDelete'"),
    ("StatefulSet", {"updateStrategy": {"type": "OnDelete", "rollingUpdate": {"partition": 1}}}, "spec.updateStrategy.rollingUpdate: Invalid value: {\"partition\":1}: only allowed for updateStrategy 'RollingUpdate'"),
    ("StatefulSet", {"updateStrategy": {"rollingUpdate": {"partition": -1}}}, "spec.updateStrategy.rollingUpdate.partition: Invalid value: -1: must be greater than or equal to 0"),
    ("StatefulSet", {"updateStrategy": {"rollingUpdate": {"maxUnavailable": 0}}}, "spec.updateStrategy.rollingUpdate.maxUnavailable: Invalid value: 0: cannot be 0"),
    ("StatefulSet", {"persistentVolumeClaimRetentionPolicy": {"whenScaled": "Keep"}}, 'spec.persistentVolumeClaimRetentionPolicy.whenScaled: Unsupported value: "Keep": supported values: "Delete", "Retain"'),
    ("StatefulSet", {"ordinals": {"start": -1}}, "spec.ordinals.start: Invalid value: -1: must be greater than or equal to 0"),
    ("StatefulSet", {"serviceName": "A"}, 'spec.serviceName: Invalid value: "A": a lowercase RFC 1123 label'),
    ("DaemonSet", {"updateStrategy": {"type": "X"}}, 'spec.updateStrategy: Unsupported value: {"type":"X"}: supported values: "OnDelete", "RollingUpdate"'),
    ("DaemonSet", {"updateStrategy": {"rollingUpdate": {"maxSurge": 1}}}, "spec.updateStrategy.rollingUpdate.maxSurge: Invalid value: 1: may not be set when maxUnavailable is non-zero"),
    ("DaemonSet", {"updateStrategy": {"rollingUpdate": {"maxUnavailable": 0}}}, "spec.updateStrategy.rollingUpdate.maxUnavailable: Required value: cannot be 0 when maxSurge is 0"),
    ("DaemonSet", {"updateStrategy": {"rollingUpdate": {"maxUnavailable": 0, "maxSurge": "200%"}}}, 'spec.updateStrategy.rollingUpdate.maxSurge: Invalid value: "200%": must not be greater than 100%'),
]  # fmt: skip


@pytest.mark.parametrize(("kind", "spec", "expected"), CASES, ids=[f"{i}-{c[0]}" for i, c in enumerate(CASES)])
def test_a_wrong_workload_is_refused_in_kubernetes_words(kind: str, spec: dict[str, Any], expected: str) -> None:
    found = complaints(kind, workload(kind, **spec))
    assert any(complaint.startswith(expected) for complaint in found), found


@pytest.mark.parametrize("kind", KINDS)
def test_a_right_workload_is_accepted(kind: str) -> None:
    assert complaints(kind, workload(kind)) == []


def test_a_stateful_set_mounts_what_it_claims() -> None:
    container = {"name": "a", "image": "i", "volumeMounts": [{"name": "data", "mountPath": "/d"}]}
    spec: dict[str, Any] = {"accessModes": ["ReadWriteOnce"], "resources": {"requests": {"storage": "1Gi"}}}
    claim = {"metadata": {"name": "data"}, "spec": spec}
    claimed = workload("StatefulSet", template=pods(containers=[container]), volumeClaimTemplates=[claim])
    assert complaints("StatefulSet", claimed) == []
    spec["accessModes"] = []
    claimed = workload("StatefulSet", template=pods(containers=[container]), volumeClaimTemplates=[claim])
    assert complaints("StatefulSet", claimed) == [
        "spec.volumeClaimTemplates[0].spec.accessModes: Required value: at least 1 access mode is required"
    ]
    without = complaints("StatefulSet", workload("StatefulSet", template=pods(containers=[container])))
    assert without == ['spec.template.spec.containers[0].volumeMounts[0].name: Not found: "data"']


def test_the_name_of_a_stateful_set_is_a_label() -> None:
    new = workload("StatefulSet")
    new["metadata"]["name"] = "a.b"
    assert 'metadata.name: Invalid value: "a.b": a lowercase RFC 1123 label' in complaints("StatefulSet", new)[0]
    assert complaints("Deployment", {**workload("Deployment"), "metadata": {"name": "a.b"}}) == []


@pytest.mark.parametrize("kind", ("Deployment", "ReplicaSet", "DaemonSet"))
def test_a_selector_stays_as_it_is(kind: str) -> None:
    both = {"metadata": {"labels": {"app": "a", "b": "c"}}, "spec": TEMPLATE["spec"]}
    old, new = workload(kind, template=both), workload(kind, template=both, selector={"matchLabels": {"b": "c"}})
    assert changes(kind, new, old) == ['spec.selector: Invalid value: {"matchLabels":{"b":"c"}}: field is immutable']


@pytest.mark.parametrize(
    ("spec", "allowed"),
    [
        ({"replicas": 5}, True),
        ({"template": pods(hostname="h")}, True),
        ({"updateStrategy": {"type": "OnDelete"}}, True),
        ({"minReadySeconds": 3}, True),
        ({"ordinals": {"start": 3}}, True),
        ({"persistentVolumeClaimRetentionPolicy": {"whenDeleted": "Delete"}}, True),
        ({"revisionHistoryLimit": 2}, True),
        ({"podManagementPolicy": "Parallel"}, False),
        ({"serviceName": "other"}, False),
        ({"volumeClaimTemplates": [{"metadata": {"name": "c"}}]}, False),
    ],
)
def test_what_may_change_of_a_stateful_set(spec: dict[str, Any], allowed: bool) -> None:
    words = "spec: Forbidden: updates to statefulset spec for fields other than 'replicas', 'ordinals', 'template', 'updateStrategy', 'revisionHistoryLimit', 'persistentVolumeClaimRetentionPolicy' and 'minReadySeconds' are forbidden"
    found = changes("StatefulSet", workload("StatefulSet", **spec), workload("StatefulSet"))
    assert found == ([] if allowed else [words])


@pytest.mark.parametrize(
    ("kind", "status", "expected"),
    [
        ("Deployment", {"replicas": 1, "readyReplicas": 2}, "status.readyReplicas: Invalid value: 2: cannot be greater than status.replicas"),
        ("Deployment", {"replicas": 3, "availableReplicas": 2, "readyReplicas": 1}, "status.availableReplicas: Invalid value: 2: cannot be greater than readyReplicas"),
        ("StatefulSet", {"replicas": 3, "availableReplicas": 2}, "status.availableReplicas: Invalid value: 2: cannot be greater than status.readyReplicas"),
        ("ReplicaSet", {"replicas": -1}, "status.replicas: Invalid value: -1: must be greater than or equal to 0"),
        ("DaemonSet", {"numberReady": -1}, "status.numberReady: Invalid value: -1: must be greater than or equal to 0"),
        ("DaemonSet", {"collisionCount": 1}, "status.collisionCount: Invalid value: 1: cannot be decremented"),
        ("Deployment", {"replicas": 3, "updatedReplicas": 3, "readyReplicas": 2, "availableReplicas": 1, "collisionCount": 2}, ""),
    ],
)  # fmt: skip
def test_a_status_that_can_not_be_is_refused(kind: str, status: dict[str, Any], expected: str) -> None:
    old, new = workload(kind), workload(kind)
    old["status"], new["status"] = {"collisionCount": 2}, {"collisionCount": 2, **status}
    fields = Fields()
    kinds.builtin(kind, "apps").strategy.validate_status(new, old, fields)
    assert [str(error) for error in fields.errors] == ([expected] if expected else [])


@pytest.mark.parametrize(
    ("data", "expected"),
    [
        ({"spec": 1}, []),
        (None, ["data: Required value: data is mandatory"]),
        ([1], ["data: Required value: data must be a valid JSON object"]),
    ],
)
def test_a_revision_has_data_that_does_not_change(data: Any, expected: list[str]) -> None:
    revision = {"metadata": {"name": "r", "namespace": "d"}, "revision": 1, **({} if data is None else {"data": data})}
    assert complaints("ControllerRevision", revision) == expected
    if not expected:
        found = changes("ControllerRevision", {**revision, "data": {"spec": 2}}, revision)
        assert found == ['data: Invalid value: {"spec":2}: field is immutable']
