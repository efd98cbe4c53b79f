"""Autoscalers and disruption budgets are refused as Kubernetes does; an autoscaler has two faces and loses nothing."""

# ruff: noqa: E501 - a case is a line

from __future__ import annotations

import copy
import json
from typing import Any

import pytest

from cuboid.kube import autoscalers, kinds, schema
from cuboid.kube.fields import Fields
from cuboid.lib.errors import InvalidError

SCALER, BUDGET = (
    kinds.builtin("HorizontalPodAutoscaler", "autoscaling").strategy,
    kinds.builtin("PodDisruptionBudget", "policy").strategy,
)
TARGET = {"kind": "Deployment", "name": "web", "apiVersion": "apps/v1"}


def scaler(**spec: Any) -> dict[str, Any]:
    new = {
        "metadata": {"name": "x", "namespace": "d"},
        "spec": copy.deepcopy({"scaleTargetRef": TARGET, "maxReplicas": 5, **spec}),
    }
    SCALER.prepare_create(new, "2026-01-01T00:00:00Z")
    SCALER.default(new)
    return new


def complaints(strategy: Any, new: dict[str, Any]) -> list[str]:
    fields = Fields()
    strategy.validate(new, fields)
    return [str(error) for error in fields.errors]


def metric(kind: str, **source: Any) -> dict[str, Any]:
    return {"metrics": [{"type": kind[:1].upper() + kind[1:], kind: source}]}


CPU = {"type": "Utilization", "averageUtilization": 50}
AVERAGE = {"type": "AverageValue", "averageValue": "5"}
VALUE = {"type": "Value", "value": "5"}
METRIC = {"name": "requests"}
UP = "spec.behavior.scaleUp"
CASES: list[tuple[dict[str, Any], str]] = [
    ({"minReplicas": 0}, "spec.minReplicas: Invalid value: 0: must be greater than or equal to 1"),
    ({"maxReplicas": 0}, "spec.maxReplicas: Invalid value: 0: must be greater than 0"),
    ({"minReplicas": 6}, "spec.maxReplicas: Invalid value: 5: must be greater than or equal to `minReplicas`"),
    ({"scaleTargetRef": {}}, "spec.scaleTargetRef.kind: Required value"),
    ({"scaleTargetRef": {"kind": "D", "name": "a/b"}}, "spec.scaleTargetRef.name: Invalid value: \"a/b\": may not contain '/'"),
    ({"metrics": [{}]}, "spec.metrics[0].type: Required value: must specify a metric source type"),
    ({"metrics": [{"type": "X"}]}, 'spec.metrics[0].type: Unsupported value: "X": supported values: "ContainerResource", "External", "Object", "Pods", "Resource"'),
    ({"metrics": [{"type": "Pods"}]}, "spec.metrics[0].pods: Required value: must populate information for the given metric source"),
    ({"metrics": [{"type": "Pods", "pods": {"metric": METRIC, "target": AVERAGE}, "resource": {}}]}, "spec.metrics[0].resource: Forbidden: must populate the given metric source only"),
    (metric("resource", target=CPU), "spec.metrics[0].resource.name: Required value: must specify a resource name"),
    (metric("resource", name="cpu", target={"type": "Utilization"}), "spec.metrics[0].resource.target.averageUtilization: Required value: must set either a target raw value or a target utilization"),
    (metric("resource", name="cpu", target={**CPU, **AVERAGE}), "spec.metrics[0].resource.target.averageValue: Forbidden: may not set both a target raw value and a target utilization"),
    (metric("resource", name="cpu", target={"type": "Guess", "averageUtilization": 1}), 'spec.metrics[0].resource.target.type: Invalid value: "Guess": must be either Utilization, Value, or AverageValue'),
    (metric("resource", name="cpu", target={"type": "Utilization", "averageUtilization": 0}), "spec.metrics[0].resource.target.averageUtilization: Invalid value: 0: must be greater than 0"),
    (metric("containerResource", name="cpu", target=CPU), "spec.metrics[0].containerResource.container: Required value: must specify a container"),
    (metric("pods", metric={}, target=AVERAGE), "spec.metrics[0].pods.metric.name: Required value: must specify a metric name"),
    (metric("pods", metric=METRIC, target=VALUE), "spec.metrics[0].pods.target.averageValue: Required value: must specify a positive target averageValue"),
    (metric("pods", metric=METRIC, target={"type": "AverageValue", "averageValue": "-1"}), 'spec.metrics[0].pods.target.averageValue: Invalid value: "-1": must be positive'),
    (metric("object", metric=METRIC, target=VALUE), "spec.metrics[0].object.describedObject.kind: Required value"),
    (metric("object", metric=METRIC, describedObject=TARGET, target={"type": "Value"}), "spec.metrics[0].object.target.averageValue: Required value: must set either a target value or averageValue"),
    (metric("external", metric=METRIC, target={"type": "Value"}), "spec.metrics[0].external.target.averageValue: Required value: must set either a target value for metric or a per-pod target"),
    (metric("external", metric=METRIC, target={**VALUE, **AVERAGE}), "spec.metrics[0].external.target.value: Forbidden: may not set both a target value for metric and a per-pod target"),
    ({"behavior": {"scaleUp": {"stabilizationWindowSeconds": 3601}}}, f"{UP}.stabilizationWindowSeconds: Invalid value: 3601: must be less than or equal to 3600"),
    ({"behavior": {"scaleUp": {"stabilizationWindowSeconds": -1}}}, f"{UP}.stabilizationWindowSeconds: Invalid value: -1: must be greater than or equal to zero"),
    ({"behavior": {"scaleUp": {"selectPolicy": "Any"}}}, f'{UP}.selectPolicy: Unsupported value: "Any": supported values: "Disabled", "Max", "Min"'),
    ({"behavior": {"scaleUp": {"policies": []}}}, f"{UP}.policies: Required value: must specify at least one Policy"),
    ({"behavior": {"scaleUp": {"policies": [{"type": "X", "value": 1, "periodSeconds": 1}]}}}, f'{UP}.policies[0].type: Unsupported value: "X": supported values: "Percent", "Pods"'),
    ({"behavior": {"scaleUp": {"policies": [{"type": "Pods", "value": 0, "periodSeconds": 1}]}}}, f"{UP}.policies[0].value: Invalid value: 0: must be greater than zero"),
    ({"behavior": {"scaleUp": {"policies": [{"type": "Pods", "value": 1, "periodSeconds": 1801}]}}}, f"{UP}.policies[0].periodSeconds: Invalid value: 1801: must be less than or equal to 1800"),
]  # fmt: skip


@pytest.mark.parametrize(("spec", "expected"), CASES, ids=[f"{i}" for i in range(len(CASES))])
def test_a_wrong_autoscaler_is_refused_in_kubernetes_words(spec: dict[str, Any], expected: str) -> None:
    found = complaints(SCALER, scaler(**spec))
    assert expected in found, found


ALL_METRICS: list[dict[str, Any]] = [
    {"type": "Resource", "resource": {"name": "cpu", "target": CPU}},
    {"type": "Resource", "resource": {"name": "memory", "target": AVERAGE}},
    {"type": "ContainerResource", "containerResource": {"name": "cpu", "container": "a", "target": CPU}},
    {"type": "Pods", "pods": {"metric": {"name": "m", "selector": {"matchLabels": {"a": "b"}}}, "target": AVERAGE}},
    {"type": "Object", "object": {"describedObject": TARGET, "metric": METRIC, "target": VALUE}},
    {"type": "External", "external": {"metric": {"name": "m", "selector": {}}, "target": VALUE}},
]


def test_an_autoscaler_loses_nothing_on_the_way_through_its_older_version() -> None:
    full = scaler(metrics=ALL_METRICS, behavior={"scaleDown": {"stabilizationWindowSeconds": 5}})
    assert complaints(SCALER, full) == []
    full |= {"apiVersion": "autoscaling/v2", "kind": "HorizontalPodAutoscaler"}
    full["status"] = {
        "desiredReplicas": 2, "conditions": [{"type": "AbleToScale", "status": "True"}],
        "currentMetrics": [{"type": "Resource", "resource": {"name": "cpu", "current": {"averageUtilization": 7}}}],
    }  # fmt: skip
    old = autoscalers.from_v2(full)
    assert old["apiVersion"] == "autoscaling/v1"
    assert (old["spec"]["targetCPUUtilizationPercentage"], old["status"]["currentCPUUtilizationPercentage"]) == (50, 7)
    assert set(old["spec"]) == {"scaleTargetRef", "minReplicas", "maxReplicas", "targetCPUUtilizationPercentage"}
    unknown: list[str] = []
    schema.decode(schema.node("io.k8s.api.autoscaling.v1.HorizontalPodAutoscaler"), old, unknown)
    assert unknown == []
    assert autoscalers.to_v2(old) == full


def test_metrics_in_the_annotation_have_the_form_of_kubernetes() -> None:
    notes = autoscalers.from_v2(scaler(metrics=ALL_METRICS[3:5]))["metadata"]["annotations"]
    assert json.loads(notes[autoscalers.METRICS]) == [
        {"type": "Pods", "pods": {"metricName": "m", "selector": {"matchLabels": {"a": "b"}}, "targetAverageValue": "5"}},
        {"type": "Object", "object": {"target": TARGET, "metricName": "requests", "targetValue": "5"}},
    ]  # fmt: skip


@pytest.mark.parametrize("text", ["", "{", "7", "[[[", '"x"', "null"])
def test_an_annotation_that_is_no_metric_stays_an_annotation(text: str) -> None:
    document = {"metadata": {"name": "x", "annotations": {autoscalers.METRICS: text}}, "spec": {"maxReplicas": 1}}
    made = autoscalers.to_v2(document)
    assert made["metadata"]["annotations"] == {autoscalers.METRICS: text} and "metrics" not in made["spec"]


@pytest.mark.parametrize(
    "text",
    [
        '[{"type":{}}]',
        '[{"type":"Pods","pods":{"metricName":[]}}]',
        '[{"type":"Resource","resource":{"targetAverageUtilization":"x"}}]',
    ],
)
def test_an_annotation_with_wrong_types_is_refused(text: str) -> None:
    with pytest.raises(InvalidError):
        autoscalers.to_v2({"metadata": {"name": "x", "annotations": {autoscalers.METRICS: text}}, "spec": {}})


def test_both_versions_are_served_from_one_storage() -> None:
    rows = [kind for kind in kinds.Kinds() if kind.plural == "horizontalpodautoscalers"]
    assert [row.version for row in rows] == ["v2", "v1"]
    assert {row.stored_as for row in rows} == {("autoscaling", "horizontalpodautoscalers")}
    cells = rows[1].cells(autoscalers.from_v2(scaler()), 0.0)
    assert cells[2] == "cpu: <unknown>/80%"


SELECTOR = {"matchLabels": {"a": "b"}}
BUDGETS: list[tuple[dict[str, Any], list[str]]] = [
    ({"minAvailable": 1, "selector": SELECTOR}, []),
    ({"maxUnavailable": "50%", "selector": {}}, []),
    ({"minAvailable": 1, "maxUnavailable": 1}, ['spec: Invalid value: {"minAvailable":1,"maxUnavailable":1}: minAvailable and maxUnavailable cannot be both set']),
    ({"minAvailable": -1}, ["spec.minAvailable: Invalid value: -1: must be greater than or equal to 0"]),
    ({"maxUnavailable": "101%"}, ['spec.maxUnavailable: Invalid value: "101%": must not be greater than 100%']),
    ({"selector": {"matchExpressions": [{"key": "a", "operator": "In"}]}}, ["spec.selector.matchExpressions[0].values: Required value: must be specified when `operator` is 'In' or 'NotIn'"]),
    ({"unhealthyPodEvictionPolicy": "Never"}, ['spec.unhealthyPodEvictionPolicy: Unsupported value: "Never": supported values: "AlwaysAllow", "IfHealthyBudget"']),
]  # fmt: skip


@pytest.mark.parametrize(("spec", "expected"), BUDGETS, ids=[f"{i}" for i in range(len(BUDGETS))])
def test_a_budget_is_refused_in_kubernetes_words(spec: dict[str, Any], expected: list[str]) -> None:
    assert complaints(BUDGET, {"metadata": {"name": "Any_name"}, "spec": spec}) == expected
