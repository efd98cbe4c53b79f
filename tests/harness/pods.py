"""Pods for tests of a whole platform: made with kubectl as a user would, waited for, read."""

from __future__ import annotations

import json
import time
from collections.abc import Callable
from typing import Any

from tests.harness.platform import Object, Platform


def manifest(name: str, *containers: Object, labels: Object | None = None, **spec: Any) -> Object:
    """A pod; a container without a name is "app"."""
    named = [{"name": "app", **container} for container in containers]
    meta = {"name": name, "labels": labels or {"app": name}}
    rest = {"terminationGracePeriodSeconds": 2, **spec}
    return {"apiVersion": "v1", "kind": "Pod", "metadata": meta, "spec": {"containers": named, **rest}}


def apply(place: Platform, *objects: Object) -> None:
    place.kubectl("apply", "-f", "-", stdin=json.dumps({"apiVersion": "v1", "kind": "List", "items": list(objects)}))


def ready(pod: Object) -> bool:
    return condition(pod, "Ready") == "True"


def condition(pod: Object, kind: str) -> str:
    rows = pod.get("status", {}).get("conditions", [])
    return next((str(row["status"]) for row in rows if row["type"] == kind), "")


def ended(pod: Object) -> bool:
    return pod.get("status", {}).get("phase") in ("Succeeded", "Failed")


def container(pod: Object, name: str = "app") -> Object:
    """The status of one of the pod's containers; empty before there is one."""
    status = pod.get("status", {})
    rows = [*status.get("initContainerStatuses", []), *status.get("containerStatuses", [])]
    found: Object = next((row for row in rows if row["name"] == name), {})
    return found


def waiting(pod: Object, name: str = "app") -> str:
    return str(container(pod, name).get("state", {}).get("waiting", {}).get("reason", ""))


def terminated(pod: Object, name: str = "app", *, last: bool = False) -> Object:
    found: Object = container(pod, name).get("lastState" if last else "state", {}).get("terminated", {})
    return found


def shell(place: Platform, pod: str, script: str, container: str = "", *, check: bool = True) -> str:
    """What a shell in the container prints."""
    which = ("-c", container) if container else ()
    return place.kubectl("exec", pod, *which, "--", "sh", "-c", script, check=check).stdout


def until(true: Callable[[], object], what: str, seconds: float = 60.0) -> None:
    end = time.monotonic() + seconds
    while not true():
        assert time.monotonic() < end, what
        time.sleep(0.2)
