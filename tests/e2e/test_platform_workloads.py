"""Workloads on real machines: a Deployment rolled out behind its service while somebody asks all the time."""

from __future__ import annotations

import json
import time
from collections.abc import Iterator

import pytest

from tests.e2e.conftest import image
from tests.harness.platform import Object, Platform
from tests.harness.pods import apply, until

pytestmark = [pytest.mark.e2e, pytest.mark.vm, pytest.mark.timeout(400)]
ADDRESS = "10.96.77.7"
ASKER = """
import sys, time, urllib.request
url, stop = sys.argv[1], time.monotonic() + float(sys.argv[2])
good, bad = 0, []
while time.monotonic() < stop:
    try:
        with urllib.request.urlopen(url, timeout=10) as answer:
            answer.read()
        good += 1
    except OSError as error:
        bad.append(f"{time.time():.3f} {error}")
    time.sleep(0.05)
print(good, len(bad), bad[:5], flush=True)
"""
ENDING = "trap 'sleep 3; kill -QUIT $server; wait $server; exit 0' QUIT TERM; nginx -g 'daemon off;' & server=$!; wait"
"""Answers for three seconds more once it is asked to end: until nobody is led there any more."""


@pytest.fixture
def workloads(pods: Platform) -> Iterator[Platform]:
    yield pods
    pods.kubectl("delete", "deployment,service", "--all", "--ignore-not-found", timeout=60)
    until(lambda: not pods.kubectl("get", "pods", "-o", "name").stdout.strip(), "pods of the workloads are gone", 90)


def deployment(version: str) -> Object:
    labels = {"app": "web"}
    container = {
        "name": "nginx",
        "image": image("nginx"),
        "command": ["sh", "-c", ENDING],
        "env": [{"name": "VERSION", "value": version}],
        "readinessProbe": {"httpGet": {"port": 80}, "periodSeconds": 1},
    }
    spec = {"containers": [container], "terminationGracePeriodSeconds": 20}
    rolling = {"type": "RollingUpdate", "rollingUpdate": {"maxSurge": 1, "maxUnavailable": 0}}
    return {
        "apiVersion": "apps/v1",
        "kind": "Deployment",
        "metadata": {"name": "web"},
        "spec": {
            "replicas": 2,
            "selector": {"matchLabels": labels},
            "strategy": rolling,
            "template": {"metadata": {"labels": labels}, "spec": spec},
        },
    }


def lead_to_services(place: Platform) -> None:
    """A host has a way out, so that a packet to a service is made at all before it is led elsewhere; the platform's
    namespace has none."""
    lines = place.run(["ip", "-o", "-4", "addr"]).stdout.splitlines()
    bridge = next(line.split()[1] for line in lines if " 10.77.0.1/" in line)
    place.run(["ip", "route", "replace", "10.96.0.0/16", "dev", bridge])


def test_a_rollout_under_load_fails_no_request(workloads: Platform) -> None:
    place = workloads
    ports = [{"port": 80, "targetPort": 80, "protocol": "TCP"}]
    service = {"apiVersion": "v1", "kind": "Service", "metadata": {"name": "web"}}
    spec = {"selector": {"app": "web"}, "ports": ports, "clusterIP": ADDRESS}
    apply(place, {**service, "spec": spec}, deployment("1"))
    place.kubectl("rollout", "status", "deployment/web", "--timeout=150s", timeout=160)
    lead_to_services(place)
    url = f"http://{ADDRESS}/"
    first = place.run([".venv/bin/python", "-c", ASKER, url, "1"], timeout=30).stdout.split()
    assert int(first[0]) > 0, " ".join(first) + place.kubectl("get", "service,endpointslices", "-o", "yaml").stdout
    with place.started([".venv/bin/python", "-c", ASKER, url, "60"]) as asking:
        time.sleep(1)
        apply(place, deployment("2"))
        place.kubectl("rollout", "status", "deployment/web", "--timeout=150s", timeout=160)
        output, _ = asking.communicate(timeout=90)
    good, bad = output.split()[:2]
    assert int(bad) == 0, output
    assert int(good) > 100, output
    found = json.loads(place.kubectl("get", "pods", "-l", "app=web", "-o", "json").stdout)["items"]
    running = [pod for pod in found if "deletionTimestamp" not in pod["metadata"]]
    assert {pod["spec"]["containers"][0]["env"][0]["value"] for pod in running} == {"2"}


def test_a_pod_that_is_deleted_is_replaced_by_one_that_runs(workloads: Platform) -> None:
    place = workloads
    apply(place, deployment("1"))
    place.kubectl("rollout", "status", "deployment/web", "--timeout=150s", timeout=160)
    before = set(place.kubectl("get", "pods", "-l", "app=web", "-o", "name").stdout.split())
    gone = sorted(before)[0]
    place.kubectl("delete", gone, "--wait=false")
    until(lambda: gone not in place.kubectl("get", "pods", "-o", "name").stdout.split(), "it has ended", 60)
    place.kubectl("rollout", "status", "deployment/web", "--timeout=90s", timeout=100)
    assert len(place.kubectl("get", "pods", "-l", "app=web", "-o", "name").stdout.split()) == 2
