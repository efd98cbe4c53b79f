"""`kubectl patch --subresource resize` on real machines: limits of a container that runs, and what cannot be given."""

from __future__ import annotations

import json
from typing import Any

import pytest

from tests.e2e.conftest import image
from tests.harness.platform import Platform

Object = dict[str, Any]
pytestmark = [pytest.mark.e2e, pytest.mark.vm, pytest.mark.timeout(300)]


def resources(cpu: str, memory: str) -> Object:
    return {kind: {"cpu": cpu, "memory": memory} for kind in ("limits", "requests")}


def pod(name: str, cpu: str, memory: str, *policies: Object) -> Object:
    container = {
        "name": "main", "image": image("busybox"), "command": ["sleep", "infinity"],
        "resources": resources(cpu, memory), "resizePolicy": list(policies),
    }  # fmt: skip
    spec = {"terminationGracePeriodSeconds": 1, "containers": [container]}
    return {"apiVersion": "v1", "kind": "Pod", "metadata": {"name": name}, "spec": spec}


def start(place: Platform, document: Object) -> None:
    place.kubectl("apply", "-f", "-", stdin=json.dumps(document))
    place.wait(document["metadata"]["name"], running)


def resize(place: Platform, name: str, cpu: str, memory: str) -> None:
    change = {"spec": {"containers": [{"name": "main", "resources": resources(cpu, memory)}]}}
    place.kubectl("patch", "pod", name, "--subresource", "resize", "--patch", json.dumps(change))


def condition(found: Object, kind: str) -> Object:
    return next((c for c in found["status"].get("conditions", []) if c["type"] == kind), {})


def running(found: Object) -> bool:
    return condition(found, "Ready").get("status") == "True"


def main(found: Object) -> Object:
    row: Object = found["status"]["containerStatuses"][0]
    return row


def has(found: Object, cpu: str, memory: str) -> bool:
    return bool(main(found).get("resources") == resources(cpu, memory)) and running(found)


def limits(place: Platform, name: str) -> list[str]:
    """What the kernel of the pod's machine keeps the container to."""
    found = place.cuboid("exec", name, "sh", "-c", "cat /sys/fs/cgroup/cpu.max /sys/fs/cgroup/memory.max")
    return found.stdout.splitlines()


def test_a_container_that_runs_gets_other_limits_without_a_restart(pods: Platform) -> None:
    start(pods, pod("live", "500m", "96Mi"))
    before = main(pods.pod("live"))
    assert limits(pods, "live") == ["50000 100000", str(96 << 20)]
    resize(pods, "live", "250m", "64Mi")
    after = main(pods.wait("live", lambda found: has(found, "250m", "64Mi")))
    assert limits(pods, "live") == ["25000 100000", str(64 << 20)]
    assert (after["containerID"], after["restartCount"]) == (before["containerID"], 0)
    assert after["allocatedResources"] == {"cpu": "250m", "memory": "64Mi"}


def test_a_policy_of_restarts_is_kept(pods: Platform) -> None:
    start(pods, pod("anew", "500m", "96Mi", {"resourceName": "memory", "restartPolicy": "RestartContainer"}))
    resize(pods, "anew", "500m", "64Mi")
    after = pods.wait("anew", lambda found: has(found, "500m", "64Mi") and main(found)["restartCount"] == 1)
    assert limits(pods, "anew")[1] == str(64 << 20)
    assert condition(after, "PodResizeInProgress") == {}


def test_more_than_the_machine_has_waits_for_the_next_machine_and_says_so(pods: Platform) -> None:
    start(pods, pod("more", "500m", "96Mi"))
    resize(pods, "more", "500m", "512Mi")
    found = pods.wait("more", lambda found: bool(condition(found, "PodResizePending")))
    assert condition(found, "PodResizePending")["reason"] == "Deferred"
    assert "a machine does not grow while it runs" in condition(found, "PodResizePending")["message"]
    assert has(found, "500m", "96Mi"), "and the pod runs on with what it has"
    pods.cuboid("stop", "more")
    pods.cuboid("start", "more")
    after = pods.wait("more", lambda found: has(found, "500m", "512Mi"))
    assert condition(after, "PodResizePending") == {}
    assert limits(pods, "more")[1] == str(512 << 20)
