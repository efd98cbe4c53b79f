"""A node dies: how long until it is called lost, its pods are evicted, and as many serve elsewhere as before.

A real server with its controllers and scheduler; nodes and pods only pretend, so that the time of a pod's own start is
not in it (bench/start.py).
"""

from __future__ import annotations

import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import httpx

from bench.common import Result, summary
from tests.harness.live_cluster import LiveCluster, living

TURNS = 5
PODS = 4
BAR = 15.0
LIMIT = 60.0
LOOK = 0.05
Object = dict[str, Any]


def measure() -> Result:
    turns = [_turn() for _ in range(TURNS)]
    figures = {name: summary([turn[name] for turn in turns], 1) for name in turns[0]}
    worst = figures["served elsewhere"]["max"]
    return {
        "what": f"{PODS} pods on two nodes, one of which dies", "unit": "s since it was last heard of",
        **figures, "bar": f"≤ {BAR:.0f} s", "verdict": "met" if worst <= BAR else f"missed: {worst} s",
    }  # fmt: skip


def _turn() -> dict[str, float]:
    with (
        tempfile.TemporaryDirectory(prefix="cbn-") as folder,
        living(Path(folder), "node-1", "node-2") as cluster,
        cluster.server.http() as http,
    ):
        return _killed(cluster, http)


def _killed(cluster: LiveCluster, http: httpx.Client) -> dict[str, float]:
    _until(lambda: len(_items(http, "/api/v1/nodes")) == 2, "there are two nodes")
    _deploy(http)
    _until(lambda: len(_serving(http)) == PODS and _on(http, "node-2"), "pods serve from both nodes")
    cluster.dead.add("node-2")
    died = time.monotonic()

    def reached(true: Callable[[], object], what: str) -> float:
        _until(true, what)
        return time.monotonic() - died

    return {
        "called lost": reached(lambda: _status(http, "node-2") == "Unknown", "the node is lost"),
        "evicted": reached(lambda: all(_leaving(pod) for pod in _on(http, "node-2")), "its pods are evicted"),
        "served elsewhere": reached(lambda: len(_serving(http)) == PODS and not _stays(http), "all serve elsewhere"),
    }


def _deploy(http: httpx.Client) -> None:
    labels = {"app": "web"}
    template = {"metadata": {"labels": labels}, "spec": {"containers": [{"name": "main", "image": "example/app:1"}]}}
    spec = {"replicas": PODS, "selector": {"matchLabels": labels}, "template": template}
    body = {"apiVersion": "apps/v1", "kind": "Deployment", "metadata": {"name": "web"}, "spec": spec}
    http.post("/apis/apps/v1/namespaces/default/deployments", json=body).raise_for_status()


def _items(http: httpx.Client, path: str) -> list[Object]:
    found: list[Object] = http.get(path).raise_for_status().json()["items"]
    return found


def _pods(http: httpx.Client) -> list[Object]:
    return _items(http, "/api/v1/namespaces/default/pods")


def _on(http: httpx.Client, node: str) -> list[Object]:
    return [pod for pod in _pods(http) if pod["spec"].get("nodeName") == node]


def _stays(http: httpx.Client) -> list[Object]:
    return [pod for pod in _on(http, "node-2") if not _leaving(pod)]


def _leaving(pod: Object) -> bool:
    return "deletionTimestamp" in pod["metadata"]


def _serving(http: httpx.Client) -> list[Object]:
    return [pod for pod in _pods(http) if _ready(pod) == "True" and not _leaving(pod)]


def _ready(document: Object) -> str:
    return next((c["status"] for c in document["status"].get("conditions", []) if c["type"] == "Ready"), "")


def _status(http: httpx.Client, node: str) -> str:
    return _ready(http.get(f"/api/v1/nodes/{node}").raise_for_status().json())


def _until(true: Callable[[], object], what: str) -> None:
    end = time.monotonic() + LIMIT
    while not true():
        if time.monotonic() > end:
            raise TimeoutError(f"not within {LIMIT:.0f} s: {what}")
        time.sleep(LOOK)
