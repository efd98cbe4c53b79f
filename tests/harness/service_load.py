"""Load on a service, from a pod: several threads open a new connection per request, by the service's name."""

from __future__ import annotations

import json
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass

from tests.harness import pods as kube
from tests.harness.platform import Object, Platform

_ASKER = """
import collections, json, os, socket, sys, threading, time
host, threads, patience = sys.argv[1], int(sys.argv[2]), float(sys.argv[3])
pages, failures, slowest = collections.Counter(), [], {"resolve": 0.0, "request": 0.0}
def timed(what, begun):
    slowest[what] = max(slowest[what], round(time.monotonic() - begun, 3))
def ask():
    begun = time.monotonic()
    address = socket.getaddrinfo(host, 80, type=socket.SOCK_STREAM)[0][4]
    timed("resolve", begun)
    begun = time.monotonic()
    with socket.create_connection(address, patience) as connection:
        connection.sendall(b"GET / HTTP/1.0\\r\\nHost: web\\r\\n\\r\\n")
        answer = b""
        while piece := connection.recv(65536):
            answer += piece
    timed("request", begun)
    head, _, page = answer.partition(b"\\r\\n\\r\\n")
    if b" 200 " not in head[:16]:
        raise OSError(f"answered {head[:40]!r}")
    return page.decode().strip()
def work():
    while not os.path.exists("/tmp/stop"):
        begun = time.time()
        try:
            pages[ask()] += 1
        except OSError as error:
            failures.append([round(begun, 3), round(time.time() - begun, 3), f"{type(error).__name__}: {error}"])
        time.sleep(0.02)
workers = [threading.Thread(target=work) for _ in range(threads)]
for worker in workers: worker.start()
print("asking", flush=True)
for worker in workers: worker.join()
print(json.dumps({"pages": pages, "failures": failures, "slowest": slowest}), flush=True)
"""


@dataclass
class Seen:
    """What the load saw. `failures` are rows of begin (Unix time), seconds and error."""

    pages: dict[str, int]
    failures: list[tuple[float, float, str]]
    slowest: dict[str, float]
    """Seconds of the slowest look-up of the name, and of the slowest request that was answered."""

    @property
    def requests(self) -> int:
        return sum(self.pages.values()) + len(self.failures)

    def __str__(self) -> str:
        return f"{self.requests} requests, {len(self.failures)} failed, slowest {self.slowest}, {self.pages}"


def load_pod(image: str, host: str, *, threads: int, patience: float) -> Object:
    command = ["python3", "-c", _ASKER, host, str(threads), str(patience)]
    return kube.manifest("load", {"image": image, "command": command}, restartPolicy="Never")


@contextmanager
def load(place: Platform, image: str, host: str, *, threads: int = 2, patience: float = 10.0) -> Iterator[list[Seen]]:
    """Asks during the block; behind it the list has one element: what was seen. `patience` is per step of a request."""
    kube.apply(place, load_pod(image, host, threads=threads, patience=patience))
    seen: list[Seen] = []
    try:
        kube.until(lambda: "asking" in place.kubectl("logs", "load", check=False).stdout, "the load begins", 120)
        time.sleep(1)
        yield seen
        kube.shell(place, "load", "touch /tmp/stop")
        place.wait("load", kube.ended)
        found = json.loads(place.kubectl("logs", "load", "--tail=1").stdout)
        seen.append(Seen(found["pages"], [tuple(row) for row in found["failures"]], found["slowest"]))
    finally:
        place.kubectl("delete", "pod", "load", "--grace-period=1", timeout=60)
