"""One word and one cause for each state of a pod."""

from __future__ import annotations

from typing import Any

from cuboid.cli import status


def pod(phase: str = "Running", state: dict[str, Any] | None = None, **more: Any) -> dict[str, Any]:
    rows = [
        {"name": "main", "ready": phase == "Running", "restartCount": 2, "state": state or {}, **more.pop("row", {})}
    ]
    return {
        "metadata": {"name": "p", **more.pop("metadata", {})},
        "spec": {"containers": [{"name": "main", **more.pop("container", {})}]},
        "status": {"phase": phase, "containerStatuses": rows, **more},
    }


def test_the_word_is_the_most_telling_reason() -> None:
    assert status.word(pod(state={"running": {}})) == "Running"
    assert status.word(pod("Pending", {"waiting": {"reason": "ImagePullBackOff"}})) == "ImagePullBackOff"
    assert status.word(pod("Pending", {"waiting": {"reason": "ContainerCreating"}})) == "ContainerCreating"
    assert status.word(pod("Failed", {"terminated": {"exitCode": 137, "reason": "OOMKilled"}})) == "OOMKilled"
    assert status.word(pod("Succeeded", {"terminated": {"exitCode": 0, "reason": "Completed"}})) == "Completed"
    assert status.word(pod("Failed", reason="VMMDied")) == "VMMDied"
    assert status.word(pod(metadata={"deletionTimestamp": "2026-01-01T00:00:00Z"})) == "Terminating"


def test_the_cause_of_a_waiting_container_is_its_message() -> None:
    found = status.problem(pod("Pending", {"waiting": {"reason": "ErrImagePull", "message": "no such image"}}))
    assert found == ("ErrImagePull", "no such image")


def test_the_cause_of_a_failed_pod_is_told_by_its_status_first() -> None:
    found = status.problem(
        pod("Failed", {"terminated": {"exitCode": 1}}, reason="HostOutOfMemory", message="the host ran out")
    )
    assert found == ("HostOutOfMemory", "the host ran out")


def test_an_oom_kill_is_explained_with_the_option_that_mends_it() -> None:
    found = status.problem(pod("Failed", {"terminated": {"exitCode": 137, "reason": "OOMKilled"}}))
    assert found is not None
    assert "-m" in found[1]


def test_a_running_pod_that_crashed_before_tells_of_its_last_end() -> None:
    row = {"lastState": {"terminated": {"exitCode": 3, "reason": "Error"}}}
    assert status.problem(pod(state={"running": {}}, row=row)) == ("Error", "container main ended with exit code 3")


def test_nothing_is_wrong_with_a_running_pod() -> None:
    assert status.problem(pod(state={"running": {}})) is None


def test_exit_codes_count_only_once_the_pod_has_ended() -> None:
    ended = {"terminated": {"exitCode": 7}}
    assert status.exit_code(pod("Running", ended)) is None
    assert status.exit_code(pod("Failed", ended)) == 7


def test_published_ports_are_listed_and_others_are_not() -> None:
    ports = [{"containerPort": 80, "hostPort": 8080}, {"containerPort": 443}]
    assert status.ports(pod(container={"ports": ports})) == [("0.0.0.0:8080", "80/tcp")]


def test_a_damaged_receipt_is_no_receipt() -> None:
    assert status.receipt(pod(metadata={"annotations": {status.RECEIPT: "{"}})) is None
    assert status.receipt(pod(metadata={"annotations": {status.RECEIPT: "[]"}})) is None
    assert status.receipt(pod(metadata={"annotations": {status.RECEIPT: '{"totalSeconds": 1}'}})) == {"totalSeconds": 1}


def test_a_paused_pod_says_so_and_how_it_goes_on() -> None:
    conditions = [{"type": "cuboid.dev/Paused", "status": "True"}]
    found = pod(state={"running": {}}, conditions=conditions, reason="Paused", message="`cuboid resume` lets it go on")
    assert (status.word(found), status.paused(found)) == ("Paused", True)
    assert status.problem(found) == ("Paused", "`cuboid resume` lets it go on")
    assert not status.paused(pod(state={"running": {}}, conditions=[{**conditions[0], "status": "False"}]))
