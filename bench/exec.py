"""exec of `true` in a running pod through the API: one WebSocket each, without the command's own start."""

from __future__ import annotations

import json

from bench.common import BUSYBOX, PYTHON, Result, running_platform, summary, verdict

RUNS = 60
WARM_UP = 5
BAR = 0.150  # s

# Runs inside the platform's network namespace; prints the seconds of each exec.
PROGRAM = f"""
import json, time
from cuboid.cli import config, streams
from cuboid.cli.api import Api, pods_path
api = Api(config.find())
query = [("command", "true"), ("stdout", "true"), ("stderr", "true"), ("container", "main")]
seconds = []
for number in range({RUNS + WARM_UP}):
    started = time.monotonic()
    assert streams.capture(api, pods_path("default", "target", "exec"), query)[2] == 0
    seconds.append(time.monotonic() - started)
print(json.dumps(seconds[{WARM_UP}:]))
"""


def measure() -> Result:
    with running_platform() as place:
        place.cuboid("run", "-q", "-d", "--name", "target", BUSYBOX, "sleep", "3600")
        seconds = json.loads(place.run([PYTHON, "-c", PROGRAM], timeout=300).stdout)
    found = summary(seconds)
    return {
        "what": "exec of `true` through the API", "unit": "s", "exec": found,
        "bar": f"median <= {BAR} s", "verdict": verdict(found["median"] <= BAR),
    }  # fmt: skip
