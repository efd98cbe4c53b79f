"""Daemons killed in the middle of a rollout on real machines: it goes on where it was, and no pod is there twice."""

from __future__ import annotations

import json
import random
import time
from collections.abc import Iterator

import pytest

from tests.e2e.conftest import image
from tests.harness import pods as kube
from tests.harness.platform import Object, Platform

pytestmark = [pytest.mark.e2e, pytest.mark.vm, pytest.mark.timeout(300)]
REPLICAS = 3
LIVE = "echo version $VERSION; trap 'exit 0' TERM; while true; do sleep 1; done"


def workload(version: str) -> Object:
    labels = {"app": "steady"}
    container = {
        "name": "main",
        "image": image("busybox"),
        "command": ["sh", "-c", LIVE],
        "env": [{"name": "VERSION", "value": version}],
    }
    template = {
        "metadata": {"labels": labels},
        "spec": {"containers": [container], "terminationGracePeriodSeconds": 5},
    }
    spec = {"replicas": REPLICAS, "selector": {"matchLabels": labels}, "template": template}
    return {"apiVersion": "apps/v1", "kind": "Deployment", "metadata": {"name": "steady"}, "spec": spec}


@pytest.fixture
def steady(pods: Platform) -> Iterator[Platform]:
    """The Deployment runs in its first version. Whatever a test killed runs again behind it, and nothing is left."""
    kube.apply(pods, workload("1"))
    rolled(pods)
    yield pods
    pods.up()
    pods.kubectl("delete", "deployment", "steady", "--ignore-not-found", timeout=60)
    kube.until(lambda: not every_pod(pods), "its pods are gone", 90)
    assert pods.vmms() == []
    assert pods.leftovers() == []


def rolled(place: Platform) -> None:
    place.kubectl("rollout", "status", "deployment/steady", "--timeout=120s", timeout=130)


def every_pod(place: Platform) -> list[Object]:
    found: list[Object] = json.loads(place.kubectl("get", "pods", "-l", "app=steady", "-o", "json").stdout)["items"]
    return found


def version(pod: Object) -> str:
    return str(pod["spec"]["containers"][0]["env"][0]["value"])


def under_way(place: Platform, wanted: str) -> bool:
    return any(version(pod) == wanted for pod in every_pod(place))


def begin(place: Platform, wanted: str) -> None:
    kube.apply(place, workload(wanted))
    kube.until(lambda: under_way(place, wanted), "the rollout is under way", 30)
    time.sleep(random.uniform(0, 1.5))


def settled(place: Platform, wanted: str) -> list[Object]:
    """The pods, all of the version, when the others have ended."""
    rolled(place)
    kube.until(lambda: len(every_pod(place)) == REPLICAS, "the others have ended", 60)
    found = every_pod(place)
    assert {version(pod) for pod in found} == {wanted}
    return found


def each_has_one_machine(place: Platform, pods: list[Object]) -> None:
    kube.until(lambda: len(place.vmms()) == len(pods), f"{place.vmms()} are {len(pods)} machines", 30)
    for pod in pods:
        assert len(place.vmms(pod["metadata"]["uid"])) == 1
        assert place.kubectl("logs", pod["metadata"]["name"]).stdout == f"version {version(pod)}\n"


@pytest.mark.parametrize("daemons", [("cuboid-server",), ("cuboid-node",), ("cuboid-node", "cuboid-server")])
def test_a_rollout_goes_on_after_daemons_are_killed(steady: Platform, daemons: tuple[str, ...]) -> None:
    for wanted in ("2", "3"):
        begin(steady, wanted)
        for daemon in daemons:
            steady.kill_daemon(daemon)
        steady.up()
        each_has_one_machine(steady, settled(steady, wanted))
    sets = json.loads(steady.kubectl("get", "replicasets", "-l", "app=steady", "-o", "json").stdout)["items"]
    assert sorted(row["spec"]["replicas"] for row in sets) == [0, 0, REPLICAS]
