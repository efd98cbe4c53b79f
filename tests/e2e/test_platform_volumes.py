"""PersistentVolumeClaims on a whole platform: the data outlives pods and goes with its claim."""

from __future__ import annotations

import json
import time
from collections.abc import Callable
from typing import Any

import pytest

from tests.e2e.conftest import image
from tests.harness.platform import Platform

Object = dict[str, Any]
pytestmark = [pytest.mark.e2e, pytest.mark.vm, pytest.mark.timeout(300)]


def pod(name: str, *command: str) -> Object:
    container = {
        "name": "main", "image": image("busybox"), "command": list(command),
        "volumeMounts": [{"name": "data", "mountPath": "/data"}],
    }  # fmt: skip
    volumes = [{"name": "data", "persistentVolumeClaim": {"claimName": "notes"}}]
    spec = {"restartPolicy": "Never", "containers": [container], "volumes": volumes}
    return {"apiVersion": "v1", "kind": "Pod", "metadata": {"name": name}, "spec": spec}


def until(true: Callable[[], object], what: str, seconds: float = 60.0) -> None:
    end = time.monotonic() + seconds
    while not true():
        assert time.monotonic() < end, what
        time.sleep(0.3)


def ended(found: Object) -> bool:
    return str(found["status"].get("phase")) in ("Succeeded", "Failed")


def test_the_data_of_a_claim_outlives_its_pods_and_goes_with_the_claim(pods: Platform) -> None:
    request = {"requests": {"storage": "64Mi"}}
    claim = {"accessModes": ["ReadWriteOnce"], "resources": request}
    document = {"apiVersion": "v1", "kind": "PersistentVolumeClaim", "metadata": {"name": "notes"}, "spec": claim}
    pods.kubectl("apply", "-f", "-", stdin=json.dumps(document))
    pods.kubectl("apply", "-f", "-", stdin=json.dumps(pod("writer", "sh", "-c", "echo kept > /data/file; df -m /data")))
    assert pods.wait("writer", ended)["status"]["phase"] == "Succeeded"
    bound = json.loads(pods.kubectl("get", "pvc", "notes", "-o", "json").stdout)
    assert bound["status"]["phase"] == "Bound"
    volume = bound["spec"]["volumeName"]
    device = pods.state / "disks/volumes/default" / f"{volume}.ext4"
    assert device.exists()
    pods.kubectl("delete", "pod", "writer")
    pods.kubectl("apply", "-f", "-", stdin=json.dumps(pod("reader", "cat", "/data/file")))
    assert pods.wait("reader", ended)["status"]["phase"] == "Succeeded"
    assert pods.kubectl("logs", "reader").stdout == "kept\n"
    pods.kubectl("delete", "pod", "reader")
    pods.kubectl("delete", "pvc", "notes", timeout=60)
    until(lambda: not json.loads(pods.kubectl("get", "pv", "-o", "json").stdout)["items"], "the volume is gone")
    assert not device.exists(), "and its data"
