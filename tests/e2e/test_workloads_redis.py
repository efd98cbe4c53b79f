"""Three redis of a StatefulSet on real machines: order, names, claims, and data that outlives pods."""

from __future__ import annotations

import json
import os
import signal
import time
from collections.abc import Iterator
from itertools import pairwise

import pytest

from tests.e2e.conftest import image
from tests.harness import pods as kube
from tests.harness.platform import Object, Platform

pytestmark = [pytest.mark.e2e, pytest.mark.vm, pytest.mark.timeout(400)]
LABELS = {"app": "redis"}
SERVE = ["redis-server", "--bind", "0.0.0.0", "--protected-mode", "no", "--dir", "/data", "--appendonly", "yes"]


def redis(**spec: object) -> Object:
    container = {
        "name": "redis",
        "image": image("services"),
        "command": SERVE,
        "readinessProbe": {"exec": {"command": ["redis-cli", "ping"]}, "periodSeconds": 1, "timeoutSeconds": 5},
        "volumeMounts": [{"name": "data", "mountPath": "/data"}],
    }
    claim = {"accessModes": ["ReadWriteOnce"], "resources": {"requests": {"storage": "64Mi"}}}
    template = {
        "metadata": {"labels": LABELS},
        "spec": {"containers": [container], "terminationGracePeriodSeconds": 10},
    }
    return {
        "apiVersion": "apps/v1",
        "kind": "StatefulSet",
        "metadata": {"name": "redis"},
        "spec": {
            "replicas": 3,
            "serviceName": "redis",
            "selector": {"matchLabels": LABELS},
            "template": template,
            "volumeClaimTemplates": [{"metadata": {"name": "data"}, "spec": claim}],
            **spec,
        },
    }


@pytest.fixture(scope="module")
def begun(place: Platform) -> Iterator[list[Object]]:
    """The set runs behind its headless service; its pods as they first were."""
    spec = {"clusterIP": "None", "selector": LABELS, "ports": [{"port": 6379}]}
    kube.apply(place, {"apiVersion": "v1", "kind": "Service", "metadata": {"name": "redis"}, "spec": spec}, redis())
    rolled(place)
    yield pods(place)
    place.kubectl("delete", "statefulset,service", "redis", "--ignore-not-found", timeout=60)
    kube.until(lambda: not pods(place), "its pods are gone", 90)
    place.kubectl("delete", "pvc", "-l", "app=redis", timeout=90)
    kube.until(lambda: not items(place, "pv"), "and its volumes", 60)
    assert place.leftovers() == []


@pytest.fixture
def servers(place: Platform, begun: list[Object]) -> Platform:
    return place


def rolled(place: Platform) -> None:
    place.kubectl("rollout", "status", "statefulset/redis", "--timeout=200s", timeout=210)


def items(place: Platform, kind: str) -> list[Object]:
    found: list[Object] = json.loads(place.kubectl("get", kind, "-o", "json").stdout)["items"]
    return found


def pods(place: Platform) -> list[Object]:
    """Lowest number first."""
    found: list[Object] = json.loads(place.kubectl("get", "pods", "-l", "app=redis", "-o", "json").stdout)["items"]
    return sorted(found, key=lambda pod: str(pod["metadata"]["name"]))


def names(place: Platform) -> list[str]:
    return [pod["metadata"]["name"] for pod in pods(place)]


def uids(place: Platform) -> list[str]:
    return [pod["metadata"]["uid"] for pod in pods(place)]


def created(pod: Object) -> str:
    return str(pod["metadata"]["creationTimestamp"])


def became_ready(pod: Object) -> str:
    rows = pod["status"]["conditions"]
    return str(next(row["lastTransitionTime"] for row in rows if row["type"] == "Ready"))


def ask(place: Platform, where: str, *words: str, host: str = "localhost") -> str:
    return place.kubectl("exec", where, "--", "redis-cli", "-h", host, *words).stdout.strip()


def set_version(place: Platform, version: str, *, partition: int) -> None:
    """A change of the template, for pods from number `partition` on."""
    strategy = {"type": "RollingUpdate", "rollingUpdate": {"partition": partition}}
    template = {"metadata": {"annotations": {"version": version}}}
    patch = {"spec": {"updateStrategy": strategy, "template": template}}
    place.kubectl("patch", "statefulset", "redis", "-p", json.dumps(patch))


def versions(place: Platform) -> list[str]:
    return [pod["metadata"].get("annotations", {}).get("version", "") for pod in pods(place)]


def test_servers_start_in_order_under_names_that_others_find(servers: Platform, begun: list[Object]) -> None:
    for before, after in pairwise(begun):
        assert became_ready(before) <= created(after)
    found = pods(servers)
    assert [pod["metadata"]["name"] for pod in found] == ["redis-0", "redis-1", "redis-2"]
    assert [pod["spec"]["hostname"] for pod in found] == ["redis-0", "redis-1", "redis-2"]
    assert kube.shell(servers, "redis-2", "hostname -f").strip() == "redis-2.redis.default.svc.cluster.local"
    assert {pod["status"]["phase"] for pod in items(servers, "pvc")} == {"Bound"}
    for number in range(3):
        ask(servers, f"redis-{number}", "SET", "whose", f"redis-{number}")
    for name in ("redis-1.redis", "redis-1.redis.default.svc.cluster.local"):
        assert ask(servers, "redis-0", "GET", "whose", host=name) == "redis-1"
    addresses = {row.split()[0] for row in kube.shell(servers, "redis-0", "getent ahostsv4 redis").splitlines()}
    assert addresses == {pod["status"]["podIP"] for pod in found}


def test_a_deleted_server_comes_back_under_its_name_with_its_data(servers: Platform) -> None:
    ask(servers, "redis-1", "SET", "greeting", "hello")
    before = uids(servers)
    servers.kubectl("delete", "pod", "redis-1")
    rolled(servers)
    after = uids(servers)
    assert [one == other for one, other in zip(before, after, strict=True)] == [True, False, True]
    assert ask(servers, "redis-1", "GET", "greeting") == "hello"
    kube.until(
        lambda: ask(servers, "redis-0", "GET", "greeting", host="redis-1.redis") == "hello", "found by its name", 20
    )


def test_what_a_server_has_acknowledged_is_there_after_its_machine_is_killed(servers: Platform) -> None:
    """With an fsync for each write: what its own kernel had not written yet is lost, as it is on metal."""
    ask(servers, "redis-2", "CONFIG", "SET", "appendfsync", "always")
    before = pods(servers)[2]
    ask(servers, "redis-2", "SET", "acknowledged", "yes")
    (vmm,) = servers.vmms(before["metadata"]["uid"])
    os.kill(vmm, signal.SIGKILL)
    servers.wait("redis-2", lambda pod: kube.ready(pod) and kube.container(pod, "redis")["restartCount"] == 1)
    after = pods(servers)[2]
    assert after["metadata"]["uid"] == before["metadata"]["uid"], "the pod stays, in another machine"
    assert kube.terminated(after, "redis", last=True)["reason"] == "VMMDied"
    assert ask(servers, "redis-2", "GET", "acknowledged") == "yes"


def test_a_new_version_goes_to_the_highest_numbers_first_and_stops_at_the_partition(servers: Platform) -> None:
    set_version(servers, "second", partition=2)
    kube.until(lambda: versions(servers) == ["", "", "second"] and all(map(kube.ready, pods(servers))), "part", 90)
    time.sleep(1)
    assert versions(servers) == ["", "", "second"]
    kept = uids(servers)[2]
    set_version(servers, "second", partition=0)
    rolled(servers)
    found = pods(servers)
    assert versions(servers) == ["second"] * 3
    assert found[2]["metadata"]["uid"] == kept
    assert became_ready(found[1]) <= created(found[0])
    history = servers.kubectl("rollout", "history", "statefulset/redis").stdout.split()
    assert {"1", "2"} <= set(history)


def test_a_smaller_set_keeps_its_claims_and_a_larger_one_finds_its_data_again(servers: Platform) -> None:
    ask(servers, "redis-2", "SET", "kept", "yes")
    servers.kubectl("scale", "statefulset/redis", "--replicas=1")
    kube.until(lambda: names(servers) == ["redis-0"], "scaled down", 90)
    assert {claim["metadata"]["name"] for claim in items(servers, "pvc")} == {f"data-redis-{n}" for n in range(3)}
    servers.kubectl("scale", "statefulset/redis", "--replicas=3")
    rolled(servers)
    assert ask(servers, "redis-2", "GET", "kept") == "yes"
