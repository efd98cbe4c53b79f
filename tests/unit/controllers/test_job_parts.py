"""The pure parts of Jobs: sets of indexes, policies, pauses, which pods go first."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from cuboid.controllers.job_backoff import finished_at, wait_after, wait_of_job
from cuboid.controllers.job_indexes import Indexes
from cuboid.controllers.job_pods import new_pod, surplus
from cuboid.controllers.job_policy import judge, success_met
from cuboid.kube import objects
from cuboid.lib.clock import rfc3339

Object = dict[str, Any]


@pytest.mark.parametrize(
    ("text", "count", "again"),
    [
        ("", 0, ""),
        ("0", 1, "0"),
        ("0,1", 2, "0,1"),
        ("0,1,2", 3, "0-2"),
        ("1,3-5,7", 5, "1,3-5,7"),
        ("5,1-3,2-4", 5, "1-5"),
        ("3-99", 7, "3-9"),
        ("12,30-40", 0, ""),
        ("x,-1,2-,1-x,4", 2, "2,4"),
        ("7-5", 0, ""),
        ("٣", 0, ""),
    ],
)
def test_indexes_as_a_status_writes_them(text: str, count: int, again: str) -> None:
    found = Indexes.parse(text, 10)
    assert (len(found), str(found)) == (count, again)


@given(st.sets(st.integers(0, 60)), st.sets(st.integers(0, 60)))
def test_indexes_are_sets(some: set[int], more: set[int]) -> None:
    found = Indexes().including(some).union(Indexes().including(more))
    both = some | more
    assert [number for number in range(61) if number in found] == sorted(both)
    assert len(found) == len(both)
    assert Indexes().including(some).shared(Indexes().including(more)) == len(some & more)
    assert list(found.missing(61)) == sorted(set(range(61)) - both)
    assert Indexes.parse(str(found), 61) == found


@given(st.text(alphabet="0123456789,-x ", max_size=40))
def test_any_text_is_read_as_indexes(text: str) -> None:
    found = Indexes.parse(text, 100)
    assert Indexes.parse(str(found), 100) == found


def ended_pod(code: int = 1, name: str = "main", *, init: bool = False, **status: Any) -> Object:
    rows = [{"name": name, "state": {"terminated": {"exitCode": code}}}]
    return {
        "metadata": {"name": "p", "namespace": "n"},
        "status": {"phase": "Failed", "initContainerStatuses" if init else "containerStatuses": rows, **status},
    }


def rules(*given: Object) -> Object:
    return {"rules": list(given)}


CODES = {"action": "FailJob", "onExitCodes": {"operator": "In", "values": [3, 4]}}
OTHERS = {"action": "Ignore", "onExitCodes": {"operator": "NotIn", "values": [3], "containerName": "main"}}
DISRUPTED = {"action": "Ignore", "onPodConditions": [{"type": "DisruptionTarget"}]}


@pytest.mark.parametrize(
    ("policy", "pod", "action"),
    [
        (None, ended_pod(), ""),
        (rules(CODES), ended_pod(3), "FailJob"),
        (rules(CODES), ended_pod(5), ""),
        (rules(CODES), ended_pod(4, init=True), "FailJob"),
        (rules(OTHERS), ended_pod(5), "Ignore"),
        (rules(OTHERS), ended_pod(3), ""),
        (rules(OTHERS), ended_pod(5, "sidecar"), ""),
        (rules(OTHERS), ended_pod(0), ""),  # success is never a failure, whatever NotIn says
        (rules(DISRUPTED), ended_pod(conditions=[{"type": "DisruptionTarget", "status": "True"}]), "Ignore"),
        (rules(DISRUPTED), ended_pod(conditions=[{"type": "DisruptionTarget", "status": "False"}]), ""),
        (rules(OTHERS, CODES), ended_pod(4), "Ignore"),  # the first that matches
    ],
)
def test_the_first_rule_that_matches_decides(policy: Object | None, pod: Object, action: str) -> None:
    assert judge(policy, pod).action == action


def test_the_words_about_a_condition() -> None:
    rule = {"action": "FailJob", "onPodConditions": [{"type": "ConfigIssue", "status": "True"}]}
    found = judge(rules(CODES, rule), ended_pod(conditions=[{"type": "ConfigIssue", "status": "True"}]))
    assert found.message == "Pod n/p has condition ConfigIssue matching FailJob rule at index 1"


@pytest.mark.parametrize(
    ("rule", "succeeded", "met"),
    [
        ({"succeededIndexes": "0-2"}, "0-2,5", True),
        ({"succeededIndexes": "0-2"}, "0,1,5", False),
        ({"succeededIndexes": "0-2", "succeededCount": 2}, "0,2", True),
        ({"succeededIndexes": "0-2", "succeededCount": 2}, "0,5-9", False),
        ({"succeededCount": 3}, "1,4,9", True),
        ({"succeededCount": 3}, "1,4", False),
    ],
)
def test_when_enough_succeeded(rule: Object, succeeded: str, met: bool) -> None:
    found = success_met(rules({"succeededCount": 99}, rule), 10, Indexes.parse(succeeded, 10))
    assert found == ("Matched rules at index 1" if met else "")


def test_two_thousand_million_indexes_cost_no_more_than_two() -> None:
    completions = 2**31 - 1
    rule = {"succeededIndexes": f"0-{completions - 1}", "succeededCount": 3}
    found = Indexes.parse("1,5", completions)
    assert not success_met(rules(rule), completions, found)
    assert success_met(rules(rule), completions, found.including([completions - 1]))


@pytest.mark.parametrize(
    ("failures", "since", "left"), [(0, 0, 0), (1, 0, 10), (1, 10, 0), (3, 15, 25), (7, 0, 600), (5000, 599, 1)]
)
def test_pauses_double_up_to_ten_minutes(failures: int, since: float, left: float) -> None:
    assert wait_after(failures, 1000.0, 1000.0 + since) == left


def timed(end: float | None, **metadata: Any) -> Object:
    state = {} if end is None else {"terminated": {"finishedAt": rfc3339(end)}}
    return {
        "metadata": {"creationTimestamp": rfc3339(50), **metadata},
        "status": {"containerStatuses": [{"name": "main", "state": state}]},
    }


def test_failures_before_the_last_success_are_forgiven() -> None:
    failed = [timed(100), timed(200), timed(400), timed(410)]
    assert wait_of_job([timed(300)], failed, 415) == 410 + 20 - 415
    assert wait_of_job([timed(500)], failed, 501) == 0


def test_when_a_pod_ended_is_found_out_by_what_there_is() -> None:
    assert finished_at(timed(70)) == 70
    assert finished_at(timed(None)) == 50
    assert finished_at(timed(None, deletionTimestamp=rfc3339(90), deletionGracePeriodSeconds=30)) == 60
    unready = timed(None)
    unready["status"]["conditions"] = [{"type": "Ready", "status": "False", "lastTransitionTime": rfc3339(65)}]
    assert finished_at(unready) == 65
    nonsense = timed(None, deletionTimestamp="tomorrow")
    nonsense["status"]["containerStatuses"][0]["state"] = {"terminated": {"finishedAt": "never"}}
    nonsense["status"]["conditions"] = [{"type": "Ready", "status": "False", "lastTransitionTime": "soon"}]
    assert finished_at(nonsense) == 50


def work(name: str = "sums", **spec: Any) -> Object:
    return {
        "apiVersion": "batch/v1",
        "kind": "Job",
        "metadata": {"name": name, "namespace": "n", "uid": "u"},
        "spec": {"template": {"spec": {"containers": [{"name": "main"}]}}, **spec},
    }


def test_a_long_name_leaves_room_for_the_index() -> None:
    body = new_pod(work("j" * 63), 12345, None).body
    assert body["metadata"]["generateName"] == "j" * 51 + "-12345-"


def test_a_variable_of_the_users_own_is_kept() -> None:
    job = work(completionMode="Indexed")
    job["spec"]["template"]["spec"]["containers"][0]["env"] = [{"name": "JOB_COMPLETION_INDEX", "value": "x"}]
    container = new_pod(job, 1, None).body["spec"]["containers"][0]
    assert container["env"] == [{"name": "JOB_COMPLETION_INDEX", "value": "x"}]


def test_the_least_useful_pods_go_first() -> None:
    def one(name: str, phase: str = "Running", *, node: str = "a", ready: bool = True, born: float = 0.0) -> Object:
        conditions = [{"type": "Ready", "status": str(ready)}]
        tracked = ["batch.kubernetes.io/job-tracking"]
        metadata = {"name": name, "uid": name, "finalizers": tracked, "creationTimestamp": rfc3339(born)}
        spec = {"nodeName": node} if node else {}
        return {"metadata": metadata, "spec": spec, "status": {"phase": phase, "conditions": conditions}}

    pods = [
        one("oldest"),
        one("younger", born=100.0),
        one("unready", ready=False),
        one("pending", "Pending"),
        one("nowhere", "Pending", node=""),
    ]
    found = [objects.name(pod) for pod in surplus(work(), pods, 4)]
    assert found == ["nowhere", "pending", "unready", "younger"]
