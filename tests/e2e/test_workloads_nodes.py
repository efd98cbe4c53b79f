"""Workloads on a real node and one that only pretends: a DaemonSet on both, and a drain that waits for a budget."""

from __future__ import annotations

import json
import time
from collections import Counter
from collections.abc import Iterator
from typing import Any

import pytest

from tests.e2e.conftest import image
from tests.harness import pods as kube
from tests.harness.platform import VENV, Object, Platform
from tests.harness.pretended_node import PretendedNode, pretended_node

pytestmark = [pytest.mark.e2e, pytest.mark.vm, pytest.mark.timeout(300)]
OTHER = "pretender"
LIVE = "trap 'exit 0' TERM; while true; do sleep 1; done"


@pytest.fixture
def other(pods: Platform) -> Iterator[PretendedNode]:
    with pretended_node(pods, OTHER) as node:
        yield node
        pods.kubectl("uncordon", pods.node)
        pods.kubectl("delete", "deployment,statefulset,daemonset,pdb", "--all", timeout=60)
        kube.until(lambda: not items(pods, "pods"), "pods are gone", 90)
    kube.until(lambda: not pods.vmms(), "their machines are gone", 20)
    assert pods.leftovers() == []


@pytest.fixture
def two_nodes(pods: Platform, other: PretendedNode) -> Platform:
    return pods


def workload(kind: str, name: str, **spec: Any) -> Object:
    labels = {"app": name}
    container = {"name": "main", "image": image("busybox"), "command": ["sh", "-c", LIVE]}
    template = {
        "metadata": {"labels": labels},
        "spec": {"containers": [container], "terminationGracePeriodSeconds": 5},
    }
    body = {"selector": {"matchLabels": labels}, "template": template, **spec}
    return {"apiVersion": "apps/v1", "kind": kind, "metadata": {"name": name}, "spec": body}


def items(place: Platform, kind: str, *words: str) -> list[Object]:
    found: list[Object] = json.loads(place.kubectl("get", kind, *words, "-o", "json").stdout)["items"]
    return found


def where(place: Platform, name: str) -> Counter[str]:
    """How many pods of the workload are on each node and not asked to end; "" for none."""
    found = items(place, "pods", "-l", f"app={name}")
    return Counter(p["spec"].get("nodeName", "") for p in found if "deletionTimestamp" not in p["metadata"])


def test_a_daemon_set_has_one_pod_on_each_node_that_it_selects(two_nodes: Platform) -> None:
    place, real = two_nodes, two_nodes.node
    kube.apply(place, workload("DaemonSet", "agent"))
    place.kubectl("rollout", "status", "daemonset/agent", "--timeout=90s", timeout=100)
    assert where(place, "agent") == {real: 1, OTHER: 1}
    before = {pod["spec"]["nodeName"]: pod["metadata"]["uid"] for pod in items(place, "pods", "-l", "app=agent")}
    place.kubectl("set", "env", "daemonset/agent", "VERSION=2")
    place.kubectl("rollout", "status", "daemonset/agent", "--timeout=90s", timeout=100)
    after = {pod["spec"]["nodeName"]: pod["metadata"]["uid"] for pod in items(place, "pods", "-l", "app=agent")}
    assert before.keys() == after.keys()
    assert not set(before.values()) & set(after.values())
    place.kubectl("rollout", "undo", "daemonset/agent")
    place.kubectl("rollout", "status", "daemonset/agent", "--timeout=90s", timeout=100)
    place.kubectl("label", "node", real, "has=disk")
    selector = {"spec": {"template": {"spec": {"nodeSelector": {"has": "disk"}}}}}
    place.kubectl("patch", "daemonset", "agent", "-p", json.dumps(selector))
    kube.until(lambda: where(place, "agent") == {real: 1}, "only where the label is", 60)
    place.kubectl("label", "node", real, "has-")
    kube.until(lambda: not where(place, "agent"), "nowhere", 60)


def test_a_drain_moves_pods_no_faster_than_their_budget_allows(two_nodes: Platform) -> None:
    place, real = two_nodes, two_nodes.node
    place.kubectl("cordon", OTHER)
    kube.apply(place, workload("Deployment", "web", replicas=2), workload("DaemonSet", "agent"))
    place.kubectl("create", "poddisruptionbudget", "web", "--selector=app=web", "--min-available=2")
    place.kubectl("rollout", "status", "deployment/web", "--timeout=90s", timeout=100)
    place.kubectl("rollout", "status", "daemonset/agent", "--timeout=90s", timeout=100)
    assert where(place, "web") == {real: 2}
    stuck = place.kubectl("drain", real, "--ignore-daemonsets", "--timeout=4s", check=False)
    assert stuck.returncode == 1
    assert "Cannot evict pod as it would violate the pod's disruption budget" in stuck.stderr
    assert where(place, "web") == {real: 2}
    place.kubectl("patch", "pdb", "web", "-p", '{"spec": {"minAvailable": 1}}')
    place.kubectl("uncordon", OTHER)
    drain = [str(VENV / "kubectl"), "drain", real, "--ignore-daemonsets", "--timeout=90s"]
    fewest = 2
    with place.started(drain) as draining:
        while draining.poll() is None:
            fewest = min(fewest, sum(kube.ready(pod) for pod in items(place, "pods", "-l", "app=web")))
            time.sleep(0.1)
        output, _ = draining.communicate(timeout=5)
        assert draining.returncode == 0, output
    assert fewest >= 1
    assert f"node/{real} drained" in output
    kube.until(lambda: where(place, "web") == {OTHER: 2}, "all have moved", 60)
    assert where(place, "agent") == {real: 1, OTHER: 1}, "a DaemonSet's pod stays"
    row = place.kubectl("get", "node", real, "--no-headers").stdout.split()
    assert row[1] == "Ready,SchedulingDisabled"


def test_pods_of_a_node_that_dies_get_machines_on_the_one_that_is_left(
    two_nodes: Platform, other: PretendedNode
) -> None:
    place, real = two_nodes, two_nodes.node
    place.kubectl("cordon", real)
    kube.apply(place, workload("Deployment", "web", replicas=2), workload("StatefulSet", "store", serviceName="store"))
    for what in ("deployment/web", "statefulset/store"):
        place.kubectl("rollout", "status", what, "--timeout=60s", timeout=70)
    assert (where(place, "web"), where(place, "store"), place.vmms()) == ({OTHER: 2}, {OTHER: 1}, [])
    place.kubectl("uncordon", real)
    other.die()
    begin = time.monotonic()

    def machines() -> bool:
        return sum(kube.ready(pod) for pod in items(place, "pods", "-l", "app=web") if on(pod) == real) == 2

    kube.until(machines, "both run on the other node", 60)
    print(f"two pods run as machines {time.monotonic() - begin:.1f} s after the death of their node")
    (store,) = items(place, "pods", "-l", "app=store")
    assert on(store) == OTHER, "two pods of one name must never run"
    place.kubectl("taint", "node", OTHER, "node.kubernetes.io/out-of-service=:NoExecute")
    kube.until(lambda: [on(pod) for pod in items(place, "pods", "-l", "app=store")] == [real], "it may go now", 60)
    place.kubectl("rollout", "status", "statefulset/store", "--timeout=60s", timeout=70)
    kube.until(lambda: where(place, "web") == {real: 2}, "the lost ones are forgotten", 30)


def on(pod: Object) -> str:
    return str(pod["spec"].get("nodeName", ""))
