"""Every write, every entry into a pod and every refusal of one is in the audit log, and no secret is."""

from __future__ import annotations

import json
import time
from pathlib import Path
from typing import Any

from tests.contract.test_auth_identity import ACCOUNTS, PODS, bearing, made, tenant_token
from tests.harness.kube_server import pod, serving

SECRET = "nobody-writes-this-down"
Object = dict[str, Any]


def events(folder: Path, wanted: int, *, until: float = 10.0) -> list[Object]:
    """Those of users other than the platform's, once there are as many."""
    end = time.monotonic() + until
    while True:
        text = (folder / "data/audit/audit.log").read_text() if (folder / "data/audit/audit.log").exists() else ""
        found = [json.loads(line) for line in text.splitlines()]
        mine = [row for row in found if not row["user"].get("username", "").startswith("system:node")]
        if len(mine) >= wanted or time.monotonic() > end:
            return mine
        time.sleep(0.1)


def brief(row: Object) -> tuple[Any, ...]:
    ref = row.get("objectRef", {})
    name, sub = ref.get("name", ""), ref.get("subresource", "")
    return (row["user"].get("username"), row["verb"], ref.get("resource"), name, sub, row["responseStatus"]["code"])


def test_who_did_what_is_written_down(tmp_path: Path) -> None:
    with serving(tmp_path) as server, server.http() as admin:
        made(admin, "/api/v1/namespaces/default/secrets", {"metadata": {"name": "s"}, "stringData": {"a": SECRET}})
        made(admin, PODS, pod("web"))
        admin.get(PODS)
        admin.get(f"{PODS}/web/log")
        admin.get(f"{PODS}/web/exec?command={SECRET}")
        token = made(admin, f"{ACCOUNTS}/default/token", {"spec": {}})["status"]["token"]
        admin.get("/api", headers={"Impersonate-User": "jane"})
        tenant = tenant_token(admin, "acme", "t")
        with bearing(server, tenant) as acme:
            acme.delete(f"{PODS}/web")
            acme.get("/api/v1/secrets", headers={"Impersonate-User": "cuboid-admin"})
        with bearing(server, "wrong") as stranger:
            stranger.delete(f"{PODS}/web")
        found = [brief(row) for row in events(server.folder, 11)]
        for expected in (
            ("cuboid-admin", "create", "secrets", "s", "", 201),
            ("cuboid-admin", "create", "pods", "web", "", 201),
            ("cuboid-admin", "get", "pods", "web", "log", 200),
            ("cuboid-admin", "create", "pods", "web", "exec", 400),
            ("cuboid-admin", "create", "serviceaccounts", "default", "token", 201),
            ("cuboid-admin", "create", "tokens", "t", "", 201),
            ("cuboid:tenant:acme:t", "delete", "pods", "web", "", 403),
            ("cuboid:tenant:acme:t", "list", "secrets", "", "", 403),
            (None, "delete", "pods", "web", "", 401),
        ):
            assert expected in found, (expected, found)
        reading = [row for row in found if row[1] == "list" and row[-1] < 400]
        assert not reading, "it is not written down, unlike the attempt to do so as somebody else"
        rows = events(server.folder, 11)
        acting = [row for row in rows if "impersonatedUser" in row]
        assert acting and acting[0]["impersonatedUser"]["username"] == "jane"
        assert all(row["level"] == "Metadata" and row["auditID"] and row["sourceIPs"] for row in rows)
        text = (server.folder / "data/audit/audit.log").read_text()
        assert SECRET not in text and token not in text and tenant not in text


def test_without_a_size_there_is_no_audit_log(tmp_path: Path) -> None:
    with serving(tmp_path, audit_mib="0") as server, server.http() as admin:
        made(admin, PODS, pod("web"))
        assert not (server.folder / "data/audit").exists()
