"""Log throughput: lines written by a container until they are in the node's CRI file, none lost, none changed."""

from __future__ import annotations

import hashlib
import json
import time

from bench.common import REGISTRY, Result, running_platform, save, summary, verdict

LINE = "0123456789 the quick brown fox jumps over the lazy dog, then writes about it in a log of some length\n"
LINES = 1_000_000
ROUNDS = 5
BAR = 20.0  # MB/s of text


def measure() -> Result:
    total = len(LINE) * LINES
    wanted = hashlib.sha256((LINE * LINES).encode()).hexdigest()
    rates, intact = [], True
    with running_platform(CUBOID_NODE_LOG_FILE_MIB="400") as place:
        for number in range(ROUNDS):
            name = f"writer-{number}"
            command = f"yes '{LINE.strip()}' | head -n {LINES}"
            place.cuboid("run", "-d", "--name", name, "--disk", "1g", f"{REGISTRY}/busybox:1", "sh", "-c", command)
            pod = place.wait(name, lambda pod: pod["status"]["phase"] in ("Succeeded", "Failed"), timeout=300)
            ended = pod["status"]["containerStatuses"][0]["state"]["terminated"]
            seconds = _seconds(ended)
            rates.append(total / 1e6 / seconds)
            started = time.monotonic()
            text = place.run([".venv/bin/cuboid", "logs", name], timeout=300).stdout
            intact = intact and hashlib.sha256(text.encode()).hexdigest() == wanted
            print(
                f"  round {number}: {rates[-1]:.1f} MB/s, read back in {time.monotonic() - started:.1f} s", flush=True
            )
            place.cuboid("rm", "-f", name)
    found = summary(rates, 2)
    result: Result = {
        "what": f"{LINES} lines, {total / 1e6:.0f} MB, from the container to the node's log file", "unit": "MB/s",
        "throughput": found, "nothing_lost": intact, "bar": f"median >= {BAR} MB/s and nothing lost",
        "verdict": verdict(found["median"], BAR, at_least=True) if intact else "missed",
    }  # fmt: skip
    save("logs", result)
    return result


def _seconds(ended: dict[str, str]) -> float:
    """From start to end as the guest stamped them, to the nanosecond (in the container's annotation of the status)."""
    message = json.loads(ended.get("message") or "{}") if ended.get("message", "").startswith("{") else {}
    if "seconds" in message:
        return float(message["seconds"])
    from cuboid.lib.clock import parse_rfc3339

    return max(1.0, parse_rfc3339(ended["finishedAt"]) - parse_rfc3339(ended["startedAt"]))
