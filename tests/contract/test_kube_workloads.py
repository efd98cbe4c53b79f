"""Long-running workloads as their users see them: a real server process, its controllers, and kubectl."""

from __future__ import annotations

import re
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.harness.live_cluster import LiveCluster, living

Object = dict[str, Any]
pytestmark = pytest.mark.timeout(120)


@pytest.fixture
def cluster(tmp_path: Path) -> Iterator[LiveCluster]:
    with living(tmp_path, "node-1", "node-2") as made:
        yield made


def workload(kind: str, image: str = "registry.example/app:1", **spec: Any) -> Object:
    labels = {"app": "web"}
    template = {"metadata": {"labels": labels}, "spec": {"containers": [{"name": "main", "image": image}]}}
    return {
        "apiVersion": "apps/v1",
        "kind": kind,
        "metadata": {"name": "web"},
        "spec": {"selector": {"matchLabels": labels}, "template": template, **spec},
    }


def all_are(cluster: LiveCluster, image: str) -> None:
    """All pods are of this image, when the others have ended."""
    cluster.until(lambda: images(cluster) == {image}, f"all pods are of {image}")


def images(cluster: LiveCluster) -> set[str]:
    return {pod["spec"]["containers"][0]["image"] for pod in cluster.get("pods", "-l", "app=web")["items"]}


def test_a_deployment_is_rolled_out_looked_at_undone_restarted_and_scaled(cluster: LiveCluster) -> None:
    cluster.apply(workload("Deployment", replicas=3))
    assert "successfully rolled out" in cluster.kubectl("rollout", "status", "deployment/web", "--timeout=30s")
    cluster.kubectl("set", "image", "deployment/web", "main=registry.example/app:2")
    cluster.kubectl("rollout", "status", "deployment/web", "--timeout=30s")
    all_are(cluster, "registry.example/app:2")
    history = cluster.kubectl("rollout", "history", "deployment/web")
    assert re.findall(r"^(\d+)", history, re.MULTILINE) == ["1", "2"]
    cluster.kubectl("rollout", "undo", "deployment/web")
    cluster.kubectl("rollout", "status", "deployment/web", "--timeout=30s")
    all_are(cluster, "registry.example/app:1")
    before = {pod["metadata"]["uid"] for pod in cluster.get("pods", "-l", "app=web")["items"]}
    cluster.kubectl("rollout", "restart", "deployment/web")
    cluster.kubectl("rollout", "status", "deployment/web", "--timeout=30s")
    cluster.until(lambda: not before & {pod["metadata"]["uid"] for pod in cluster.get("pods")["items"]}, "restarted")
    cluster.kubectl("scale", "deployment/web", "--replicas=1")
    cluster.until(lambda: len(cluster.get("pods", "-l", "app=web")["items"]) == 1, "scaled down")
    assert "ScalingReplicaSet" in cluster.kubectl("describe", "deployment", "web")


def test_a_rollout_is_paused_and_resumed(cluster: LiveCluster) -> None:
    cluster.apply(workload("Deployment", replicas=2))
    cluster.kubectl("rollout", "status", "deployment/web", "--timeout=30s")
    cluster.kubectl("rollout", "pause", "deployment/web")
    cluster.kubectl("set", "image", "deployment/web", "main=registry.example/app:2")
    time.sleep(1.0)
    all_are(cluster, "registry.example/app:1")
    cluster.kubectl("rollout", "resume", "deployment/web")
    cluster.kubectl("rollout", "status", "deployment/web", "--timeout=30s")
    all_are(cluster, "registry.example/app:2")


def test_a_stateful_set_is_rolled_out_and_undone(cluster: LiveCluster) -> None:
    cluster.apply(workload("StatefulSet", replicas=2, serviceName="web"))
    cluster.kubectl("rollout", "status", "statefulset/web", "--timeout=30s")
    cluster.kubectl("set", "image", "statefulset/web", "main=registry.example/app:2")
    cluster.kubectl("rollout", "status", "statefulset/web", "--timeout=30s")
    all_are(cluster, "registry.example/app:2")
    assert re.findall(r"^(\d+)", cluster.kubectl("rollout", "history", "sts/web"), re.MULTILINE) == ["1", "2"]
    assert "registry.example/app:1" in cluster.kubectl("rollout", "history", "sts/web", "--revision=1")
    cluster.kubectl("rollout", "undo", "statefulset/web")
    cluster.kubectl("rollout", "status", "statefulset/web", "--timeout=30s")
    all_are(cluster, "registry.example/app:1")
    names = [pod["metadata"]["name"] for pod in cluster.get("pods", "-l", "app=web")["items"]]
    assert names == ["web-0", "web-1"]
    cluster.kubectl("scale", "statefulset/web", "--replicas=1")
    cluster.until(lambda: len(cluster.get("pods", "-l", "app=web")["items"]) == 1, "scaled down")


def test_a_daemon_set_is_on_every_node_and_rolled_out(cluster: LiveCluster) -> None:
    cluster.until(lambda: len(cluster.get("nodes")["items"]) == 2, "nodes")
    cluster.apply(workload("DaemonSet"))
    cluster.kubectl("rollout", "status", "daemonset/web", "--timeout=30s")
    pods = cluster.get("pods", "-l", "app=web")["items"]
    assert sorted(pod["spec"]["nodeName"] for pod in pods) == ["node-1", "node-2"]
    cluster.kubectl("set", "image", "daemonset/web", "main=registry.example/app:2")
    cluster.kubectl("rollout", "status", "daemonset/web", "--timeout=30s")
    all_are(cluster, "registry.example/app:2")
    cluster.kubectl("rollout", "undo", "daemonset/web")
    cluster.kubectl("rollout", "status", "daemonset/web", "--timeout=30s")
    all_are(cluster, "registry.example/app:1")


def test_controllers_in_a_process_of_their_own_are_followed_by_others_when_they_are_killed(tmp_path: Path) -> None:
    with living(tmp_path, controllers="false") as cluster:
        command = [
            sys.executable,
            "-m",
            "cuboid.controllers",
            "--all",
            "--kubeconfig",
            str(cluster.server.kubeconfig()),
        ]
        with (tmp_path / "controllers.log").open("ab") as log:
            first, second = (subprocess.Popen(command, stdout=log, stderr=log) for _ in range(2))
            try:
                cluster.apply(workload("Deployment", replicas=2))
                cluster.kubectl("rollout", "status", "deployment/web", "--timeout=40s")
                lease = cluster.get("lease", "cuboid-controllers", "-n", "kube-system")
                holder = int(lease["spec"]["holderIdentity"].rpartition("_")[2])
                leader = first if first.pid == holder else second
                leader.kill()
                leader.wait(10)
                cluster.kubectl("scale", "deployment/web", "--replicas=3")
                cluster.until(lambda: len(cluster.get("pods", "-l", "app=web")["items"]) == 3, "followed", 20.0)
            finally:
                for process in (first, second):
                    process.terminate()
                    process.wait(15)
        lease = cluster.get("lease", "cuboid-controllers", "-n", "kube-system")
        assert lease["spec"].get("holderIdentity", "") == ""
