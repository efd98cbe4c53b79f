"""`explain`, `rollout`, `job`, `cron` and `node` against a real server with controllers and no node agent."""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any

import pytest

from tests.contract.test_cli_objects import cuboid
from tests.harness import kube_server
from tests.harness.kube_server import ServerProcess, serving

Object = dict[str, Any]
IMAGE = "registry.example/app:1"


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[ServerProcess]:
    with serving(tmp_path_factory.mktemp("cli-verbs")) as running:
        yield running


def read(server: ServerProcess, *what: str) -> Object:
    found: Object = json.loads(cuboid(server, "get", *what, "-o", "json").stdout)
    return found


def test_fields_are_explained_and_those_that_are_near_are_named(server: ServerProcess) -> None:
    said = cuboid(server, "explain", "deploy.spec").stdout
    assert said.startswith("deployment.spec <object> required   (Deployment, apps/v1)")
    assert "selector <object> required" in said and "replicas <integer>" in said
    as_json = json.loads(cuboid(server, "explain", "pod.spec.containers", "-o", "json").stdout)
    assert as_json["type"] == "[]object" and {"image", "resources"} <= {row["name"] for row in as_json["fields"]}
    assert "Ingress" in cuboid(server, "explain", "ingresses.networking.k8s.io").stdout
    wrong = cuboid(server, "explain", "deployment.spec.replica", check=False)
    assert wrong.returncode == 1 and "try: replicas" in wrong.stderr
    assert "try: " in cuboid(server, "explain", "deploymnt", check=False).stderr


def test_versions_are_listed_and_one_is_brought_back(server: ServerProcess) -> None:
    for number in (1, 2):
        cuboid(server, "deploy", f"registry.example/web:{number}", "-d")
        until_revision(server, number)
    rows = [line.split() for line in cuboid(server, "rollout", "history", "web").stdout.splitlines()[1:]]
    assert [row[:2] for row in rows] == [["1", "registry.example/web:1"], ["2", "registry.example/web:2"]]
    assert cuboid(server, "rollout", "undo", "web", "--to", "7", check=False).stderr.endswith("try: one of 1, 2\n")
    cuboid(server, "rollout", "undo", "web", "-d")
    spec = read(server, "deployment", "web")["spec"]["template"]
    assert spec["spec"]["containers"][0]["image"] == "registry.example/web:1"
    assert "pod-template-hash" not in spec["metadata"]["labels"]
    cuboid(server, "rollout", "restart", "web", "-d")
    cuboid(server, "deploy", "registry.example/web:3", "-d")
    annotations = read(server, "deployment", "web")["spec"]["template"]["metadata"]["annotations"]
    assert "kubectl.kubernetes.io/restartedAt" in annotations
    cuboid(server, "rollout", "pause", "web")
    held = cuboid(server, "rollout", "status", "web", "--timeout", "10", check=False)
    assert held.returncode == 1 and "cuboid rollout resume web" in held.stderr
    cuboid(server, "rollout", "resume", "deployment/web")
    cuboid(server, "deploy", "rm", "web", "--no-wait")


def until_revision(server: ServerProcess, number: int) -> None:
    for _ in range(50):
        text = cuboid(server, "rollout", "history", "web").stdout
        if len(text.splitlines()) == number + 1:
            return
    raise AssertionError(f"no revision {number}:\n{text}")


def test_names_that_two_jobs_want_are_refused(server: ServerProcess) -> None:
    cuboid(server, "job", IMAGE, "--name", "sums", "-d", "--count", "3", "--retries", "1", "--", "echo", "-n")
    made = read(server, "job", "sums")["spec"]
    assert (made["completions"], made["completionMode"], made["backoffLimitPerIndex"]) == (3, "Indexed", 1)
    assert made["template"]["spec"]["containers"][0]["args"] == ["echo", "-n"]
    taken = cuboid(server, "job", IMAGE, "--name", "sums", "-d", check=False)
    assert taken.returncode == 1 and "cuboid job rm sums" in taken.stderr
    assert cuboid(server, "job", "ls").stdout.splitlines()[1].split()[:4] == ["sums", IMAGE, "Running", "0/3"]
    cuboid(server, "job", "rm", "sums")
    assert cuboid(server, "get", "pods", "-o", "name").stdout == ""


def test_a_cron_job_is_set_changed_paused_and_removed_with_its_runs(server: ServerProcess) -> None:
    said = cuboid(server, "cron", "0 3 * * *", IMAGE, "--name", "tick", "--timezone", "Europe/Berlin", "--", "date")
    assert said.stdout.startswith("tick: next run ") and said.stdout.endswith("03:00 Europe/Berlin\n")
    cuboid(server, "cron", "@daily", IMAGE, "--name", "tick", "--no-overlap")
    spec = read(server, "cronjob", "tick")["spec"]
    assert (spec["schedule"], spec["concurrencyPolicy"]) == ("@daily", "Forbid")
    assert "timeZone" not in spec
    cuboid(server, "cron", "pause", "tick")
    assert "paused" in cuboid(server, "cron", "ls").stdout
    cuboid(server, "cron", "resume", "tick")
    cuboid(server, "cron", "run", "tick", "-d")
    assert len(read(server, "jobs")["items"]) == 1
    cuboid(server, "cron", "rm", "tick")
    assert read(server, "jobs")["items"] == []
    wrong = cuboid(server, "cron", "61 * * * *", IMAGE, check=False)
    assert wrong.returncode == 2 and "is no schedule" in wrong.stderr


@pytest.fixture
def node(server: ServerProcess) -> Iterator[str]:
    """A node with a pod that nobody makes again."""
    with server.http() as http:
        http.post("/api/v1/nodes", json=kube_server.node("n1")).raise_for_status()
        single = kube_server.pod("single", nodeName="n1")
        http.post("/api/v1/namespaces/default/pods", json=single).raise_for_status()
        yield "n1"
        http.request("DELETE", "/api/v1/namespaces/default/pods/single", json={"gracePeriodSeconds": 0})
        http.delete("/api/v1/nodes/n1")


def test_pods_that_nobody_makes_again_keep_a_node_from_being_drained(server: ServerProcess, node: str) -> None:
    held = cuboid(server, "node", "drain", node, check=False)
    assert held.returncode == 1
    assert "nobody would make single again" in held.stderr and "--force" in held.stderr
    assert "cordoned" in cuboid(server, "node", "ls").stdout
    cuboid(server, "node", "uncordon", node)
    assert "cordoned" not in cuboid(server, "node", "ls").stdout
    wrong = cuboid(server, "node", "cordon", "n2", check=False)
    assert wrong.returncode == 1 and "try: n1" in wrong.stderr


def test_a_published_port_shows_where_it_is_reached(server: ServerProcess, node: str) -> None:
    cuboid(server, "deploy", "registry.example/shop:1", "--publish", "8090:80", "-d")
    for _ in range(50):
        row = cuboid(server, "get", "service", "shop-public").stdout.splitlines()[1].split()
        if row[3] != "<pending>":
            break
    assert row[:2] + row[3:5] == ["shop-public", "LoadBalancer", "127.0.0.1", "8090/TCP"]
    cuboid(server, "deploy", "shop", "--name", "shop", "--publish", "none", "-d")
    assert cuboid(server, "get", "services", "-l", "app=shop", "-o", "name").stdout == "shop\n"
    cuboid(server, "delete", "deployment", "shop", "--no-wait")
