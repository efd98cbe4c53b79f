"""The API over real HTTPS: verbs, errors, watch, forms of answers, limits, and a server that is killed."""

from __future__ import annotations

import json
import os
import re
import shutil
import signal
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest

from cuboid.server.backups import STORE_FILE
from tests.harness.kube_server import ServerProcess, node, pod, serving

PODS = "/api/v1/namespaces/default/pods"
TABLE = {"Accept": "application/json;as=Table;v=v1;g=meta.k8s.io,application/json"}


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[ServerProcess]:
    with serving(tmp_path_factory.mktemp("api")) as running:
        yield running


@pytest.fixture
def http(server: ServerProcess) -> Iterator[httpx.Client]:
    with server.http() as client:
        yield client
        client.request(
            "DELETE", PODS, content=b'{"gracePeriodSeconds": 0}', headers={"Content-Type": "application/json"}
        )
        client.delete("/api/v1/namespaces/default/configmaps")


def create(http: httpx.Client, body: dict[str, Any], path: str = PODS) -> dict[str, Any]:
    answer = http.post(path, json=body)
    assert answer.status_code == 201, answer.text
    created: dict[str, Any] = answer.json()
    return created


def test_a_created_pod_has_defaults_and_identity(http: httpx.Client) -> None:
    created = create(http, pod("defaults", schedulerName="nobody"))
    assert created["metadata"]["uid"] and created["metadata"]["creationTimestamp"]
    assert created["metadata"]["generation"] == 1
    assert created["status"] == {"phase": "Pending", "qosClass": "BestEffort"}
    assert created["spec"]["restartPolicy"] == "Always"
    assert created["spec"]["containers"][0]["imagePullPolicy"] == "IfNotPresent"
    assert http.get(f"{PODS}/defaults").json()["metadata"]["resourceVersion"] == created["metadata"]["resourceVersion"]


@pytest.mark.parametrize(
    ("method", "path", "body", "code", "reason"),
    [
        ("GET", f"{PODS}/none", None, 404, "NotFound"),
        ("GET", "/api/v1/namespaces/default/widgets", None, 404, "NotFound"),
        ("GET", "/nowhere", None, 404, "NotFound"),
        ("POST", PODS, {"metadata": {"name": "x"}}, 422, "Invalid"),
        ("POST", PODS, {"spec": "x"}, 400, "BadRequest"),
        ("POST", PODS, [], 400, "BadRequest"),
        ("POST", "/api/v1/namespaces/none/pods", pod(), 404, "NotFound"),
        ("POST", PODS, {**pod(), "kind": "Node"}, 400, "BadRequest"),
        ("PUT", PODS, pod(), 405, "MethodNotAllowed"),
        ("GET", f"{PODS}?labelSelector=a%20in%20(", None, 400, "BadRequest"),
        ("GET", f"{PODS}?fieldSelector=spec.foo%3Dx", None, 400, "BadRequest"),
        ("GET", f"{PODS}?limit=x", None, 400, "BadRequest"),
        ("GET", f"{PODS}?continue=x", None, 400, "BadRequest"),
        ("GET", f"{PODS}?resourceVersion=999999999", None, 504, "Timeout"),
        ("GET", f"{PODS}?resourceVersion=abc", None, 400, "BadRequest"),
    ],
)
def test_wrong_requests_get_a_status(
    http: httpx.Client, method: str, path: str, body: Any, code: int, reason: str
) -> None:
    answer = http.request(method, path, json=body) if body is not None else http.request(method, path)
    assert (answer.status_code, answer.json()["reason"]) == (code, reason)
    assert answer.json()["kind"] == "Status" and answer.json()["message"]


def test_unknown_fields_are_refused_strictly_or_warned_of(http: httpx.Client) -> None:
    body = pod("unknown", foo=1)
    strict = http.post(PODS, json=body, params={"fieldValidation": "Strict"})
    assert strict.status_code == 400
    assert 'strict decoding error: unknown field "spec.foo"' in strict.json()["message"]
    warned = http.post(PODS, json=body, params={"fieldValidation": "Warn"})
    assert warned.status_code == 201 and warned.headers["Warning"] == '299 - "unknown field \\"spec.foo\\""'


def test_a_name_that_is_taken_is_a_conflict(http: httpx.Client) -> None:
    create(http, pod("twice"))
    answer = http.post(PODS, json=pod("twice"))
    assert (answer.status_code, answer.json()["reason"]) == (409, "AlreadyExists")
    assert answer.json()["message"] == 'pods "twice" already exists'


def test_an_update_of_an_old_version_is_a_conflict(http: httpx.Client) -> None:
    first = create(http, pod("versions", schedulerName="nobody"))
    first["metadata"]["labels"] = {"a": "b"}
    assert http.put(f"{PODS}/versions", json=first).status_code == 200
    again = http.put(f"{PODS}/versions", json={**first, "metadata": {**first["metadata"], "labels": {"a": "c"}}})
    assert (again.status_code, again.json()["reason"]) == (409, "Conflict")


def test_dry_run_changes_nothing(http: httpx.Client) -> None:
    assert http.post(PODS, json=pod("dry"), params={"dryRun": "All"}).status_code == 201
    assert http.get(f"{PODS}/dry").status_code == 404


def test_a_status_write_leaves_the_spec_and_a_spec_write_the_status(http: httpx.Client) -> None:
    create(http, pod("halves"))
    patch = {"spec": {"nodeName": "x"}, "status": {"phase": "Running"}}
    headers = {"Content-Type": "application/merge-patch+json"}
    answer = http.patch(f"{PODS}/halves/status", content=json.dumps(patch), headers=headers).json()
    assert answer["status"]["phase"] == "Running" and "nodeName" not in answer["spec"]
    body = {"metadata": {"labels": {"x": "y"}}, "status": {"phase": "Failed"}}
    answer = http.patch(f"{PODS}/halves", content=json.dumps(body), headers=headers).json()
    assert answer["status"]["phase"] == "Running" and answer["metadata"]["labels"] == {"x": "y"}


def test_a_bound_pod_is_deleted_in_two_steps_and_an_unbound_one_at_once(http: httpx.Client) -> None:
    create(http, pod("loose"))
    http.delete(f"{PODS}/loose")
    assert http.get(f"{PODS}/loose").status_code == 404
    created = create(http, pod("bound", nodeName="elsewhere", terminationGracePeriodSeconds=7))
    asked = http.delete(f"{PODS}/bound").json()
    assert asked["metadata"]["deletionTimestamp"] and asked["metadata"]["deletionGracePeriodSeconds"] == 7
    wrong = {"gracePeriodSeconds": 0, "preconditions": {"uid": "another"}}
    assert http.request("DELETE", f"{PODS}/bound", json=wrong).status_code == 409
    final = {"gracePeriodSeconds": 0, "preconditions": {"uid": created["metadata"]["uid"]}}
    assert http.request("DELETE", f"{PODS}/bound", json=final).status_code == 200
    assert http.get(f"{PODS}/bound").status_code == 404


def test_a_finalizer_keeps_an_object_until_it_is_taken_away(http: httpx.Client) -> None:
    path = "/api/v1/namespaces/default/configmaps"
    create(http, {"metadata": {"name": "held", "finalizers": ["example.com/hold"]}}, path)
    http.delete(f"{path}/held")
    assert http.get(f"{path}/held").json()["metadata"]["deletionTimestamp"]
    headers = {"Content-Type": "application/merge-patch+json"}
    http.patch(f"{path}/held", content=b'{"metadata":{"finalizers":null}}', headers=headers)
    assert http.get(f"{path}/held").status_code == 404


def test_pages_show_one_moment(http: httpx.Client) -> None:
    for index in range(5):
        create(http, pod(f"page-{index}"))
    first = http.get(PODS, params={"limit": "2"}).json()
    assert first["metadata"]["remainingItemCount"] >= 3
    http.delete(f"{PODS}/page-3")
    names, token = [item["metadata"]["name"] for item in first["items"]], first["metadata"]["continue"]
    while token:
        page = http.get(PODS, params={"limit": "2", "continue": token}).json()
        names += [item["metadata"]["name"] for item in page["items"]]
        token = page["metadata"].get("continue", "")
    assert [name for name in names if name.startswith("page-")] == [f"page-{index}" for index in range(5)]


def test_a_watch_sees_what_changes_and_can_be_resumed(http: httpx.Client) -> None:
    version = http.get(PODS).json()["metadata"]["resourceVersion"]
    create(http, {**pod("seen", schedulerName="nobody"), "metadata": {"name": "seen", "labels": {"w": "1"}}})
    headers = {"Content-Type": "application/merge-patch+json"}
    http.patch(f"{PODS}/seen", content=b'{"metadata":{"labels":{"w":"2"}}}', headers=headers)
    http.delete(f"{PODS}/seen")
    query = {"watch": "1", "resourceVersion": version, "timeoutSeconds": "1"}
    assert [kind for kind, _ in events(http, query)] == ["ADDED", "MODIFIED", "DELETED"]
    assert [kind for kind, _ in events(http, {**query, "labelSelector": "w=1"})] == ["ADDED", "DELETED"]
    assert [kind for kind, _ in events(http, {**query, "labelSelector": "w=2"})] == ["ADDED", "DELETED"]


def events(http: httpx.Client, query: dict[str, str]) -> list[tuple[str, dict[str, Any]]]:
    found = []
    with http.stream("GET", PODS, params=query) as answer:
        for line in answer.iter_lines():
            if line:
                event = json.loads(line)
                found.append((event["type"], event["object"]))
    return found


def test_a_watch_from_a_version_that_never_was_has_to_list_again(http: httpx.Client) -> None:
    [(kind, document)] = events(http, {"watch": "1", "resourceVersion": "999999999", "timeoutSeconds": "5"})
    assert kind == "ERROR" and (document["code"], document["reason"]) == (410, "Expired")


def test_a_watch_with_initial_events_marks_their_end(http: httpx.Client) -> None:
    create(http, pod("initial", schedulerName="nobody"))
    query = {
        "watch": "true",
        "sendInitialEvents": "true",
        "resourceVersionMatch": "NotOlderThan",
        "allowWatchBookmarks": "true",
        "timeoutSeconds": "1",
    }
    found = events(http, query)
    assert found[-1][0] == "BOOKMARK"
    assert found[-1][1]["metadata"]["annotations"] == {"k8s.io/initial-events-end": "true"}


def test_tables_have_kubectls_columns(http: httpx.Client) -> None:
    create(http, pod("table"))
    answer = http.get(PODS, headers=TABLE).json()
    assert answer["kind"] == "Table"
    assert [column["name"] for column in answer["columnDefinitions"]][:5] == [
        "Name", "Ready", "Status", "Restarts", "Age",
    ]  # fmt: skip
    assert answer["rows"][0]["cells"][:4] == ["table", "0/1", "Pending", "0"]
    assert answer["rows"][0]["object"]["kind"] == "PartialObjectMetadata"


def test_only_json_is_served(http: httpx.Client) -> None:
    answer = http.get(PODS, headers={"Accept": "application/yaml"})
    assert answer.status_code == 406


def test_too_large_and_too_deep_bodies_are_refused(http: httpx.Client) -> None:
    assert http.post(PODS, content=b" " * (3 * 1024 * 1024 + 1)).status_code == 413
    deep = b'{"metadata":' * 5000 + b"{}" + b"}" * 5000
    assert http.post(PODS, content=deep).status_code == 400
    assert http.post(PODS, content=b"{").status_code == 400


def test_without_a_token_nothing_but_health_is_shown(server: ServerProcess, http: httpx.Client) -> None:
    for header in ("", "Bearer", "Bearer wrong", "Basic " + server.token, "Bearer " + server.token[:-1]):
        answer = http.get(PODS, headers={"Authorization": header})
        assert answer.status_code == 401 and answer.json()["message"] == "Unauthorized"
    assert http.get("/readyz", headers={"Authorization": ""}).text == "ok"


def test_secrets_of_the_server_are_private_and_not_logged(server: ServerProcess) -> None:
    for name in ("ca.key", "server.key", "node.key", "kubelet-client.key", "admin.token", "tokens.json"):
        assert (server.folder / name).stat().st_mode & 0o077 == 0, name
    store = server.folder / STORE_FILE
    assert [p for p in (store.parent, *store.parent.glob(f"{store.name}*")) if p.stat().st_mode & 0o077] == []
    assert server.token not in server.log()
    assert server.token not in (server.folder / "tokens.json").read_text()


def test_the_command_of_an_exec_is_not_logged(server: ServerProcess) -> None:
    upgrade = {
        "Connection": "Upgrade", "Upgrade": "websocket", "Sec-WebSocket-Version": "13",
        "Sec-WebSocket-Key": "AAAAAAAAAAAAAAAAAAAAAA==", "Sec-WebSocket-Protocol": "v5.channel.k8s.io",
    }  # fmt: skip
    with server.http() as client:  # a refused upgrade ends its connection
        answer = client.get(f"{PODS}/none/exec", params={"command": "--password=hunter2"}, headers=upgrade)
    assert answer.status_code == 404
    assert "hunter2" not in server.log()


def test_a_namespace_takes_its_contents_with_it(http: httpx.Client) -> None:
    create(http, {"metadata": {"name": "gone"}}, "/api/v1/namespaces")
    create(http, pod("inside"), "/api/v1/namespaces/gone/pods")
    http.delete("/api/v1/namespaces/gone")
    query = {"watch": "1", "fieldSelector": "metadata.name=gone", "timeoutSeconds": "10"}
    with http.stream("GET", "/api/v1/namespaces", params=query) as answer:
        for line in answer.iter_lines():
            if line and json.loads(line)["type"] == "DELETED":
                break
    assert http.get("/api/v1/namespaces/gone").status_code == 404
    assert http.get("/api/v1/namespaces/gone/pods").json()["items"] == []


def test_a_pod_is_bound_to_a_node_that_fits_and_told_why_not(http: httpx.Client) -> None:
    create(http, node("small", memory="64Mi"), "/api/v1/nodes")
    big = pod("big")
    big["spec"]["containers"][0]["resources"] = {"requests": {"memory": "1Gi"}}
    create(http, big)
    condition = wait_for(http, "big", lambda p: p["status"].get("conditions"))[0]
    assert condition["reason"] == "Unschedulable"
    assert condition["message"].startswith("0/1 nodes are available: 1 Insufficient memory. preemption: 0/1 nodes")
    create(http, pod("fits"))
    assert wait_for(http, "fits", lambda p: p["spec"].get("nodeName")) == "small"
    http.delete("/api/v1/nodes/small")


def wait_for(http: httpx.Client, name: str, look: Any) -> Any:
    query = {"watch": "1", "fieldSelector": f"metadata.name={name}", "timeoutSeconds": "10"}
    with http.stream("GET", PODS, params=query) as answer:
        for line in answer.iter_lines():
            if line and (found := look(json.loads(line)["object"])):
                return found
    raise AssertionError(f"pod {name} never got there")


def test_what_a_machine_needs_beside_its_containers_is_the_pods_overhead(tmp_path: Path) -> None:
    with serving(tmp_path, pod_overhead_mib="96") as running, running.http() as http:
        assert create(http, pod("plain"))["spec"]["overhead"] == {"memory": "96Mi"}
        assert create(http, pod("own", overhead={"memory": "1Gi"}))["spec"]["overhead"] == {"memory": "1Gi"}
        answer = http.post(PODS, json={**pod("wrong"), "spec": "none"})
        assert answer.status_code in (400, 422), "what is no pod is left to validation"


def test_binding_a_bound_pod_is_a_conflict(http: httpx.Client) -> None:
    create(http, pod("taken", nodeName="a"))
    binding = {"metadata": {"name": "taken"}, "target": {"kind": "Node", "name": "b"}}
    answer = http.post(f"{PODS}/taken/binding", json=binding)
    assert answer.status_code == 409 and 'already assigned to node "a"' in answer.json()["message"]


def test_an_event_has_two_faces(http: httpx.Client) -> None:
    event = {
        "metadata": {"name": "e1"},
        "involvedObject": {"kind": "Pod", "namespace": "default", "name": "x"},
        "reason": "Because",
        "message": "it happened",
        "type": "Normal",
    }
    create(http, event, "/api/v1/namespaces/default/events")
    other = http.get("/apis/events.k8s.io/v1/namespaces/default/events/e1").json()
    assert other["note"] == "it happened" and other["regarding"]["name"] == "x"
    assert other["apiVersion"] == "events.k8s.io/v1"


def test_acknowledged_writes_survive_kill_9_and_watches_resume(tmp_path: Path) -> None:
    with serving(tmp_path) as server:
        with server.http() as http:
            version = http.get(PODS).json()["metadata"]["resourceVersion"]
        done: list[str] = []
        writers = [threading.Thread(target=write_until_refused, args=(server, done, number)) for number in range(4)]
        for writer in writers:
            writer.start()
        while len(done) < 40:
            assert any(writer.is_alive() for writer in writers)
        server.kill()
        for writer in writers:
            writer.join()
        server.start()
        with server.http() as http:
            found = {item["metadata"]["name"] for item in http.get(PODS).json()["items"]}
            assert set(done) <= found
            seen = {
                item["metadata"]["name"]
                for kind, item in events(http, {"watch": "1", "resourceVersion": version, "timeoutSeconds": "1"})
            }
            assert seen >= found
        assert server.kill(signal.SIGTERM) == 0


def write_until_refused(server: ServerProcess, done: list[str], number: int) -> None:
    with server.http() as http:
        for index in range(10_000):
            name = f"w{number}-{index}"
            try:
                answer = http.post(PODS, json=pod(name))
            except httpx.HTTPError:
                return
            assert answer.status_code == 201
            done.append(name)


def test_sigterm_ends_open_watches_cleanly(tmp_path: Path) -> None:
    query = {"watch": "1", "resourceVersion": "1"}
    with serving(tmp_path) as server, server.http() as http, http.stream("GET", PODS, params=query) as answer:
        assert server.kill(signal.SIGTERM) == 0
        assert list(answer.iter_lines()) == []


def test_a_second_server_on_the_same_port_says_so(server: ServerProcess, tmp_path: Path) -> None:
    port = server.url.rpartition(":")[2]
    with pytest.raises(AssertionError, match=f"can not listen on 127.0.0.1 port {port}"), serving(tmp_path, port=port):
        pass


def test_endless_headers_and_too_many_requests_are_refused(tmp_path: Path) -> None:
    with serving(tmp_path, max_streams="1", body_seconds="1") as server, server.http() as http:
        with pytest.raises(httpx.HTTPError):
            http.get("/healthz", headers={f"X-{index}": "a" * 8000 for index in range(40)}).raise_for_status()
        with http.stream("GET", PODS, params={"watch": "1"}):
            refused = http.get(PODS, params={"watch": "1"})
            assert refused.status_code == 429 and refused.headers["Retry-After"] == "1"
            assert http.get(PODS).status_code == 200


def test_a_body_that_never_comes_is_given_up(tmp_path: Path) -> None:
    with serving(tmp_path, body_seconds="0.3") as server, server.http() as http:

        def slow() -> Iterator[bytes]:
            yield b"{"
            time.sleep(1)
            yield b"}"

        answer = http.post(PODS, content=slow(), headers={"Content-Type": "application/json"})
        assert answer.status_code == 504 and "sending the request body took longer" in answer.json()["message"]


SYSTEM_PYTHON = Path("/usr/bin/python3")


@pytest.mark.skipif(os.geteuid() != 0 or not SYSTEM_PYTHON.exists(), reason="needs root and a Python that all may read")
def test_a_server_started_by_root_serves_as_nobody_in_particular() -> None:
    version = subprocess.run(
        [SYSTEM_PYTHON, "-c", "import sys; print(sys.version_info[:2])"], capture_output=True, check=False, text=True
    )
    if version.stdout.strip() != str(sys.version_info[:2]):
        pytest.skip("the system's Python has another version")
    root = Path(tempfile.mkdtemp(prefix="cuboid-uid-"))  # not below pytest's folder, which is root's alone
    root.chmod(0o711)
    try:
        with serving(root, python=SYSTEM_PYTHON) as server, server.http() as http:
            assert server.process is not None
            status = Path(f"/proc/{server.process.pid}/status").read_text()
            assert re.search(r"^Uid:\t64100\t64100\t64100", status, re.MULTILINE), server.log()
            assert re.search(r"^Groups:\s*$", status, re.MULTILINE)
            create(http, pod("unprivileged"))
            assert (server.folder / "admin.token").stat().st_uid == 0
    finally:
        shutil.rmtree(root)
