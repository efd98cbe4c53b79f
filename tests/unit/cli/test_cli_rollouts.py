"""How far a rollout is, and the one sentence that says why it does not get on."""

from __future__ import annotations

from typing import Any

import pytest

from cuboid.cli import resources, rollouts, status, waiting
from cuboid.cli.api import Api
from cuboid.cli.config import Connection
from cuboid.cli.rollouts import state
from cuboid.lib.errors import GoneError, UnavailableError

Object = dict[str, Any]


def deployment(wanted: int = 3, *, generation: int = 1, conditions: list[Object] | None = None, **told: int) -> Object:
    return {
        "kind": "Deployment",
        "metadata": {"name": "web", "uid": "d", "generation": generation, "annotations": {rollouts.REVISION: "2"}},
        "spec": {"replicas": wanted, "selector": {"matchLabels": {"app": "web"}}},
        "status": {"observedGeneration": 1, "conditions": conditions or [], **told},
    }


SETS: list[Object] = [
    {"metadata": {"uid": f"r{number}", "ownerReferences": [{"uid": "d"}], "annotations": {rollouts.REVISION: number}}}
    for number in ("1", "2")
]


def pod(name: str = "web-1", owner: str = "r2", *, ready: bool = False, **given: Any) -> Object:
    conditions = [{"type": "Ready", "status": str(ready)}, *given.pop("conditions", [])]
    rows = [{"name": "main", "restartCount": given.pop("restarts", 0), **given.pop("container", {})}]
    return {
        "metadata": {"name": name, "uid": name, "ownerReferences": [{"uid": owner, "controller": True}]},
        "spec": {"containers": [{"name": "main"}], **given},
        "status": {"phase": "Running" if ready else "Pending", "conditions": conditions, "containerStatuses": rows},
    }


def waits(reason: str, message: str = "") -> Object:
    return {"state": {"waiting": {"reason": reason, "message": message}}}


def test_what_the_controller_has_not_seen_is_not_done() -> None:
    found = state(deployment(generation=2, updatedReplicas=3, availableReplicas=3, replicas=3), SETS, [])
    assert not found.done


def test_it_is_done_when_all_are_new_and_available() -> None:
    assert state(deployment(updatedReplicas=3, availableReplicas=3, replicas=3), SETS, []).done
    assert not state(deployment(updatedReplicas=3, availableReplicas=3, replicas=4), SETS, []).done
    assert not state(deployment(updatedReplicas=3, availableReplicas=2, replicas=3), SETS, []).done
    assert state(deployment(0), SETS, []).done


def test_progress_counts_new_and_old() -> None:
    pods = [pod("a", ready=True), pod("b"), pod("c", "r1", ready=True)]
    found = state(deployment(updatedReplicas=2, availableReplicas=2, replicas=3), SETS, pods)
    assert found.text == "1 of 3 ready, 1 starting, 1 old one serves on"
    assert found.failure is None


@pytest.mark.parametrize(
    ("broken", "said"),
    [
        (pod(container=waits("ErrImagePull", "not found")), "its image can not be had: not found"),
        (pod(container=waits("CreateContainerConfigError", "no secret x")), "no secret x"),
        (
            pod(conditions=[{"type": "PodScheduled", "status": "False", "reason": "Unschedulable", "message": "0/1"}]),
            "there is no room for it: 0/1",
        ),
        (
            pod(restarts=1, container={**waits("CrashLoopBackOff"), "lastState": {"terminated": {"exitCode": 3}}}),
            "it ends with exit code 3",
        ),
        (
            pod(restarts=2, container={"state": {"running": {}}, "lastState": {"terminated": {"exitCode": 0}}}),
            "its program ends instead of going on: that is a job",
        ),
        (
            pod(restarts=2, container={"lastState": {"terminated": {"exitCode": 137, "reason": "OOMKilled"}}}),
            "it used more memory than its limit and was killed",
        ),
    ],
)
def test_the_cause_is_said_in_one_sentence(broken: Object, said: str) -> None:
    found = state(deployment(updatedReplicas=1, replicas=1), SETS, [broken])
    assert found.failure is not None
    assert found.failure.message == said


def test_one_crash_may_pass_and_so_may_a_lack_of_room_while_others_leave() -> None:
    once = pod(restarts=1, container={"state": {"running": {}}, "lastState": {"terminated": {"exitCode": 3}}})
    assert state(deployment(updatedReplicas=1, replicas=1), SETS, [once]).failure is None
    lacking = pod(conditions=[{"type": "PodScheduled", "status": "False", "reason": "Unschedulable", "message": "x"}])
    leaving = pod("old", "r1", ready=True)
    leaving["metadata"]["deletionTimestamp"] = "2026-01-01T00:00:00Z"
    assert state(deployment(updatedReplicas=1, replicas=2), SETS, [lacking, leaving]).failure is None


def test_refused_pods_and_a_passed_deadline_are_failures() -> None:
    refused = [{"type": "ReplicaFailure", "status": "True", "message": "exceeded quota: q"}]
    found = state(deployment(conditions=refused), SETS, []).failure
    assert found is not None and "exceeded quota: q" in found.message
    late = [{"type": "Progressing", "status": "False", "reason": "ProgressDeadlineExceeded"}]
    unready = pod(container={"state": {"running": {}}})
    found = state(deployment(conditions=late, updatedReplicas=1), SETS, [unready]).failure
    assert found is not None and found.reason == "Unready" and found.pod == "web-1"


def test_problems_of_old_pods_are_not_the_rollouts() -> None:
    old = pod("old", "r1", container=waits("ErrImagePull", "gone"))
    assert state(deployment(updatedReplicas=0, replicas=1), SETS, [old]).failure is None


def test_pods_of_a_stateful_set_are_told_apart_by_their_revision() -> None:
    told = {"observedGeneration": 1, "updateRevision": "new"}
    workload = {"kind": "StatefulSet", "metadata": {"name": "db", "uid": "s"}, "spec": {}, "status": told}
    rows = [pod("a", "s"), pod("b", "s")]
    rows[0]["metadata"]["labels"] = {"controller-revision-hash": "new"}
    assert [row["metadata"]["name"] for row in rollouts.newest_pods(workload, [], rows)] == ["a"]


def test_the_newest_ready_pod_is_the_one_to_talk_to() -> None:
    rows = [pod("a", ready=True), pod("b", ready=True), pod("c")]
    for number, row in enumerate(rows):
        row["metadata"]["creationTimestamp"] = f"2026-01-01T00:00:0{number}Z"
    found = waiting.newest_ready(waiting.Seen(deployment(), SETS, rows, "1"))
    assert found is not None and found["metadata"]["name"] == "b"
    assert waiting.newest_ready(waiting.Seen(deployment(), SETS, rows[2:], "1")) is None


def test_a_selector_is_written_as_a_query() -> None:
    terms = [
        {"key": "a", "operator": "In", "values": ["1", "2"]},
        {"key": "b", "operator": "Exists"},
        {"key": "c", "operator": "DoesNotExist"},
        {"key": "d", "operator": "NotIn", "values": ["3"]},
    ]
    selector = {"matchLabels": {"app": "web"}, "matchExpressions": terms}
    assert waiting.selector({"spec": {"selector": selector}}) == "app=web,a in (1,2),b,!c,d notin (3)"


def test_a_pod_names_the_deployment_that_it_is_part_of() -> None:
    made = pod()
    made["metadata"]["ownerReferences"][0]["name"] = "web-5d9f"
    assert status.part_of(made) == "web-5d9f"
    made["metadata"]["labels"] = {"pod-template-hash": "5d9f"}
    assert status.part_of(made) == "web"
    assert status.part_of({"metadata": {"name": "x"}}) == ""


def test_who_waits_has_patience_with_a_server_that_is_started_anew(monkeypatch: pytest.MonkeyPatch) -> None:
    seen = waiting.Seen(deployment(), SETS, [], "1")
    answers: list[Any] = [seen, UnavailableError("away"), UnavailableError("away"), seen]
    opened = [GoneError("too old"), UnavailableError("away")]

    def look(*_: object) -> waiting.Seen:
        answer = answers.pop(0)
        if isinstance(answer, Exception):
            raise answer
        found: waiting.Seen = answer
        return found

    def watches(*_: object) -> list[Any]:
        raise opened.pop(0)

    monkeypatch.setattr(waiting, "look", look)
    monkeypatch.setattr(waiting, "_watches", watches)
    monkeypatch.setattr(waiting, "_RETRY", 0.0)
    api = Api(Connection("https://127.0.0.1:1", "", ""))
    looks = waiting.looks(api, resources.DEPLOYMENTS, "d", "web", 60)
    assert (next(looks), next(looks)) == (seen, seen)
    assert not answers
