"""Workloads driven by programs that their authors wrote for Kubernetes: an old kubectl and three Python clients."""

from __future__ import annotations

import asyncio
import json
import os
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import kubernetes
import kubernetes_asyncio
import lightkube
import pytest
from lightkube.codecs import load_all_yaml
from lightkube.resources.apps_v1 import StatefulSet
from lightkube.resources.core_v1 import Pod

from tests.harness.live_cluster import LiveCluster, living

Object = dict[str, Any]
pytestmark = pytest.mark.timeout(120)
OLD = Path("build/old-kubectl/kubectl").absolute()
KUBE: Any = kubernetes  # generated code whose types say that everything may be None
KUBE_ASYNC: Any = kubernetes_asyncio
SPACE = "default"
IMAGE = "registry.example/app:{}"
SET = """
apiVersion: apps/v1
kind: StatefulSet
metadata: {name: store}
spec:
  replicas: 2
  serviceName: store
  selector: {matchLabels: {app: store}}
  template:
    metadata: {labels: {app: store}}
    spec: {containers: [{name: main, image: "registry.example/store:1"}]}
"""


@pytest.fixture(scope="module")
def cluster(tmp_path_factory: pytest.TempPathFactory) -> Iterator[LiveCluster]:
    with living(tmp_path_factory.mktemp("real"), "node-1", "node-2") as made:
        made.until(lambda: len(made.get("nodes")["items"]) == 2, "nodes")
        yield made


def deployment(name: str, replicas: int = 2, version: int = 1) -> Object:
    labels = {"app": name}
    template = {
        "metadata": {"labels": labels},
        "spec": {"containers": [{"name": "main", "image": IMAGE.format(version)}]},
    }
    spec = {"replicas": replicas, "selector": {"matchLabels": labels}, "template": template}
    return {"apiVersion": "apps/v1", "kind": "Deployment", "metadata": {"name": name}, "spec": spec}


def test_kubectl_explains_what_may_be_a_number_or_a_text(cluster: LiveCluster) -> None:
    told = cluster.kubectl("explain", "deployment.spec.strategy.rollingUpdate")
    assert "maxSurge\t<IntOrString>" in told


# --- kubectl 1.20 ----------------------------------------------------------------------------------------------------


class OldKubectl:
    def __init__(self, cluster: LiveCluster, home: Path) -> None:
        path = os.environ["PATH"]
        self._environment = {"KUBECONFIG": str(cluster.server.kubeconfig()), "HOME": str(home), "PATH": path}

    def __call__(self, *words: str, stdin: str = "", code: int = 0) -> str:
        """What it prints, errors too."""
        done = subprocess.run(
            [OLD, *words], check=False, capture_output=True, text=True, input=stdin, timeout=60, env=self._environment
        )
        assert done.returncode == code, f"{words}: {done.stdout}{done.stderr}"
        return done.stdout + done.stderr


@pytest.fixture
def old(cluster: LiveCluster, tmp_path: Path) -> OldKubectl:
    if not OLD.exists():
        pytest.skip("Debian's kubernetes-client is not there: tools/setup.sh --dev")
    return OldKubectl(cluster, tmp_path)


def images(cluster: LiveCluster, name: str) -> set[str]:
    return {pod["spec"]["containers"][0]["image"] for pod in cluster.get("pods", "-l", f"app={name}")["items"]}


def test_an_old_kubectl_rolls_out_undoes_scales_and_deletes(cluster: LiveCluster, old: OldKubectl) -> None:
    assert "created" in old("apply", "-f", "-", stdin=json.dumps(deployment("aged")))
    assert "successfully rolled out" in old("rollout", "status", "deployment/aged", "--timeout=30s")
    old("set", "image", "deployment/aged", f"main={IMAGE.format(2)}")
    old("rollout", "status", "deployment/aged", "--timeout=30s")
    cluster.until(lambda: images(cluster, "aged") == {IMAGE.format(2)}, "rolled")
    assert "registry.example/app:1" in old("rollout", "history", "deployment/aged", "--revision=1")
    old("rollout", "undo", "deployment/aged")
    old("rollout", "status", "deployment/aged", "--timeout=30s")
    cluster.until(lambda: images(cluster, "aged") == {IMAGE.format(1)}, "undone")
    assert "scaled" in old("scale", "deployment/aged", "--replicas=3")
    assert "exposed" in old("expose", "deployment/aged", "--port=80")
    old("wait", "--for=condition=available", "deployment/aged", "--timeout=30s")
    row = old("get", "deployment", "aged", "--no-headers").split()
    assert row[:4] == ["aged", "3/3", "3", "3"]
    assert "Replicas:               3 desired" in old("describe", "deployment", "aged")
    old("delete", "deployment,service", "aged", "--cascade=foreground", "--timeout=30s")
    assert cluster.get("pods", "-l", "app=aged")["items"] == []


def test_an_old_kubectl_drains_a_node_within_a_budget(cluster: LiveCluster, old: OldKubectl) -> None:
    old("apply", "-f", "-", stdin=json.dumps(deployment("moved", replicas=4)))
    old("rollout", "status", "deployment/moved", "--timeout=30s")
    cluster.kubectl("create", "pdb", "moved", "--selector=app=moved", "--min-available=3")
    assert "evicted" in old("drain", "node-1", "--ignore-daemonsets", "--timeout=50s")
    cluster.until(lambda: nodes_of(cluster, "moved") == ["node-2"] * 4, "moved")
    old("uncordon", "node-1")
    old("delete", "deployment", "moved")
    cluster.kubectl("delete", "pdb", "moved")


def nodes_of(cluster: LiveCluster, name: str) -> list[str]:
    found = cluster.get("pods", "-l", f"app={name}")["items"]
    return [p["spec"].get("nodeName", "") for p in found if "deletionTimestamp" not in p["metadata"]]


def test_an_old_kubectl_is_refused_an_eviction_that_breaks_a_budget(cluster: LiveCluster, old: OldKubectl) -> None:
    old("create", "deployment", "kept", f"--image={IMAGE.format(1)}", "--replicas=1")
    cluster.kubectl("create", "pdb", "kept", "--selector=app=kept", "--min-available=1")
    old("rollout", "status", "deployment/kept", "--timeout=30s")
    (where,) = nodes_of(cluster, "kept")
    told = old("drain", where, "--ignore-daemonsets", "--timeout=3s", code=1)
    assert "Cannot evict pod as it would violate the pod's disruption budget" in told
    old("uncordon", where)
    old("delete", "deployment", "kept")
    cluster.kubectl("delete", "pdb", "kept")


# --- kubernetes ------------------------------------------------------------------------------------------------------


@pytest.fixture
def official(cluster: LiveCluster) -> Iterator[Any]:
    client = KUBE.config.new_client_from_config(str(cluster.server.kubeconfig()))
    with client:
        yield client
    client.rest_client.pool_manager.clear()


def test_the_official_client_rolls_scales_evicts_and_deletes_in_the_foreground(
    cluster: LiveCluster, official: Any
) -> None:
    apps, core = KUBE.client.AppsV1Api(official), KUBE.client.CoreV1Api(official)
    apps.create_namespaced_deployment(SPACE, deployment("typed"))

    def rolled(replicas: int) -> bool:
        found = apps.read_namespaced_deployment_status("typed", SPACE)
        state = found.status
        current = (state.observed_generation or 0) >= found.metadata.generation
        return bool(current and state.updated_replicas == state.available_replicas == state.replicas == replicas)

    cluster.until(lambda: rolled(2), "created")
    change = {"spec": {"template": {"spec": {"containers": [{"name": "main", "image": IMAGE.format(2)}]}}}}
    apps.patch_namespaced_deployment("typed", SPACE, change)
    cluster.until(lambda: rolled(2), "rolled out")
    scale = apps.read_namespaced_deployment_scale("typed", SPACE)
    scale.spec.replicas = 3
    assert apps.replace_namespaced_deployment_scale("typed", SPACE, scale).spec.replicas == 3
    cluster.until(lambda: rolled(3), "scaled")
    pods = core.list_namespaced_pod(SPACE, label_selector="app=typed", field_selector="status.phase=Running").items
    assert {pod.spec.containers[0].image for pod in pods} == {IMAGE.format(2)}
    gone = pods[0].metadata
    eviction = KUBE.client.V1Eviction(metadata=KUBE.client.V1ObjectMeta(name=gone.name))
    core.create_namespaced_pod_eviction(gone.name, SPACE, eviction)
    cluster.until(lambda: gone.uid not in uids(core, "typed") and rolled(3), "another one is there")
    apps.delete_namespaced_deployment("typed", SPACE, propagation_policy="Foreground")
    of_typed = "metadata.name=typed"
    cluster.until(lambda: not apps.list_namespaced_deployment(SPACE, field_selector=of_typed).items, "it ends")
    assert uids(core, "typed") == set(), "its pods ended before"


def uids(core: Any, name: str) -> set[str]:
    return {pod.metadata.uid for pod in core.list_namespaced_pod(SPACE, label_selector=f"app={name}").items}


def test_the_official_client_finds_what_two_writers_do_to_each_other(cluster: LiveCluster, official: Any) -> None:
    apps = KUBE.client.AppsV1Api(official)
    made = apps.create_namespaced_deployment(SPACE, deployment("raced", replicas=1))
    apps.patch_namespaced_deployment("raced", SPACE, {"metadata": {"labels": {"first": "yes"}}})
    made.spec.replicas = 5
    with pytest.raises(KUBE.client.ApiException) as raised:
        apps.replace_namespaced_deployment("raced", SPACE, made)
    assert (raised.value.status, json.loads(raised.value.body)["reason"]) == (409, "Conflict")
    made.metadata.resource_version = None
    assert apps.replace_namespaced_deployment("raced", SPACE, made).spec.replicas == 5
    made.spec.selector.match_labels = {"app": "other"}
    with pytest.raises(KUBE.client.ApiException) as raised:
        apps.replace_namespaced_deployment("raced", SPACE, made)
    causes = json.loads(raised.value.body)["details"]["causes"]
    assert raised.value.status == 422
    assert "spec.selector" in {cause["field"] for cause in causes}
    apps.delete_namespaced_deployment("raced", SPACE)


# --- kubernetes_asyncio ----------------------------------------------------------------------------------------------


async def test_the_asynchronous_client_follows_a_job_to_its_end(cluster: LiveCluster) -> None:
    client = await KUBE_ASYNC.config.new_client_from_config(str(cluster.server.kubeconfig()))
    async with client:
        batch, core = KUBE_ASYNC.client.BatchV1Api(client), KUBE_ASYNC.client.CoreV1Api(client)
        template = {"spec": {"restartPolicy": "Never", "containers": [{"name": "main", "image": IMAGE.format(1)}]}}
        body = {"metadata": {"name": "sums"}, "spec": {"template": template, "completions": 2, "parallelism": 1}}
        made = await batch.create_namespaced_job(SPACE, body)
        since, seen = made.metadata.resource_version, []
        ending = asyncio.create_task(end_pods(core, "sums", 2))
        async with asyncio.timeout(40):
            async with KUBE_ASYNC.watch.Watch().stream(
                batch.list_namespaced_job, SPACE, resource_version=since, timeout_seconds=40
            ) as changes:
                async for change in changes:
                    status = change["object"].status
                    seen.append(status.succeeded or 0)
                    if any(row.type == "Complete" for row in status.conditions or ()):
                        break
            await ending
        assert seen == sorted(seen), "what has succeeded is never less than before"
        assert seen[-1] == 2
        await batch.delete_namespaced_job("sums", SPACE, propagation_policy="Background")
    cluster.until(lambda: not cluster.get("pods", "-l", "job-name=sums")["items"], "its pods go with it")


async def end_pods(core: Any, job: str, count: int) -> None:
    """Play the containers' end, one pod after the other."""
    done: set[str] = set()
    while len(done) < count:
        for pod in (await core.list_namespaced_pod(SPACE, label_selector=f"job-name={job}")).items:
            if pod.status.phase == "Running" and pod.metadata.name not in done:
                status = {"status": {"phase": "Succeeded"}}
                await core.patch_namespaced_pod_status(pod.metadata.name, SPACE, status)
                done.add(pod.metadata.name)
        await asyncio.sleep(0.1)


# --- lightkube -------------------------------------------------------------------------------------------------------


@pytest.fixture
def light(cluster: LiveCluster) -> Iterator[Any]:
    config = lightkube.KubeConfig.from_file(str(cluster.server.kubeconfig()))
    client: Any = lightkube.Client(config=config, namespace=SPACE, field_manager="tests", trust_env=False)
    yield client
    client._client._client.close()


def test_lightkube_applies_a_stateful_set_waits_for_it_and_deletes_it(cluster: LiveCluster, light: Any) -> None:
    for made in load_all_yaml(SET):
        light.apply(made)
    light.wait(Pod, "store-0", for_conditions=["Ready"])
    end = time.monotonic() + 30
    while (light.get(StatefulSet, "store").status.readyReplicas or 0) < 2:
        assert time.monotonic() < end
        time.sleep(0.1)
    scale = light.get(StatefulSet.Scale, "store")
    assert (scale.spec.replicas, scale.status.selector) == (2, "app=store")
    names = sorted(pod.metadata.name for pod in light.list(Pod, labels={"app": "store"}))
    assert names == ["store-0", "store-1"]
    light.delete(StatefulSet, "store", cascade=lightkube.types.CascadeType.FOREGROUND)
    cluster.until(lambda: not list(light.list(Pod, labels={"app": "store"})), "its pods are gone")
    cluster.until(lambda: not list(light.list(StatefulSet)), "and itself")
