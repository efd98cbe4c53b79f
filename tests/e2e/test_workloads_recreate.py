"""One writer of a volume, whose versions follow each other: a Deployment that is recreated, on real machines."""

from __future__ import annotations

import json
from collections.abc import Iterator

import pytest

from tests.e2e.conftest import image
from tests.harness import pods as kube
from tests.harness.platform import Object, Platform

pytestmark = [pytest.mark.e2e, pytest.mark.vm, pytest.mark.timeout(300)]
WRITE = "trap 'echo end $VERSION >> /data/log; sync; exit 0' TERM; echo begin $VERSION >> /data/log; sync; "
WRITE += "while true; do sleep 1; done"


def writer(version: int) -> Object:
    labels = {"app": "writer"}
    container = {
        "name": "main",
        "image": image("busybox"),
        "command": ["sh", "-c", WRITE],
        "env": [{"name": "VERSION", "value": str(version)}],
        "readinessProbe": {"exec": {"command": ["test", "-s", "/data/log"]}, "periodSeconds": 1},
        "volumeMounts": [{"name": "data", "mountPath": "/data"}],
    }
    volume = {"name": "data", "persistentVolumeClaim": {"claimName": "log"}}
    template = {
        "metadata": {"labels": labels},
        "spec": {"containers": [container], "volumes": [volume], "terminationGracePeriodSeconds": 20},
    }
    spec = {"selector": {"matchLabels": labels}, "strategy": {"type": "Recreate"}, "template": template}
    return {"apiVersion": "apps/v1", "kind": "Deployment", "metadata": {"name": "writer"}, "spec": spec}


@pytest.fixture
def disk(pods: Platform) -> Iterator[Platform]:
    claim = {"accessModes": ["ReadWriteOncePod"], "resources": {"requests": {"storage": "16Mi"}}}
    kube.apply(pods, {"apiVersion": "v1", "kind": "PersistentVolumeClaim", "metadata": {"name": "log"}, "spec": claim})
    yield pods
    pods.kubectl("delete", "deployment", "writer", "--ignore-not-found", "--cascade=foreground", timeout=60)
    pods.kubectl("delete", "pvc", "log", timeout=60)
    assert pods.vmms() == []
    assert pods.leftovers() == []


def test_each_version_ends_before_the_next_one_begins_and_finds_what_it_left(disk: Platform) -> None:
    for version in (1, 2, 3):
        kube.apply(disk, writer(version))
        disk.kubectl("rollout", "status", "deployment/writer", "--timeout=90s", timeout=100)
    log = kube.shell(disk, "deployment/writer", "cat /data/log").splitlines()
    assert log == ["begin 1", "end 1", "begin 2", "end 2", "begin 3"]
    pods = json.loads(disk.kubectl("get", "pods", "-l", "app=writer", "-o", "json").stdout)["items"]
    assert len(pods) == 1, "a pod that waits for the other's end would be one too many"
