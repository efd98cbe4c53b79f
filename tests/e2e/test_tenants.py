"""Two tenants on one platform, with real kubectl and real machines: each works as if it were alone."""

from __future__ import annotations

import json
import time
from pathlib import Path

import pytest

from tests.e2e.conftest import image
from tests.harness.platform import VENV, Finished, Platform

pytestmark = [pytest.mark.e2e, pytest.mark.vm, pytest.mark.timeout(300)]
KUBECTL = str(VENV / "kubectl")


def config_of(place: Platform, tenant: str) -> Path:
    place.cuboid("tenant", "create", tenant, "--quota", "pods=1", "--default", "memory=64Mi")
    path = place.home / f"{tenant}.config"
    path.write_text(place.cuboid("tenant", "kubeconfig", tenant).stdout)
    return path


def kubectl(place: Platform, config: Path, *arguments: str, check: bool = True) -> Finished:
    return place.run([KUBECTL, f"--kubeconfig={config}", *arguments], timeout=120, check=check)


def test_tenants_have_machines_of_their_own_and_no_way_to_each_others(place: Platform) -> None:
    acme, rival = config_of(place, "acme"), config_of(place, "rival")
    try:
        command = ["sh", "-c", "echo hello from acme; exec sleep 600"]
        kubectl(place, acme, "run", "mine", f"--image={image('busybox')}", "--command", "--", *command)
        kubectl(place, acme, "wait", "--for=condition=Ready", "pod/mine", "--timeout=100s")
        until = time.monotonic() + 20
        while "hello from acme" not in kubectl(place, acme, "logs", "mine").stdout:
            assert time.monotonic() < until, "its words do not come"
            time.sleep(0.2)
        assert kubectl(place, acme, "exec", "mine", "--", "id", "-u").stdout.strip() == "0"
        second = kubectl(place, acme, "run", "more", f"--image={image('busybox')}", check=False)
        assert "exceeded quota" in second.stderr
        for arguments in (
            ["get", "pod", "mine"],
            ["logs", "mine"],
            ["exec", "mine", "--", "id"],
            ["delete", "pod", "mine"],
        ):
            refused = kubectl(place, rival, "-n", "acme", *arguments, check=False)
            assert refused.returncode and "forbidden" in refused.stderr.lower(), refused.stderr
        _the_agent_is_itself(place)
        _an_open_session_ends_with_its_token(place, acme)
    finally:
        place.cuboid("tenant", "rm", "acme", "rival", timeout=180)
    assert json.loads(place.cuboid("ps", "-a", "-A", "-o", "json").stdout)["items"] == []


def _the_agent_is_itself(place: Platform) -> None:
    """The node agent reports with the identity of its node, not with the administrator's."""
    text = (place.state / "server/data/audit/audit.log").read_text()
    rows = [json.loads(line) for line in text.splitlines()]
    reports = [
        row for row in rows if row.get("objectRef", {}).get("subresource") == "status" and row["verb"] == "patch"
    ]
    names = {row["user"]["username"] for row in reports if row["objectRef"]["resource"] == "pods"}
    assert names and all(name.startswith("system:node:") for name in names), names


def _an_open_session_ends_with_its_token(place: Platform, config: Path) -> None:
    session = [KUBECTL, f"--kubeconfig={config}", "exec", "mine", "--", "sleep", "500"]
    with place.started(session) as process:
        time.sleep(3)
        assert process.poll() is None
        rows = json.loads(place.cuboid("tenant", "token", "ls", "acme", "-o", "json").stdout)["items"]
        for row in rows:
            place.cuboid("tenant", "token", "revoke", row["metadata"]["name"])
        started = time.monotonic()
        process.wait(timeout=20)
        assert time.monotonic() - started < 6
    refused = kubectl(place, config, "get", "pods", check=False).stderr
    assert "Unauthorized" in refused or "logged in" in refused, refused
