"""Log throughput: lines that a container writes until they are in the node's log file, none lost, none changed."""

from __future__ import annotations

import hashlib
from pathlib import Path

from bench.common import BUSYBOX, Result, running_platform, summary, verdict
from cuboid.lib.clock import parse_rfc3339
from tests.harness.platform import Platform

LINE = b"0123456789 the quick brown fox jumps over the lazy dog, then writes about it in a log of some length\n"
LINES = 100_000  # of the file that the container makes first: making text costs an emulated CPU more than logging it
TIMES = 10  # that it is then written
TEXT = LINE * LINES * TIMES
ROUNDS = 3
BAR = 20.0  # MB/s of text
PREFIX = b" stdout F "


def one(place: Platform, name: str) -> tuple[float, bool]:
    """(MB/s, whether every byte is there) of one pod."""
    make = f"yes '{LINE.decode().strip()}' | head -n {LINES} >/tmp/text"
    command = f"{make}; exec cat {' '.join(['/tmp/text'] * TIMES)}"
    place.cuboid("run", "-q", "-d", "--name", name, BUSYBOX, "sh", "-c", command)
    pod = place.wait(name, lambda pod: pod["status"]["phase"] in ("Succeeded", "Failed"), timeout=300)
    (file,) = place.state.glob(f"pods/{pod['metadata']['uid']}/logs/*/0.log")
    rate = len(TEXT) / 1e6 / seconds(file)
    intact = text_digest(file) == hashlib.sha256(TEXT).hexdigest()
    place.cuboid("rm", "-f", name)
    return rate, intact


def seconds(file: Path) -> float:
    """From the guest's stamp of the first line to the last write of the file on the host."""
    with file.open("rb") as lines:
        first = lines.readline().split(b" ", 1)[0].decode()
    return file.stat().st_mtime - parse_rfc3339(first)


def text_digest(file: Path) -> str:
    """Of the lines without their prefixes."""
    digest = hashlib.sha256()
    with file.open("rb") as lines:
        for line in lines:
            digest.update(line.partition(PREFIX)[2])
    return digest.hexdigest()


def measure() -> Result:
    with running_platform(log_mib="400") as place:
        rounds = [one(place, f"writer-{number}") for number in range(ROUNDS)]
    found, intact = summary([rate for rate, _ in rounds], 1), all(intact for _, intact in rounds)
    return {
        "what": f"{LINES * TIMES} lines, {len(TEXT) / 1e6:.0f} MB, from a container to the node's log file",
        "unit": "MB/s",
        "throughput": found, "nothing lost or changed": intact, "bar": f"median >= {BAR} MB/s and nothing lost",
        "verdict": verdict(intact and found["median"] >= BAR),
    }  # fmt: skip
