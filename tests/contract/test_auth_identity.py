"""Identity and rights over real HTTPS: every kind of credential, impersonation, reviews, and what ends with a right."""

from __future__ import annotations

import base64
import hashlib
import json
import ssl
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import jwt
import pytest

from cuboid.server.tls import Authority, client_context
from tests.harness.kube_server import ServerProcess, pod, serving

ACCOUNTS = "/api/v1/namespaces/default/serviceaccounts"
PODS = "/api/v1/namespaces/default/pods"
RBAC = "/apis/rbac.authorization.k8s.io/v1"
CUBOID = "/apis/cuboid.dev/v1"
AUTHN, AUTHZ = "/apis/authentication.k8s.io/v1", "/apis/authorization.k8s.io/v1"
Object = dict[str, Any]


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[ServerProcess]:
    with serving(tmp_path_factory.mktemp("auth")) as running:
        yield running


@pytest.fixture(scope="module")
def admin(server: ServerProcess) -> Iterator[httpx.Client]:
    with server.http() as client:
        yield client


def made(client: httpx.Client, path: str, body: Object, code: int = 201) -> Object:
    answer = client.post(path, json=body)
    assert answer.status_code == code, answer.text
    found: Object = answer.json()
    return found


def bearing(server: ServerProcess, token: str) -> httpx.Client:
    context = client_context(server.ca_file)
    headers = {"Authorization": f"Bearer {token}"}
    return httpx.Client(base_url=server.url, headers=headers, verify=context, timeout=20, trust_env=False)


def bind(admin: httpx.Client, name: str, role: str, kind: str, subject: str) -> None:
    row = {"kind": kind, "name": subject}
    row |= {"namespace": "default"} if kind == "ServiceAccount" else {"apiGroup": "rbac.authorization.k8s.io"}
    ref = {"apiGroup": "rbac.authorization.k8s.io", "kind": "ClusterRole", "name": role}
    body = {"metadata": {"name": name}, "roleRef": ref, "subjects": [row]}
    made(admin, f"{RBAC}/namespaces/default/rolebindings", body)


def whoami(client: httpx.Client) -> Object:
    found: Object = made(client, f"{AUTHN}/selfsubjectreviews", {})["status"]["userInfo"]
    return found


def tenant_token(admin: httpx.Client, tenant: str, name: str, role: str = "edit", *, seconds: float = 600) -> str:
    """Makes it, and the tenant if there is none."""
    if admin.get(f"{CUBOID}/tenants/{tenant}").status_code == 404:
        made(admin, f"{CUBOID}/tenants", {"metadata": {"name": tenant}})
    end = time.monotonic() + 20
    while admin.get(f"{CUBOID}/tenants/{tenant}").json()["status"].get("phase") != "Active":
        assert time.monotonic() < end, "the tenant does not come into being"
        time.sleep(0.05)
    token = f"secret-of-{tenant}-{name}"
    until = time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime(time.time() + seconds))
    spec = {"tenant": tenant, "role": role, "sha256": hashlib.sha256(token.encode()).hexdigest()}
    made(admin, f"{CUBOID}/tokens", {"metadata": {"name": name}, "spec": {**spec, "expirationTimestamp": until}})
    return token


# --- without a name --------------------------------------------------------------------------------------------------


def test_a_stranger_sees_health_and_version_and_nothing_else(server: ServerProcess) -> None:
    with httpx.Client(base_url=server.url, verify=client_context(server.ca_file), trust_env=False) as client:
        for path in ("/healthz", "/livez", "/readyz", "/version"):
            assert client.get(path).status_code == 200
        for path in ("/", "/api", "/apis", "/openapi/v3", PODS, "/openid/v1/jwks", "/versions", "/nowhere"):
            answer = client.get(path)
            assert answer.status_code == 401 and answer.json()["reason"] == "Unauthorized", path
        assert client.get("/version", headers={"Authorization": "Bearer wrong"}).status_code == 401


# --- service accounts ------------------------------------------------------------------------------------------------


def account_token(admin: httpx.Client, name: str, **spec: Any) -> str:
    if admin.get(f"{ACCOUNTS}/{name}").status_code == 404:
        made(admin, ACCOUNTS, {"metadata": {"name": name}})
    return str(made(admin, f"{ACCOUNTS}/{name}/token", {"spec": spec})["status"]["token"])


def test_a_service_account_is_known_by_its_token_and_has_its_rights(server: ServerProcess, admin: httpx.Client) -> None:
    token = account_token(admin, "reader")
    with bearing(server, token) as client:
        user = whoami(client)
        assert user["username"] == "system:serviceaccount:default:reader" and user["uid"]
        assert "system:serviceaccounts:default" in user["groups"]
        answer = client.get(PODS)
        assert answer.status_code == 403
        assert answer.json()["message"] == (
            'pods is forbidden: User "system:serviceaccount:default:reader" cannot list resource "pods" '
            'in API group "" in the namespace "default"'
        )
        bind(admin, "reader", "view", "ServiceAccount", "reader")
        assert client.get(PODS).status_code == 200
        assert client.get("/api/v1/pods").status_code == 403
        assert client.get("/api/v1/namespaces/default/secrets").status_code == 403


def test_a_token_ends_with_its_account(server: ServerProcess, admin: httpx.Client) -> None:
    token = account_token(admin, "gone")
    with bearing(server, token) as client:
        assert whoami(client)
        admin.delete(f"{ACCOUNTS}/gone")
        assert client.get("/api").status_code == 401
        made(admin, ACCOUNTS, {"metadata": {"name": "gone"}})
        assert client.get("/api").status_code == 401, "another account of the same name"


def test_a_token_ends_with_the_pod_that_it_is_bound_to(server: ServerProcess, admin: httpx.Client) -> None:
    created = made(admin, PODS, pod("holder", automountServiceAccountToken=False))
    ref = {"kind": "Pod", "apiVersion": "v1", "name": "holder", "uid": created["metadata"]["uid"]}
    token = account_token(admin, "default", boundObjectRef=ref)
    claims = jwt.decode(token, options={"verify_signature": False})
    assert claims["kubernetes.io"]["pod"] == {"name": "holder", "uid": created["metadata"]["uid"]}
    with bearing(server, token) as client:
        assert whoami(client)["extra"]["authentication.kubernetes.io/pod-name"] == ["holder"]
        admin.request("DELETE", f"{PODS}/holder", json={"gracePeriodSeconds": 0})
        assert client.get("/api").status_code == 401
    wrong = {"spec": {"boundObjectRef": {**ref, "uid": "other"}}}
    assert admin.post(f"{ACCOUNTS}/default/token", json=wrong).status_code == 404


def test_a_token_for_others_is_none_for_this_server(server: ServerProcess, admin: httpx.Client) -> None:
    token = account_token(admin, "vault", audiences=["vault"])
    with bearing(server, token) as client:
        assert client.get("/api").status_code == 401
    review = made(admin, f"{AUTHN}/tokenreviews", {"spec": {"token": token, "audiences": ["vault"]}})["status"]
    assert review["authenticated"] and review["audiences"] == ["vault"]
    assert review["user"]["username"] == "system:serviceaccount:default:vault"
    own = made(admin, f"{AUTHN}/tokenreviews", {"spec": {"token": token}})["status"]
    assert own.get("authenticated") is False and "user" not in own


def test_the_published_keys_verify_a_token(server: ServerProcess, admin: httpx.Client) -> None:
    token = account_token(admin, "outside", audiences=["them"])
    issuer = admin.get("/.well-known/openid-configuration").json()["issuer"]
    key = jwt.PyJWKSet.from_dict(admin.get("/openid/v1/jwks").json())[jwt.get_unverified_header(token)["kid"]]
    assert jwt.decode(token, key, ["ES256"], audience="them", issuer=issuer)["sub"].endswith(":default:outside")


@pytest.mark.parametrize("what", ["signature", "none", "key", "claims"])
def test_a_forged_token_is_refused(server: ServerProcess, admin: httpx.Client, what: str) -> None:
    token = account_token(admin, "forged")
    head, middle, signature = token.split(".")
    claims = jwt.decode(token, options={"verify_signature": False})
    other = jwt.encode({**claims, "sub": "system:serviceaccount:kube-system:x"}, "", "none").split(".")[1]
    kid = {"kid": jwt.get_unverified_header(token)["kid"]}
    forged = {
        "signature": f"{head}.{middle}.{signature[:-4]}AAAA",
        "none": jwt.encode(claims, "", "none"),
        "key": jwt.encode(claims, "x" * 64, "HS256", headers=kid),
        "claims": f"{head}.{other}.{signature}",
    }[what]
    with bearing(server, forged) as client:
        assert client.get("/api").status_code == 401


def test_the_life_of_a_token_is_bounded(admin: httpx.Client) -> None:
    answer = admin.post(f"{ACCOUNTS}/default/token", json={"spec": {"expirationSeconds": 10}})
    assert answer.status_code == 422
    assert "may not specify a duration less than 10 minutes" in answer.json()["message"]


def test_a_token_secret_is_filled_and_ends_with_it(server: ServerProcess, admin: httpx.Client) -> None:
    account_token(admin, "old")
    note = {"kubernetes.io/service-account.name": "old"}
    body = {"metadata": {"name": "old-token", "annotations": note}, "type": "kubernetes.io/service-account-token"}
    made(admin, "/api/v1/namespaces/default/secrets", body)
    end = time.monotonic() + 20
    while "token" not in (data := admin.get("/api/v1/namespaces/default/secrets/old-token").json().get("data", {})):
        assert time.monotonic() < end
        time.sleep(0.05)
    with bearing(server, base64.b64decode(data["token"]).decode()) as client:
        assert whoami(client)["username"] == "system:serviceaccount:default:old"
        admin.delete("/api/v1/namespaces/default/secrets/old-token")
        assert client.get("/api").status_code == 401


# --- tenants' tokens -------------------------------------------------------------------------------------------------


def test_a_tenants_token_acts_in_its_namespace_and_is_taken_back_at_once(
    server: ServerProcess, admin: httpx.Client
) -> None:
    token = tenant_token(admin, "acme", "one")
    with bearing(server, token) as client:
        assert whoami(client)["username"] == "cuboid:tenant:acme:one"
        made(client, "/api/v1/namespaces/acme/configmaps", {"metadata": {"name": "c"}})
        assert client.get("/api/v1/namespaces/acme").status_code == 200
        assert client.get("/api/v1/namespaces").status_code == 403
        admin.delete(f"{CUBOID}/tokens/one")
        assert client.get("/api/v1/namespaces/acme").status_code == 401


def test_a_tenants_token_expires(server: ServerProcess, admin: httpx.Client) -> None:
    token = tenant_token(admin, "acme", "short", seconds=2)
    with bearing(server, token) as client:
        assert client.get("/api").status_code == 200
        time.sleep(2.2)
        assert client.get("/api").status_code == 401


def test_tokens_are_hashed_at_rest(server: ServerProcess, admin: httpx.Client) -> None:
    token = tenant_token(admin, "acme", "hashed")
    for file in (server.folder / "data").glob("store.db*"):
        assert token.encode() not in file.read_bytes()
    assert token not in admin.get(f"{CUBOID}/tokens").text


def test_an_open_watch_ends_when_its_right_does(server: ServerProcess, admin: httpx.Client) -> None:
    token = tenant_token(admin, "acme", "watcher", "view")
    with bearing(server, token) as client, client.stream("GET", "/api/v1/namespaces/acme/configmaps?watch=1") as answer:
        assert answer.status_code == 200
        threading.Timer(0.3, lambda: admin.delete(f"{CUBOID}/tokens/watcher")).start()
        started = time.monotonic()
        for _ in answer.iter_lines():
            pass
        assert time.monotonic() - started < 6


def test_an_open_watch_ends_when_its_binding_is_removed(server: ServerProcess, admin: httpx.Client) -> None:
    token = account_token(admin, "follower")
    bind(admin, "follower", "view", "ServiceAccount", "follower")
    binding = f"{RBAC}/namespaces/default/rolebindings/follower"
    with bearing(server, token) as client, client.stream("GET", f"{PODS}?watch=1") as answer:
        assert answer.status_code == 200
        threading.Timer(0.3, lambda: admin.delete(binding)).start()
        started = time.monotonic()
        for _ in answer.iter_lines():
            pass
        assert time.monotonic() - started < 6
    with bearing(server, token) as client:
        assert client.get(f"{PODS}?watch=1").status_code == 403


def test_a_browsers_websocket_brings_its_token_as_a_sub_protocol(server: ServerProcess, admin: httpx.Client) -> None:
    token = tenant_token(admin, "acme", "browser")
    wrapped = base64.urlsafe_b64encode(token.encode()).decode().rstrip("=")
    upgrade = {"Connection": "Upgrade", "Upgrade": "websocket", "Sec-WebSocket-Version": "13"}
    upgrade["Sec-WebSocket-Key"] = "dGhlIHNhbXBsZSBub25jZQ=="
    context = client_context(server.ca_file)
    with httpx.Client(base_url=server.url, verify=context, timeout=20, trust_env=False) as client:
        for given, namespace, expected in (
            (wrapped, "acme", 404),
            (wrapped, "default", 403),
            ("d3Jvbmc", "acme", 401),
            ("*", "acme", 401),
        ):
            offered = f"v5.channel.k8s.io, base64url.bearer.authorization.k8s.io.{given}"
            headers = {**upgrade, "Sec-WebSocket-Protocol": offered}
            answer = client.get(f"/api/v1/namespaces/{namespace}/pods/none/exec?command=id", headers=headers)
            assert answer.status_code == expected, (given, answer.text)


# --- client certificates ---------------------------------------------------------------------------------------------


def certified(
    server: ServerProcess, folder: Path, user: str, group: str, authority: Path | None = None
) -> httpx.Client:
    issuer = Authority(server.folder if authority is None else authority)
    mine = Authority(folder)
    for name in ("ca.crt", "ca.key"):
        (folder / name).write_bytes((issuer.folder / name).read_bytes())
    context = client_context(server.ca_file, mine.client(f"user-{user}", user, group))
    return httpx.Client(base_url=server.url, verify=context, timeout=20, trust_env=False)


def test_a_client_certificate_names_user_and_group(server: ServerProcess, tmp_path: Path) -> None:
    with certified(server, tmp_path, "jane", "devs") as client:
        assert whoami(client) == {"username": "jane", "groups": ["devs", "system:authenticated"]}
        assert client.get(PODS).status_code == 403
    with certified(server, tmp_path, "root", "system:masters") as client:
        assert client.get(PODS).status_code == 200


def test_a_certificate_of_another_authority_gets_nowhere(server: ServerProcess, tmp_path: Path) -> None:
    (tmp_path / "other").mkdir()
    (tmp_path / "me").mkdir()
    refused = pytest.raises((httpx.HTTPError, ssl.SSLError))
    with certified(server, tmp_path / "me", "root", "system:masters", tmp_path / "other") as client, refused:
        client.get(PODS)


# --- reviews and impersonation ---------------------------------------------------------------------------------------


def test_reviews_answer_what_the_server_does(server: ServerProcess, admin: httpx.Client) -> None:
    token = tenant_token(admin, "acme", "reviewer", "view")
    with bearing(server, token) as client:
        for verb, resource, namespace, expected in (
            ("list", "pods", "acme", True),
            ("create", "pods", "acme", False),
            ("list", "pods", "default", False),
            ("list", "secrets", "acme", False),
        ):
            attributes = {"verb": verb, "resource": resource, "namespace": namespace}
            body = {"spec": {"resourceAttributes": attributes}}
            assert made(client, f"{AUTHZ}/selfsubjectaccessreviews", body)["status"]["allowed"] is expected
        rules = made(client, f"{AUTHZ}/selfsubjectrulesreviews", {"spec": {"namespace": "acme"}})["status"]
        assert any("pods" in row["resources"] and "list" in row["verbs"] for row in rules["resourceRules"])
        for path in (f"{AUTHN}/tokenreviews", f"{AUTHZ}/subjectaccessreviews"):
            assert client.post(path, json={"spec": {}}).status_code == 403
    spec = {"user": "jane", "resourceAttributes": {"verb": "get", "resource": "pods", "namespace": "default"}}
    assert made(admin, f"{AUTHZ}/subjectaccessreviews", {"spec": spec})["status"]["allowed"] is False


def test_impersonation_needs_its_right_and_gives_no_more_than_the_other_has(
    server: ServerProcess, admin: httpx.Client
) -> None:
    acting = {"Impersonate-User": "jane", "Impersonate-Group": "devs"}
    assert admin.get(PODS, headers=acting).status_code == 403
    answer = admin.post(f"{AUTHN}/selfsubjectreviews", json={}, headers=acting)
    assert answer.json()["status"]["userInfo"] == {"username": "jane", "groups": ["devs", "system:authenticated"]}
    token = tenant_token(admin, "acme", "actor", "admin")
    with bearing(server, token) as client:
        for headers in (
            {"Impersonate-User": "jane"},
            {"Impersonate-User": "cuboid-admin", "Impersonate-Group": "system:masters"},
            {"Impersonate-User": "system:serviceaccount:kube-system:default"},
        ):
            refused = client.get("/api", headers=headers)
            assert refused.status_code == 403 and "cannot impersonate resource" in refused.json()["message"]
        own = client.get("/api", headers={"Impersonate-User": "system:serviceaccount:acme:default"})
        assert own.status_code == 200, "an account of its own namespace"


def test_a_restart_keeps_tokens_and_brings_builtin_roles_back(tmp_path: Path) -> None:
    with serving(tmp_path) as running:
        with running.http() as client:
            tokens = (tenant_token(client, "acme", "kept"), account_token(client, "kept"))
            path = f"{RBAC}/clusterroles/system:aggregate-to-view"
            before = client.get(path).json()["rules"]
            merge = {"Content-Type": "application/merge-patch+json"}
            client.patch(path, content=json.dumps({"rules": []}), headers=merge)
            assert not client.get(path).json().get("rules")
        running.kill()
        running.start()
        with running.http() as client:
            assert client.get(path).json()["rules"] == before
        for token in tokens:
            with bearing(running, token) as client:
                assert client.get("/api").status_code == 200
