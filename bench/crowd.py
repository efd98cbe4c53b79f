"""`python -m bench.crowd`: a node agent with fakes around it, from one pod to 2,000. Prints one JSON object.

The other ends of all guest channels and the API with its objects are in the same process: what is printed is above what
the agent itself takes.
"""

from __future__ import annotations

import asyncio
import json
import sys
import tempfile
import threading
import time
from pathlib import Path
from typing import Any

from cuboid.net.fake import FakeNetwork
from cuboid.node.parts import raise_file_limit
from tests.harness.node_world import Host

COUNTS = (1, 20, 200, 2000)
STARTED_SECONDS = 600.0
STILL_SECONDS = 10.0  # in which nothing happens, for the CPU time of a pod that only is there
FILES = 16_384
SUBNET = "10.64.0.0/16"


def pod(number: int) -> dict[str, Any]:
    meta = {"name": f"crowd-{number}", "namespace": "default", "uid": f"{number:08x}-0000-4000-8000-000000000000"}
    spec = {"containers": [{"name": "app", "image": "demo:1"}], "nodeName": "node", "terminationGracePeriodSeconds": 0}
    return {"apiVersion": "v1", "kind": "Pod", "metadata": meta, "spec": spec}


def resources() -> dict[str, float]:
    rows = dict(line.split(":", 1) for line in Path("/proc/self/status").read_text().splitlines())
    return {
        "MB": int(rows["RssAnon"].split()[0]) * 1024 / 1e6, "threads": threading.active_count(),
        "files": len(list(Path("/proc/self/fd").iterdir())),
    }  # fmt: skip


def phase(document: dict[str, Any]) -> str:
    return str(document.get("status", {}).get("phase", ""))


async def crowd(folder: Path) -> dict[str, dict[str, float]]:
    host, found = Host(folder, network=FakeNetwork(SUBNET)), {}
    async with host.agent_running():
        there = 0
        for count in COUNTS:
            before, begun = time.process_time(), time.monotonic()
            for number in range(there, count):
                host.api.put(pod(number))
            pods = host.api.pods.values()
            while any(phase(document) != "Running" for document in pods):
                assert time.monotonic() - begun < STARTED_SECONDS, f"{count} pods do not run"
                await asyncio.sleep(0.2)
            starts = (time.process_time() - before) / (count - there)
            before = time.process_time()
            await asyncio.sleep(STILL_SECONDS)
            still = (time.process_time() - before) / STILL_SECONDS
            found[str(count)] = {**resources(), "CPU ms per start": starts * 1000, "% of a core, still": still * 100}
            there = count
    return {count: {name: round(value, 2) for name, value in row.items()} for count, row in found.items()}


def main() -> int:
    raise_file_limit(FILES)
    with tempfile.TemporaryDirectory(prefix="cuboid-crowd-", dir="/dev/shm") as folder:
        print(json.dumps(asyncio.run(crowd(Path(folder)))))
    return 0


if __name__ == "__main__":
    sys.exit(main())
