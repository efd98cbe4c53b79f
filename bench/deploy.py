"""`cuboid deploy` as a user feels it: three pods that serve, the next version of them under requests, a job."""

from __future__ import annotations

import time

from bench.common import BUSYBOX, PYTHON, REGISTRY, Result, running_platform, summary, verdict
from tests.harness.platform import Platform
from tools import debian_images

TURNS = 5
REPLICAS = 3
NGINX = (f"{REGISTRY}/nginx:1", f"{REGISTRY}/nginx:2")
PORT = 8080
ASKER = """
import sys, time, urllib.request
good = bad = 0
print("asking", flush=True)
while not sys.stdin.closed:
    try:
        urllib.request.urlopen(sys.argv[1], timeout=10).read()
        good += 1
    except OSError:
        bad += 1
    print(good, bad, flush=True)
    time.sleep(0.05)
"""


def _timed(place: Platform, *arguments: str) -> float:
    started = time.monotonic()
    place.cuboid(*arguments, timeout=300)
    return time.monotonic() - started


def _turn(place: Platform) -> dict[str, float]:
    first, second = NGINX
    name = ("--name", "web")
    count, publish = ("--replicas", str(REPLICAS)), ("--publish", f"{PORT}:80")
    found = {"deployed": _timed(place, "deploy", first, *name, *count, *publish)}
    with place.started([PYTHON, "-c", ASKER, f"http://127.0.0.1:{PORT}/"]) as asking:
        time.sleep(1)
        found["rolled out"] = _timed(place, "deploy", second, *name)
        time.sleep(1)
        asking.kill()
        said = (asking.stdout.read() if asking.stdout else "").splitlines()
    good, bad = (int(text) for text in next(line for line in reversed(said) if len(line.split()) == 2).split())
    found |= {"requests meanwhile": good, "of them failed": bad}
    found["scaled to one"] = _timed(place, "scale", "web", "1")
    found["removed"] = _timed(place, "deploy", "rm", "web")
    found["a job of `true`"] = _timed(place, "job", BUSYBOX, "--rm", "--", "true")
    return found


def measure() -> Result:
    with running_platform() as place:
        for image in NGINX:
            place.run([PYTHON, "-m", "tools.push", str(debian_images.layout("nginx")), image], timeout=180)
        _turn(place)
        turns = [_turn(place) for _ in range(TURNS)]
    figures = {key: summary([turn[key] for turn in turns], 2) for key in turns[0]}
    failed = sum(turn["of them failed"] for turn in turns)
    return {
        "what": f"`cuboid deploy` of nginx, {REPLICAS} pods, and the next version under requests", "unit": "s",
        **figures, "bar": "no request fails", "verdict": verdict(not failed),
    }  # fmt: skip
