"""Jobs and CronJobs on real machines."""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any

import pytest

from tests.e2e.conftest import image
from tests.harness.platform import Object, Platform
from tests.harness.pods import apply, until

pytestmark = [pytest.mark.e2e, pytest.mark.vm, pytest.mark.timeout(300)]
_SAID = 'echo "part $JOB_COMPLETION_INDEX on $(hostname)"'


@pytest.fixture
def work(pods: Platform) -> Iterator[Platform]:
    yield pods
    pods.kubectl("delete", "cronjob,job", "--all", "--ignore-not-found", "--cascade=foreground", timeout=90)
    until(lambda: not pods.kubectl("get", "pods", "-o", "name").stdout.strip(), "pods of the jobs are gone", 90)


def job(name: str, script: str, **spec: Any) -> Object:
    container = {"name": "main", "image": image("busybox"), "command": ["sh", "-c", script]}
    template = {"spec": {"restartPolicy": "Never", "containers": [container]}}
    return {"apiVersion": "batch/v1", "kind": "Job", "metadata": {"name": name}, "spec": {"template": template, **spec}}


def test_each_part_of_an_indexed_job_runs_in_a_machine_of_its_own_and_knows_its_number(work: Platform) -> None:
    apply(work, job("parts", _SAID, completions=3, parallelism=1, completionMode="Indexed"))
    work.kubectl("wait", "--for=condition=complete", "job/parts", "--timeout=150s", timeout=160)
    status = json.loads(work.kubectl("get", "job", "parts", "-o", "json").stdout)["status"]
    assert (status["succeeded"], status["completedIndexes"]) == (3, "0-2")
    said = work.kubectl("logs", "-l", "job-name=parts", "--tail=1").stdout.splitlines()
    assert sorted(said) == [f"part {number} on parts-{number}" for number in range(3)]


def test_an_exit_code_that_a_job_calls_fatal_ends_it(work: Platform) -> None:
    rule = {"action": "FailJob", "onExitCodes": {"operator": "In", "values": [42]}}
    apply(work, job("fatal", "exit 42", podFailurePolicy={"rules": [rule]}))
    work.kubectl("wait", "--for=condition=failed", "job/fatal", "--timeout=100s", timeout=110)
    status = json.loads(work.kubectl("get", "job", "fatal", "-o", "json").stdout)["status"]
    assert status["failed"] == 1
    assert "exit code 42 matching FailJob rule at index 0" in status["conditions"][-1]["message"]


def test_a_cron_job_runs_by_the_clock_and_by_hand(work: Platform) -> None:
    work.kubectl(
        "create", "cronjob", "tick", f"--image={image('busybox')}", "--schedule=* * * * *", "--", "echo", "tick"
    )
    work.kubectl("create", "job", "now", "--from=cronjob/tick")
    work.kubectl("wait", "--for=condition=complete", "job/now", "--timeout=100s", timeout=110)

    def ran() -> object:
        found = json.loads(work.kubectl("get", "jobs", "-o", "json").stdout)["items"]
        return any(one["metadata"]["name"] != "now" and one["status"].get("succeeded") for one in found)

    until(ran, "the clock starts a job that succeeds", 150)
    status = json.loads(work.kubectl("get", "cronjob", "tick", "-o", "json").stdout)["status"]
    assert status["lastScheduleTime"]
    assert status["lastSuccessfulTime"]
