"""The served OpenAPI against the server that serves it: whatever a request is made of, no answer is a 5xx.

schemathesis makes the requests; its seed is printed. Watches and streams are left out: they have no end.
"""

from __future__ import annotations

import json
import random
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import httpx
import pytest

from tests.contract.test_kube_crd import DEFINITIONS, GROUP, definition
from tests.harness.kube_server import ServerProcess, serving

PLACES = (
    "api/v1", "apis/apps/v1", "apis/batch/v1", "apis/rbac.authorization.k8s.io/v1", "apis/authorization.k8s.io/v1",
    f"apis/{GROUP}/v1", "apis/apiextensions.k8s.io/v1",
)  # fmt: skip
"""The last one deletes the definitions of the one before."""
SECONDS = 63
"""Of all places together."""
LEAST = 300
"""Requests that these seconds are enough for on a busy machine."""
ENDLESS = ("attach", "exec", "log", "portforward", "proxy")
PROGRAM = Path(sys.executable).with_name("schemathesis")


def bounded(http: httpx.Client, place: str) -> dict[str, Any]:
    """The document without what never ends."""
    document: dict[str, Any] = http.get(f"/openapi/v3/{place}").json()
    paths = document["paths"]
    document["paths"] = {path: item for path, item in paths.items() if path.rpartition("/")[2] not in ENDLESS}
    for item in document["paths"].values():
        for operation in item.values():
            if isinstance(operation, dict):
                kept = [one for one in operation.get("parameters", []) if one["name"] != "watch"]
                operation["parameters"] = kept
    return document


def fuzz(server: ServerProcess, file: Path, seed: int, seconds: int) -> subprocess.CompletedProcess[str]:
    command: list[str | Path] = [
        PROGRAM, "run", file, "--url", server.url, "--header", f"Authorization: Bearer {server.token}",
        "--tls-verify", server.ca_file, "--checks", "not_a_server_error", "--phases", "coverage,fuzzing",
        "--max-examples", "10", "--max-time", str(seconds), "--continue-on-failure", "--no-shrink", "--no-color",
        "--seed", str(seed), "--generation-database", "none", "--suppress-health-check", "all", "--warnings", "off",
    ]  # fmt: skip
    return subprocess.run(command, check=False, capture_output=True, text=True, cwd=file.parent, timeout=seconds + 60)


@pytest.mark.slow
@pytest.mark.timeout(240)
def test_no_request_is_answered_with_a_server_error(tmp_path: Path) -> None:
    seed = random.SystemRandom().randrange(2**32)
    print(f"schemathesis seed: {seed}")
    with serving(tmp_path) as server, server.http() as http:
        assert http.post(DEFINITIONS, json=definition()).status_code == 201
        asked = 0
        for place in PLACES:
            file = tmp_path / "document.json"
            file.write_text(json.dumps(bounded(http, place)))
            done = fuzz(server, file, seed, SECONDS // len(PLACES))
            assert done.returncode == 0, f"{place}, seed {seed}:\n{done.stdout}\n{done.stderr}\n{server.log()[-5000:]}"
            asked += sum(int(count) for count in re.findall(r"(\d+) generated", done.stdout))
        print(f"requests made: {asked}")
        assert asked >= LEAST
        assert http.get("/readyz").text == "ok"
        assert "Traceback" not in server.log()
