"""What goes with what: owners, namespaces and finalizers, on real machines."""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any

import pytest

from tests.e2e.conftest import image
from tests.harness import pods as kube
from tests.harness.platform import Object, Platform

pytestmark = [pytest.mark.e2e, pytest.mark.vm, pytest.mark.timeout(300)]
LIVE = "trap 'exit 0' TERM; while true; do sleep 1; done"
NAMESPACE = "shop"


@pytest.fixture
def owners(pods: Platform) -> Iterator[Platform]:
    yield pods
    pods.kubectl("delete", "deployment,pod", "--all", timeout=90)
    pods.kubectl("delete", "namespace", NAMESPACE, "--ignore-not-found", timeout=120)
    assert pods.vmms() == []
    assert pods.leftovers() == []


def items(place: Platform, kind: str, *words: str) -> list[Object]:
    found: list[Object] = json.loads(place.kubectl("get", kind, *words, "-o", "json").stdout)["items"]
    return found


def pod_template(name: str, **more: Any) -> Object:
    container = {"name": "main", "image": image("busybox"), "command": ["sh", "-c", LIVE]}
    spec = {"containers": [container], "terminationGracePeriodSeconds": 5, **more}
    return {"metadata": {"labels": {"app": name}}, "spec": spec}


def workload(kind: str, name: str, **spec: Any) -> Object:
    body = {"selector": {"matchLabels": {"app": name}}, "template": pod_template(name), **spec}
    return {"apiVersion": "apps/v1", "kind": kind, "metadata": {"name": name}, "spec": body}


def running(place: Platform, name: str) -> set[str]:
    """Uids."""
    return {pod["metadata"]["uid"] for pod in items(place, "pods", "-l", f"app={name}")}


def rolled(place: Platform, what: str, *words: str) -> None:
    place.kubectl("rollout", "status", what, "--timeout=120s", *words, timeout=130)


@pytest.mark.parametrize("cascade", ["background", "foreground"])
def test_machines_go_with_the_deployment_that_is_deleted(owners: Platform, cascade: str) -> None:
    kube.apply(owners, workload("Deployment", "web", replicas=2))
    rolled(owners, "deployment/web")
    assert len(owners.vmms()) == 2
    owners.kubectl("delete", "deployment", "web", f"--cascade={cascade}", "--timeout=60s", timeout=70)
    if cascade == "background":
        kube.until(lambda: not running(owners, "web"), "its pods are gone", 60)
    assert items(owners, "replicasets,pods") == [], "who waits in the foreground finds nothing left"
    kube.until(lambda: not owners.vmms(), "nor a machine", 20)


def test_orphans_run_on_and_are_adopted_by_who_selects_them(owners: Platform) -> None:
    kube.apply(owners, workload("Deployment", "web", replicas=2))
    rolled(owners, "deployment/web")
    pods, machines = running(owners, "web"), sorted(owners.vmms())
    owners.kubectl("delete", "deployment", "web", "--cascade=orphan", "--timeout=30s")
    (left,) = items(owners, "replicasets")
    assert "ownerReferences" not in left["metadata"]
    owners.kubectl("delete", "replicaset", left["metadata"]["name"], "--cascade=orphan", "--timeout=30s")
    assert all("ownerReferences" not in pod["metadata"] for pod in items(owners, "pods"))
    kube.apply(owners, workload("Deployment", "web", replicas=2))
    rolled(owners, "deployment/web")
    kube.until(lambda: len(running(owners, "web")) == 2, "no pod more than asked for", 60)
    (adopter,) = items(owners, "replicasets")
    owned = {pod["metadata"]["ownerReferences"][0]["uid"] for pod in items(owners, "pods", "-l", "app=web")}
    assert owned == {adopter["metadata"]["uid"]}
    assert (running(owners, "web"), sorted(owners.vmms())) == (pods, machines), "nothing was started anew"


def test_a_namespace_takes_everything_in_it_along(owners: Platform) -> None:
    place, here = owners, ("-n", NAMESPACE)
    place.kubectl("create", "namespace", NAMESPACE)
    claim = {
        "metadata": {"name": "data"},
        "spec": {"accessModes": ["ReadWriteOnce"], "resources": {"requests": {"storage": "16Mi"}}},
    }
    database = workload("StatefulSet", "database", replicas=1, serviceName="database", volumeClaimTemplates=[claim])
    volume = {"name": "data", "mountPath": "/data"}
    database["spec"]["template"]["spec"]["containers"][0]["volumeMounts"] = [volume]
    job = {
        "apiVersion": "batch/v1",
        "kind": "Job",
        "metadata": {"name": "sums"},
        "spec": {"template": {"spec": {**pod_template("sums")["spec"], "restartPolicy": "Never"}}},
    }
    document = {"apiVersion": "v1", "kind": "List", "items": [workload("Deployment", "web", replicas=1), database, job]}
    place.kubectl("apply", *here, "-f", "-", stdin=json.dumps(document))
    for words in (
        ("configmap", "settings", "--from-literal=a=1"), ("secret", "generic", "hidden", "--from-literal=a=1"),
        ("service", "clusterip", "web", "--tcp=80"), ("serviceaccount", "worker"), ("quota", "most", "--hard=pods=9"),
        ("role", "reader", "--verb=get", "--resource=pods"),
        ("poddisruptionbudget", "web", "--selector=app=web", "--min-available=1"),
        ("cronjob", "nightly", f"--image={image('busybox')}", "--schedule=0 0 1 1 *"),
    ):  # fmt: skip
        place.kubectl("create", *words, *here)
    rolled(place, "deployment/web", *here)
    rolled(place, "statefulset/database", *here)
    kube.until(lambda: len(place.vmms()) == 3, "three machines run", 60)
    (bound,) = items(place, "pvc", *here)
    place.kubectl("delete", "namespace", NAMESPACE, "--timeout=90s", timeout=100)
    gone = place.kubectl("get", "all,cm,secret,sa,pvc,pdb,role,quota,endpointslices", *here, "-o", "name")
    assert gone.stdout == ""
    volumes = [row["metadata"]["name"] for row in items(place, "pv")]
    kube.until(lambda: not items(place, "pv"), f"the volume {bound['spec']['volumeName']} of {volumes} is gone", 30)
    kube.until(lambda: not place.vmms(), "no machine is left", 30)


def test_a_finalizer_keeps_the_pod_but_not_its_machine_and_its_namespace_says_so(owners: Platform) -> None:
    place, here = owners, ("-n", NAMESPACE)
    place.kubectl("create", "namespace", NAMESPACE)
    pod = kube.manifest("held", {"image": image("busybox"), "command": ["sh", "-c", LIVE]})
    pod["metadata"]["finalizers"] = ["example.com/hold"]
    place.kubectl("apply", *here, "-f", "-", stdin=json.dumps(pod))
    place.kubectl("wait", *here, "--for=condition=ready", "pod/held", "--timeout=60s", timeout=70)
    place.kubectl("delete", "namespace", NAMESPACE, "--wait=false")
    kube.until(lambda: not place.vmms(), "its machine is gone", 60)
    held = json.loads(place.kubectl("get", "pod", "held", *here, "-o", "json").stdout)
    assert held["metadata"]["deletionTimestamp"]

    def said() -> str:
        found = json.loads(place.kubectl("get", "namespace", NAMESPACE, "-o", "json").stdout)["status"]
        rows = {row["type"]: row for row in found.get("conditions", [])}
        return str(rows.get("NamespaceFinalizersRemaining", {}).get("message", ""))

    kube.until(lambda: "example.com/hold in 1 resource instances" in said(), "who holds it is said", 30)
    place.kubectl("patch", "pod", "held", *here, "--type=merge", "-p", '{"metadata": {"finalizers": null}}')
    place.kubectl("wait", "--for=delete", f"namespace/{NAMESPACE}", "--timeout=60s", timeout=70)
