"""From Pod, Container and image to what the guest is told."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as some

from cuboid.guest import agent_pb2 as pb
from cuboid.images.base import Image, ImageConfig
from cuboid.kube.types import Container, Pod, nfs_volume
from cuboid.lib.errors import InvalidError, UnsupportedError
from cuboid.net.base import Attachment, Route
from cuboid.node import spec, spec_container
from cuboid.node.steps.containers import signal_number
from tests.harness.node import make_pod

IMAGE = ImageConfig(entrypoint=("/entry",), cmd=("one", "two"), working_dir="/work", user="app:app")
ATTACHMENT = Attachment(
    "uid", Path("/netns"), "tap0", "02:00:00:00:00:01", 1500, ("10.0.0.2/24",), (Route("0.0.0.0/0", "10.0.0.1"),),
    nameservers=("10.0.0.1",), search=("lan",), options=("ndots:1",),
)  # fmt: skip


def first(pod: Pod) -> Container:
    return pod.spec.containers[0]


def made(container: dict[str, Any], **options: Any) -> pb.StartContainer:
    pod = make_pod({"name": "app", "image": "demo:1", **container}, **options)
    image = Image("sha256:1", "", (), Path("/x"), 1, IMAGE, "amd64", "")
    return spec_container.start_container(pod, first(pod), image, ["HOME=/h"], attempt=2, keep_root=True)


@pytest.mark.parametrize(
    ("command", "args", "expected"),
    [
        ([], [], ["/entry", "one", "two"]),
        (["/c"], [], ["/c"]),
        ([], ["a"], ["/entry", "a"]),
        (["/c"], ["a"], ["/c", "a"]),
        (["/c", "$(HOME)", "$$(HOME)", "$(NO)"], [], ["/c", "/h", "$(HOME)", "$(NO)"]),
    ],
)
def test_command_replaces_the_entrypoint_and_drops_cmd(
    command: list[str], args: list[str], expected: list[str]
) -> None:
    assert list(made({"command": command, "args": args}).args) == expected


def test_nothing_to_run_is_said_in_one_sentence() -> None:
    with pytest.raises(spec_container.CreateContainerError, match="has no command"):
        spec_container.command(Container(name="app"), ImageConfig(), [])


def test_working_directory_comes_from_the_pod_then_the_image() -> None:
    assert made({}).cwd == "/work"
    assert made({"workingDir": "/own"}).cwd == "/own"
    assert (made({}).attempt, made({}).keep_root) == (2, True)


@pytest.mark.parametrize(("value", "attempt", "awaited"), [("true", 0, True), ("true", 1, False), ("no", 0, False)])
def test_output_waits_for_an_attachment_only_at_the_first_start(value: str, attempt: int, awaited: bool) -> None:
    pod = make_pod()
    pod.metadata.annotations["cuboid.dev/attach"] = value
    image = Image("sha256:1", "", (), Path("/x"), 1, IMAGE, "amd64", "")
    call = spec_container.start_container(pod, first(pod), image, [], attempt=attempt, keep_root=False)
    assert call.await_attach == awaited


def test_the_containers_security_context_wins_over_the_pods() -> None:
    call = made(
        {"securityContext": {"runAsUser": 7, "capabilities": {"add": ["CAP_NET_ADMIN"], "drop": ["ALL"]}}},
        securityContext={
            "runAsUser": 1,
            "runAsGroup": 2,
            "fsGroup": 9,
            "supplementalGroups": [5],
            "runAsNonRoot": True,
        },
    )
    assert (call.user.uid, call.user.gid, list(call.user.supplementary)) == (7, 2, [5, 9])
    assert call.user.must_be_non_root and call.user.name == "app:app"
    assert (list(call.security.add_capabilities), list(call.security.drop_capabilities)) == (["NET_ADMIN"], ["ALL"])


def test_user_zero_is_not_taken_for_none() -> None:
    call = made({"securityContext": {"runAsUser": 0}}, securityContext={"runAsUser": 5})
    assert call.user.HasField("uid") and call.user.uid == 0
    assert not made({}).user.HasField("uid")


def test_a_user_named_in_the_annotation_wins_over_the_images_and_numbers_win_over_it() -> None:
    assert made({}, annotations={"cuboid.dev/user": "www:data"}).user.name == "www:data"
    call = made({"securityContext": {"runAsUser": 7}}, annotations={"cuboid.dev/user": "www"})
    assert call.user.uid == 7
    with pytest.raises(spec_container.CreateContainerError, match="longer than 128"):
        made({}, annotations={"cuboid.dev/user": "x" * 129})


def test_seccomp_is_on_unless_unconfined_or_privileged() -> None:
    assert not made({}).security.seccomp_unconfined
    assert made({"securityContext": {"seccompProfile": {"type": "Unconfined"}}}).security.seccomp_unconfined
    assert made({"securityContext": {"privileged": True}}).security.seccomp_unconfined
    with pytest.raises(InvalidError, match="is on no host"):
        made({"securityContext": {"seccompProfile": {"type": "Localhost", "localhostProfile": "p"}}})


def test_resources_become_cgroup_numbers() -> None:
    call = made({"resources": {"limits": {"cpu": "500m", "memory": "64Mi"}, "requests": {"cpu": "250m"}}})
    assert (call.resources.cpu_millis, call.resources.memory_bytes) == (500, 64 << 20)
    assert call.resources.cpu_weight == 10


def test_mounts_have_their_volume_and_a_safe_sub_path() -> None:
    volumes = [{"name": "v", "emptyDir": {}}]
    mount = {"name": "v", "mountPath": "/m", "subPathExpr": "a$(HOME)", "readOnly": True}
    call = made({"volumeMounts": [mount]}, volumes=volumes)
    assert (call.mounts[0].sub_path, call.mounts[0].read_only) == ("a/h", True)
    with pytest.raises(InvalidError, match="which is not there"):
        made({"volumeMounts": [{"name": "w", "mountPath": "/m"}]}, volumes=volumes)
    with pytest.raises(InvalidError, match=r"without '\.\.'"):
        made({"volumeMounts": [{"name": "v", "mountPath": "/m", "subPath": "../x"}]}, volumes=volumes)


def test_probes_are_told_in_milliseconds_with_named_ports_resolved() -> None:
    call = made(
        {
            "ports": [{"name": "web", "containerPort": 8080}],
            "livenessProbe": {"httpGet": {"path": "live", "port": "web", "scheme": "HTTPS"}, "periodSeconds": 3},
            "readinessProbe": {"tcpSocket": {"port": 80}},
            "startupProbe": {"exec": {"command": ["x"]}, "failureThreshold": 30},
        }
    )
    startup, liveness, readiness = call.probes
    assert (list(startup.exec.args), startup.failure_threshold) == (["x"], 30)
    assert (liveness.http.port, liveness.http.path, liveness.http.tls, liveness.period_ms) == (
        8080,
        "/live",
        True,
        3000,
    )
    assert (readiness.tcp.port, readiness.timeout_ms, readiness.success_threshold) == (80, 1000, 1)
    with pytest.raises(InvalidError, match="no port named"):
        made({"livenessProbe": {"tcpSocket": {"port": "nope"}}})


def test_fuse_and_tunnels_are_open_to_every_container() -> None:
    assert {device.path for device in made({}).devices} == {"/dev/fuse", "/dev/net/tun"}


def test_the_first_terminal_size_comes_from_the_annotation() -> None:
    call = made({"tty": True}, annotations={"cuboid.dev/tty-size": "24x80"})
    assert (call.tty_rows, call.tty_cols) == (24, 80)


@given(some.text(max_size=40))
def test_no_terminal_size_breaks_anything(text: str) -> None:
    rows, cols = spec_container.tty_size(text)
    assert 0 <= rows <= 10_000 and 0 <= cols <= 10_000


@pytest.mark.parametrize(
    ("given_", "number"),
    [
        ("", 15),
        ("SIGQUIT", 3),
        ("quit", 3),
        ("9", 9),
        ("SIGRTMIN+3", 37),
        ("nonsense", 15),
        ("99", 15),
        ("SIG_DFL", 15),
    ],
)
def test_stop_signals_are_understood_in_every_form(given_: str, number: int) -> None:
    assert signal_number(given_) == number


# --- the machine -----------------------------------------------------------------------------------------------------


def setup(pod: Pod, **options: Any) -> pb.Setup:
    image = Image("sha256:1", "", (), Path("/x"), 1, IMAGE, "amd64", "")
    found = spec.devices(pod, {"app": image})
    return spec.setup(pod, ATTACHMENT, found, options.get("files", {}), now=1.5, entropy=b"e", mounts={})


def test_names_and_hosts_of_the_machine() -> None:
    call = setup(make_pod(hostname="h", subdomain="s", hostAliases=[{"ip": "1.2.3.4", "hostnames": ["a", "b"]}]))
    assert (call.hostname, call.domainname) == ("h", "s.default.svc.cluster.local")
    hosts = [(host.ip, list(host.names)) for host in call.hosts]
    assert hosts == [("10.0.0.2", ["h.s.default.svc.cluster.local", "h"]), ("1.2.3.4", ["a", "b"])]
    assert call.now_unix_ns == 1_500_000_000


def test_dns_is_the_networks_and_the_pods_in_addition_or_instead() -> None:
    config = {"nameservers": ["9.9.9.9"], "searches": ["x"], "options": [{"name": "ndots", "value": "5"}]}
    merged = setup(make_pod(dnsConfig=config)).resolver
    assert (list(merged.nameservers), list(merged.search), list(merged.options)) == (
        ["10.0.0.1", "9.9.9.9"], ["lan", "x"], ["ndots:5"],
    )  # fmt: skip
    alone = setup(make_pod(dnsPolicy="None", dnsConfig=config)).resolver
    assert list(alone.nameservers) == ["9.9.9.9"]


def test_volumes_of_every_kind() -> None:
    pod = make_pod(
        securityContext={"fsGroup": 5},
        volumes=[
            {"name": "disk", "emptyDir": {"sizeLimit": "1Gi"}},
            {"name": "memory", "emptyDir": {"medium": "Memory", "sizeLimit": "16Mi"}},
            {"name": "secret", "secret": {"secretName": "s"}},
            {
                "name": "named",
                "csi": {"driver": "volume.cuboid.dev", "volumeAttributes": {"name": "data", "size": "2Gi"}},
            },
        ],
    )
    call = setup(pod, files={"secret": [pb.File(path="k")]})
    disk, memory, secret, named = call.volumes
    assert (disk.disk.size_bytes, memory.memory.size_bytes) == (1 << 30, 16 << 20)
    assert secret.files.memory and (named.block.serial, named.fs_group) == ("rw1", 5)
    assert spec.named_volumes(pod) == [spec.NamedVolumeUse("named", "data", 2 << 30)]


def test_nfs_volumes_come_plain_or_as_those_of_the_csi_driver_with_options() -> None:
    csi = {
        "driver": "nfs.csi.k8s.io", "readOnly": True,
        "volumeAttributes": {"server": "nas", "share": "/b", "mountOptions": "nfsvers=3,nolock"},
    }  # fmt: skip
    pod = make_pod(
        volumes=[{"name": "plain", "nfs": {"server": "nas", "path": "/a"}}, {"name": "csi", "csi": csi},
                 {"name": "none", "emptyDir": {}}]
    )  # fmt: skip
    assert [nfs_volume(volume) for volume in pod.spec.volumes] == [
        ({"server": "nas", "path": "/a", "readOnly": False}, ()),
        ({"server": "nas", "path": "/b", "readOnly": True}, ("nfsvers=3", "nolock")),
        None,
    ]
    spec.check_volumes(pod)
    assert spec.needs_all_modules(pod)
    pod.spec.volumes[0].nfs.path = "/a/../b"  # type: ignore[union-attr]
    with pytest.raises(InvalidError):
        spec.check_volumes(pod)


@pytest.mark.parametrize("source", [{"persistentVolumeClaim": {"claimName": "c"}}, {"csi": {"driver": "other"}}, {}])
def test_volumes_that_cannot_be_had_are_refused_before_anything_is_made(source: dict[str, Any]) -> None:
    with pytest.raises(UnsupportedError):
        spec.check_volumes(make_pod(volumes=[{"name": "v", **source}]))


def test_disks_have_serials_that_stay_the_same() -> None:
    image = Image("sha256:1", "", (), Path("/x"), 1, IMAGE, "amd64", "")
    other = Image("sha256:2", "", (), Path("/y"), 1, IMAGE, "amd64", "")
    pod = make_pod()
    found = spec.devices(pod, {"a": image, "b": other, "c": image})
    disks = spec.disks(found, {"a": image, "b": other, "c": image}, Path("/w"), {})
    assert [(d.serial, d.read_only) for d in disks] == [("ro0", True), ("ro1", True), ("rw0", False)]


def test_published_ports_of_all_containers() -> None:
    pod = make_pod(
        {"name": "a", "ports": [{"containerPort": 80, "hostPort": 8080, "protocol": "UDP"}, {"containerPort": 1}]}
    )
    (port,) = spec.port_mappings(pod)
    assert (port.host_port, port.container_port, port.protocol, port.host_ip) == (8080, 80, "udp", "")


@pytest.mark.parametrize(
    ("pod", "needed"),
    [
        (make_pod(), False),
        (make_pod({"name": "a", "securityContext": {"privileged": True}}), True),
        (make_pod({"name": "a", "securityContext": {"capabilities": {"add": ["cap_net_admin"]}}}), True),
        (make_pod({"name": "a", "securityContext": {"capabilities": {"add": ["NET_RAW"]}}}), False),
        (make_pod(volumes=[{"name": "v", "nfs": {"server": "s", "path": "/"}}]), True),
        (make_pod(securityContext={"sysctls": [{"name": "net.bridge.x", "value": "1"}]}), True),
    ],
)
def test_only_pods_that_may_need_more_modules_boot_with_all(pod: Pod, needed: bool) -> None:
    assert spec.needs_all_modules(pod) == needed
