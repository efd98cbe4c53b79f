"""`cuboid tenant` against a real server, and real kubectl with the kubeconfig that it prints."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.harness.kube_server import ServerProcess, serving

BIN = Path(sys.executable).parent
Finished = subprocess.CompletedProcess[str]


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[ServerProcess]:
    with serving(tmp_path_factory.mktemp("tenant-cli")) as running:
        yield running


def run(command: list[str], *, check: bool = True, **environment: str) -> Finished:
    base = {"PATH": os.environ["PATH"], "HOME": "/nonexistent", "NO_COLOR": "1"}
    done = subprocess.run(
        command,
        check=False,
        env={**base, **environment},
        capture_output=True,
        text=True,
        timeout=60,
        stdin=subprocess.DEVNULL,
    )
    assert not check or done.returncode == 0, f"{command}: {done.stdout}{done.stderr}"
    return done


def cuboid(server: ServerProcess, *arguments: str, check: bool = True) -> Finished:
    access = {"CUBOID_SERVER": server.url, "CUBOID_TOKEN": server.token, "CUBOID_CA": str(server.ca_file)}
    return run([str(BIN / "cuboid"), *arguments], check=check, **access)


def kubectl(config: Path, *arguments: str, check: bool = True) -> Finished:
    return run([str(BIN / "kubectl"), *arguments], check=check, KUBECONFIG=str(config))


def test_a_tenant_from_its_birth_to_its_end(server: ServerProcess, tmp_path: Path) -> None:
    cuboid(server, "tenant", "create", "acme", "--quota", "pods=3", "--default", "memory=64Mi", "--weight", "5")
    cuboid(server, "tenant", "namespace", "add", "acme", "acme-ci")
    limits = json.loads(cuboid(server, "get", "tenant", "acme", "-o", "json").stdout)["spec"]
    assert (limits["quota"]["pods"], limits["quota"]["limits.memory"]) == ("3", "16Gi"), "the rest is the usual"
    assert limits["limits"][0]["default"]["memory"] == "64Mi"
    listed = cuboid(server, "tenant", "ls").stdout.splitlines()
    assert listed[1].split()[:4] == ["acme", "Active", "acme,acme-ci", "5"]

    config = tmp_path / "config"
    config.write_text(cuboid(server, "tenant", "kubeconfig", "acme", "--role", "admin", "--expires", "1h").stdout)
    kubectl(config, "create", "configmap", "mine", "--from-literal=a=b")
    assert "mine" in kubectl(config, "get", "configmaps").stdout, "in its own namespace without -n"
    assert "mine" in kubectl(config, "get", "cm", "-o", "name").stdout, "short names by discovery"
    assert kubectl(config, "auth", "can-i", "create", "deployments").stdout.strip() == "yes"
    assert kubectl(config, "auth", "can-i", "list", "nodes", check=False).stdout.strip() == "no"
    assert "cuboid:tenant:acme:" in kubectl(config, "auth", "whoami").stdout
    kubectl(config, "explain", "pods.spec")
    kubectl(config, "run", "web", "--image=i", "--dry-run=server")
    kubectl(config, "get", "namespace", "acme")
    run([str(BIN / "cuboid"), "ps"], KUBECONFIG=str(config), CUBOID_STATE_DIR=str(tmp_path / "none"))
    refused = kubectl(config, "get", "pods", "-A", check=False)
    assert refused.returncode and 'cannot list resource "pods" in API group "" at the cluster scope' in refused.stderr
    loosened = kubectl(config, "patch", "quota", "cuboid-tenant", "-p", '{"spec":{"hard":{"pods":"99"}}}', check=False)
    assert loosened.returncode and "forbidden" in loosened.stderr
    unbound = kubectl(config, "delete", "rolebinding", "cuboid-tenant-view", check=False)
    assert unbound.returncode and "kept by the platform" in unbound.stderr

    token = cuboid(server, "tenant", "token", "acme", "--role", "view").stdout.strip()
    rows = json.loads(cuboid(server, "tenant", "token", "ls", "acme", "-o", "json").stdout)["items"]
    assert len(rows) == 2 and token not in json.dumps(rows)
    for row in rows:
        cuboid(server, "tenant", "token", "revoke", row["metadata"]["name"])
    assert "Unauthorized" in kubectl(config, "get", "configmaps", check=False).stderr

    cuboid(server, "tenant", "namespace", "rm", "acme", "acme-ci")
    cuboid(server, "tenant", "rm", "acme")
    assert len(cuboid(server, "tenant", "ls").stdout.splitlines()) == 1


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (("create", "kube-system"), "is a namespace of the platform"),
        (("create", "Not_Valid"), "is invalid"),
        (("create", "x", "--quota", "pods"), "is not NAME=VALUE"),
        (("create", "x", "--weight", "1000"), "must be between 1 and 100"),
        (("create", "x", "--member", "jane"), "names no member"),
        (("create", "x", "--member", "user:system:admin"), "belongs to the platform"),
        (("token", "none"), "no tenant 'none'"),
        (("token", "none", "--expires", "soon"), "is no length of time"),
        (("rm", "none"), "not found"),
    ],
)
def test_what_makes_no_sense_is_said(server: ServerProcess, arguments: tuple[str, ...], words: str) -> None:
    done = cuboid(server, "tenant", *arguments, check=False)
    assert done.returncode and words in done.stderr, done.stderr
