"""Indexed jobs, suspended and resumed jobs, and the history of a CronJob, on real machines."""

from __future__ import annotations

import json
import os
import signal
import time
from collections.abc import Iterator
from typing import Any

import pytest

from tests.e2e.conftest import image
from tests.harness import pods as kube
from tests.harness.platform import Object, Platform

pytestmark = [pytest.mark.e2e, pytest.mark.vm, pytest.mark.timeout(300)]


@pytest.fixture
def work(pods: Platform) -> Iterator[Platform]:
    yield pods
    pods.kubectl("delete", "cronjob,job", "--all", "--cascade=foreground", timeout=90)
    kube.until(lambda: not items(pods, "pods"), "pods of the jobs are gone", 90)
    pods.kubectl("delete", "pvc", "--all", timeout=60)
    assert pods.vmms() == []
    assert pods.leftovers() == []


def items(place: Platform, kind: str, *words: str) -> list[Object]:
    found: list[Object] = json.loads(place.kubectl("get", kind, *words, "-o", "json").stdout)["items"]
    return found


def one(place: Platform, kind: str, name: str) -> Object:
    found: Object = json.loads(place.kubectl("get", kind, name, "-o", "json").stdout)
    return found


def job(name: str, script: str, **spec: Any) -> Object:
    container = {"name": "main", "image": image("busybox"), "command": ["sh", "-c", script]}
    template = {
        "spec": {"restartPolicy": "Never", "terminationGracePeriodSeconds": 2, "containers": [container]},
    }
    return {"apiVersion": "batch/v1", "kind": "Job", "metadata": {"name": name}, "spec": {"template": template, **spec}}


def running(place: Platform, name: str) -> int:
    found = items(place, "pods", "-l", f"job-name={name}")
    return sum(pod["status"].get("phase") in ("Pending", "Running") for pod in found)


def test_five_parts_two_at_a_time_each_write_their_number(work: Platform) -> None:
    parts = job(
        "parts", "echo $JOB_COMPLETION_INDEX; sleep 1", completions=5, parallelism=2, completionMode="Indexed",
        ttlSecondsAfterFinished=8,
    )  # fmt: skip
    kube.apply(work, parts)
    most = 0
    end = time.monotonic() + 120
    while not (status := one(work, "job", "parts")["status"]).get("completionTime"):
        most = max(most, running(work, "parts"))
        assert time.monotonic() < end, status
    assert most == 2
    assert (status["succeeded"], status["completedIndexes"]) == (5, "0-4")
    said = work.kubectl("logs", "-l", "job-name=parts", "--tail=-1", "--max-log-requests=9").stdout.split()
    assert sorted(said) == ["0", "1", "2", "3", "4"]
    work.kubectl("wait", "--for=delete", "job/parts", "--timeout=30s", timeout=40)
    kube.until(lambda: not items(work, "pods"), "its pods went with it", 30)


def test_a_part_that_fails_for_good_leaves_the_others_alone(work: Platform) -> None:
    script = "test $JOB_COMPLETION_INDEX != 1 || exit 7; test $JOB_COMPLETION_INDEX != 2 || exit 9"
    rule = {"action": "FailIndex", "onExitCodes": {"operator": "In", "values": [9]}}
    kube.apply(work, job(
        "some", script, completions=4, parallelism=4, completionMode="Indexed", backoffLimitPerIndex=1,
        podFailurePolicy={"rules": [rule]},
    ))  # fmt: skip
    work.kubectl("wait", "--for=condition=failed", "job/some", "--timeout=150s", timeout=160)
    status = one(work, "job", "some")["status"]
    assert (status["completedIndexes"], status["failedIndexes"]) == ("0,3", "1,2")
    assert status["failed"] == 3  # number 1 was tried twice, number 2 must not be
    assert {row["reason"] for row in status["conditions"] if row["type"] == "Failed"} == {"FailedIndexes"}


def test_a_suspended_job_has_no_machine_and_goes_on_when_it_is_resumed(work: Platform) -> None:
    script = 'test "$JOB_COMPLETION_INDEX" = 0 || sleep 8'
    kube.apply(work, job("later", script, completions=3, parallelism=3, completionMode="Indexed", suspend=True))
    work.kubectl("wait", "--for=condition=suspended", "job/later", "--timeout=20s")
    assert items(work, "pods") == []
    resume(work, suspend=False)
    kube.until(lambda: one(work, "job", "later")["status"].get("completedIndexes") == "0", "one part is done", 60)
    resume(work, suspend=True)
    kube.until(lambda: not running(work, "later"), "no part runs", 60)
    kube.until(lambda: not work.vmms(), "no machine is there", 60)
    began = one(work, "job", "later")["status"]["startTime"]
    time.sleep(1)  # times are of whole seconds
    resume(work, suspend=False)
    work.kubectl("wait", "--for=condition=complete", "job/later", "--timeout=90s", timeout=100)
    status = one(work, "job", "later")["status"]
    assert (status["succeeded"], status["completedIndexes"], status.get("failed", 0)) == (3, "0-2", 0)
    assert status["startTime"] > began, "the time that it was suspended does not count"


def test_a_part_whose_machine_is_killed_is_done_by_another_pod(work: Platform) -> None:
    kube.apply(work, job("robust", "echo begun; sleep 4; echo done", backoffLimit=1))
    kube.until(lambda: "begun" in work.kubectl("logs", "job/robust", check=False).stdout, "it runs", 60)
    (first,) = items(work, "pods", "-l", "job-name=robust")
    (vmm,) = work.vmms(first["metadata"]["uid"])
    os.kill(vmm, signal.SIGKILL)
    work.kubectl("wait", "--for=condition=complete", "job/robust", "--timeout=90s", timeout=100)
    status = one(work, "job", "robust")["status"]
    assert (status["succeeded"], status["failed"]) == (1, 1)
    failed = one(work, "pod", first["metadata"]["name"])["status"]
    assert (failed["phase"], failed["reason"]) == ("Failed", "VMMDied")


def resume(place: Platform, *, suspend: bool) -> None:
    place.kubectl("patch", "job", "later", "-p", json.dumps({"spec": {"suspend": suspend}}))


def test_a_cron_job_keeps_so_many_of_its_jobs(work: Platform) -> None:
    """Its jobs are started by hand: the clock would take minutes."""
    spec = job("", "exit $CODE")["spec"]
    cron = {
        "apiVersion": "batch/v1",
        "kind": "CronJob",
        "metadata": {"name": "nightly"},
        "spec": {
            "schedule": "0 0 1 1 *", "timeZone": "Europe/Berlin", "jobTemplate": {"spec": spec},
            "successfulJobsHistoryLimit": 1, "failedJobsHistoryLimit": 0,
        },
    }  # fmt: skip
    kube.apply(work, cron)
    for number in range(3):
        work.kubectl("create", "job", f"run-{number}", "--from=cronjob/nightly")
        work.kubectl("wait", "--for=condition=complete", f"job/run-{number}", "--timeout=60s", timeout=70)
        time.sleep(1)  # times are of whole seconds: which is the newest must be clear
    kube.until(lambda: [row["metadata"]["name"] for row in items(work, "jobs")] == ["run-2"], "the newest stays", 30)
    kube.until(lambda: len(items(work, "pods")) == 1, "pods of the others went with them", 30)
    assert work.kubectl("get", "cronjob", "nightly", "--no-headers").stdout.split()[:7] == [
        "nightly", "0", "0", "1", "1", "*", "Europe/Berlin",
    ]  # fmt: skip
    work.kubectl("delete", "cronjob", "nightly")
    kube.until(lambda: not items(work, "jobs"), "its jobs go with it", 30)
