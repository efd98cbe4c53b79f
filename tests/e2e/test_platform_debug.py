"""`kubectl debug` on a real machine: a container with another image joins one that runs, and sees its processes."""

from __future__ import annotations

import json
from typing import Any

import pytest

from tests.e2e.conftest import image
from tests.harness.platform import Platform

Object = dict[str, Any]
pytestmark = [pytest.mark.e2e, pytest.mark.vm, pytest.mark.timeout(300)]


def start(place: Platform, name: str) -> None:
    place.cuboid("run", "-d", "--name", name, image("busybox"), "sleep", "4711")
    place.wait(name, ready)


def ready(found: Object) -> bool:
    return any(c["type"] == "Ready" and c["status"] == "True" for c in found["status"].get("conditions", []))


def debug(place: Platform, pod: str, container: str, image_name: str, *command: str) -> None:
    arguments = ["--image", image(image_name), "--target", container_of(place, pod), "--container", container]
    place.kubectl("debug", pod, *arguments, "--", *command)


def container_of(place: Platform, pod: str) -> str:
    return str(place.pod(pod)["spec"]["containers"][0]["name"])


def state(found: Object, container: str) -> Object:
    rows = found["status"].get("ephemeralContainerStatuses", [])
    return next((row["state"] for row in rows if row["name"] == container), {})


def test_another_image_joins_the_processes_of_a_container_that_runs(pods: Platform) -> None:
    start(pods, "web")
    before = pods.pod("web")["status"]["containerStatuses"]
    debug(pods, "web", "tools", "services", "sh", "-c", "echo looking; ps -eo args; exec sleep 1000")
    pods.wait("web", lambda found: "running" in state(found, "tools"))
    assert "sleep 4711" in pods.kubectl("exec", "web", "-c", "tools", "--", "ps", "-eo", "args").stdout
    assert "python3" in pods.kubectl("exec", "web", "-c", "tools", "--", "ls", "/usr/bin").stdout, "its own files"
    said = pods.kubectl("logs", "web", "-c", "tools").stdout
    assert said.startswith("looking\n") and "sleep 4711" in said
    assert pods.pod("web")["status"]["containerStatuses"] == before, "nothing happened to the pod's own container"
    pods.kubectl("exec", "web", "-c", "tools", "--", "kill", "-TERM", "1")
    debug(pods, "web", "again", "services", "true")
    pods.wait("web", lambda found: state(found, "again").get("terminated", {}).get("exitCode") == 0)


def test_a_second_other_image_is_refused_in_one_sentence(pods: Platform) -> None:
    start(pods, "full")
    debug(pods, "full", "first", "services", "sleep", "1000")
    pods.wait("full", lambda found: "running" in state(found, "first"))
    debug(pods, "full", "second", "nginx", "sleep", "1000")
    found = pods.wait("full", lambda found: "terminated" in state(found, "second"))
    ended = state(found, "second")["terminated"]
    assert ended["reason"] == "NoRoomForImage"
    assert "room for one image more" in ended["message"] and "services:1 has taken it" in ended["message"]
    assert ready(found)


def test_an_interactive_session_is_that_of_the_debug_container(pods: Platform) -> None:
    start(pods, "talk")
    arguments = ["-i", "--image", image("busybox"), "--target", container_of(pods, "talk"), "--container", "shell"]
    done = pods.kubectl("debug", "talk", *arguments, "--", "sh", stdin="echo $((6*7)); exit\n", timeout=60)
    assert "42" in done.stdout


def test_a_definition_with_debugging_containers_is_shown_by_kubectl(pods: Platform) -> None:
    start(pods, "told")
    debug(pods, "told", "one", "busybox", "true")
    pods.wait("told", lambda found: "terminated" in state(found, "one"))
    assert "Ephemeral Containers:" in pods.kubectl("describe", "pod", "told").stdout
    rows = json.loads(pods.kubectl("get", "pod", "told", "-o", "json").stdout)["status"]["ephemeralContainerStatuses"]
    assert rows[0]["imageID"]
