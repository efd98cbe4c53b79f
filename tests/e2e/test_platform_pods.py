"""What Kubernetes says a pod can do, on pods in virtual machines."""

from __future__ import annotations

import re
import time
from datetime import datetime
from typing import Any

import pytest

from tests.e2e.conftest import image
from tests.harness import pods as kube
from tests.harness.certificate import self_signed
from tests.harness.platform import Object, Platform

pytestmark = [pytest.mark.e2e, pytest.mark.vm, pytest.mark.timeout(240)]
BUSYBOX, SERVICES = image("busybox"), image("services")


def busybox(script: str, **fields: Any) -> Object:
    return {"image": BUSYBOX, "command": ["sh", "-c", script], **fields}


def mount(name: str, path: str, **fields: Any) -> Object:
    return {"name": name, "mountPath": path, **fields}


# As little of HTTP/2 as the health check of gRPC needs: any request is answered with SERVING.
GRPC_SERVER = """
import contextlib, socket, struct
def frame(kind, flags, stream, data=b""):
    return struct.pack(">I", len(data))[1:] + bytes([kind, flags]) + struct.pack(">I", stream) + data
def header(name, value):
    return bytes([0, len(name)]) + name + bytes([len(value)]) + value
listener = socket.create_server(("", 50051))
while True:
    client, _ = listener.accept()
    with contextlib.suppress(OSError), client, client.makefile("rb") as source:
        source.read(24)
        client.sendall(frame(4, 0, 0))
        while len(head := source.read(9)) == 9:
            kind, flags, stream = head[3], head[4], int.from_bytes(head[5:], "big")
            data = source.read(int.from_bytes(head[:3], "big"))
            if kind in (4, 6) and not flags & 1:
                client.sendall(frame(kind, 1, 0, data if kind == 6 else b""))
            if kind == 0 and flags & 1:
                first = bytes([0x88]) + header(b"content-type", b"application/grpc")
                client.sendall(frame(1, 4, stream, first) + frame(0, 0, stream, bytes([0, 0, 0, 0, 2, 8, 1])))
                client.sendall(frame(1, 5, stream, header(b"grpc-status", b"0")))
"""

HTTPS_SERVER = """
import http.server, os, ssl
open("/tmp/pem", "w").write(os.environ["PEM"])
context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
context.load_cert_chain("/tmp/pem")
server = http.server.HTTPServer(("", 8443), http.server.SimpleHTTPRequestHandler)
server.socket = context.wrap_socket(server.socket, server_side=True)
server.serve_forever()
"""


# --- several containers ----------------------------------------------------------------------------------------------


def test_init_containers_a_sidecar_and_two_containers_share_network_and_volume(pods: Platform) -> None:
    shared = {"volumeMounts": [mount("shared", "/shared")]}
    first = busybox("sleep 1; echo first >> /shared/order; date +%s.%N > /shared/first", name="first", **shared)
    sidecar = busybox(
        "echo sidecar >> /shared/order; exec httpd -f -p 9000 -h /shared", name="sidecar", restartPolicy="Always",
        startupProbe={"tcpSocket": {"port": 9000}, "periodSeconds": 1}, **shared,
    )  # fmt: skip
    second = busybox("wget -q -O - http://localhost:9000/order > /shared/seen", name="second", **shared)
    server = busybox("hostname > /tmp/index.html; exec httpd -f -p 8080 -h /tmp", name="server", **shared)
    ask = "until wget -q -O /shared/answer http://localhost:8080/; do sleep 0.2; done; sleep 3600"
    client = busybox(ask, name="client", **shared)
    kube.apply(
        pods,
        kube.manifest(
            "team", server, client, initContainers=[first, sidecar, second],
            volumes=[{"name": "shared", "emptyDir": {}}],
        ),
    )  # fmt: skip
    pod = pods.wait("team", kube.ready)
    assert kube.shell(pods, "team", "cat /shared/seen", "client") == "first\nsidecar\n"
    kube.until(lambda: kube.shell(pods, "team", "cat /shared/answer", "client", check=False) == "team\n", "an answer")
    assert kube.terminated(pod, "first")["reason"] == "Completed"
    assert kube.container(pod, "sidecar")["ready"]
    assert "httpd" not in kube.shell(pods, "team", "ps", "client"), "a container sees the processes of another"
    assert kube.shell(pods, "team", "ls /tmp", "client") == ""


def test_a_shared_process_namespace_shows_the_other_containers(pods: Platform) -> None:
    kube.apply(
        pods,
        kube.manifest("shared", busybox("exec sleep 1111", name="one"), busybox("exec sleep 2222", name="two"),
                      shareProcessNamespace=True),
    )  # fmt: skip
    pods.wait("shared", kube.ready)
    assert "sleep 2222" in kube.shell(pods, "shared", "ps", "one")
    assert "sleep 1111" in kube.shell(pods, "shared", "ps", "two")


# --- volumes of files ------------------------------------------------------------------------------------------------


def test_files_of_config_maps_secrets_and_the_pod_come_and_are_refreshed_in_place(pods: Platform) -> None:
    config = {"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": "conf"}, "data": {"a": "1", "b": "2"}}
    secret = {"apiVersion": "v1", "kind": "Secret", "metadata": {"name": "key"}, "stringData": {"token": "t0p"}}
    label = {"path": "labels", "fieldRef": {"fieldPath": "metadata.labels"}}
    volumes = [
        {"name": "conf", "configMap": {"name": "conf", "items": [{"key": "a", "path": "sub/a", "mode": 0o400}]}},
        {"name": "key", "secret": {"secretName": "key", "defaultMode": 0o440}},
        {"name": "down", "downwardAPI": {"items": [label]}},
        {"name": "all", "projected": {"sources": [
            {"configMap": {"name": "conf"}}, {"secret": {"name": "key"}},
            {"downwardAPI": {"items": [{"path": "name", "fieldRef": {"fieldPath": "metadata.name"}}]}},
        ]}},
    ]  # fmt: skip
    env = [
        {"name": "TOKEN", "valueFrom": {"secretKeyRef": {"name": "key", "key": "token"}}},
        {"name": "IP", "valueFrom": {"fieldRef": {"fieldPath": "status.podIP"}}},
        {"name": "BOTH", "value": "$(TOKEN)-$(IP)"},
    ]
    app = busybox(
        "sleep 3600", env=env, envFrom=[{"configMapRef": {"name": "conf"}, "prefix": "C_"}],
        volumeMounts=[mount(name, f"/{name}") for name in ("conf", "key", "down", "all")],
    )  # fmt: skip
    kube.apply(pods, config, secret, kube.manifest("files", app, volumes=volumes))
    ip = pods.wait("files", kube.ready)["status"]["podIP"]
    read = "cat /conf/sub/a; echo; cat /key/token; echo; cat /all/name; echo; ls /all; echo $C_b $BOTH"
    assert kube.shell(pods, "files", read).split() == ["1", "t0p", "files", "a", "b", "name", "token", "2", f"t0p-{ip}"]
    assert kube.shell(pods, "files", "stat -L -c %a /conf/sub/a /key/token; mount | grep ' /key '").split()[:2] == [
        "400", "440",
    ]  # fmt: skip
    assert "tmpfs" in kube.shell(pods, "files", "mount | grep ' /key '")
    assert 'app="files"' in kube.shell(pods, "files", "cat /down/labels")
    pods.kubectl("patch", "configmap", "conf", "-p", '{"data": {"a": "new", "c": "3"}}')
    pods.kubectl("label", "pod", "files", "tier=back")
    kube.until(lambda: kube.shell(pods, "files", "cat /conf/sub/a") == "new", "the new content")
    kube.until(lambda: "tier" in kube.shell(pods, "files", "cat /down/labels"), "the new label")
    kube.until(lambda: kube.shell(pods, "files", "cat /all/c", check=False) == "3", "the new key")
    pods.kubectl("delete", "configmap/conf", "secret/key")


def test_sub_paths_modes_and_limits_of_volumes(pods: Platform) -> None:
    volumes = [
        {"name": "disk", "emptyDir": {}}, {"name": "memory", "emptyDir": {"medium": "Memory", "sizeLimit": "8Mi"}},
    ]  # fmt: skip
    script = "mkdir -p /disk/one; echo kept > /disk/one/file; dd if=/dev/zero of=/memory/f bs=1M count=9; sleep 3600"
    writer = busybox(script, name="writer", volumeMounts=[mount("disk", "/disk"), mount("memory", "/memory")])
    reader = busybox(
        "sleep 3600", name="reader", resources={"limits": {"ephemeral-storage": "64Mi"}},
        volumeMounts=[mount("disk", "/only", subPath="one", readOnly=True)],
    )  # fmt: skip
    writer["resources"] = {"limits": {"ephemeral-storage": "64Mi"}}
    kube.apply(pods, kube.manifest("paths", writer, reader, volumes=volumes))
    pods.wait("paths", kube.ready)
    kube.until(lambda: kube.shell(pods, "paths", "cat /only/file", "reader", check=False) == "kept\n", "the file")
    assert "Read-only" in pods.kubectl("exec", "paths", "-c", "reader", "--", "touch", "/only/x", check=False).stderr
    assert "No space" in pods.kubectl("logs", "paths", "-c", "writer").stdout
    full = "dd if=/dev/zero of=/root/big bs=1M count=200 2>&1; rm -f /root/big"
    assert "No space left on device" in kube.shell(pods, "paths", full, "writer", check=False)


# --- probes, hooks, ends ---------------------------------------------------------------------------------------------


def test_probes_hold_back_readiness_and_restart_what_is_not_alive(pods: Platform) -> None:
    fast = {"periodSeconds": 1, "timeoutSeconds": 5, "failureThreshold": 1}
    slow = busybox(
        "sleep 2; touch /tmp/up; exec httpd -f -p 80 -h /tmp", name="slow",
        startupProbe={"exec": {"command": ["cat", "/tmp/up"]}, **fast, "failureThreshold": 60},
        readinessProbe={"httpGet": {"path": "/ready", "port": 80}, **fast},
    )  # fmt: skip
    sick = busybox(
        "touch /tmp/well; sleep 3600", name="sick",
        livenessProbe={"exec": {"command": ["cat", "/tmp/well"]}, **fast, "failureThreshold": 2},
    )  # fmt: skip
    grpc = {
        "name": "grpc", "image": SERVICES, "command": ["python3", "-c", GRPC_SERVER],
        "readinessProbe": {"grpc": {"port": 50051}, "periodSeconds": 1, "timeoutSeconds": 5},
        "livenessProbe": {"tcpSocket": {"port": 50051}, **fast, "initialDelaySeconds": 20},
    }  # fmt: skip
    https = {
        "name": "https", "image": SERVICES, "command": ["python3", "-c", HTTPS_SERVER],
        "env": [{"name": "PEM", "value": self_signed()}],
        "readinessProbe": {"httpGet": {"port": 8443, "scheme": "HTTPS"}, "periodSeconds": 1, "timeoutSeconds": 5},
    }  # fmt: skip
    kube.apply(pods, kube.manifest("probed", slow, sick, grpc, https, terminationGracePeriodSeconds=1))
    pods.wait("probed", lambda pod: bool(kube.container(pod, "slow").get("started")))
    assert not kube.container(pods.pod("probed"), "slow")["ready"]
    kube.shell(pods, "probed", "echo yes > /tmp/ready", "slow")
    pods.wait("probed", kube.ready)
    kube.shell(pods, "probed", "rm /tmp/ready", "slow")
    pods.wait("probed", lambda pod: kube.condition(pod, "Ready") == "False")
    kube.shell(pods, "probed", "rm /tmp/well", "sick")
    pods.wait("probed", lambda pod: kube.container(pod, "sick")["restartCount"] == 1)
    events = pods.cuboid("events", "probed").stdout
    assert "Readiness probe failed" in events
    assert "Liveness probe failed" in events
    pod = pods.pod("probed")
    assert kube.container(pod, "slow")["restartCount"] == kube.container(pod, "grpc")["restartCount"] == 0


def test_a_volume_beyond_its_size_limit_evicts_the_pod(pods: Platform) -> None:
    script = "sleep 1; head -c 20000000 /dev/zero > /small/file; sleep 3600"
    small = {"name": "small", "emptyDir": {"sizeLimit": "10Mi"}}
    kube.apply(pods, kube.manifest("greedy", busybox(script, volumeMounts=[mount("small", "/small")]), volumes=[small]))
    status = pods.wait("greedy", kube.ended)["status"]
    assert (status["phase"], status["reason"]) == ("Failed", "Evicted")
    assert status["message"] == 'Usage of EmptyDir volume "small" exceeds the limit "10Mi".'


def test_hooks_run_and_an_end_has_its_grace(pods: Platform) -> None:
    hooks = {
        "postStart": {"exec": {"command": ["sh", "-c", "echo post-start > /proc/1/fd/1"]}},
        "preStop": {"exec": {"command": ["sh", "-c", "echo pre-stop > /proc/1/fd/1"]}},
    }
    script = "trap 'echo got-term; exit 0' TERM; echo up; while true; do sleep 0.1; done"
    polite = busybox(script, name="polite", lifecycle=hooks)
    kube.apply(pods, kube.manifest("ends", polite, terminationGracePeriodSeconds=30))
    pods.wait("ends", kube.ready)
    kube.until(lambda: "post-start" in pods.kubectl("logs", "ends").stdout, "the hook's line")
    with pods.started(["kubectl", "logs", "-f", "ends"]) as follow:
        begun = time.monotonic()
        pods.kubectl("delete", "pod", "ends", "--wait=true")
        assert time.monotonic() - begun < 29, "it was ended by its grace period, not by its own"
        assert follow.stdout is not None
        lines = follow.stdout.read().split()
    assert lines.index("pre-stop") < lines.index("got-term")


def test_failures_back_off_and_success_ends_the_pod(pods: Platform) -> None:
    script = "n=$(cat /data/n || echo 0); echo $((n + 1)) > /data/n; echo said-$n > /dev/termination-log; [ $n = 2 ]"
    app = busybox(script, volumeMounts=[mount("data", "/data")])
    volumes = [{"name": "data", "emptyDir": {}}]
    kube.apply(pods, kube.manifest("tries", app, restartPolicy="OnFailure", volumes=volumes))
    seen = pods.wait("tries", lambda pod: kube.waiting(pod) == "CrashLoopBackOff")
    assert "back-off" in kube.container(seen)["state"]["waiting"]["message"]
    assert kube.terminated(seen, last=True)["message"].startswith("said-")
    pod = pods.wait("tries", kube.ended, timeout=120)
    assert pod["status"]["phase"] == "Succeeded"
    assert kube.container(pod)["restartCount"] == 2
    assert kube.terminated(pod)["message"] == "said-2\n"
    first, last = (
        datetime.fromisoformat(kube.terminated(pod, last=which)[key])
        for which, key in ((True, "finishedAt"), (False, "startedAt"))
    )
    assert (last - first).total_seconds() >= 9, "the second restart waits for the back-off"


def test_a_container_over_its_memory_is_oom_killed_alone(pods: Platform) -> None:
    hungry = busybox("x=a; while true; do x=$x$x; done", name="hungry", resources={"limits": {"memory": "24Mi"}})
    calm = busybox("sleep 3600", name="calm")
    kube.apply(pods, kube.manifest("oom", hungry, calm, restartPolicy="Never"))
    pod = pods.wait("oom", lambda pod: bool(kube.terminated(pod, "hungry")))
    assert (kube.terminated(pod, "hungry")["reason"], kube.terminated(pod, "hungry")["exitCode"]) == ("OOMKilled", 137)
    assert "running" in kube.container(pod, "calm")["state"]
    assert kube.shell(pods, "oom", "echo well", "calm") == "well\n"


# --- security --------------------------------------------------------------------------------------------------------


def test_security_context_sysctls_and_limits_reach_the_process(pods: Platform) -> None:
    tight = busybox(
        "sleep 3600", name="tight",
        securityContext={
            "runAsUser": 1000, "runAsGroup": 3000, "readOnlyRootFilesystem": True, "allowPrivilegeEscalation": False,
            "capabilities": {"drop": ["ALL"], "add": ["NET_BIND_SERVICE"]},
        },
        volumeMounts=[mount("scratch", "/scratch")],
    )  # fmt: skip
    loose = busybox("sleep 3600", name="loose", securityContext={"seccompProfile": {"type": "Unconfined"}})
    pod_wide = {
        "supplementalGroups": [4000], "fsGroup": 5000,
        "sysctls": [{"name": "net.ipv4.ip_unprivileged_port_start", "value": "1024"},
                    {"name": "kernel.shm_rmid_forced", "value": "1"}],
    }  # fmt: skip
    volumes = [{"name": "scratch", "emptyDir": {}}]
    kube.apply(pods, kube.manifest("secure", tight, loose, securityContext=pod_wide, volumes=volumes))
    pods.wait("secure", kube.ready)
    status = dict(
        re.findall(r"^(\w+):\s*(.*)$", kube.shell(pods, "secure", "cat /proc/1/status", "tight"), re.MULTILINE)
    )
    assert status["Uid"].split()[0] == "1000"
    assert status["Gid"].split()[0] == "3000"
    assert {"4000", "5000"} <= set(status["Groups"].split())
    assert int(status["CapBnd"], 16) == 1 << 10
    assert (status["NoNewPrivs"], status["Seccomp"]) == ("1", "2")
    denied = pods.kubectl("exec", "secure", "-c", "tight", "--", "touch", "/x", check=False)
    assert "Read-only file system" in denied.stderr
    assert kube.shell(pods, "secure", "touch /scratch/f && stat -c %g /scratch/f", "tight") == "5000\n"
    assert "Seccomp:\t0" in kube.shell(pods, "secure", "cat /proc/1/status", "loose")
    values = kube.shell(
        pods, "secure", "cd /proc/sys; cat net/ipv4/ip_unprivileged_port_start kernel/shm_rmid_forced", "loose"
    )
    assert values.split() == ["1024", "1"]
    root = pods.kubectl("exec", "secure", "-c", "loose", "--", "id", "-u").stdout
    assert root == "0\n"


def test_a_container_that_must_not_be_root_is_not(pods: Platform) -> None:
    kube.apply(pods, kube.manifest("rootless", busybox("sleep 1"), securityContext={"runAsNonRoot": True}))
    pod = pods.wait("rootless", lambda pod: kube.waiting(pod) not in ("", "ContainerCreating"))
    assert kube.waiting(pod) in ("CreateContainerConfigError", "CrashLoopBackOff")
    assert "root" in pods.cuboid("why", "rootless").stdout
    assert kube.terminated(pod).get("exitCode") != 0
