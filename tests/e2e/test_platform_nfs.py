"""NFS volumes: mounted by the guest's own kernel, from a real server."""

from __future__ import annotations

import json

import pytest

from tests.e2e.conftest import image
from tests.harness import pods as kube
from tests.harness.nfs import nfs_server
from tests.harness.platform import Platform

pytestmark = [pytest.mark.e2e, pytest.mark.vm, pytest.mark.timeout(240)]
BUSYBOX, SERVICES = image("busybox"), image("services")


def gateway(place: Platform) -> str:
    """The host's address on the pods' bridge."""
    row = json.loads(place.run(["ip", "-j", "-4", "address", "show", "dev", "cuboid0"]).stdout)[0]
    return str(row["addr_info"][0]["local"])


def test_pods_share_files_and_locks_over_nfs(pods: Platform) -> None:
    mount = {"volumeMounts": [{"name": "share", "mountPath": "/share"}]}
    app = {"image": SERVICES, "command": ["sleep", "3600"], **mount}
    kube.apply(pods, kube.manifest("first", {"image": BUSYBOX, "command": ["sleep", "1"]}, restartPolicy="Never"))
    pods.wait("first", lambda pod: bool(pod["status"].get("podIP")))  # the bridge is there with the first pod
    server = gateway(pods)
    plain = {"name": "share", "nfs": {"server": server, "path": "/data"}}
    attributes = {"server": server, "share": "/data", "mountOptions": "nfsvers=4.1,timeo=100"}
    tuned = {"name": "share", "csi": {"driver": "nfs.csi.k8s.io", "volumeAttributes": attributes}}
    with nfs_server(pods) as folder:
        kube.apply(
            pods, kube.manifest("writer", app, volumes=[plain]), kube.manifest("reader", app, volumes=[tuned]),
        )  # fmt: skip
        for name in ("writer", "reader"):
            pods.wait(name, kube.ready)
        kube.shell(pods, "writer", "echo from the writer > /share/note")
        assert kube.shell(pods, "reader", "cat /share/note") == "from the writer\n"
        assert (folder / "note").read_text() == "from the writer\n"
        assert "vers=4.2" in kube.shell(pods, "writer", "grep ' /share ' /proc/mounts")
        options = kube.shell(pods, "reader", "grep ' /share ' /proc/mounts")
        assert "vers=4.1" in options and "timeo=100" in options
        kube.shell(pods, "writer", "touch /share/lock; (flock -x 9; sleep 60) 9> /share/lock > /dev/null 2>&1 &")
        take = "flock -n /share/lock true"
        kube.until(
            lambda: pods.kubectl("exec", "reader", "--", "sh", "-c", take, check=False).returncode == 1, "a lock"
        )
        pods.kubectl("delete", "pod", "writer", "reader", "--grace-period=1", "--wait=true")


def test_a_mount_option_that_is_not_allowed_fails_the_pod_in_one_sentence(pods: Platform) -> None:
    attributes = {"server": "192.0.2.1", "share": "/data", "mountOptions": "fsc"}
    volume = {"name": "share", "csi": {"driver": "nfs.csi.k8s.io", "volumeAttributes": attributes}}
    kube.apply(pods, kube.manifest("refused", {"image": BUSYBOX}, volumes=[volume]))
    pod = pods.wait("refused", kube.ended)
    assert "the mount option 'fsc' is not allowed for an NFS volume" in pod["status"]["message"]
