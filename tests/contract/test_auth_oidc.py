"""Users of an OpenID Connect provider, over HTTPS with a real issuer: names, groups, forgeries, keys that change."""

from __future__ import annotations

import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import jwt
import pytest

from tests.contract.test_auth_identity import PODS, RBAC, bearing, made, whoami
from tests.harness.kube_server import ServerProcess, serving
from tests.harness.oidc import Issuer


@pytest.fixture(scope="module")
def issuer(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Issuer]:
    with Issuer(tmp_path_factory.mktemp("issuer")).running() as running:
        yield running


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory, issuer: Issuer) -> Iterator[ServerProcess]:
    settings: dict[str, Any] = {
        "oidc_issuer": issuer.url, "oidc_client_id": "cuboid", "oidc_ca_file": str(issuer.ca_file),
        "oidc_username_prefix": "sso:", "oidc_groups_claim": "groups",
    }  # fmt: skip
    with serving(tmp_path_factory.mktemp("oidc"), **settings) as running:
        yield running


def code(server: ServerProcess, token: str) -> int:
    with bearing(server, token) as client:
        return client.get("/api").status_code


def test_a_user_of_the_provider_has_its_name_groups_and_rights(server: ServerProcess, issuer: Issuer) -> None:
    token = issuer.token(groups=["devs"])
    with bearing(server, token) as client, server.http() as admin:
        assert whoami(client) == {"username": "sso:jane", "groups": ["devs", "system:authenticated"]}
        assert client.get(PODS).status_code == 403
        row = {"kind": "Group", "apiGroup": "rbac.authorization.k8s.io", "name": "devs"}
        ref = {"apiGroup": "rbac.authorization.k8s.io", "kind": "ClusterRole", "name": "view"}
        body = {"metadata": {"name": "devs"}, "roleRef": ref, "subjects": [row]}
        made(admin, f"{RBAC}/namespaces/default/rolebindings", body)
        assert client.get(PODS).status_code == 200


def test_the_provider_gives_nobody_a_group_of_the_platform(server: ServerProcess, issuer: Issuer) -> None:
    token = issuer.token(groups=["system:masters", "system:nodes", "cuboid:tenant:acme:admin", "devs"])
    with bearing(server, token) as client:
        assert whoami(client)["groups"] == ["devs", "system:authenticated"]


@pytest.mark.parametrize(
    "claims",
    [
        {"aud": "somebody-else"},
        {"iss": "https://elsewhere"},
        {"exp": 1},
        {"exp": None},
        {"nbf": 4_000_000_000},
        {"sub": ""},
        {"sub": 7},
        {"kid": "none"},
    ],
)
def test_a_token_that_is_not_for_here_is_refused(server: ServerProcess, issuer: Issuer, claims: dict[str, Any]) -> None:
    assert code(server, issuer.token(**claims)) == 401


def test_forged_tokens_are_refused(server: ServerProcess, issuer: Issuer) -> None:
    claims = jwt.decode(issuer.token(), options={"verify_signature": False})
    head, middle, signature = issuer.token().split(".")
    for forged in (
        jwt.encode(claims, "", "none", headers={"kid": "one"}),
        jwt.encode(claims, issuer.public_text(), "HS256", headers={"kid": "one"}),
        f"{head}.{middle}.{'A' * len(signature)}",
        f"{head}.{middle}.",
        "a.b.c",
        "." * 2000,
    ):
        assert code(server, forged) == 401


def test_keys_that_change_are_fetched_again_but_not_for_every_stranger(tmp_path: Path) -> None:
    (tmp_path / "i").mkdir()
    with Issuer(tmp_path / "i").running() as issuer:
        settings: dict[str, Any] = {
            "oidc_issuer": issuer.url,
            "oidc_client_id": "cuboid",
            "oidc_ca_file": str(issuer.ca_file),
        }
        with serving(tmp_path, **settings) as server:
            old = issuer.token()
            assert code(server, old) == 200
            asked = issuer.asked
            for number in range(20):
                assert code(server, issuer.token(kid=f"unknown-{number}")) == 401
            assert issuer.asked == asked, "one look in ten seconds, whoever asks"
            issuer.rotate("two")
            time.sleep(10.5)
            assert code(server, issuer.token()) == 200
            assert code(server, old) == 200, "it was good, and it expires"
            issuer.hangs = True
            with server.http() as admin:
                started = time.monotonic()
                assert admin.get("/api").status_code == 200 and time.monotonic() - started < 3
