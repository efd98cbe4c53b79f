"""Bad input of every kind, on a whole platform: one clear sentence, the right code or status, nothing left behind."""

from __future__ import annotations

import json
import re
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.e2e.conftest import image
from tests.harness import pods as kube
from tests.harness.platform import Finished, Object, Platform

pytestmark = [pytest.mark.e2e, pytest.mark.vm, pytest.mark.timeout(240)]
BUSYBOX = image("busybox")
HOSTILE = "localhost:5001"


def sentence(done: Finished, code: int) -> str:
    """The one sentence of a command that failed with this code; it may be followed by what to try."""
    lines = [line for line in done.stderr.splitlines() if line.startswith("cuboid: ")]
    assert done.returncode == code, f"{done.returncode}: {done.stdout}{done.stderr}"
    assert len(lines) == 1, done.stderr
    assert "Traceback" not in done.stderr
    assert len(lines[0]) < 400, lines[0]
    return lines[0]


def _machines(place: Platform) -> list[str]:
    """Virtual machines of pods: not those that wait for one, nor a template's that is being built."""
    names = {path.name for path in place.run_folder.glob("vmm/*") if not path.name.startswith("template-")}
    return sorted(names - {row["vm"] for row in place.waiting()})


def nothing_left(place: Platform) -> None:
    """No pod, VM or record of one; no piece of an image that is not whole."""
    kube.until(lambda: place.cuboid("ps", "-a", "-q").stdout == "", "a pod is left")
    kube.until(lambda: not list((place.state / "pods").iterdir()), "a record is left")
    kube.until(lambda: not _machines(place), "a virtual machine is left")


def pieces(place: Platform) -> list[str]:
    folders = [place.state / "images" / name for name in ("blobs", "work", "partial")]
    return [str(path) for folder in folders for path in folder.rglob("*") if path.is_file()]


# --- images ----------------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def hostile(place: Platform) -> Iterator[str]:
    command = [sys.executable, "-m", "tests.harness.hostile_registry", HOSTILE.rpartition(":")[2]]
    with place.started(command) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == "serving\n"
        yield HOSTILE


REFUSED = {
    "liar": "digest", "traversal": r"\.\.", "devices": "device nodes", "bomb": "bomb",
    "truncated": "truncated", "arm": "arm64",
}  # fmt: skip


@pytest.mark.parametrize("name", REFUSED)
def test_an_image_that_lies_or_attacks_is_refused_in_one_sentence(pods: Platform, hostile: str, name: str) -> None:
    done = pods.cuboid("pull", f"{hostile}/{name}:1", check=False, timeout=90)
    assert re.search(REFUSED[name], sentence(done, done.returncode)), done.stderr
    assert done.returncode in (1, 2, 6)
    assert hostile not in pods.cuboid("images").stdout
    assert pieces(pods) == []


def test_a_link_that_leads_out_of_an_image_stays_within(pods: Platform, hostile: str) -> None:
    pods.cuboid("pull", f"{hostile}/escape:1")
    assert not Path("/etc/evil").exists()
    pods.cuboid("image", "rm", f"{hostile}/escape:1")


def test_run_of_an_unknown_image_is_125_and_leaves_no_pod(pods: Platform, hostile: str) -> None:
    for reference, words in ((image("nope"), "nope"), ("localhost:1/app:1", "refused"), (f"{hostile}/arm:1", "arm64")):
        said = sentence(pods.cuboid("run", reference, "true", check=False), 125)
        assert words in said
        assert said.count(words) <= 2
    said = sentence(pods.cuboid("run", "localhost:5000/UPPER", "true", check=False), 125)
    assert "UPPER" in said
    nothing_left(pods)


def test_kubectl_sees_why_an_image_cannot_be_had(pods: Platform) -> None:
    kube.apply(pods, kube.manifest("missing", {"image": image("nope")}))
    pods.wait("missing", lambda pod: kube.waiting(pod) in ("ErrImagePull", "ImagePullBackOff"))
    assert "Failed to pull image" in pods.kubectl("describe", "pod", "missing").stdout
    pods.kubectl("delete", "pod", "missing")
    nothing_left(pods)


# --- what is to run --------------------------------------------------------------------------------------------------


def test_an_entrypoint_that_is_missing_or_not_executable_has_dockers_codes(pods: Platform) -> None:
    said = sentence(pods.cuboid("run", "--name", "missing", BUSYBOX, "/no/such", check=False), 127)
    assert "/no/such" in said
    said = sentence(pods.cuboid("run", "--name", "plain", BUSYBOX, "/etc/passwd", check=False), 126)
    assert "/etc/passwd" in said
    assert "/no/such" in pods.cuboid("why", "missing").stdout
    pods.cuboid("rm", "missing", "plain")
    nothing_left(pods)


def test_memory_smaller_than_the_guest_needs_is_told_with_what_is_enough(pods: Platform) -> None:
    said = sentence(pods.cuboid("run", "--rm", "-m", "1m", BUSYBOX, "true", check=False), 125)
    assert re.search(r"memory smaller than the guest needs.*at least \d+", said)
    nothing_left(pods)


def test_what_no_node_can_hold_is_said_at_once(pods: Platform) -> None:
    said = sentence(pods.cuboid("run", "--rm", "-m", "900g", BUSYBOX, "true", check=False), 125)
    assert "memory" in said
    nothing_left(pods)


def test_a_taken_port_names_who_has_it(pods: Platform) -> None:
    pods.cuboid("run", "-d", "--name", "owner", "-p", "8090:80", BUSYBOX, "sleep", "3600")
    said = sentence(pods.cuboid("run", "-d", "--name", "late", "-p", "8090:80", BUSYBOX, "true", check=False), 125)
    assert "port 8090/tcp is taken by the pod owner" in said
    assert "late" not in pods.cuboid("ps", "-a", "-q").stdout.split(), "nothing waits for the port"
    listener = "import socket, time; s = socket.create_server(('', 8091)); print('up', flush=True); time.sleep(60)"
    with pods.started(["python3", "-c", listener]) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == "up\n"
        done = pods.cuboid("run", "-d", "--name", "third", "-p", "8091:80", BUSYBOX, "true", check=False)
        assert "8091" in sentence(done, 125)
    assert pods.cuboid("exec", "owner", "echo", "unharmed").stdout == "unharmed\n"
    pods.cuboid("rm", "-f", "owner", "third")
    nothing_left(pods)


def test_a_taken_name_is_a_conflict(pods: Platform) -> None:
    pods.cuboid("run", "-d", "--name", "mine", BUSYBOX, "sleep", "3600")
    said = sentence(pods.cuboid("run", "-d", "--name", "mine", BUSYBOX, "sleep", "1", check=False), 1)
    assert "mine" in said and "taken" in said
    body = json.dumps(kube.manifest("mine", {"image": BUSYBOX}))
    done = pods.kubectl("create", "-f", "-", stdin=body, check=False)
    assert done.returncode == 1
    assert 'pods "mine" already exists' in done.stderr


def test_a_path_of_the_host_is_refused_with_what_to_use(pods: Platform) -> None:
    done = pods.cuboid("run", "-v", "/etc:/host", BUSYBOX, "true", check=False)
    sentence(done, 2)
    assert "cuboid cp" in done.stderr and "NFS" in done.stderr
    volumes = [{"name": "host", "hostPath": {"path": "/etc"}}]
    body = json.dumps(kube.manifest("host", {"image": BUSYBOX}, volumes=volumes))
    done = pods.kubectl("create", "-f", "-", stdin=body, check=False)
    assert done.returncode == 1
    assert "hostPath" in done.stderr
    nothing_left(pods)


# --- manifests -------------------------------------------------------------------------------------------------------


POST = """
import json, pathlib, ssl, sys, urllib.error, urllib.request
row = json.loads(pathlib.Path(sys.argv[1]).read_text())
token = pathlib.Path(row["token_file"]).read_text().strip()
headers = {"Authorization": f"Bearer {token}", "Content-Type": sys.argv[3]}
url = f"{row['server']}/api/v1/namespaces/default/pods{sys.argv[2]}"
request = urllib.request.Request(url, sys.stdin.buffer.read(), headers, method="POST")
try:
    answer = urllib.request.urlopen(request, context=ssl.create_default_context(cafile=row["ca_file"]), timeout=20)
except urllib.error.HTTPError as error:
    answer = error
print(json.dumps({**json.load(answer), "http": answer.status}))
"""


def post(place: Platform, body: str, query: str = "", *, kind: str = "application/json") -> Object:
    """The answer to a POST of a pod, with the HTTP status as "http"."""
    command = ["python3", "-c", POST, str(place.state / "client.json"), query, kind]
    found: Object = json.loads(place.run(command, stdin=body).stdout)
    return found


def test_yaml_that_is_none_and_unknown_fields_are_named(pods: Platform) -> None:
    broken = "apiVersion: v1\nkind: Pod\nmetadata: {name: x\n"
    assert pods.kubectl("apply", "-f", "-", stdin=broken, check=False).returncode == 1
    answer = post(pods, broken, kind="application/yaml")
    assert (answer["http"], answer["reason"]) == (400, "BadRequest")
    assert "YAML" in answer["message"]
    answer = post(pods, '{"apiVersion": "v1", "kind": "Pod", "metadata": {')
    assert (answer["http"], answer["reason"]) == (400, "BadRequest")
    assert "not valid JSON" in answer["message"]
    unknown = kube.manifest("x", {"image": BUSYBOX, "imagePullPolice": "Always"})
    done = pods.kubectl("apply", "-f", "-", stdin=json.dumps(unknown), check=False)
    assert done.returncode == 1
    assert 'unknown field "spec.containers[0].imagePullPolice"' in done.stderr
    answer = post(pods, json.dumps(unknown), "?fieldValidation=Strict")
    assert answer["http"] == 400
    assert "imagePullPolice" in answer["message"]
    wrong = kube.manifest("x", {"image": BUSYBOX, "ports": [{"containerPort": 99999}]})
    answer = post(pods, json.dumps(wrong))
    assert (answer["http"], answer["reason"]) == (422, "Invalid")
    assert "spec.containers[0].ports[0].containerPort" in answer["message"]
    nothing_left(pods)


# --- the host --------------------------------------------------------------------------------------------------------


def test_a_host_without_qemu_is_told_what_to_install(pods: Platform) -> None:
    hide = "mount --bind /dev/null /usr/bin/qemu-system-x86_64 && exec cuboid doctor"
    done = pods.run(["unshare", "--mount", "sh", "-c", hide], check=False)
    assert done.returncode != 0
    assert done.stdout.count("qemu-system-x86_64 is not installed") == 1
    assert "apt-get install qemu-system-x86" in done.stdout


# --- the guest -------------------------------------------------------------------------------------------------------

SEIZE = """
cd /sys/bus/virtio/drivers/virtio_console
device=$(ls -d virtio*)
sleep 1
echo $device > unbind
echo $device > bind
tries=0
while [ $tries -lt 100 ]; do
  tries=$((tries + 1))
  for port in /sys/class/virtio-ports/*; do
    IFS=: read major minor < $port/dev
    rm -f /tmp/port
    mknod /tmp/port c $major $minor && dd if=/dev/urandom of=/tmp/port bs=64k count=1000
  done
  usleep 50000
done
"""


def test_a_guest_that_floods_its_channel_is_cut_off_and_harms_nobody(pods: Platform) -> None:
    """Root in a privileged container takes the agent's port from it, by unbinding its driver, and writes to it."""
    node = pods.daemon_pid("cuboid-node")
    pods.cuboid("run", "-d", "--name", "witness", BUSYBOX, "sleep", "3600")
    pods.cuboid("run", "-d", "--name", "attacker", "--privileged", BUSYBOX, "sleep", "3600")
    pods.cuboid("exec", "-i", "attacker", "sh", "-c", "cat > /tmp/seize", stdin=SEIZE)
    pods.cuboid("exec", "attacker", "sh", "-c", "setsid sh /tmp/seize > /dev/null 2>&1 < /dev/null &")
    pod = pods.wait("attacker", kube.ended)
    assert pod["status"]["reason"] == "HostileGuest"
    assert "breaks the rules of the channel" in pod["status"]["message"]
    assert pods.cuboid("exec", "witness", "echo", "unharmed").stdout == "unharmed\n"
    assert pods.daemon_pid("cuboid-node") == node
    pods.cuboid("rm", "-f", "witness", "attacker")
    nothing_left(pods)


def test_a_guest_that_panics_fails_its_pod_with_the_reason(pods: Platform) -> None:
    # The platform's own kernel has no SysRq.
    pods.cuboid("run", "-d", "--name", "panic", "--kernel", "general", "--privileged", BUSYBOX, "sleep", "3600")
    pods.cuboid("exec", "panic", "sh", "-c", "(sleep 1; echo c > /proc/sysrq-trigger) > /dev/null 2>&1 &")
    pod = pods.wait("panic", kube.ended)
    assert pod["status"]["reason"] == "GuestPanic"
    assert "sysrq" in pod["status"]["message"]
    assert "GuestPanic" in pods.cuboid("why", "panic").stdout
    pods.cuboid("rm", "panic")
    nothing_left(pods)
