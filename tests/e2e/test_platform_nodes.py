"""Two node agents on one machine: pods of both reach each other, and what dies with one lives on the other."""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Iterator
from typing import Any

import pytest

from tests.e2e.conftest import image
from tests.harness.platform import Platform
from tests.harness.second_node import NAME, SecondNode, second_node

Object = dict[str, Any]
pytestmark = [pytest.mark.e2e, pytest.mark.vm, pytest.mark.timeout(400)]
ELSEWHERE_SECONDS = 15.0


@pytest.fixture
def second(own_place: Platform) -> Iterator[SecondNode]:
    with second_node(own_place) as node:
        yield node


def deployment(replicas: int) -> Object:
    labels: Object = {"app": "web"}
    serve = "echo hello > /tmp/index.html; httpd -f -p 8080 -h /tmp"
    container: Object = {"name": "main", "image": image("busybox"), "command": ["sh", "-c", serve]}
    container["readinessProbe"] = {"tcpSocket": {"port": 8080}, "periodSeconds": 1}
    spec = {"terminationGracePeriodSeconds": 1, "containers": [container]}
    template = {"metadata": {"labels": labels}, "spec": spec}
    body: Object = {"replicas": replicas, "selector": {"matchLabels": labels}, "template": template}
    return {"apiVersion": "apps/v1", "kind": "Deployment", "metadata": {"name": "web"}, "spec": body}


def service() -> Object:
    spec = {"selector": {"app": "web"}, "ports": [{"port": 80, "targetPort": 8080}]}
    return {"apiVersion": "v1", "kind": "Service", "metadata": {"name": "web"}, "spec": spec}


def alive(place: Platform, node: str) -> list[Object]:
    """Pods of the deployment that are bound to the node and not ending."""
    items = json.loads(place.kubectl("get", "pods", "-l", "app=web", "-o", "json").stdout)["items"]
    here = [pod for pod in items if pod["spec"].get("nodeName") == node]
    return [pod for pod in here if "deletionTimestamp" not in pod["metadata"]]


def ready(pods: list[Object]) -> list[Object]:
    def is_ready(pod: Object) -> bool:
        return any(c["type"] == "Ready" and c["status"] == "True" for c in pod["status"].get("conditions", []))

    return [pod for pod in pods if is_ready(pod)]


def asked(place: Platform) -> str:
    """What the service answers a pod of the first node, or why it does not."""
    done = place.cuboid("exec", "client", "curl", "-sS", "-m", "5", "http://web", check=False)
    return done.stdout or done.stderr


def until(true: Callable[[], object], what: str | Callable[[], str], seconds: float) -> None:
    end = time.monotonic() + seconds
    while not true():
        assert time.monotonic() < end, what if isinstance(what, str) else what()
        time.sleep(0.2)


def test_the_pods_of_a_node_that_dies_are_made_anew_on_the_other_one(own_place: Platform, second: SecondNode) -> None:
    place, first = own_place, own_place.node
    place.kubectl("cordon", first)
    documents = {"apiVersion": "v1", "kind": "List", "items": [deployment(2), service()]}
    place.kubectl("apply", "-f", "-", stdin=json.dumps(documents))
    until(lambda: len(ready(alive(place, NAME))) == 2, "both pods serve on the second node", 90)
    place.kubectl("uncordon", first)
    place.kubectl("cordon", NAME)
    place.cuboid("run", "-d", "--name", "client", image("services"), "sleep", "infinity")
    assert place.pod("client")["spec"]["nodeName"] == first
    until(lambda: asked(place) == "hello\n", lambda: f"a service leads to the other node's pods: {asked(place)}", 20)
    second.kill()
    until(lambda: len(alive(place, first)) == 2, "their successors are on the first node", ELSEWHERE_SECONDS)
    until(lambda: len(ready(alive(place, first))) == 2, "and serve", 60)
    until(lambda: asked(place) == "hello\n", "the service leads to them", 20)
    second.start()
    until(lambda: not place.kubectl("get", "pods", "--field-selector", f"spec.nodeName={NAME}", "-o", "name").stdout,
          "the node that comes back ends what was its own", 60)  # fmt: skip
    assert second.vmms() == []


def test_pods_of_two_agents_have_machines_networks_and_limits_of_their_own(
    own_place: Platform, second: SecondNode
) -> None:
    place = own_place
    for name, node in (("one", place.node), ("two", NAME)):
        container = {"name": "main", "image": image("busybox"), "command": ["sleep", "infinity"]}
        body = {"apiVersion": "v1", "kind": "Pod", "metadata": {"name": name}}
        spec = {"nodeName": node, "containers": [container], "terminationGracePeriodSeconds": 1}
        place.kubectl("apply", "-f", "-", stdin=json.dumps({**body, "spec": spec}))
    found = [place.wait(name, lambda pod: bool(ready([pod]))) for name in ("one", "two")]
    ips = [pod["status"]["podIP"] for pod in found]
    assert [ip.rsplit(".", 2)[0] for ip in ips] == ["10.77", "10.78"]
    assert len(second.vmms()) == 1
    assert place.cuboid("exec", "one", "ping", "-c", "1", "-W", "5", ips[1]).returncode == 0
    assert place.cuboid("exec", "two", "nslookup", "kubernetes.default.svc.cluster.local").returncode == 0
    assert place.cuboid("logs", "two").returncode == 0
    place.cuboid("rm", "-f", "two")
    assert place.pod("one")["status"]["phase"] == "Running"
    assert second.vmms() == []
