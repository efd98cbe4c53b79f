"""What somebody who never saw Kubernetes does with several pods: deploy, roll out, go back, run jobs, empty a node."""

from __future__ import annotations

import json
import signal
import time
from collections.abc import Iterator

import pytest

from tests.e2e.conftest import image
from tests.harness.platform import VENV, Object, Platform
from tests.harness.pods import until
from tools import debian_images

pytestmark = [pytest.mark.e2e, pytest.mark.vm, pytest.mark.timeout(400)]
NGINX, NEWER, BUSYBOX = image("nginx"), "localhost:5000/nginx:2", image("busybox")
CUBOID = str(VENV / "cuboid")
ASKER = """
import sys, time, urllib.request
url, stop = sys.argv[1], time.monotonic() + float(sys.argv[2])
good, bad = 0, []
while time.monotonic() < stop:
    try:
        with urllib.request.urlopen(url, timeout=10) as answer:
            answer.read()
        good += 1
    except OSError as error:
        bad.append(f"{time.time():.3f} {error}")
    time.sleep(0.05)
print(good, len(bad), bad[:5], flush=True)
"""


@pytest.fixture
def work(pods: Platform) -> Iterator[Platform]:
    pods.run([".venv/bin/python", "-m", "tools.push", str(debian_images.layout("nginx")), NEWER], timeout=120)
    yield pods
    pods.kubectl("uncordon", "--all", check=False)
    pods.kubectl("delete", "cronjob,job,deployment,service", "--all", "--ignore-not-found", timeout=90)
    until(lambda: not pods.kubectl("get", "pods", "-o", "name").stdout.strip(), "pods are gone", 90)


def ask(place: Platform, url: str, seconds: float = 1) -> tuple[int, int, str]:
    """Answers, failures, and what is said of them."""
    said = place.run([".venv/bin/python", "-c", ASKER, url, str(seconds)], timeout=seconds + 30).stdout
    good, bad = said.split()[:2]
    return int(good), int(bad), said


def deployment(place: Platform, name: str = "web") -> Object:
    found: Object = json.loads(place.cuboid("get", "deployment", name, "-o", "json").stdout)
    return found


def test_deploy_roll_out_go_back_and_scale(work: Platform) -> None:
    said = work.cuboid(
        "deploy", NGINX, "--name", "web", "--replicas", "2", "--port", "80", "--publish", "8080:80", "-m", "96m",
        timeout=200,
    )  # fmt: skip
    assert said.stdout.splitlines()[1:] == ["  inside   http://web", "  outside  http://localhost:8080"], said.stdout
    assert "of 2 ready" in said.stderr
    good, bad, told = ask(work, "http://127.0.0.1:8080/")
    assert good and not bad, told
    inside = work.cuboid("run", "--rm", "-q", BUSYBOX, "wget", "-q", "-O", "-", "http://web/")
    assert "virtual machine of its own" in inside.stdout

    asker, reader = [".venv/bin/python", "-c", ASKER, "http://127.0.0.1:8080/", "45"], [CUBOID, "logs", "-f", "web"]
    with work.started(asker) as asking, work.started(reader) as reading:
        work.cuboid("deploy", NEWER, "--name", "web", timeout=200)
        output, _ = asking.communicate(timeout=90)
        reading.send_signal(signal.SIGINT)
        shown, _ = reading.communicate(timeout=20)
    assert len({line.split(" | ")[0] for line in shown.splitlines() if "GET / HTTP" in line}) == 4, "old and new pods"
    good, bad = (int(text) for text in output.split()[:2])
    assert not bad and good > 100, output
    assert deployment(work)["spec"]["template"]["spec"]["containers"][0]["image"] == NEWER

    broken = work.cuboid("deploy", "localhost:5000/nginx:none", "--name", "web", timeout=120, check=False)
    assert broken.returncode == 1
    assert "its image can not be had" in broken.stderr and "cuboid rollout undo web" in broken.stderr
    good, bad, told = ask(work, "http://127.0.0.1:8080/")
    assert good and not bad, told
    work.cuboid("rollout", "undo", "web", timeout=120)
    history = work.cuboid("rollout", "history", "web").stdout
    assert [line.split()[1] for line in history.splitlines()[1:]] == [NGINX, "localhost:5000/nginx:none", NEWER]
    assert "rolled out" in work.cuboid("rollout", "status", "web").stdout

    listed = work.cuboid("ps", "-o", "wide").stdout
    assert listed.count(" web ") == 2, listed
    assert work.cuboid("exec", "web", "cat", "/etc/hostname").stdout.startswith("web-")
    assert "GET / HTTP" in work.cuboid("logs", "web").stdout
    work.cuboid("scale", "web", "1", timeout=100)
    assert deployment(work)["status"]["replicas"] == 1
    work.cuboid("deploy", "rm", "web", timeout=100)
    assert work.cuboid("ps", "-a", "-q").stdout == ""


def test_why_a_deployment_does_not_run_is_said_with_its_last_words(work: Platform) -> None:
    done = work.cuboid(
        "deploy", BUSYBOX, "--name", "bad", "--", "sh", "-c", "echo no database >&2; exit 3", timeout=150, check=False
    )
    assert done.returncode == 1
    assert "bad does not run: it ends with exit code 3; its last words:\n  no database\n" in done.stderr
    room = work.cuboid("deploy", BUSYBOX, "--name", "big", "-m", "900g", "--", "sleep", "99", timeout=60, check=False)
    assert room.returncode == 1
    assert "there is no room for it: 0/1 nodes are available: 1 Insufficient memory" in room.stderr


def test_a_job_prints_what_it_prints_and_ends_with_its_code(work: Platform) -> None:
    done = work.cuboid("job", BUSYBOX, "--name", "sums", "--", "sh", "-c", "echo $((6 * 7)); exit 5", check=False)
    assert done.returncode == 5, done.stderr
    assert done.stdout == "42\n"
    parts = work.cuboid(
        "job", BUSYBOX, "--name", "parts", "--count", "2", "--", "sh", "-c", "echo part $JOB_COMPLETION_INDEX"
    )
    assert sorted(line.split(" | ")[1] for line in parts.stdout.splitlines()) == ["part 0", "part 1"]
    assert "part 1" in work.cuboid("job", "logs", "parts").stdout
    listed = {line.split()[0]: line.split()[2] for line in work.cuboid("job", "ls").stdout.splitlines()[1:]}
    assert listed == {"sums": "Failed", "parts": "Complete"}
    work.cuboid("job", "rm", "sums", "parts")
    assert work.cuboid("ps", "-a", "-q").stdout == ""


def test_a_cron_job_is_run_once_by_hand(work: Platform) -> None:
    made = work.cuboid("cron", "0 0 1 1 *", BUSYBOX, "--name", "report", "--no-overlap", "--", "echo", "reported")
    assert "next run" in made.stdout
    assert work.cuboid("cron", "run", "report").stdout == "reported\n"
    work.cuboid("cron", "pause", "report")
    assert "paused" in work.cuboid("cron", "ls").stdout
    work.cuboid("cron", "rm", "report")
    assert work.cuboid("job", "ls", "-o", "name").stdout == ""


def test_a_node_is_emptied_as_far_as_budgets_allow(work: Platform) -> None:
    node = json.loads(work.cuboid("node", "ls", "-o", "json").stdout)["items"][0]["metadata"]["name"]
    work.cuboid("deploy", BUSYBOX, "--name", "held", "--", "sleep", "999", timeout=120)
    budget = {
        "apiVersion": "policy/v1", "kind": "PodDisruptionBudget", "metadata": {"name": "always-one"},
        "spec": {"minAvailable": 1, "selector": {"matchLabels": {"app": "held"}}},
    }  # fmt: skip
    work.cuboid("apply", "-f", "-", stdin=json.dumps(budget))
    time.sleep(1)
    blocked = work.cuboid("node", "drain", node, "--timeout", "5", check=False)
    assert blocked.returncode == 4
    assert "always-one" in blocked.stderr
    assert "cordoned" in work.cuboid("node", "ls").stdout
    work.cuboid("delete", "pdb", "always-one")
    work.cuboid("node", "drain", node, "--timeout", "90")
    waiting = work.cuboid("get", "pods", "--field-selector", "status.phase=Pending").stdout
    assert "held-" in waiting
    work.cuboid("node", "uncordon", node)
    work.cuboid("rollout", "status", "held", "--timeout", "60")


def test_who_waits_for_a_rollout_outlives_the_api_server(own_place: Platform) -> None:
    place = own_place
    command = [CUBOID, "deploy", NGINX, "--name", "web", "--replicas", "2", "--port", "80"]
    with place.started(command) as deploying:
        until(lambda: place.cuboid("get", "deployments", "-o", "name").stdout == "web\n", "it is asked for", 30)
        place.kill_daemon("cuboid-server")
        place.up()
        said, _ = deploying.communicate(timeout=150)
    assert deploying.returncode == 0, said
    assert "web: running, 2" in said
    place.cuboid("deploy", "rm", "web", timeout=100)
