"""Many look-ups of names at once, from a pod: no question and no answer is lost on the way."""

from __future__ import annotations

import json
from collections.abc import Iterator

import pytest

from tests.e2e.conftest import image
from tests.harness import pods as kube
from tests.harness.platform import Platform

pytestmark = [pytest.mark.e2e, pytest.mark.vm, pytest.mark.timeout(300)]
THREADS, EACH = 4, 150
AGAIN = 4.5
"""Seconds. A resolver library asks again after 5 s: who waited so long had lost a packet."""
LOOKUPS = f"""
import json, socket, threading, time
failed, slow = [], []
def work():
    for _ in range({EACH}):
        begun = time.monotonic()
        try:
            socket.getaddrinfo("named", 80, type=socket.SOCK_STREAM)  # two questions at once, from one port
        except OSError as error:
            failed.append(str(error))
        slow.append(round(time.monotonic() - begun, 3))
workers = [threading.Thread(target=work) for _ in range({THREADS})]
for worker in workers: worker.start()
for worker in workers: worker.join()
print(json.dumps([failed, sorted(slow)]))
"""


@pytest.fixture
def named(pods: Platform) -> Iterator[Platform]:
    pods.kubectl("create", "service", "clusterip", "named", "--tcp=80")
    yield pods
    pods.kubectl("delete", "service", "named")
    pods.kubectl("delete", "pod", "asks", "--ignore-not-found", timeout=60)


def test_no_look_up_of_many_fails_or_has_to_be_repeated(named: Platform) -> None:
    container = {"image": image("services"), "command": ["python3", "-c", LOOKUPS]}
    kube.apply(named, kube.manifest("asks", container, restartPolicy="Never"))
    ended = named.wait("asks", kube.ended, timeout=200)
    said = named.kubectl("logs", "asks").stdout
    assert ended["status"]["phase"] == "Succeeded", said
    failed, seconds = json.loads(said)
    print(f"{len(seconds)} look-ups: median {seconds[len(seconds) // 2]} s, slowest {seconds[-5:]}")
    assert failed == []
    assert len(seconds) == THREADS * EACH
    assert [one for one in seconds if one > AGAIN] == []
