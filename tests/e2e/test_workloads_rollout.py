"""A Deployment as its visitors see it, on real machines: rolled out, undone, scaled and hurt while they ask for it."""

from __future__ import annotations

import json
import os
import re
import signal
import time
from collections.abc import Iterator

import pytest

from tests.e2e.conftest import REGISTRY, image
from tests.harness import pods as kube
from tests.harness.pages import with_page
from tests.harness.platform import Object, Platform
from tests.harness.service_load import load
from tools.debian_images import PAGE

pytestmark = [pytest.mark.e2e, pytest.mark.vm, pytest.mark.timeout(400)]
NEXT_IMAGE, NEXT_PAGE = f"{REGISTRY}/nginx:next", "the second page"
DETECTION = 4.0
"""Seconds in which connections to a machine that was killed may fail, on a machine as busy as that of tests."""


@pytest.fixture(scope="module")
def stocked(place: Platform, tmp_path_factory: pytest.TempPathFactory) -> Platform:
    """The registry has the next version of the site too."""
    layout = with_page(NEXT_PAGE, tmp_path_factory.mktemp("next"))
    place.run([".venv/bin/python", "-m", "tools.push", str(layout), NEXT_IMAGE], timeout=180)
    return place


@pytest.fixture
def site(stocked: Platform) -> Iterator[Platform]:
    """The site runs behind the service `web`. After the test nothing is left of it."""
    service = {"selector": {"app": "web"}, "ports": [{"port": 80}]}
    metadata = {"name": "web"}
    kube.apply(
        stocked, {"apiVersion": "v1", "kind": "Service", "metadata": metadata, "spec": service}, deployment(replicas=2)
    )
    rolled(stocked)
    yield stocked
    stocked.kubectl("delete", "deployment,service", "web", "--ignore-not-found", timeout=60)
    kube.until(lambda: not stocked.kubectl("get", "pods", "-o", "name").stdout.strip(), "pods are gone", 90)
    assert stocked.vmms() == []
    assert stocked.leftovers() == []


def deployment(replicas: int) -> Object:
    labels = {"app": "web"}
    container = {
        "name": "nginx",
        "image": image("nginx"),
        "readinessProbe": {"httpGet": {"port": 80}, "periodSeconds": 1},
        "lifecycle": {"preStop": {"sleep": {"seconds": 2}}},
    }
    spec = {
        "replicas": replicas,
        "selector": {"matchLabels": labels},
        "strategy": {"rollingUpdate": {"maxSurge": 1, "maxUnavailable": 0}},
        "template": {"metadata": {"labels": labels}, "spec": {"containers": [container]}},
    }
    return {"apiVersion": "apps/v1", "kind": "Deployment", "metadata": {"name": "web"}, "spec": spec}


def rolled(place: Platform) -> str:
    return place.kubectl("rollout", "status", "deployment/web", "--timeout=150s", timeout=160).stdout


def web_pods(place: Platform) -> list[Object]:
    """Those not asked to end."""
    found = json.loads(place.kubectl("get", "pods", "-l", "app=web", "-o", "json").stdout)["items"]
    return [pod for pod in found if "deletionTimestamp" not in pod["metadata"]]


def images(place: Platform) -> set[str]:
    return {pod["spec"]["containers"][0]["image"] for pod in web_pods(place)}


def test_a_roll_to_a_new_image_its_undo_and_scaling_fail_no_request(site: Platform) -> None:
    with load(site, image("services"), "web") as seen:
        site.kubectl("set", "image", "deployment/web", f"nginx={NEXT_IMAGE}")
        assert "successfully rolled out" in rolled(site)
        assert images(site) == {NEXT_IMAGE}
        history = site.kubectl("rollout", "history", "deployment/web").stdout
        assert re.findall(r"^(\d+)", history, re.MULTILINE) == ["1", "2"]
        site.kubectl("rollout", "undo", "deployment/web")
        rolled(site)
        assert images(site) == {image("nginx")}
        site.kubectl("scale", "deployment/web", "--replicas=3")
        rolled(site)
        site.kubectl("scale", "deployment/web", "--replicas=1")
        kube.until(lambda: len(web_pods(site)) == 1, "scaled down")
        time.sleep(3)
    (found,) = seen
    print(found)
    assert found.failures == []
    assert found.requests > 200, found
    assert set(found.pages) == {PAGE.strip(), NEXT_PAGE}


def test_a_version_that_never_gets_ready_takes_no_visitor_away_from_the_one_that_serves(site: Platform) -> None:
    with load(site, image("services"), "web") as seen:
        broken = {"readinessProbe": {"httpGet": {"port": 81}, "periodSeconds": 1}, "name": "nginx"}
        template = {"spec": {"containers": [broken]}}
        patch = {"spec": {"progressDeadlineSeconds": 5, "template": template}}
        site.kubectl("patch", "deployment", "web", "-p", json.dumps(patch))
        stuck = site.kubectl("rollout", "status", "deployment/web", "--timeout=90s", check=False, timeout=100)
        assert stuck.returncode == 1
        assert 'deployment "web" exceeded its progress deadline' in stuck.stderr
        site.kubectl("set", "image", "deployment/web", f"nginx={REGISTRY}/nginx:none")
        kube.until(lambda: "ImagePull" in site.kubectl("get", "pods").stdout, "nor one that is not to be had", 60)
        site.kubectl("rollout", "undo", "deployment/web", "--to-revision=1")
        rolled(site)
        kube.until(lambda: len(web_pods(site)) == 2, "the broken ones are gone", 60)
    (found,) = seen
    print(found)
    assert found.failures == []
    assert found.requests > 100, found


def test_a_machine_that_is_killed_costs_only_its_own_requests_until_that_is_seen(site: Platform) -> None:
    victim = web_pods(site)[0]["metadata"]
    (vmm,) = site.vmms(victim["uid"])
    with load(site, image("services"), "web", threads=4, patience=1.0) as seen:
        os.kill(vmm, signal.SIGKILL)
        killed = time.time()
        site.wait(victim["name"], lambda pod: not kube.ready(pod) or restarts(pod) == 1)
        site.wait(victim["name"], lambda pod: kube.ready(pod) and restarts(pod) == 1)
        time.sleep(2)
    (found,) = seen
    last = max((begun - killed for begun, _, _ in found.failures), default=0.0)
    print(f"{found}; killed at {killed:.3f}; failed: {found.failures}")
    assert last < DETECTION, found.failures
    assert len(found.failures) < found.requests / 4, found
    assert len(site.vmms()) == 2


def restarts(pod: Object) -> int:
    return sum(int(row["restartCount"]) for row in pod["status"].get("containerStatuses", []))
