"""What `deploy`, `job` and `cron` ask for, from their options."""

from __future__ import annotations

import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from cuboid.cli import jobs, workloads
from cuboid.cli.manifest import RunOptions
from cuboid.cli.verbs.cron import cron_job, next_run
from cuboid.cli.verbs.deploy import address
from cuboid.cli.workloads import Options
from cuboid.lib.errors import ConflictError, InvalidError

Object = dict[str, Any]


def options(image: str = "nginx:1", *, replicas: int | None = None, **given: Any) -> Options:
    own = {key: given.pop(key) for key in ("ports", "publish", "health") if key in given}
    return Options(RunOptions(image=image, name="web", **given), replicas, **own)


def container(made: Object) -> Object:
    found: Object = made["spec"]["template"]["spec"]["containers"][0]
    return found


@pytest.mark.parametrize(
    ("image", "name"),
    [
        ("nginx", "nginx"),
        ("localhost:5000/demo/My_App:1.2", "my-app"),
        ("registry/x@sha256:aa", "x"),
        ("7zip", "app-7zip"),
    ],
)
def test_a_name_is_taken_from_the_image(image: str, name: str) -> None:
    assert workloads.name_of(image) == name


@given(st.text(max_size=80))
def test_a_name_from_any_image_is_a_name_or_refused(image: str) -> None:
    try:
        name = workloads.name_of(image)
    except InvalidError:
        return
    assert workloads.checked_name(name) == name


def test_pods_get_requests_once_their_port_is_open_and_end_after_they_were_taken_out() -> None:
    made = workloads.deployment(options(ports=("80",)))
    assert container(made)["readinessProbe"]["tcpSocket"] == {"port": 80}
    assert container(made)["lifecycle"]["preStop"] == {"sleep": {"seconds": workloads.DRAIN}}
    assert made["spec"]["strategy"]["rollingUpdate"]["maxUnavailable"] == 0
    grace = made["spec"]["template"]["spec"]["terminationGracePeriodSeconds"]
    assert grace > workloads.DRAIN


def test_a_health_path_decides_about_readiness_and_life() -> None:
    made = container(workloads.deployment(options(ports=("8080",), health="/ok")))
    assert made["readinessProbe"]["httpGet"] == {"path": "/ok", "port": 8080}
    assert made["livenessProbe"]["httpGet"] == made["startupProbe"]["httpGet"]
    assert container(workloads.deployment(options(health="81/ok")))["readinessProbe"]["httpGet"]["port"] == 81


def test_a_program_without_a_check_has_to_run_a_while() -> None:
    assert workloads.deployment(options())["spec"]["minReadySeconds"] == workloads.STEADY
    assert workloads.deployment(options(ports=("80",)))["spec"]["minReadySeconds"] == 0


def test_what_is_not_said_again_stays() -> None:
    first = workloads.deployment(
        options(
            replicas=3, ports=("80",), health="/ok", env=("A=1", "B=1"), memory="64m", args=("serve",),
            volumes=("site:/srv:ro",),
        )
    )  # fmt: skip
    second = workloads.deployment(options("nginx:2", env=("B=2",), cpus="0.5"), first)
    assert second["spec"]["replicas"] == 3
    assert container(second)["image"] == "nginx:2"
    assert container(second)["env"] == [{"name": "A", "value": "1"}, {"name": "B", "value": "2"}]
    assert container(second)["resources"]["limits"] == {"memory": "64Mi", "cpu": "500m"}
    for key in ("args", "volumeMounts", "readinessProbe", "ports"):
        assert container(second)[key] == container(first)[key]
    assert second["spec"]["template"]["spec"]["volumes"] == first["spec"]["template"]["spec"]["volumes"]
    again = workloads.deployment(options("nginx:2"), second)
    assert json.dumps(again, sort_keys=True) == json.dumps(second, sort_keys=True)


def test_a_volume_that_is_written_to_is_of_one_pod() -> None:
    assert workloads.deployment(options(volumes=("data:/data",)))["spec"]["strategy"] == {"type": "Recreate"}
    with pytest.raises(InvalidError, match="can not share the volume"):
        workloads.deployment(options(volumes=("data:/data",), replicas=2))
    assert workloads.deployment(options(volumes=("data:/data:ro",), replicas=2))["spec"]["replicas"] == 2


def test_ports_become_a_name_inside_and_a_port_outside() -> None:
    given = options(ports=("53/udp",), publish=("8080:80",))
    inside, public = workloads.service(given), workloads.public_service(given)
    assert inside is not None and public is not None
    rows = {(row["port"], row["protocol"], row["targetPort"]) for row in inside["spec"]["ports"]}
    assert rows == {(53, "UDP", 53), (80, "TCP", 80)}
    assert (public["metadata"]["name"], public["spec"]["type"]) == ("web-public", "LoadBalancer")
    assert public["spec"]["ports"][0] == {"name": "tcp-8080", "port": 8080, "targetPort": 80, "protocol": "TCP"}
    assert workloads.service(options()) is None and workloads.public_service(options(publish=("none",))) is None


@pytest.mark.parametrize(
    "given",
    [
        {"ports": ("0",)},
        {"ports": ("80/sctp",)},
        {"ports": ("web",)},
        {"publish": ("127.0.0.1:80:80",)},
        {"publish": ("1:70000",)},
        {"health": "ok"},
        {"health": "/ok"},
    ],
)
def test_what_makes_no_sense_is_refused_with_what_would(given: Object) -> None:
    with pytest.raises(InvalidError) as caught:
        workloads.deployment(options(**given))
        workloads.service(options(**given))
    assert caught.value.hint


def test_another_tools_deployment_is_left_alone() -> None:
    other: Object = {"metadata": {"name": "web", "labels": {}}, "spec": {"template": {"spec": {}}}}
    with pytest.raises(ConflictError, match="not made by cuboid deploy"):
        workloads.deployment(options(), other)


@pytest.mark.parametrize(
    ("port", "said"),
    [
        ({"port": 80, "targetPort": 80}, "http://web"),
        ({"port": 8081, "targetPort": 80}, "http://web:8081"),
        ({"port": 5432, "targetPort": 5432}, "web:5432"),
        ({"port": 53, "protocol": "UDP"}, "web:53/udp"),
    ],
)
def test_addresses_are_said_as_they_are_typed(port: Object, said: str) -> None:
    assert address("web", port) == said


def test_parts_of_a_job_have_numbers_and_a_bad_one_does_not_end_the_rest() -> None:
    one = jobs.spec(jobs.Options(RunOptions(image="i", name="j"), retries=2, timeout=60))
    assert (one["backoffLimit"], one["activeDeadlineSeconds"]) == (2, 60)
    assert one["template"]["spec"]["restartPolicy"] == "Never"
    many = jobs.spec(jobs.Options(RunOptions(image="i", name="j"), parts=5, parallel=2))
    assert (many["completions"], many["parallelism"], many["completionMode"]) == (5, 2, "Indexed")
    assert many["backoffLimitPerIndex"] == 0
    with pytest.raises(InvalidError):
        jobs.spec(jobs.Options(RunOptions(image="i", name="j"), parts=1, parallel=2))


def test_a_jobs_exit_code_is_that_of_the_program_that_failed_last() -> None:
    def pod(code: int, at: str) -> Object:
        state = {"terminated": {"exitCode": code, "finishedAt": at}}
        rows = [{"name": "main", "state": state}]
        return {"spec": {"containers": [{"name": "main"}]}, "status": {"containerStatuses": rows}}

    assert jobs.exit_code([pod(3, "2026-01-01T00:00:02Z"), pod(4, "2026-01-01T00:00:01Z")]) == 3
    assert jobs.exit_code([pod(0, "2026-01-01T00:00:02Z")]) == 1
    assert jobs.exit_code([]) == 1


def test_the_next_run_is_told_in_its_own_time_zone() -> None:
    assert next_run("30 2 * * *", "Europe/Berlin", 1_767_225_600.0) == "2026-01-01 02:30 Europe/Berlin"
    assert next_run("0 0 30 2 *", "", 0.0) == ""
    with pytest.raises(InvalidError, match="no schedule"):
        next_run("61 * * * *", "", 0.0)
    with pytest.raises(InvalidError, match="time zone"):
        next_run("* * * * *", "Mars/Base", 0.0)


def test_a_cron_job_says_what_to_keep_and_whether_runs_may_overlap() -> None:
    made = cron_job(jobs.Options(RunOptions(image="i", name="tick")), "@daily", "Europe/Berlin", 2, no_overlap=True)
    spec = made["spec"]
    assert (spec["concurrencyPolicy"], spec["timeZone"], spec["failedJobsHistoryLimit"]) == (
        "Forbid",
        "Europe/Berlin",
        2,
    )
    run = jobs.of_cron({**made, "metadata": {**made["metadata"], "uid": "u"}}, "tick-1")
    assert run["spec"] == spec["jobTemplate"]["spec"]
    assert run["metadata"]["ownerReferences"][0]["uid"] == "u"
