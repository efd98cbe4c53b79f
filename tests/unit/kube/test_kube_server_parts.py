"""Parts of the server without a server: kubeconfigs, keys, tokens, URLs, protobuf bodies."""

from __future__ import annotations

import base64
import ssl
from pathlib import Path

import pytest
import yaml
from hypothesis import given
from hypothesis import strategies as st

from cuboid.kube.kinds import Kinds
from cuboid.lib.errors import CuboidError, InvalidError, NotFoundError, UnauthorizedError
from cuboid.server import kubeconfig, protobuf
from cuboid.server.kubeconfig import Access
from cuboid.server.paths import parse
from cuboid.server.tls import Authority, client_context
from cuboid.server.tokens import Tokens, read_admin

ACCESS = Access("https://127.0.0.1:6443", b"PEM", "token")
OTHER = """
apiVersion: v1
kind: Config
current-context: work
clusters: [{name: work, cluster: {server: "https://work:6443", extra: kept}}]
contexts: [{name: work, context: {cluster: work, user: me, namespace: team}}]
users: [{name: me, user: {exec: {command: login, args: [a]}}}]
preferences: {colors: true}
"""


def test_merging_leaves_other_contexts_as_they_were(tmp_path: Path) -> None:
    path = tmp_path / "config"
    path.write_text(OTHER)
    before = yaml.safe_load(OTHER)
    assert kubeconfig.merge_into(path, ACCESS) is False
    assert kubeconfig.merge_into(path, ACCESS) is False
    merged = yaml.safe_load(path.read_text())
    assert merged["current-context"] == "work" and merged["preferences"] == {"colors": True}
    assert [row["name"] for row in merged["contexts"]] == ["work", "cuboid"]
    assert path.stat().st_mode & 0o777 == 0o600
    assert kubeconfig.remove_from(path) is True
    assert yaml.safe_load(path.read_text()) == before
    assert kubeconfig.remove_from(path) is False


def test_the_first_context_becomes_the_current_one_and_goes_again(tmp_path: Path) -> None:
    path = tmp_path / "new" / "config"
    assert kubeconfig.merge_into(path, ACCESS) is True
    assert yaml.safe_load(path.read_text()) == yaml.safe_load(kubeconfig.render(ACCESS))
    kubeconfig.remove_from(path)
    assert yaml.safe_load(path.read_text())["current-context"] == ""


@pytest.mark.parametrize("text", ["{", "[1]", "kind: Pod", "clusters: x"])
def test_a_file_that_is_no_kubeconfig_is_not_touched(tmp_path: Path, text: str) -> None:
    path = tmp_path / "config"
    path.write_text(text)
    with pytest.raises(InvalidError):
        kubeconfig.merge_into(path, ACCESS)
    assert path.read_text() == text


def test_a_linked_kubeconfig_stays_a_link(tmp_path: Path) -> None:
    real, link = tmp_path / "real", tmp_path / "config"
    real.write_text(OTHER)
    link.symlink_to(real)
    kubeconfig.merge_into(link, ACCESS)
    assert link.is_symlink() and "cuboid" in real.read_text()


def test_keys_are_made_once_and_renewed_for_a_new_name(tmp_path: Path) -> None:
    authority = Authority(tmp_path)
    pair = authority.server("server", ["localhost", "127.0.0.1", "::1"])
    first = pair.cert.read_bytes()
    assert Authority(tmp_path).server("server", ["localhost"]).cert.read_bytes() == first
    assert authority.server("server", ["localhost", "other"]).cert.read_bytes() != first
    assert pair.key.stat().st_mode & 0o777 == 0o600
    context = client_context(authority.ca_file, authority.client("me", "user", "group"))
    assert context.verify_mode == ssl.CERT_REQUIRED and context.check_hostname


def test_the_administrators_token_is_made_once_and_kept_as_a_hash(tmp_path: Path) -> None:
    token = read_admin(tmp_path) if Tokens.open(tmp_path) else ""
    again = Tokens.open(tmp_path)
    assert read_admin(tmp_path) == token and len(base64.urlsafe_b64decode(token + "=")) == 32
    assert again.user(f"Bearer {token}").name == "cuboid-admin"
    assert token not in (tmp_path / "tokens.json").read_text()
    for wrong in ("", token, f"Bearer {token}x", "Bearer", "Basic x"):
        with pytest.raises(UnauthorizedError):
            again.user(wrong)


@pytest.mark.parametrize(
    ("path", "expected"),
    [
        ("/api/v1/pods", ("Pod", "", "", "")),
        ("/api/v1/namespaces", ("Namespace", "", "", "")),
        ("/api/v1/namespaces/a", ("Namespace", "", "a", "")),
        ("/api/v1/namespaces/a/status", ("Namespace", "", "a", "status")),
        ("/api/v1/namespaces/a/pods", ("Pod", "a", "", "")),
        ("/api/v1/namespaces/a/pods/b/log", ("Pod", "a", "b", "log")),
        ("/apis/coordination.k8s.io/v1/namespaces/a/leases/b", ("Lease", "a", "b", "")),
        ("/api/v1/nodes/n/status", ("Node", "", "n", "status")),
    ],
)
def test_urls_name_their_target(path: str, expected: tuple[str, str, str, str]) -> None:
    target = parse(path, Kinds())
    assert (target.kind.kind, target.namespace, target.name, target.sub) == expected


@given(st.text("/apivns1podsx", max_size=40) | st.text(max_size=20))
def test_no_path_breaks_the_router(path: str) -> None:
    try:
        parse(path, Kinds())
    except NotFoundError:
        return


SECRET = (
    bytes.fromhex("6b3873000a0c0a0276311206536563726574")
    + b"\x12\x13\x0a\x03\x0a\x01s\x12\x06\x0a\x01k\x12\x01v\x1a\x04Blob"
)


def test_a_secret_in_protobuf_is_read() -> None:
    assert protobuf.decode(SECRET) == {
        "apiVersion": "v1",
        "kind": "Secret",
        "metadata": {"name": "s"},
        "data": {"k": "dg=="},
        "type": "Blob",
    }


@given(st.binary(max_size=80), st.integers(0, len(SECRET)))
def test_no_bytes_break_the_protobuf_reader(data: bytes, cut: int) -> None:
    for body in (b"k8s\x00" + data, SECRET[:cut] + data):
        try:
            protobuf.decode(body)
        except CuboidError:
            continue
