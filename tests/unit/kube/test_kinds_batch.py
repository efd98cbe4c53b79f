"""Jobs and CronJobs are refused, and changed, as Kubernetes does."""

# ruff: noqa: E501 - a case is a line

from __future__ import annotations

import copy
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from cuboid.kube import kinds
from cuboid.kube.fields import Fields
from cuboid.kube.job_indexes import overlap, parse_indexes
from cuboid.lib.errors import InvalidError

TEMPLATE: dict[str, Any] = {"spec": {"restartPolicy": "Never", "containers": [{"name": "a", "image": "i"}]}}
JOB, CRON = kinds.builtin("Job", "batch").strategy, kinds.builtin("CronJob", "batch").strategy


def job(name: str = "x", **spec: Any) -> dict[str, Any]:
    new = {"metadata": {"name": name, "namespace": "d"}, "spec": copy.deepcopy({"template": TEMPLATE, **spec})}
    JOB.prepare_create(new, "2026-01-01T00:00:00Z")
    new["metadata"]["uid"] = "u1"
    JOB.default(new)
    JOB.named(new)
    return new


def cron_job(name: str = "x", job_spec: dict[str, Any] | None = None, **spec: Any) -> dict[str, Any]:
    template = {"spec": {"template": TEMPLATE, **(job_spec or {})}}
    full = copy.deepcopy({"schedule": "* * * * *", "jobTemplate": template, **spec})
    new = {"metadata": {"name": name, "namespace": "d"}, "spec": full}
    CRON.prepare_create(new, "2026-01-01T00:00:00Z")
    CRON.default(new)
    return new


def complaints(new: dict[str, Any]) -> list[str]:
    fields = Fields()
    (CRON if "schedule" in new["spec"] else JOB).validate(new, fields)
    return [str(error) for error in fields.errors]


def pods(**spec: Any) -> dict[str, Any]:
    return {"spec": {**TEMPLATE["spec"], **spec}}


def labelled(**labels: str) -> dict[str, Any]:
    return {**TEMPLATE, "metadata": {"labels": labels}}


def failure(**rule: Any) -> dict[str, Any]:
    return {"podFailurePolicy": {"rules": [{"action": "FailJob", **rule}]}}


def codes(**requirement: Any) -> dict[str, Any]:
    return failure(onExitCodes={"operator": "In", "values": [1], **requirement})


def success(**rule: Any) -> dict[str, Any]:
    return {"completions": 4, "completionMode": "Indexed", "successPolicy": {"rules": [rule]}}


INDEXED: dict[str, Any] = {"completions": 4, "completionMode": "Indexed"}
RULE, CODES, SUCCESS = (
    "spec.podFailurePolicy.rules[0]",
    "spec.podFailurePolicy.rules[0].onExitCodes",
    "spec.successPolicy.rules[0]",
)
CASES: list[tuple[dict[str, Any], str]] = [
    *[({key: -1, "completionMode": "Indexed"}, f"spec.{key}: Invalid value: -1: must be greater than or equal to 0")
      for key in ("parallelism", "completions", "activeDeadlineSeconds", "backoffLimit", "ttlSecondsAfterFinished", "backoffLimitPerIndex", "maxFailedIndexes")],
    ({"template": pods(restartPolicy="Always")}, 'spec.template.spec.restartPolicy: Required value: valid values: "OnFailure", "Never"'),
    ({"template": pods(restartPolicy="Maybe")}, 'spec.template.spec.restartPolicy: Unsupported value: "Maybe": supported values: "Never", "OnFailure"'),
    ({"template": pods(containers=[])}, "spec.template.spec.containers: Required value"),
    ({"template": labelled(**{"job-name": "other"})}, "spec.template.metadata.labels[job-name]: Invalid value"),
    ({"template": labelled(**{"batch.kubernetes.io/controller-uid": "u2"})}, "spec.template.metadata.labels[batch.kubernetes.io/controller-uid]: Invalid value"),
    ({"selector": {"matchLabels": {"app": "a"}}}, "spec.selector: Invalid value"),
    ({"selector": {"matchLabels": {"app": "a"}}}, "spec.template.metadata.labels: Invalid value"),
    ({"manualSelector": True}, "spec.selector: Required value"),
    ({"completionMode": "Some"}, 'spec.completionMode: Unsupported value: "Some": supported values: "Indexed", "NonIndexed"'),
    ({"completionMode": "Indexed", "parallelism": 1}, "spec.completions: Required value: when completion mode is Indexed"),
    ({**INDEXED, "parallelism": 100_001}, "spec.parallelism: Invalid value: 100001: must be less than or equal to 100000 when completion mode is Indexed"),
    ({**INDEXED, "backoffLimitPerIndex": 1, "maxFailedIndexes": 5}, "spec.maxFailedIndexes: Invalid value: 5: must be less than or equal to completions"),
    ({**INDEXED, "maxFailedIndexes": 1}, "spec.backoffLimitPerIndex: Required value: when maxFailedIndexes is specified"),
    ({"backoffLimitPerIndex": 1}, "spec.backoffLimitPerIndex: Invalid value: 1: requires indexed completion mode"),
    ({"backoffLimitPerIndex": 1, "maxFailedIndexes": 1}, "spec.maxFailedIndexes: Invalid value: 1: requires indexed completion mode"),
    ({**INDEXED, "completions": 100_001, "backoffLimitPerIndex": 1}, "spec.maxFailedIndexes: Required value: must be specified when completions is above 100000"),
    ({**INDEXED, "completions": 100_001, "backoffLimitPerIndex": 1, "maxFailedIndexes": 1, "parallelism": 10_001}, "spec.parallelism: Invalid value: 10001: must be less than or equal to 10000 when completions are above 100000 and used with backoff limit per index"),
    ({"managedBy": "acme"}, 'spec.managedBy: Invalid value: "acme": must be a domain-prefixed path (such as "acme.io/foo")'),
    ({"managedBy": "acme.io/" + "x" * 60}, "spec.managedBy: Too long: may not be more than 63 bytes"),
    ({"podReplacementPolicy": "Never"}, 'spec.podReplacementPolicy: Unsupported value: "Never": supported values: "Failed", "TerminatingOrFailed"'),
    ({**codes(), "podReplacementPolicy": "TerminatingOrFailed"}, 'spec.podReplacementPolicy: Unsupported value: "TerminatingOrFailed": supported values: "Failed"'),
    ({**codes(), "template": pods(restartPolicy="OnFailure")}, 'spec.template.spec.restartPolicy: Invalid value: "OnFailure": only "Never" is supported when podFailurePolicy is specified'),
    ({"podFailurePolicy": {"rules": [{"action": "Ignore", "onPodConditions": [{"type": "A"}]}] * 21}}, "spec.podFailurePolicy.rules: Too many: 21: must have at most 20 items"),
    (failure(), f"{RULE}: Invalid value: specifying one of OnExitCodes and OnPodConditions is required"),
    (failure(onExitCodes={"operator": "In", "values": [1]}, onPodConditions=[{"type": "A"}]), f"{RULE}: Invalid value: specifying both OnExitCodes and OnPodConditions is not supported"),
    (failure(action=""), f'{RULE}.action: Required value: valid values: ["Count" "FailIndex" "FailJob" "Ignore"]'),
    (failure(action="Cry"), f'{RULE}.action: Unsupported value: "Cry": supported values: "Count", "FailIndex", "FailJob", "Ignore"'),
    (failure(action="FailIndex"), f'{RULE}.action: Invalid value: "FailIndex": requires the backoffLimitPerIndex to be set'),
    (failure(onPodConditions=[{"type": "a b"}]), f'{RULE}.onPodConditions[0].type: Invalid value: "a b": name part must consist of'),
    (failure(onPodConditions=[{"type": "A", "status": "Yes"}]), f'{RULE}.onPodConditions[0].status: Unsupported value: "Yes": supported values: "False", "True", "Unknown"'),
    (codes(operator="Is"), f'{CODES}.operator: Unsupported value: "Is": supported values: "In", "NotIn"'),
    (codes(containerName="b"), f'{CODES}.containerName: Invalid value: "b": must be one of the container or initContainer names in the pod template'),
    (codes(values=[]), f"{CODES}.values: Invalid value: []: at least one value is required"),
    (codes(values=list(range(1, 257))), f"{CODES}.values: Too many: 256: must have at most 255 items"),
    (codes(values=[0]), f"{CODES}.values[0]: Invalid value: 0: must not be 0 for the In operator"),
    (codes(values=[1, 1]), f"{CODES}.values[1]: Duplicate value: 1"),
    (codes(values=[2, 1]), f"{CODES}.values: Invalid value: [2,1]: must be ordered"),
    ({"successPolicy": {"rules": [{"succeededCount": 1}]}}, "spec.successPolicy: Invalid value: {\"rules\":[{\"succeededCount\":1}]}: requires indexed completion mode"),
    ({**INDEXED, "successPolicy": {"rules": []}}, "spec.successPolicy.rules: Required value: at least one rules must be specified when the successPolicy is specified"),
    (success(), f"{SUCCESS}: Required value: at least one of succeededCount or succeededIndexes must be specified"),
    (success(succeededCount=5), f"{SUCCESS}.succeededCount: Invalid value: 5: must be less than or equal to 4 (the number of specified completions)"),
    (success(succeededCount=3, succeededIndexes="0-1"), f"{SUCCESS}.succeededCount: Invalid value: 3: must be less than or equal to 2 (the number of indexes in the specified succeededIndexes field)"),
    (success(succeededIndexes="4"), f'{SUCCESS}.succeededIndexes: Invalid value: "4": error parsing succeededIndexes: too large index: "4"'),
    (success(succeededIndexes="1-2-3"), "the fragment \"1-2-3\" violates the requirement that an index interval can have at most two parts separated by '-'"),
    (success(succeededIndexes="a"), 'error parsing succeededIndexes: cannot convert string to integer for index: "a"'),
    (success(succeededIndexes="2,1"), "error parsing succeededIndexes: non-increasing order, previous: 2, current: 1"),
]  # fmt: skip


@pytest.mark.parametrize(("spec", "expected"), CASES, ids=[f"{i}" for i in range(len(CASES))])
def test_a_wrong_job_is_refused_in_kubernetes_words(spec: dict[str, Any], expected: str) -> None:
    found = complaints(job(**spec))
    assert any(expected in complaint for complaint in found), found


@pytest.mark.parametrize(
    "spec",
    [
        {},
        {**INDEXED, "backoffLimitPerIndex": 1, "maxFailedIndexes": 2, "parallelism": 2},
        {**codes(operator="NotIn", values=[0, 42], containerName="a"), "backoffLimit": 0},
        success(succeededIndexes="0,2-3", succeededCount=2),
        {"manualSelector": True, "selector": {"matchLabels": {"a": "b"}}, "template": labelled(a="b")},
        {"managedBy": "acme.io/runner", "suspend": True, "template": pods(restartPolicy="OnFailure")},
    ],
)
def test_a_right_job_is_accepted(spec: dict[str, Any]) -> None:
    assert complaints(job(**spec)) == []


def test_the_pods_of_an_indexed_job_need_names_that_fit() -> None:
    long = "a" * 61
    assert complaints(job(long, **INDEXED)) == []
    assert complaints(job(long, **{**INDEXED, "completions": 11})) == [
        f'metadata.name: Invalid value: "{long}": will not able to create pod with invalid DNS label: {long}-10'
    ]


CRON_CASES: list[tuple[dict[str, Any], str]] = [
    ({"schedule": ""}, "spec.schedule: Required value"),
    ({"schedule": "* * *"}, 'spec.schedule: Invalid value: "* * *": expected exactly 5 fields, found 3: [* * *]'),
    ({"schedule": "TZ=UTC * * * * *"}, "cannot use TZ or CRON_TZ in schedule, use timeZone field instead"),
    ({"timeZone": ""}, 'spec.timeZone: Invalid value: "": timeZone must be nil or non-empty string'),
    ({"timeZone": "Mars/Base"}, 'spec.timeZone: Invalid value: "Mars/Base": unknown time zone Mars/Base'),
    ({"timeZone": "local"}, "timeZone must be an explicit time zone as defined in https://www.iana.org/time-zones"),
    ({"startingDeadlineSeconds": -1}, "spec.startingDeadlineSeconds: Invalid value: -1: must be greater than or equal to 0"),
    ({"concurrencyPolicy": "Queue"}, 'spec.concurrencyPolicy: Unsupported value: "Queue": supported values: "Allow", "Forbid", "Replace"'),
    ({"failedJobsHistoryLimit": -1}, "spec.failedJobsHistoryLimit: Invalid value: -1: must be greater than or equal to 0"),
    ({"job_spec": {"selector": {}}}, "spec.jobTemplate.spec.selector: Invalid value: {}: `selector` will be auto-generated"),
    ({"job_spec": {"manualSelector": True}}, 'spec.jobTemplate.spec.manualSelector: Unsupported value: true: supported values: "false", "nil"'),
    ({"job_spec": {"template": pods(restartPolicy="Always")}}, 'spec.jobTemplate.spec.template.spec.restartPolicy: Required value: valid values: "OnFailure", "Never"'),
    ({"job_spec": {"backoffLimit": -1}}, "spec.jobTemplate.spec.backoffLimit: Invalid value: -1: must be greater than or equal to 0"),
    ({"name": "a" * 53}, f'metadata.name: Invalid value: "{"a" * 53}": must be no more than 52 bytes'),
]  # fmt: skip


@pytest.mark.parametrize(("spec", "expected"), CRON_CASES, ids=[f"{i}" for i in range(len(CRON_CASES))])
def test_a_wrong_cron_job_is_refused_in_kubernetes_words(spec: dict[str, Any], expected: str) -> None:
    found = complaints(cron_job(**spec))
    assert any(expected in complaint for complaint in found), found


def test_a_right_cron_job_is_accepted() -> None:
    assert complaints(cron_job("a" * 52, schedule="@daily", timeZone="Europe/Berlin", startingDeadlineSeconds=0)) == []


SUSPENDED = {"suspend": True}
CHANGES: list[tuple[dict[str, Any], dict[str, Any], str]] = [
    ({}, {"parallelism": 3, "completions": 1}, ""),
    ({}, {"suspend": True}, ""),
    ({}, {"backoffLimit": 1, "activeDeadlineSeconds": 9, "ttlSecondsAfterFinished": 1}, ""),
    ({}, {"completions": 2, "parallelism": 1}, "spec.completions: Invalid value: 2: field is immutable"),
    (INDEXED, {**INDEXED, "completions": 5, "parallelism": 5}, ""),
    (INDEXED, {**INDEXED, "completions": 5}, "spec.completions: Invalid value: 5: can only be modified in tandem with spec.parallelism"),
    ({}, INDEXED, 'spec.completionMode: Invalid value: "Indexed": field is immutable'),
    ({}, {"template": pods(hostname="h")}, "spec.template: Invalid value"),
    ({}, {"template": pods(nodeSelector={"a": "b"})}, "spec.template: Invalid value"),
    ({}, {"managedBy": "acme.io/x"}, 'spec.managedBy: Invalid value: "acme.io/x": field is immutable'),
    ({}, codes(), "spec.podFailurePolicy: Invalid value"),
    (SUSPENDED, {**SUSPENDED, "template": pods(nodeSelector={"a": "b"}, tolerations=[{"operator": "Exists"}])}, ""),
    (SUSPENDED, {"suspend": False, "template": pods(nodeSelector={"a": "b"})}, ""),
    (SUSPENDED, {**SUSPENDED, "template": pods(containers=[{"name": "a", "image": "i", "resources": {"limits": {"cpu": "1"}}}])}, ""),
    (SUSPENDED, {**SUSPENDED, "template": pods(affinity={"nodeAffinity": {}})}, ""),
    (SUSPENDED, {**SUSPENDED, "template": pods(affinity={"podAffinity": {}})}, "spec.template: Invalid value"),
    (SUSPENDED, {**SUSPENDED, "template": pods(hostname="h")}, "spec.template: Invalid value"),
]  # fmt: skip


@pytest.mark.parametrize(("before", "after", "expected"), CHANGES, ids=[f"{i}" for i in range(len(CHANGES))])
def test_what_may_change_of_a_job(before: dict[str, Any], after: dict[str, Any], expected: str) -> None:
    fields = Fields()
    JOB.validate_update(job(**after), job(**before), fields)
    found = [str(error) for error in fields.errors]
    assert (found == []) if not expected else any(complaint.startswith(expected) for complaint in found), found


START, END = "2026-01-01T00:00:00Z", "2026-01-01T00:00:09Z"


def conditions(*names: str) -> list[dict[str, str]]:
    return [{"type": name, "status": "True"} for name in names]


DONE = {"startTime": START, "completionTime": END, "conditions": conditions("SuccessCriteriaMet", "Complete")}
STATUSES: list[tuple[dict[str, Any], dict[str, Any], str]] = [
    ({"active": 1}, {"startTime": START, "active": 2, "ready": 1}, ""),
    ({}, DONE, ""),
    ({"succeeded": 2}, {"succeeded": 1}, "status.succeeded: Invalid value: 1: cannot decrease the succeeded counter"),
    ({}, {"active": 1, "ready": 2}, "status.ready: Invalid value: 2: cannot set more ready pods than active"),
    ({}, {"uncountedTerminatedPods": {"succeeded": ["a"], "failed": ["a"]}}, 'status.uncountedTerminatedPods.failed[0]: Duplicate value: "a"'),
    ({}, {**DONE, "conditions": conditions("Complete")}, "status.conditions: Invalid value: cannot set Complete=True condition without the SuccessCriteriaMet=true condition"),
    ({}, {"startTime": START, "conditions": conditions("Failed")}, "status.conditions: Invalid value: cannot set Failed=True condition without the FailureTarget=true condition"),
    (DONE, {"startTime": START}, "status.conditions: Invalid value: cannot disable the terminal Complete=True condition"),
    ({}, {**DONE, "active": 1}, "status.active: Invalid value: 1: active>0 is invalid for finished job"),
    ({}, {**DONE, "uncountedTerminatedPods": {"failed": ["a"]}}, "must be empty for finished job"),
    ({}, {"completionTime": END}, "cannot set completionTime when there is no Complete=True condition"),
    ({}, {**DONE, "startTime": "2026-01-01T00:01:00Z"}, "must be equal to or after `startTime`"),
    (DONE, {**DONE, "completionTime": "2026-01-01T00:00:10Z"}, 'status.completionTime: Invalid value: "2026-01-01T00:00:10Z": field is immutable'),
    ({"startTime": START}, {}, "status.startTime: Required value: startTime cannot be removed for unsuspended job"),
    ({"startTime": START, "conditions": conditions("Suspended")}, {"startTime": END}, ""),
    ({}, {"completedIndexes": "0"}, "cannot set non-empty completedIndexes when non-indexed completion mode"),
    ({}, {"failedIndexes": "0"}, "cannot set non-null failedIndexes when backoffLimitPerIndex is null"),
]  # fmt: skip


@pytest.mark.parametrize(("before", "after", "expected"), STATUSES, ids=[f"{i}" for i in range(len(STATUSES))])
def test_what_a_job_may_say_of_itself(before: dict[str, Any], after: dict[str, Any], expected: str) -> None:
    fields = Fields()
    JOB.validate_status({**job(), "status": after}, {**job(), "status": before}, fields)
    found = [str(error) for error in fields.errors]
    assert (found == []) if not expected else any(expected in complaint for complaint in found), found


def test_an_index_is_not_both_completed_and_failed() -> None:
    per_index = job(**INDEXED, backoffLimitPerIndex=1)
    fields = Fields()
    JOB.validate_status({**per_index, "status": {"completedIndexes": "0-2", "failedIndexes": "1,3"}}, per_index, fields)
    assert str(fields.errors[0]).endswith("failedIndexes and completedIndexes overlap at index: 1")


@given(st.text("0123456789,- a", max_size=12), st.integers(0, 30))
def test_indexes_are_read_or_refused(text: str, completions: int) -> None:
    try:
        found = parse_indexes(text, completions)
    except InvalidError:
        return
    flat = [index for first, last in found for index in range(first, last + 1)]
    assert flat == sorted(set(flat)) and all(0 <= index < completions for index in flat)


_SETS = st.sets(st.integers(0, 20))


@given(_SETS, _SETS)
def test_what_overlaps_is_found(one: set[int], other: set[int]) -> None:
    first, second = ([(index, index) for index in sorted(indexes)] for indexes in (one, other))
    assert overlap(first, second) == min(one & other, default=None)
