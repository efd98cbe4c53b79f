"""A current `kubectl` against the server: objects, tables, patches, watches, refusals. No node runs; tests play it."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.harness.kube_server import ServerProcess, node, serving

KUBECTL = Path(sys.executable).parent / "kubectl"
pytestmark = pytest.mark.e2e
MANIFEST = """
apiVersion: v1
kind: Pod
metadata:
  name: {name}
  labels: {{app: {name}}}
spec:
  schedulerName: nobody
  containers:
  - name: nginx
    image: localhost:5000/demo/nginx:1
    ports: [{{containerPort: 80}}]
    resources: {{requests: {{cpu: 100m, memory: 64Mi}}}}
"""


class Kubectl:
    def __init__(self, server: ServerProcess) -> None:
        self.server = server
        self.environment = {
            "KUBECONFIG": str(server.kubeconfig()),
            "HOME": str(server.root),
            "PATH": os.environ["PATH"],
            "KUBECTL_EXTERNAL_DIFF": "diff -u",
        }

    def command(self, *arguments: str) -> list[str]:
        return [str(KUBECTL), "--cache-dir", str(self.server.root / "cache"), *arguments]

    def run(self, *arguments: str, stdin: str = "") -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            self.command(*arguments),
            env=self.environment,
            input=stdin,
            capture_output=True,
            text=True,
            timeout=40,
            check=False,
        )

    def __call__(self, *arguments: str, stdin: str = "") -> str:
        done = self.run(*arguments, stdin=stdin)
        assert done.returncode == 0, f"{arguments}: {done.stderr}"
        return done.stdout

    def fails(self, *arguments: str, stdin: str = "") -> str:
        done = self.run(*arguments, stdin=stdin)
        assert done.returncode != 0, f"{arguments} should have failed: {done.stdout}"
        return done.stderr

    def set_running(self, name: str) -> None:
        status = {
            "phase": "Running",
            "podIP": "10.88.0.7",
            "podIPs": [{"ip": "10.88.0.7"}],
            "conditions": [{"type": "Ready", "status": "True"}],
            "containerStatuses": [
                {
                    "name": "nginx",
                    "ready": True,
                    "started": True,
                    "restartCount": 2,
                    "image": "localhost:5000/demo/nginx:1",
                    "imageID": "",
                    "state": {"running": {"startedAt": "2026-01-01T00:00:00Z"}},
                    "lastState": {"terminated": {"exitCode": 1, "finishedAt": "2026-01-01T00:00:00Z"}},
                }
            ],
        }
        self("patch", "pod", name, "--subresource=status", "--type=merge", "-p", json.dumps({"status": status}))


@pytest.fixture(scope="module")
def kubectl(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Kubectl]:
    with serving(tmp_path_factory.mktemp("kubectl")) as server:
        yield Kubectl(server)


@pytest.fixture
def web(kubectl: Kubectl, request: pytest.FixtureRequest) -> Iterator[str]:
    """A pod of the test's own."""
    name = "web-" + str(abs(hash(request.node.name)) % 10**6)
    kubectl("apply", "-f", "-", stdin=MANIFEST.format(name=name))
    yield name
    kubectl("delete", "pod", name, "--force", "--ignore-not-found")


def test_apply_creates_then_configures_then_leaves_alone(kubectl: Kubectl, web: str) -> None:
    manifest = MANIFEST.format(name=web)
    assert f"pod/{web} unchanged" in kubectl("apply", "-f", "-", stdin=manifest)
    changed = manifest.replace("nginx:1", "nginx:2")
    assert "nginx:2" in kubectl.run("diff", "-f", "-", stdin=changed).stdout
    assert f"pod/{web} configured" in kubectl("apply", "-f", "-", stdin=changed)
    assert kubectl("get", "pod", web, "-o", "jsonpath={.spec.containers[0].image}").endswith("nginx:2")


def test_get_prints_what_kubernetes_prints(kubectl: Kubectl, web: str) -> None:
    assert kubectl("get", "pod", web).split()[:9] == [
        "NAME", "READY", "STATUS", "RESTARTS", "AGE", web, "0/1", "Pending", "0",
    ]  # fmt: skip
    kubectl.set_running(web)
    wide = kubectl("get", "pod", web, "-o", "wide")
    assert "1/1" in wide and "Running" in wide and "2 (" in wide and "10.88.0.7" in wide and "READINESS GATES" in wide
    assert kubectl("get", "pods", "-l", f"app={web}", "-o", "name") == f"pod/{web}\n"
    assert kubectl("get", "pods", "--field-selector", f"metadata.name={web}", "--no-headers").startswith(web)
    assert "default" in kubectl("get", "pods", "-A")


def test_describe_reads_pod_node_and_events(kubectl: Kubectl, web: str) -> None:
    uid = kubectl("get", "pod", web, "-o", "jsonpath={.metadata.uid}")
    event = {
        "apiVersion": "v1",
        "kind": "Event",
        "metadata": {"name": f"{web}.1", "namespace": "default"},
        "involvedObject": {"apiVersion": "v1", "kind": "Pod", "name": web, "namespace": "default", "uid": uid},
        "reason": "Pulled",
        "message": "image is here",
        "type": "Normal",
        "source": {"component": "kubelet"},
        "firstTimestamp": "2026-01-01T00:00:00Z",
        "lastTimestamp": "2026-01-01T00:00:00Z",
        "count": 1,
    }
    kubectl("create", "-f", "-", stdin=json.dumps(event))
    described = kubectl("describe", "pod", web)
    assert "image is here" in described and "QoS Class:" in described and "Burstable" in described
    assert "image is here" in kubectl("events", "--for", f"pod/{web}")
    assert "Pulled" in kubectl("get", "events")
    kubectl("create", "-f", "-", stdin=json.dumps(node("seen")))
    assert "seen" in kubectl("describe", "node", "seen")
    assert kubectl("get", "nodes").split()[5:8] == ["seen", "Ready", "<none>"]
    assert "SchedulingDisabled" in (kubectl("cordon", "seen") and kubectl("get", "node", "seen"))
    kubectl("delete", "node", "seen")


def test_get_w_follows_a_pod(kubectl: Kubectl, web: str) -> None:
    watching = subprocess.Popen(
        kubectl.command("get", "pod", web, "-w"), env=kubectl.environment, stdout=subprocess.PIPE, text=True
    )
    try:
        assert watching.stdout is not None
        assert watching.stdout.readline().startswith("NAME")
        assert "Pending" in watching.stdout.readline()
        kubectl.set_running(web)
        assert "Running" in watching.stdout.readline()
    finally:
        watching.kill()
        watching.communicate()


def test_label_annotate_and_the_three_patches(kubectl: Kubectl, web: str) -> None:
    kubectl("label", "pod", web, "tier=front")
    kubectl("annotate", "pod", web, "note=hello")
    kubectl("patch", "pod", web, "-p", '{"spec":{"containers":[{"name":"nginx","image":"other:1"}]}}')
    kubectl("patch", "pod", web, "--type=json", "-p", '[{"op":"remove","path":"/metadata/labels/tier"}]')
    kubectl("patch", "pod", web, "--type=merge", "-p", '{"metadata":{"annotations":{"note":null}}}')
    found: dict[str, Any] = json.loads(kubectl("get", "pod", web, "-o", "json"))
    assert found["metadata"]["labels"] == {"app": web}
    assert "note" not in found["metadata"]["annotations"]
    container = found["spec"]["containers"][0]
    assert container["image"] == "other:1" and container["ports"][0]["containerPort"] == 80


def test_wait_sees_a_condition_and_a_deletion(kubectl: Kubectl, web: str) -> None:
    kubectl.set_running(web)
    assert "condition met" in kubectl("wait", f"pod/{web}", "--for=condition=Ready", "--timeout=20s")
    kubectl("delete", "pod", web)
    assert "NotFound" in kubectl.fails("get", "pod", web)


def test_discovery_and_explain(kubectl: Kubectl) -> None:
    resources = kubectl("api-resources")
    for line in ("pods", "leases", "configmaps", "coordination.k8s.io/v1"):
        assert line in resources
    assert "livenessProbe\t<Probe>" in kubectl("explain", "pod.spec.containers")
    assert "v1.37" in kubectl("version")
    assert "events.k8s.io/v1" in kubectl("api-versions")


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda text: text.replace("schedulerName", "schedulerNam"), 'unknown field "spec.schedulerNam"'),
        (lambda text: text.replace("containerPort: 80", "containerPort: 99999"), "must be between 1 and 65535"),
        (lambda text: text.replace("memory: 64Mi", "memory: lots"), "quantities must match the regular expression"),
        (lambda text: text.replace("image: localhost:5000/demo/nginx:1", "image: [1]"), "cannot unmarshal array"),
        (lambda text: text.replace("name: nginx", "name: UPPER"), "a lowercase RFC 1123 label"),
        (lambda text: text.replace("  containers:", "  containers: ]"), "error converting YAML to JSON"),
        (lambda text: text.replace("kind: Pod", "kind: Pot"), 'no matches for kind "Pot"'),
    ],
)
def test_bad_manifests_are_refused_with_the_reason(
    kubectl: Kubectl, change: Callable[[str], str], message: str
) -> None:
    assert message in kubectl.fails("create", "-f", "-", stdin=change(MANIFEST.format(name="bad")))
    assert "NotFound" in kubectl.fails("get", "pod", "bad")


def test_a_change_of_what_is_fixed_is_refused(kubectl: Kubectl, web: str) -> None:
    refusal = kubectl.fails("patch", "pod", web, "-p", '{"spec":{"hostname":"x"}}')
    assert "pod updates may not change fields other than" in refusal


def test_server_side_apply_keeps_who_owns_what(kubectl: Kubectl) -> None:
    manifest = MANIFEST.format(name="ssa")
    assert kubectl("apply", "--server-side", "-f", "-", stdin=manifest) == "pod/ssa serverside-applied\n"
    other = manifest.replace("app: ssa", "app: other")
    refusal = kubectl.fails("apply", "--server-side", "--field-manager=somebody", "-f", "-", stdin=other)
    assert 'conflict with "kubectl": .metadata.labels.app' in refusal
    kubectl("apply", "--server-side", "--field-manager=somebody", "--force-conflicts", "-f", "-", stdin=other)
    assert kubectl("get", "pod", "ssa", "-o", "jsonpath={.metadata.labels.app}") == "other"


def test_imperative_commands_send_what_the_server_takes(kubectl: Kubectl) -> None:
    kubectl("create", "namespace", "team")
    kubectl("-n", "team", "create", "configmap", "settings", "--from-literal=a=b")
    kubectl("-n", "team", "create", "secret", "generic", "keys", "--from-literal=p=q")
    kubectl("-n", "team", "create", "serviceaccount", "robot")
    kubectl("-n", "team", "run", "tool", "--image=busybox", "--overrides", '{"spec":{"schedulerName":"nobody"}}')
    assert kubectl("-n", "team", "get", "configmap", "settings", "-o", "jsonpath={.data.a}") == "b"
    assert kubectl("-n", "team", "get", "secret", "keys", "-o", "jsonpath={.data.p}") == "cQ=="
    assert "yes" in kubectl("auth", "can-i", "create", "pods")
    assert "cuboid-admin" in kubectl("auth", "whoami")
    kubectl("delete", "namespace", "team")
    assert kubectl("-n", "team", "get", "pods,secrets,configmaps", "-o", "name") == ""


def test_delete_of_a_bound_pod_waits_for_its_node(kubectl: Kubectl) -> None:
    manifest = MANIFEST.format(name="bound").replace("schedulerName: nobody", "nodeName: elsewhere")
    kubectl("create", "-f", "-", stdin=manifest)
    deleting = subprocess.Popen(
        kubectl.command("delete", "pod", "bound"), env=kubectl.environment, stdout=subprocess.PIPE
    )
    try:
        end = time.monotonic() + 20
        while "Terminating" not in kubectl("get", "pod", "bound"):
            assert time.monotonic() < end
        assert deleting.poll() is None
        kubectl("delete", "pod", "bound", "--force", "--grace-period=0", "--wait=false")
        assert deleting.wait(20) == 0
    finally:
        deleting.kill()
        deleting.communicate()
