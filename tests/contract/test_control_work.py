"""Work that ends, what is owned, and namespaces: with kubectl, on a real server process with pretended nodes."""

from __future__ import annotations

import json
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest

from tests.harness.kube_server import ServerProcess
from tests.harness.live_cluster import LiveCluster, living

Object = dict[str, Any]
JSON_MERGE = {"Content-Type": "application/merge-patch+json"}


@pytest.fixture(scope="module")
def cluster(tmp_path_factory: pytest.TempPathFactory) -> Iterator[LiveCluster]:
    with living(tmp_path_factory.mktemp("server")) as found:
        yield found


@pytest.fixture(scope="module")
def http(cluster: LiveCluster) -> Iterator[httpx.Client]:
    with cluster.server.http() as client:
        yield client


def job(name: str, namespace: str = "default", **spec: Any) -> Object:
    pod = {"restartPolicy": "Never", "containers": [{"name": "main", "image": "registry.example/sums:1"}]}
    template = {"spec": pod}
    metadata = {"name": name, "namespace": namespace}
    return {"apiVersion": "batch/v1", "kind": "Job", "metadata": metadata, "spec": {"template": template, **spec}}


def running(cluster: LiveCluster, owner: str) -> list[str]:
    found = cluster.get("pods", "-l", f"job-name={owner}")["items"]
    return [pod["metadata"]["name"] for pod in found if pod.get("status", {}).get("phase") == "Running"]


def finish(http: httpx.Client, pod: str, code: int = 0) -> None:
    ended = {"name": "main", "image": "x", "imageID": "x", "ready": False, "restartCount": 0}
    ended["state"] = {
        "terminated": {"exitCode": code, "finishedAt": time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime())}
    }
    body = {"status": {"phase": "Failed" if code else "Succeeded", "containerStatuses": [ended]}}
    path = f"/api/v1/namespaces/default/pods/{pod}/status"
    answer = http.patch(path, content=json.dumps(body), headers=JSON_MERGE)
    assert answer.status_code == 200, answer.text


def test_kubectl_waits_for_an_indexed_job_and_sees_its_numbers(cluster: LiveCluster, http: httpx.Client) -> None:
    cluster.apply(job("numbers", completions=3, parallelism=2, completionMode="Indexed", ttlSecondsAfterFinished=3600))
    done = 0
    while done < 3:
        cluster.until(lambda: running(cluster, "numbers"), "no pod runs")
        for pod in running(cluster, "numbers"):
            finish(http, pod)
            done += 1
    cluster.kubectl("wait", "--for=condition=complete", "job/numbers", "--timeout=20s")
    status = cluster.get("job", "numbers")["status"]
    assert (status["succeeded"], status["completedIndexes"]) == (3, "0-2")
    assert "Complete" in cluster.kubectl("get", "jobs", "numbers")
    told = cluster.kubectl("describe", "job", "numbers")
    assert "SuccessfulCreate" in told
    assert "Completed Indexes: 0-2" in " ".join(told.split())


def test_a_job_that_fails_for_good_says_why(cluster: LiveCluster, http: httpx.Client) -> None:
    rule = {"action": "FailJob", "onExitCodes": {"operator": "In", "values": [42]}}
    cluster.apply(job("fatal", podFailurePolicy={"rules": [rule]}))
    cluster.until(lambda: running(cluster, "fatal"), "no pod runs")
    finish(http, running(cluster, "fatal")[0], 42)
    cluster.kubectl("wait", "--for=condition=failed", "job/fatal", "--timeout=20s")
    assert "failed with exit code 42 matching FailJob rule at index 0" in cluster.kubectl("describe", "job", "fatal")


def test_a_cron_job_starts_work_by_hand_and_by_the_clock(cluster: LiveCluster, http: httpx.Client) -> None:
    cluster.kubectl(
        "create", "cronjob", "night", "--image=registry.example/sums:1", "--schedule=0 3 * * *", "--", "sum"
    )
    cluster.kubectl("create", "job", "now", "--from=cronjob/night")
    cluster.until(lambda: running(cluster, "now"), "the job made by hand does not run")
    finish(http, running(cluster, "now")[0])
    cluster.kubectl("wait", "--for=condition=complete", "job/now", "--timeout=20s")
    cluster.until(lambda: cluster.get("cronjob", "night").get("status", {}).get("lastSuccessfulTime"), "no success")
    assert "active" not in cluster.get("cronjob", "night")["status"]
    cluster.kubectl("patch", "cronjob", "night", "-p", '{"spec":{"schedule":"@every 1s","concurrencyPolicy":"Forbid"}}')
    cluster.until(lambda: cluster.get("cronjob", "night")["status"].get("active"), "nothing is started")
    assert "night" in cluster.kubectl("get", "cronjobs")
    cluster.kubectl("delete", "cronjob", "night", "--cascade=foreground", "--timeout=30s")
    cluster.until(lambda: not running(cluster, "now"), "its jobs stay")


@pytest.mark.parametrize("cascade", ["background", "foreground"])
def test_kubectl_deletes_a_job_with_its_pods(cluster: LiveCluster, cascade: str) -> None:
    name = f"gone-{cascade}"
    cluster.apply(job(name, completions=2, parallelism=2))
    cluster.until(lambda: len(running(cluster, name)) == 2, "no pod runs")
    cluster.kubectl("delete", "job", name, f"--cascade={cascade}", "--timeout=30s")
    cluster.until(lambda: not cluster.get("pods", "-l", f"job-name={name}")["items"], "its pods stay")


def test_kubectl_leaves_the_pods_of_a_job_that_is_deleted_as_orphans(cluster: LiveCluster) -> None:
    cluster.apply(job("leaves"))
    cluster.until(lambda: running(cluster, "leaves"), "no pod runs")
    cluster.kubectl("delete", "job", "leaves", "--cascade=orphan", "--timeout=30s")

    def alone() -> bool:
        metadata = cluster.get("pods", "-l", "job-name=leaves")["items"][0]["metadata"]
        return not metadata.get("ownerReferences") and not metadata.get("finalizers")

    cluster.until(alone, "the pod still names its owner")
    assert running(cluster, "leaves")


DEFINITION: Object = {
    "apiVersion": "apiextensions.k8s.io/v1",
    "kind": "CustomResourceDefinition",
    "metadata": {"name": "boxes.test.example.com"},
    "spec": {
        "group": "test.example.com",
        "scope": "Namespaced",
        "names": {"plural": "boxes", "singular": "box", "kind": "Box"},
        "versions": [
            {
                "name": "v1",
                "served": True,
                "storage": True,
                "schema": {"openAPIV3Schema": {"type": "object", "x-kubernetes-preserve-unknown-fields": True}},
            }
        ],
    },
}


def box(name: str, namespace: str, **metadata: Any) -> Object:
    place = {"name": name, "namespace": namespace, **metadata}
    return {"apiVersion": "test.example.com/v1", "kind": "Box", "metadata": place}


def test_custom_resources_own_are_owned_and_go_with_their_namespace(cluster: LiveCluster) -> None:
    cluster.apply(DEFINITION)
    cluster.kubectl("wait", "--for=condition=established", "crd/boxes.test.example.com", "--timeout=20s")
    time.sleep(2)  # the collector follows new kinds from a second after they are served
    cluster.kubectl("create", "namespace", "boxed")
    cluster.apply(box("outer", "boxed"))
    uid = cluster.get("box", "outer", "-n", "boxed")["metadata"]["uid"]
    ref = {"apiVersion": "test.example.com/v1", "kind": "Box", "name": "outer", "uid": uid}
    cluster.apply(box("inner", "boxed", ownerReferences=[ref]))
    metadata = {"name": "note", "namespace": "boxed", "ownerReferences": [ref]}
    cluster.apply({"apiVersion": "v1", "kind": "ConfigMap", "metadata": metadata})
    cluster.kubectl("delete", "box", "outer", "-n", "boxed")
    cluster.until(lambda: not cluster.get("boxes", "-n", "boxed")["items"], "the inner box stays")
    cluster.until(lambda: "note" not in cluster.kubectl("get", "cm", "-n", "boxed"), "the note stays")
    cluster.apply(box("last", "boxed"))
    cluster.kubectl("delete", "namespace", "boxed", "--timeout=30s")
    assert "boxed" not in cluster.kubectl("get", "boxes", "-A", check=False)


def test_a_namespace_with_everything_in_it_goes(cluster: LiveCluster) -> None:
    cluster.kubectl("create", "namespace", "full")
    cluster.apply(job("work", "full", completions=5, parallelism=3))
    cluster.kubectl("create", "deployment", "web", "-n", "full", "--image=registry.example/web:1", "--replicas=2")
    cluster.kubectl("create", "configmap", "settings", "-n", "full")
    cluster.until(lambda: len(cluster.get("pods", "-n", "full")["items"]) == 5, "not all pods are there")
    cluster.kubectl("delete", "namespace", "full", "--timeout=60s", seconds=90)
    assert "full" not in cluster.kubectl("get", "namespaces")


def test_beside_the_server_over_http_work_ends_and_garbage_goes_too(tmp_path: Path) -> None:
    with living(tmp_path, controllers="false") as cluster, cluster.server.http() as http:
        words = ["-m", "cuboid.controllers", "--all", "--kubeconfig", str(cluster.server.kubeconfig())]
        with (tmp_path / "controllers.log").open("ab") as log:
            beside = subprocess.Popen([sys.executable, *words], stdout=log, stderr=log)
        try:
            cluster.kubectl("create", "namespace", "full")
            cluster.kubectl("create", "configmap", "settings", "-n", "full")
            cluster.apply(job("sums", completions=2, parallelism=2))
            cluster.until(lambda: len(running(cluster, "sums")) == 2, "no pod runs")
            for pod in running(cluster, "sums"):
                finish(http, pod)
            cluster.kubectl("wait", "--for=condition=complete", "job/sums", "--timeout=20s")
            cluster.kubectl("delete", "job", "sums", "--cascade=foreground", "--timeout=30s")
            assert not cluster.get("pods", "-l", "job-name=sums")["items"]
            cluster.kubectl("delete", "namespace", "full", "--timeout=30s")
        finally:
            beside.terminate()
            beside.wait(15)


def test_garbage_that_was_left_by_a_killed_server_is_collected_by_the_next(tmp_path: Path) -> None:
    server = ServerProcess(tmp_path)
    server.start()
    try:
        with server.http() as http:
            maps = "/api/v1/namespaces/default/configmaps"
            owner = http.post(maps, json={"metadata": {"name": "owner"}}).json()["metadata"]["uid"]
            ref = {"apiVersion": "v1", "kind": "ConfigMap", "name": "owner", "uid": owner}
            for number in range(30):
                metadata = {"name": f"child-{number}", "ownerReferences": [ref]}
                assert http.post(maps, json={"metadata": metadata}).status_code == 201
            http.delete(f"{maps}/owner")
        server.kill()
        server.start()
        with server.http() as http:
            end = time.monotonic() + 20
            while any(one["metadata"]["name"].startswith("child") for one in http.get(maps).json()["items"]):
                assert time.monotonic() < end, server.log()[-3000:]
                time.sleep(0.2)
    finally:
        server.kill()
