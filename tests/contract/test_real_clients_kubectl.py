"""kubectl's rarer commands against a real server: sets of objects, force, taints, autoscalers, paths, waits."""

from __future__ import annotations

import json
import os
import re
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.harness.live_cluster import KUBECTL, LiveCluster, living

Object = dict[str, Any]
pytestmark = pytest.mark.timeout(120)
KUSTOMIZATION = """
namespace: layered
namePrefix: test-
labels: [{pairs: {team: blue}, includeSelectors: true}]
resources: [web.json]
configMapGenerator: [{name: settings, literals: [color=red]}]
"""


@pytest.fixture(scope="module")
def cluster(tmp_path_factory: pytest.TempPathFactory) -> Iterator[LiveCluster]:
    with living(tmp_path_factory.mktemp("rare"), "node-1") as made:
        made.until(lambda: made.get("nodes")["items"], "nodes")
        yield made


def config_map(name: str, **labels: str) -> Object:
    return {"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": name, "labels": labels}, "data": {"a": "1"}}


def deployment(name: str) -> Object:
    labels = {"app": name}
    spec = {"containers": [{"name": "main", "image": "registry.example/app:1"}]}
    template = {"metadata": {"labels": labels}, "spec": spec}
    body = {"selector": {"matchLabels": labels}, "template": template}
    return {"apiVersion": "apps/v1", "kind": "Deployment", "metadata": {"name": name}, "spec": body}


def many(*objects: Object) -> str:
    return json.dumps({"apiVersion": "v1", "kind": "List", "items": list(objects)})


def names(cluster: LiveCluster, kind: str, *words: str) -> list[str]:
    return [row["metadata"]["name"] for row in cluster.get(kind, *words)["items"]]


def test_what_is_no_longer_in_the_files_is_pruned(cluster: LiveCluster) -> None:
    words = ("apply", "--prune", "-l", "set=pruned", "--prune-allowlist=core/v1/ConfigMap", "-f", "-")
    cluster.kubectl(*words, stdin=many(config_map("stays", set="pruned"), config_map("goes", set="pruned")))
    cluster.apply(config_map("stranger"))
    assert "configmap/goes pruned" in cluster.kubectl(*words, stdin=many(config_map("stays", set="pruned")))
    assert {"stays", "stranger"} <= set(names(cluster, "configmaps"))
    assert names(cluster, "configmaps", "-l", "set=pruned") == ["stays"]


def test_a_set_of_objects_is_applied_and_pruned_by_its_parent(cluster: LiveCluster) -> None:
    cluster.kubectl("create", "namespace", "sets")
    words = [str(KUBECTL), "--kubeconfig", str(cluster.server.kubeconfig()), "-n", "sets"]
    words += ["apply", "--prune", "--applyset=parent", "-f", "-"]

    def applied(*objects: Object) -> str:
        done = subprocess.run(
            words, input=many(*objects), capture_output=True, text=True, timeout=60, check=False,
            env={**os.environ, "KUBECTL_APPLYSET": "true"},
        )  # fmt: skip
        assert done.returncode == 0, done.stderr
        return done.stdout

    applied(config_map("first"), deployment("second"))
    assert "deployment.apps/second pruned" in applied(config_map("first"))
    parent = cluster.get("secret", "parent", "-n", "sets")["metadata"]
    assert parent["labels"]["applyset.kubernetes.io/id"].startswith("applyset-")
    assert names(cluster, "deployments", "-n", "sets") == []
    cluster.kubectl("delete", "namespace", "sets", "--timeout=30s")


def test_layers_of_files_are_applied_and_deleted(cluster: LiveCluster, tmp_path: Path) -> None:
    (tmp_path / "kustomization.yaml").write_text(KUSTOMIZATION)
    (tmp_path / "web.json").write_text(json.dumps(deployment("web")))
    cluster.kubectl("create", "namespace", "layered")
    cluster.kubectl("apply", "-k", str(tmp_path))
    cluster.kubectl("rollout", "status", "deployment/test-web", "-n", "layered", "--timeout=30s")
    (pod,) = cluster.get("pods", "-n", "layered")["items"]
    assert (pod["metadata"]["labels"]["team"], pod["metadata"]["labels"]["app"]) == ("blue", "web")
    assert any(re.fullmatch(r"test-settings-[a-z0-9]{10}", name) for name in names(cluster, "cm", "-n", "layered"))
    cluster.kubectl("delete", "-k", str(tmp_path))
    cluster.until(lambda: not cluster.get("pods", "-n", "layered")["items"], "its pods go")
    cluster.kubectl("delete", "namespace", "layered", "--timeout=30s")


def test_what_can_not_be_changed_is_replaced_by_force(cluster: LiveCluster) -> None:
    cluster.apply(deployment("forced"))
    before = cluster.get("deployment", "forced")["metadata"]["uid"]
    other = deployment("forced")
    other["spec"]["selector"]["matchLabels"]["more"] = "yes"
    other["spec"]["template"]["metadata"]["labels"]["more"] = "yes"
    assert "field is immutable" in cluster.kubectl("replace", "-f", "-", stdin=json.dumps(other), check=False)
    cluster.kubectl("replace", "--force", "-f", "-", stdin=json.dumps(other))
    assert cluster.get("deployment", "forced")["metadata"]["uid"] != before
    cluster.kubectl("rollout", "status", "deployment/forced", "--timeout=30s")
    cluster.kubectl("delete", "deployment", "forced")


def test_a_workload_is_set_restarted_exposed_and_scaled_by_numbers(cluster: LiveCluster) -> None:
    cluster.kubectl("create", "deployment", "tuned", "--image=registry.example/app:1", "--port=8080")
    cluster.kubectl("create", "serviceaccount", "worker")
    cluster.kubectl("set", "resources", "deployment/tuned", "--limits=cpu=200m,memory=64Mi")
    cluster.kubectl("set", "serviceaccount", "deployment/tuned", "worker")
    cluster.kubectl("set", "env", "deployment/tuned", "COLOR=red")
    cluster.kubectl("rollout", "restart", "deployment/tuned")
    cluster.kubectl("rollout", "status", "deployment/tuned", "--timeout=30s")
    spec = cluster.get("deployment", "tuned")["spec"]["template"]["spec"]
    assert spec["serviceAccountName"] == "worker"
    assert spec["containers"][0]["resources"]["limits"] == {"cpu": "200m", "memory": "64Mi"}
    assert "COLOR=red" in cluster.kubectl("set", "env", "deployment/tuned", "--list")
    cluster.kubectl("expose", "deployment", "tuned", "--port=80", "--target-port=8080")
    cluster.until(lambda: "8080" in cluster.kubectl("get", "endpoints", "tuned"), "the service has its pod")
    cluster.kubectl("autoscale", "deployment", "tuned", "--min=1", "--max=3", "--cpu=50%")
    assert cluster.get("hpa", "tuned")["spec"]["maxReplicas"] == 3
    assert "tuned" in cluster.kubectl("get", "all", "-l", "app=tuned", "-o", "name")
    cluster.kubectl("delete", "deployment,service,hpa", "tuned")
    cluster.kubectl("delete", "serviceaccount", "worker")


def test_a_taint_keeps_pods_away_and_sends_them_off(cluster: LiveCluster) -> None:
    cluster.kubectl("run", "steady", "--image=registry.example/app:1")
    cluster.kubectl("wait", "--for=condition=ready", "pod/steady", "--timeout=20s")
    cluster.kubectl("taint", "node", "node-1", "only=us:NoSchedule")
    cluster.kubectl("run", "kept-away", "--image=registry.example/app:1")
    cluster.until(lambda: "untolerated taint" in cluster.kubectl("describe", "pod", "kept-away"), "it is said why")
    cluster.kubectl("taint", "node", "node-1", "only=us:NoExecute")
    cluster.kubectl("wait", "--for=delete", "pod/steady", "--timeout=20s")
    cluster.kubectl("taint", "node", "node-1", "only-")
    cluster.kubectl("wait", "--for=condition=ready", "pod/kept-away", "--timeout=30s")
    cluster.kubectl("delete", "pod", "kept-away")


def test_the_server_is_described_and_asked_by_its_paths(cluster: LiveCluster) -> None:
    version = json.loads(cluster.kubectl("version", "-o", "json"))
    assert version["serverVersion"]["major"] == "1"
    assert "is running at" in cluster.kubectl("cluster-info")
    assert cluster.kubectl("get", "--raw", "/readyz") == "ok"
    assert "[+]" in cluster.kubectl("get", "--raw", "/livez?verbose")
    body = json.dumps(config_map("raw"))
    cluster.kubectl("create", "--raw", "/api/v1/namespaces/default/configmaps", "-f", "-", stdin=body)
    assert "server dry run" in cluster.kubectl("delete", "cm", "raw", "--dry-run=server")
    cluster.kubectl("delete", "--raw", "/api/v1/namespaces/default/configmaps/raw")
    assert "NotFound" in cluster.kubectl("get", "cm", "raw", check=False)


def test_a_wait_ends_when_what_it_waits_for_is_made_changed_and_gone(cluster: LiveCluster) -> None:
    words = [str(KUBECTL), "--kubeconfig", str(cluster.server.kubeconfig()), "wait", "cm/awaited", "--timeout=20s"]

    def waiting(what: str) -> subprocess.Popen[bytes]:
        made = subprocess.Popen([*words, what], stdout=subprocess.DEVNULL)
        time.sleep(1)
        assert made.poll() is None
        return made

    made = waiting("--for=create")
    cluster.apply(config_map("awaited"))
    assert made.wait(20) == 0
    changed = waiting("--for=jsonpath={.data.a}=2")
    cluster.kubectl("patch", "cm", "awaited", "-p", '{"data": {"a": "2"}}')
    assert changed.wait(20) == 0
    gone = waiting("--for=delete")
    cluster.kubectl("delete", "cm", "awaited")
    assert gone.wait(20) == 0
