"""A pod's network: attached, prepared ahead, given to a pod, taken away; wall time, and processor time with plugins."""

from __future__ import annotations

import asyncio
import resource
import tempfile
import time
from collections.abc import Awaitable, Callable
from pathlib import Path

from bench.common import Result, summary, verdict
from cuboid.net.base import PortMapping
from cuboid.net.network import CniNetwork
from tests.harness.network import Who, host_net

RUNS = 20
BAR_MS, BAR_CPU_MS = 10.0, 60.0
WHO: Who = {"namespace": "default", "name": "web"}


def measure() -> Result:
    steps = asyncio.run(_steps())
    adopt = max(steps[name]["wall"]["median"] for name in ("adopt", "adopt, one port"))
    cpu = steps["attach"]["cpu"] + steps["detach"]["cpu"]
    return {
        "what": "a pod's network on a host of its own (a namespace)", "unit": "ms", **steps,
        "bar": f"adopt, also with a port, median <= {BAR_MS:g}; processor time of attach and detach <= {BAR_CPU_MS:g}",
        "verdict": verdict(adopt <= BAR_MS and cpu <= BAR_CPU_MS),
    }  # fmt: skip


async def _steps() -> dict[str, Result]:
    with tempfile.TemporaryDirectory() as folder:
        async with host_net(Path(folder)) as host:
            network = host.network()
            await network.attach("first", **WHO)
            await network.detach("first")
            return {**await _one_by_one(network), **await _at_once(network)}


async def _one_by_one(network: CniNetwork) -> dict[str, Result]:
    def ports(number: int) -> tuple[PortMapping, ...]:
        return (PortMapping(8000 + number, 80),)

    calls: list[tuple[str, Callable[[int], Awaitable[object]]]] = [
        ("attach", lambda n: network.attach(f"a{n}", **WHO)),
        ("detach", lambda n: network.detach(f"a{n}")),
        ("attach, one port", lambda n: network.attach(f"b{n}", **WHO, ports=ports(n))),
        ("detach, one port", lambda n: network.detach(f"b{n}")),
        ("prepare", lambda n: network.prepare(f"c{n}")),
        ("adopt", lambda n: network.adopt(f"c{n}", **WHO)),
        ("prepare again", lambda n: network.prepare(f"d{n}")),
        ("adopt, one port", lambda n: network.adopt(f"d{n}", **WHO, ports=ports(n))),
    ]
    return {name: await _series(call) for name, call in calls}


async def _series(call: Callable[[int], Awaitable[object]]) -> Result:
    seconds, before = [], _cpu()
    for number in range(RUNS):
        started = time.perf_counter()
        await call(number)
        seconds.append(1000 * (time.perf_counter() - started))
    return {"wall": summary(seconds, 1), "cpu": round(1000 * (_cpu() - before) / RUNS, 1)}


async def _at_once(network: CniNetwork) -> dict[str, Result]:
    await network.clean(set())
    started, before = time.perf_counter(), _cpu()
    wanted = (network.attach(f"e{n}", **WHO, ports=(PortMapping(8000 + n, 80),)) for n in range(RUNS))
    await asyncio.gather(*wanted)
    attached, used = time.perf_counter(), _cpu()
    await network.clean(set())
    return {
        f"{RUNS} attached at once": _whole(attached - started, used - before),
        f"{RUNS} cleaned at once": _whole(time.perf_counter() - attached, _cpu() - used),
    }


def _whole(seconds: float, cpu: float) -> Result:
    return {"all": round(1000 * seconds), "cpu each": round(1000 * cpu / RUNS, 1)}


def _cpu() -> float:
    """Seconds that this process and its ended children have used."""
    found = (resource.getrusage(who) for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN))
    return sum(usage.ru_utime + usage.ru_stime for usage in found)
