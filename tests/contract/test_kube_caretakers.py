"""What looks after services, nodes, budgets, quotas and volumes, on a real server with real clients."""

from __future__ import annotations

import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.harness.live_cluster import LiveCluster, living

Object = dict[str, Any]
pytestmark = pytest.mark.timeout(120)
LABELS = {"app": "web"}


@pytest.fixture
def cluster(tmp_path: Path) -> Iterator[LiveCluster]:
    with living(tmp_path, "node-1", "node-2") as made:
        made.until(lambda: len(made.get("nodes")["items"]) == 2, "there are nodes")
        yield made


def deployment(replicas: int) -> Object:
    container = {"name": "main", "image": "registry.example/app:1", "ports": [{"name": "http", "containerPort": 8080}]}
    template = {"metadata": {"labels": LABELS}, "spec": {"containers": [container]}}
    spec = {"replicas": replicas, "selector": {"matchLabels": LABELS}, "template": template}
    return {"apiVersion": "apps/v1", "kind": "Deployment", "metadata": {"name": "web"}, "spec": spec}


def serving(cluster: LiveCluster, node: str = "") -> list[str]:
    """Names of pods that are ready and stay, on this node."""
    found = []
    for pod in cluster.get("pods")["items"]:
        ready = any(c["type"] == "Ready" and c["status"] == "True" for c in pod["status"].get("conditions", []))
        if ready and "deletionTimestamp" not in pod["metadata"] and node in ("", pod["spec"].get("nodeName")):
            found.append(pod["metadata"]["name"])
    return found


def test_the_pods_of_a_node_that_died_serve_from_another_one(cluster: LiveCluster) -> None:
    cluster.apply(deployment(4))
    cluster.until(lambda: len(serving(cluster)) == 4, "four pods serve")
    before = set(serving(cluster, "node-2"))
    assert before, "some are on the node that will die"
    died = time.monotonic()
    cluster.dead.add("node-2")
    cluster.until(lambda: len(serving(cluster, "node-1")) == 4, "all serve from the node that lives")
    print(f"served from elsewhere after {time.monotonic() - died:.1f} s")
    pods = {pod["metadata"]["name"]: pod for pod in cluster.get("pods")["items"]}
    assert all("deletionTimestamp" in pods[name]["metadata"] for name in before), "nobody said that they ended"
    node = cluster.get("node", "node-2")
    taints = {(taint["key"], taint["effect"]) for taint in node["spec"]["taints"]}
    key = "node.kubernetes.io/unreachable"
    assert taints == {(key, "NoSchedule"), (key, "NoExecute")}


def test_a_service_has_endpoints_and_a_budget_and_a_quota_have_their_numbers(cluster: LiveCluster) -> None:
    ports = [{"port": 80, "targetPort": "http"}]
    spec = {"selector": LABELS, "ports": ports}
    cluster.apply({"apiVersion": "v1", "kind": "Service", "metadata": {"name": "web"}, "spec": spec})
    budget = {"selector": {"matchLabels": LABELS}, "maxUnavailable": 1}
    cluster.apply(
        {"apiVersion": "policy/v1", "kind": "PodDisruptionBudget", "metadata": {"name": "web"}, "spec": budget}
    )
    hard = {"hard": {"pods": "10", "count/deployments.apps": "2"}}
    cluster.apply({"apiVersion": "v1", "kind": "ResourceQuota", "metadata": {"name": "web"}, "spec": hard})
    cluster.apply(deployment(3))

    def slice_() -> Object:
        found = cluster.get("endpointslices", "-l", "kubernetes.io/service-name=web")["items"]
        return found[0] if found else {}

    cluster.until(lambda: len(slice_().get("endpoints") or []) == 3, "three endpoints")
    cluster.until(lambda: all(e["conditions"]["ready"] for e in slice_()["endpoints"]), "all ready")
    assert slice_()["ports"][0]["port"] == 8080
    assert len(cluster.get("endpoints", "web")["subsets"][0]["addresses"]) >= 1
    cluster.until(lambda: cluster.get("pdb", "web")["status"].get("disruptionsAllowed") == 1, "one may go")
    used = {"pods": "3", "count/deployments.apps": "1"}
    cluster.until(lambda: cluster.get("quota", "web")["status"].get("used") == used, "the quota is counted")
    cluster.kubectl("create", "namespace", "team")
    cluster.until(
        lambda: cluster.kubectl("get", "cm", "kube-root-ca.crt", "-n", "team", check=False).count("1"), "the CA"
    )
    assert "BEGIN CERTIFICATE" in cluster.get("cm", "kube-root-ca.crt", "-n", "team")["data"]["ca.crt"]


def test_a_claim_gets_its_volume_with_its_first_pod_and_both_go(cluster: LiveCluster) -> None:
    claim = {"accessModes": ["ReadWriteOnce"], "resources": {"requests": {"storage": "64Mi"}}}
    cluster.apply({"apiVersion": "v1", "kind": "PersistentVolumeClaim", "metadata": {"name": "data"}, "spec": claim})
    cluster.until(lambda: cluster.get("pvc", "data")["status"].get("phase") == "Pending", "it waits")
    volumes = [{"name": "v", "persistentVolumeClaim": {"claimName": "data"}}]
    spec = {"containers": [{"name": "c", "image": "i"}], "volumes": volumes}
    cluster.apply({"apiVersion": "v1", "kind": "Pod", "metadata": {"name": "user"}, "spec": spec})
    cluster.until(lambda: serving(cluster) == ["user"], "the pod runs")
    bound = cluster.get("pvc", "data")
    assert (bound["status"]["phase"], bound["spec"]["storageClassName"]) == ("Bound", "standard")
    volume = cluster.get("pv", bound["spec"]["volumeName"])
    term = volume["spec"]["nodeAffinity"]["required"]["nodeSelectorTerms"][0]["matchExpressions"][0]
    assert term["values"] == [cluster.get("pod", "user")["spec"]["nodeName"]]
    cluster.kubectl("delete", "pvc", "data", "--wait=false")
    assert "deletionTimestamp" in cluster.get("pvc", "data")["metadata"], "a pod uses it"
    cluster.kubectl("delete", "pod", "user", "--wait=false")
    cluster.until(lambda: not cluster.get("pvc")["items"], "the claim is gone")
    name = volume["metadata"]["name"]
    cluster.until(lambda: "deletionTimestamp" in cluster.get("pv", name)["metadata"], "its volume follows")
    assert cluster.get("pv", name)["metadata"]["finalizers"] == ["volume.cuboid.dev/data"], "the node has the data"
