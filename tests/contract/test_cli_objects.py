"""`apply`, `delete`, `get`, `scale` and `deploy` against a real server: what people type, and what they are told."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.harness.kube_server import ServerProcess, serving

BIN = Path(sys.executable).parent
Finished = subprocess.CompletedProcess[str]
MAPS = """
apiVersion: v1
kind: ConfigMap
metadata: {name: one}
data: {a: "1", day: 2026-01-02}
---
{"apiVersion": "v1", "kind": "List", "items": [
  {"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": "two"}, "data": {"b": "2"}}]}
"""
DEFINITION: dict[str, Any] = {
    "apiVersion": "apiextensions.k8s.io/v1",
    "kind": "CustomResourceDefinition",
    "metadata": {"name": "boats.sea.example"},
    "spec": {
        "group": "sea.example",
        "scope": "Namespaced",
        "names": {"kind": "Boat", "plural": "boats", "singular": "boat", "shortNames": ["bo"]},
        "versions": [
            {
                "name": "v1",
                "served": True,
                "storage": True,
                "schema": {
                    "openAPIV3Schema": {
                        "type": "object",
                        "description": "A thing that floats.",
                        "properties": {
                            "spec": {
                                "type": "object",
                                "required": ["masts"],
                                "properties": {"masts": {"type": "integer", "description": "How many masts."}},
                            }
                        },
                    }
                },
                "additionalPrinterColumns": [{"name": "Masts", "type": "integer", "jsonPath": ".spec.masts"}],
            }
        ],
    },
}
BOAT = {"apiVersion": "sea.example/v1", "kind": "Boat", "metadata": {"name": "ann"}, "spec": {"masts": 3}}


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[ServerProcess]:
    with serving(tmp_path_factory.mktemp("cli-objects")) as running:
        yield running


@pytest.fixture
def space(server: ServerProcess) -> Iterator[str]:
    """A namespace of the test's own."""
    name = f"t{time.time_ns() % 10**9}"
    with server.http() as http:
        assert http.post("/api/v1/namespaces", json={"metadata": {"name": name}}).status_code == 201
        yield name
        http.delete(f"/api/v1/namespaces/{name}")


def environment(server: ServerProcess) -> dict[str, str]:
    access = {"CUBOID_SERVER": server.url, "CUBOID_TOKEN": server.token, "CUBOID_CA": str(server.ca_file)}
    return {"PATH": os.environ["PATH"], "HOME": "/nonexistent", "NO_COLOR": "1", **access}


def cuboid(server: ServerProcess, *arguments: str, check: bool = True, stdin: str = "") -> Finished:
    done = subprocess.run(
        [str(BIN / "cuboid"), *arguments],
        check=False,
        env=environment(server),
        capture_output=True,
        text=True,
        timeout=50,
        input=stdin,
    )
    assert not check or done.returncode == 0, f"{arguments}: {done.stdout}{done.stderr}"
    return done


def test_apply_says_what_it_did_to_each_object(server: ServerProcess, space: str, tmp_path: Path) -> None:
    file = tmp_path / "maps.yaml"
    file.write_text(MAPS)
    first = cuboid(server, "apply", "-n", space, "-f", str(file), "--dry-run")
    assert first.stdout.splitlines() == ["configmap/one created (dry run)", "configmap/two created (dry run)"]
    assert cuboid(server, "get", "cm", "one", "-n", space, check=False).returncode == 1
    made = cuboid(server, "apply", "-n", space, "-f", str(file))
    assert made.stdout.splitlines() == ["configmap/one created", "configmap/two created"]
    assert json.loads(cuboid(server, "get", "configmap/one", "-n", space, "-o", "json").stdout)["data"] == {
        "a": "1",
        "day": "2026-01-02",
    }
    changed = MAPS.replace('"2"', '"3"')
    shown = cuboid(server, "apply", "-n", space, "-f", "-", "--diff", stdin=changed).stdout
    assert "-  b: '2'" in shown and "+  b: '3'" in shown and "one" not in shown
    again = cuboid(server, "apply", "-n", space, "-f", "-", stdin=changed)
    assert again.stdout.splitlines() == ["configmap/one unchanged", "configmap/two configured"]
    gone = cuboid(server, "delete", "-n", space, "-f", str(file))
    assert gone.stdout.splitlines() == ["configmap/two deleted", "configmap/one deleted"]


def test_fields_of_another_tool_are_taken_over_only_when_asked(server: ServerProcess, space: str) -> None:
    path = f"/api/v1/namespaces/{space}/configmaps/shared?fieldManager=other"
    content = {"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": "shared"}, "data": {"a": "theirs"}}
    with server.http() as http:
        http.patch(path, json=content, headers={"Content-Type": "application/apply-patch+yaml"}).raise_for_status()
    ours = json.dumps({**content, "data": {"a": "ours"}})
    refused = cuboid(server, "apply", "-n", space, "-f", "-", stdin=ours, check=False)
    assert refused.returncode == 1
    assert '"other"' in refused.stderr and "--force-conflicts" in refused.stderr
    cuboid(server, "apply", "-n", space, "-f", "-", "--force-conflicts", stdin=ours)


def test_what_can_not_be_applied_is_said_and_the_rest_is_applied(server: ServerProcess, space: str) -> None:
    bad = '\n---\n{"apiVersion": "apps/v1", "kind": "Deploymant", "metadata": {"name": "x"}}'
    done = cuboid(server, "apply", "-n", space, "-f", "-", stdin=MAPS + bad, check=False)
    assert done.returncode == 1
    assert len(done.stdout.splitlines()) == 2
    assert "stdin, document 3: there is no kind 'Deploymant'" in done.stderr and "Deployment" in done.stderr


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("a: [", "neither YAML nor JSON"),
        ("[1]", "no object"),
        ("kind: Pod", "apiVersion missing"),
        ("apiVersion: v1\nkind: Pod\nmetadata: {}", "metadata.name"),
        ("", "no object"),
        ("apiVersion: v1\nkind: ConfigMap\nmetadata: {name: x}\ndata: &a {x: *a}", "itself"),
        ("apiVersion: v1\nkind: ConfigMap\nmetadata: {name: x}\ndata: {x: !!binary aGk=}", "can not be said in JSON"),
        ("apiVersion: v1\nkind: ConfigMap\nmetadata: {name: x}\ndata: {x: .nan}", "can not be said in JSON"),
    ],
)
def test_files_that_are_none_are_refused_in_a_sentence(server: ServerProcess, text: str, said: str) -> None:
    done = cuboid(server, "apply", "-f", "-", stdin=text, check=False)
    assert done.returncode == 2
    assert said in done.stderr and "Traceback" not in done.stderr


def test_a_field_that_the_kind_does_not_have_is_refused(server: ServerProcess, space: str) -> None:
    wrong = cuboid(server, "apply", "-n", space, "-f", "-", stdin=MAPS.replace("data: {a:", "dota: {a:"), check=False)
    assert wrong.returncode == 1 and "dota" in wrong.stderr
    assert wrong.stdout == "configmap/two created\n"


def test_a_kind_and_its_first_object_are_applied_together_and_shown_in_their_columns(
    server: ServerProcess, space: str
) -> None:
    both = json.dumps(BOAT) + "\n---\n" + json.dumps(DEFINITION)
    cuboid(server, "apply", "-n", space, "-f", "-", stdin=both)
    for word in ("boats", "Boat", "bo", "boats.sea.example", "boats.v1.sea.example"):
        rows = cuboid(server, "get", word, "-n", space).stdout.splitlines()
        assert (rows[0].split(), rows[1].split()[:2]) == (["NAME", "MASTS"], ["ann", "3"])
    everywhere = cuboid(server, "get", "boats", "-A").stdout.splitlines()
    assert everywhere[1].split()[:2] == [space, "ann"]
    assert cuboid(server, "get", "boats", "-n", space, "-o", "name").stdout == "ann\n"


def test_an_unknown_kind_or_name_names_what_is_near(server: ServerProcess, space: str) -> None:
    kind = cuboid(server, "get", "deploymets", check=False)
    assert kind.returncode == 1 and "try: deployment" in kind.stderr
    cuboid(server, "apply", "-n", space, "-f", "-", stdin=MAPS)
    name = cuboid(server, "get", "cm", "onne", "-n", space, check=False)
    assert "no configmap 'onne'" in name.stderr and "try: one" in name.stderr
    none = cuboid(server, "scale", "web", "3", "-n", space, check=False)
    assert none.returncode == 1 and "no deployment 'web'" in none.stderr


def test_kinds_are_listed_and_selected_by_label(server: ServerProcess, space: str) -> None:
    kinds = cuboid(server, "get").stdout
    assert "deployments" in kinds and "cronjobs" in kinds
    labelled = MAPS.replace("name: one", "name: one, labels: {x: y}")
    cuboid(server, "apply", "-n", space, "-f", "-", stdin=labelled)
    assert cuboid(server, "get", "cm", "-l", "x=y", "-n", space, "-o", "name").stdout == "one\n"
    both = cuboid(server, "get", "cm,secrets", "-n", space).stdout
    assert "configmap/one" in both and "secret" not in both
    listed = json.loads(cuboid(server, "get", "cm,secrets", "-n", space, "-o", "json").stdout)
    assert {row["kind"] for row in listed["items"]} == {"ConfigMap"}, "one document, each object with its kind"
    assert "nothing of these" in cuboid(server, "get", "secrets,jobs", "-n", space).stdout
    assert "no secrets" in cuboid(server, "get", "secrets", "-n", space).stdout


def test_changes_are_shown_as_they_come(server: ServerProcess, space: str) -> None:
    cuboid(server, "apply", "-n", space, "-f", "-", stdin=MAPS)
    command = [str(BIN / "cuboid"), "get", "cm", "-n", space, "-w"]
    with subprocess.Popen(command, env=environment(server), stdout=subprocess.PIPE, text=True) as process:
        try:
            assert process.stdout is not None
            rows = [process.stdout.readline().split() for _ in range(3)]
            assert rows[0] == ["NAME", "DATA", "AGE"]
            changed = MAPS.replace('{a: "1",', '{a: "1", c: "2",')
            cuboid(server, "apply", "-n", space, "-f", "-", stdin=changed)
            found: list[str] = []
            while found[:2] != ["one", "3"]:
                found = process.stdout.readline().split()
        finally:
            process.kill()


def test_a_deployment_says_at_once_what_is_wrong_and_keeps_what_was_said_before(
    server: ServerProcess, space: str
) -> None:
    cuboid(
        server, "deploy", "-n", space, "registry.example/web:1", "--replicas", "2", "--port", "80", "-e", "A=1",
        "--publish", "8080:80", "-d", "--", "serve", "--all",
    )  # fmt: skip
    cuboid(server, "deploy", "-n", space, "registry.example/web:2", "-e", "B=2", "-m", "64m", "-d")
    found = json.loads(cuboid(server, "get", "deployment", "web", "-n", space, "-o", "json").stdout)
    container = found["spec"]["template"]["spec"]["containers"][0]
    assert found["spec"]["replicas"] == 2
    assert container["image"] == "registry.example/web:2"
    assert container["args"] == ["serve", "--all"]
    assert {row["name"]: row["value"] for row in container["env"]} == {"A": "1", "B": "2"}
    assert container["readinessProbe"]["tcpSocket"]["port"] == 80
    assert container["resources"]["limits"] == {"memory": "64Mi"}
    services = json.loads(cuboid(server, "get", "services", "-n", space, "-o", "json").stdout)["items"]
    ports = {row["metadata"]["name"]: (row["spec"]["type"], row["spec"]["ports"][0]["port"]) for row in services}
    assert ports == {"web": ("ClusterIP", 80), "web-public": ("LoadBalancer", 8080)}
    listed = cuboid(server, "deploy", "ls", "-n", space).stdout.splitlines()[1].split()
    assert listed[:5] == ["web", "registry.example/web:2", "0/2", "http://web", "http://localhost:8080"]
    pod = {"containers": [{"name": "c", "image": "i", "ports": [{"containerPort": 1, "hostPort": 8081}]}]}
    single = {"apiVersion": "v1", "kind": "Pod", "metadata": {"name": "single"}, "spec": pod}
    cuboid(server, "apply", "-n", space, "-f", "-", stdin=json.dumps(single))
    taken = cuboid(server, "deploy", "-n", space, "registry.example/b:1", "--publish", "8081:80", "-d", check=False)
    assert taken.returncode == 1 and "port 8081 is published by pod single" in taken.stderr
    taken = cuboid(server, "deploy", "-n", space, "registry.example/b:1", "--publish", "8080:80", "-d", check=False)
    assert taken.returncode == 1 and "port 8080 is published by web" in taken.stderr
    cuboid(server, "scale", "web", "4", "-n", space, "-d")
    cuboid(server, "deploy", "-n", space, "registry.example/web:3", "-d", "--publish", "none")
    found = json.loads(cuboid(server, "get", "deployment", "web", "-n", space, "-o", "json").stdout)
    assert found["spec"]["replicas"] == 4
    waited = cuboid(server, "scale", "web", "1", "-n", space, "--timeout", "1", check=False)
    assert waited.returncode == 4 and "Traceback" not in waited.stderr
    meant = cuboid(server, "rm", "web", "-n", space, check=False)
    assert meant.returncode == 1 and "it is a deployment: cuboid rollout restart web" in meant.stderr
    cuboid(server, "deploy", "rm", "web", "-n", space, "--no-wait")
    assert cuboid(server, "get", "services", "-n", space, "-o", "name").stdout == ""


def test_what_another_tool_made_is_not_taken_over(server: ServerProcess, space: str) -> None:
    service = {"apiVersion": "v1", "kind": "Service", "metadata": {"name": "web"}, "spec": {"ports": [{"port": 1}]}}
    cuboid(server, "apply", "-n", space, "-f", "-", stdin=json.dumps(service))
    done = cuboid(server, "deploy", "-n", space, "registry.example/web:1", "--port", "80", "-d", check=False)
    assert done.returncode == 1
    assert "service web was not made by cuboid deploy" in done.stderr
    refused = cuboid(server, "deploy", "-n", space, " i:1", "--name", "b", "--port", "80", "-d", check=False)
    assert refused.returncode == 2 and "image" in refused.stderr
    assert cuboid(server, "get", "services", "-n", space, "-o", "name").stdout == "web\n", "nothing is half made"


def test_a_volume_makes_it_one_pod_that_ends_before_the_next_starts(server: ServerProcess, space: str) -> None:
    cuboid(server, "deploy", "-n", space, "registry.example/db:1", "-d")
    cuboid(server, "deploy", "-n", space, "registry.example/db:1", "-v", "data:/data", "-d")
    spec = json.loads(cuboid(server, "get", "deployment/db", "-n", space, "-o", "json").stdout)["spec"]
    assert spec["strategy"] == {"type": "Recreate"}
    two = cuboid(server, "deploy", "-n", space, "registry.example/db:2", "--replicas", "2", "-d", check=False)
    assert two.returncode == 2 and "can not share the volume" in two.stderr
    cuboid(server, "deploy", "-n", space, "registry.example/db:2", "--fresh", "--replicas", "2", "-d")
    spec = json.loads(cuboid(server, "get", "deployment/db", "-n", space, "-o", "json").stdout)["spec"]
    assert spec["strategy"]["type"] == "RollingUpdate" and "volumes" not in spec["template"]["spec"]
