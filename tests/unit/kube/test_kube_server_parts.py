"""Parts of the server without a server: kubeconfigs, keys, tokens, URLs, protobuf bodies, placement."""

from __future__ import annotations

import base64
import ssl
from pathlib import Path
from typing import Any

import pytest
import yaml
from hypothesis import given
from hypothesis import strategies as st

from cuboid.kube.cache import Entry, encode
from cuboid.kube.columns import duration
from cuboid.kube.expiry import LIFE, expired
from cuboid.kube.kinds import Kinds
from cuboid.kube.pod_phase import pod_summary
from cuboid.kube.store import Key
from cuboid.lib.clock import parse_rfc3339
from cuboid.lib.errors import CuboidError, InvalidError, NotFoundError, UnauthorizedError
from cuboid.server import kubeconfig, protobuf
from cuboid.server.binder import decide, requested
from cuboid.server.kubeconfig import Access
from cuboid.server.paths import parse
from cuboid.server.tls import Authority, client_context
from cuboid.server.tokens import Tokens, read_admin
from tests.harness.kube_server import node, pod

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


def sized(name: str, memory: str, **spec: Any) -> dict[str, Any]:
    made = pod(name, **spec)
    made["spec"]["containers"][0]["resources"] = {"requests": {"memory": memory}}
    return made


@pytest.mark.parametrize(
    ("candidate", "message"),
    [
        (sized("a", "1Gi"), ""),
        (sized("a", "3Gi"), "0/1 nodes are available: 1 Insufficient memory."),
        (
            pod("a", nodeSelector={"disk": "ssd"}),
            "0/1 nodes are available: 1 node(s) didn't match Pod's node affinity/selector.",
        ),
        (pod("a", nodeSelector={"kubernetes.io/hostname": "node-1"}), ""),
    ],
)
def test_a_pod_is_placed_where_it_fits(candidate: dict[str, Any], message: str) -> None:
    there = [sized("b", "2Gi", nodeName="node-1"), sized("c", "3Gi", nodeName="other")]
    done = sized("d", "3Gi", nodeName="node-1") | {"status": {"phase": "Succeeded"}}
    decision = decide(candidate, [node(memory="4Gi")], [*there, done])
    assert decision.message == message and bool(decision.node) is not bool(message)


def test_a_node_that_is_not_ready_or_cordoned_takes_nothing() -> None:
    away = node()
    away["status"]["conditions"] = []
    cordoned = node("n2") | {"spec": {"unschedulable": True}}
    assert decide(pod(), [away, cordoned], []).message == (
        "0/2 nodes are available: 1 node(s) were not ready, 1 node(s) were unschedulable."
    )
    assert decide(pod(), [], []).message == "no nodes available to schedule pods"


def test_init_containers_count_by_their_greatest_and_sidecars_always() -> None:
    def container(cpu: str, **more: str) -> dict[str, Any]:
        return {"name": "x", "resources": {"requests": {"cpu": cpu}}, **more}

    spec = {
        "containers": [container("1")],
        "initContainers": [container("500m", restartPolicy="Always"), container("2")],
    }
    assert requested({"spec": spec})["cpu"] == 2500
    assert requested({"spec": {**spec, "overhead": {"memory": "96Mi"}}})["memory"] == 1000 * (96 << 20)


@pytest.mark.parametrize(
    ("seconds", "text"),
    [
        (0, "0s"),
        (119, "119s"),
        (125, "2m5s"),
        (700, "11m"),
        (3 * 3600, "3h"),
        (3 * 3600 + 60, "3h1m"),
        (3 * 86400, "3d"),
        (800 * 86400, "2y70d"),
    ],
)
def test_ages_are_short(seconds: float, text: str) -> None:
    assert duration(seconds) == text


@pytest.mark.parametrize(
    ("status", "reason"),
    [
        ({"phase": "Pending"}, "Pending"),
        (
            {
                "phase": "Running",
                "containerStatuses": [{"name": "a", "state": {"waiting": {"reason": "CrashLoopBackOff"}}}],
            },
            "CrashLoopBackOff",
        ),
        (
            {"phase": "Failed", "containerStatuses": [{"name": "a", "state": {"terminated": {"exitCode": 3}}}]},
            "ExitCode:3",
        ),
        ({"phase": "Pending", "initContainerStatuses": [{"name": "i", "state": {"running": {}}}]}, "Init:0/1"),
        ({"phase": "Failed", "reason": "Evicted"}, "Evicted"),
    ],
)
def test_the_status_column_says_what_kubectl_says(status: dict[str, Any], reason: str) -> None:
    document = pod("a", initContainers=[{"name": "i"}]) | {"status": status}
    assert pod_summary(document).reason == reason
    document["metadata"]["deletionTimestamp"] = "2026-01-01T00:00:00Z"
    assert pod_summary(document).reason == (reason if status["phase"] == "Failed" else "Terminating")


def test_old_events_are_forgotten() -> None:
    stamp = "2026-01-01T00:00:00Z"
    value = encode({"metadata": {"name": "e", "namespace": "d", "creationTimestamp": stamp}})
    entry = Entry(Key("", "events", "d", "e"), 1, value, lambda _: {})
    born = parse_rfc3339(stamp)
    assert expired([entry], born + LIFE - 1) == []
    assert expired([entry], born + LIFE + 1) == [entry]
