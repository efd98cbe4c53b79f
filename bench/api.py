"""The embedded API server: creations, a long list, many watches, a start with many objects.

No peer runs here beside it: the figures are absolute, with the floors of the same machine in the same run: what its
SQLite commits without a server, and what its HTTP stack answers over TLS without an API. Needs wrk (`apt install wrk`).
"""

from __future__ import annotations

import asyncio
import json
import os
import re
import shutil
import signal
import subprocess
import tempfile
import time
from collections.abc import Iterator
from contextlib import closing, contextmanager
from pathlib import Path
from typing import Any

import msgspec
import uvicorn
import uvloop
from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol

from bench.common import PYTHON, Result, cpu_seconds, summary, verdict
from cuboid.kube import kinds, namespaces
from cuboid.kube.admit import chain
from cuboid.kube.births import new_uid
from cuboid.kube.cache import Cache, decode, stored
from cuboid.kube.rbac.live import LivePolicy, ensure_builtin
from cuboid.kube.registry import Registry, WriteOptions
from cuboid.kube.store import Key, Store, Write
from cuboid.server import tls
from cuboid.server.authz.authorizer import Authorizer
from cuboid.server.backups import STORE_FILE
from tests.harness.kube_server import ServerProcess, serving

ROUNDS = 3
SECONDS = 6
CONNECTIONS = 64
CREATES = 6_000
LISTED = 10_000
WATCHES, EVENTS, WATCH_SECONDS = 1_000, 100, 10
OBJECTS = 50_000
POD = {
    "apiVersion": "v1", "kind": "Pod", "metadata": {"name": "web", "labels": {"app": "web"}},
    "spec": {
        "schedulerName": "nobody",
        "containers": [
            {
                "name": "main", "image": "registry.example/app:1", "ports": [{"containerPort": 80}],
                "env": [{"name": "A", "value": "b"}],
                "resources": {"requests": {"cpu": "100m", "memory": "64Mi"}},
            }
        ],
    },
}  # fmt: skip
TABLE = "application/json;as=Table;v=v1;g=meta.k8s.io"


@contextmanager
def folder() -> Iterator[Path]:
    place = Path(tempfile.mkdtemp(prefix="cuboid-bench-"))
    place.chmod(0o755)
    try:
        yield place
    finally:
        shutil.rmtree(place)


# --- floors ----------------------------------------------------------------------------------------------------------


async def _commits(store: Store, value: bytes) -> float:
    numbers = iter(range(CREATES))

    async def write() -> None:
        for number in numbers:
            await store.commit(Write(Key("", "pods", "default", f"p{number}"), value, 0))

    started = time.monotonic()
    await asyncio.gather(*(write() for _ in range(CONNECTIONS)))
    return CREATES / (time.monotonic() - started)


def commit_floor() -> float:
    """Durable commits per second of the store alone, no object known to it."""
    with folder() as place:
        store = Store(place / "store.db")
        try:
            return uvloop.run(_commits(store, stored(POD) * 2))
        finally:
            store.close()


async def _echo(scope: Any, receive: Any, send: Any) -> None:
    body = (await receive()).get("body", b"")
    head = [(b"content-length", str(len(body)).encode())]
    await send({"type": "http.response.start", "status": 201, "headers": head})
    await send({"type": "http.response.body", "body": body})


async def _echoed(place: Path) -> float:
    authority = tls.Authority(place)
    serving_tls = tls.server_context(authority.server("server", ["localhost", "127.0.0.1"]), authority.ca_file)
    config = uvicorn.Config(
        _echo, http="httptools", lifespan="off", log_config=None, access_log=False, proxy_headers=False
    )
    config.load()
    state = uvicorn.server.ServerState()
    loop = asyncio.get_running_loop()
    listener = await loop.create_server(lambda: HttpToolsProtocol(config, state, {}), "127.0.0.1", 0, ssl=serving_tls)
    async with listener:
        port = listener.sockets[0].getsockname()[1]
        return await asyncio.to_thread(lambda: wrk(f"https://127.0.0.1:{port}", "", "e")["rate"])


def echo_floor() -> float:
    """Requests per second of uvicorn over TLS that answers with what it got."""
    with folder() as place:
        return uvloop.run(_echoed(place))


# --- creations -------------------------------------------------------------------------------------------------------


def wrk(url: str, token: str, prefix: str) -> dict[str, float]:
    script = Path(__file__).with_name("api_create.lua")
    command = ["wrk", "-t1", f"-c{CONNECTIONS}", f"-d{SECONDS}s", "--latency", "-s", str(script), url]
    environment = {**os.environ, "TOKEN": token, "PREFIX": prefix}
    out = subprocess.run(
        command, env=environment, capture_output=True, text=True, timeout=SECONDS + 30, check=True
    ).stdout
    percent99 = re.search(r"99%\s+([\d.]+)(ms|s|us)", out)
    total, refused = re.search(r"(\d+) requests in", out), re.search(r"Non-2xx or 3xx responses: (\d+)", out)
    rate = re.search(r"Requests/sec:\s+([\d.]+)", out)
    assert percent99 is not None and total is not None and rate is not None, out
    unit = {"us": 0.001, "ms": 1.0, "s": 1000.0}[percent99[2]]
    return {
        "rate": float(rate[1]), "p99_ms": float(percent99[1]) * unit, "done": float(total[1]),
        "refused": float(refused[1]) if refused else 0.0,
    }  # fmt: skip


def over_https() -> Result:
    with folder() as place, serving(place) as server, server.http() as http:
        assert server.process is not None
        used = cpu_seconds(server.process.pid)
        rounds = [wrk(server.url, server.token, f"r{number}-") for number in range(ROUNDS)]
        used = cpu_seconds(server.process.pid) - used
        page = http.get("/api/v1/pods", params={"limit": "1"}).json()
        there = len(page["items"]) + page["metadata"].get("remainingItemCount", 0)
    done = sum(one["done"] for one in rounds)
    return {
        "per second": summary([one["rate"] for one in rounds], 0),
        "p99 of one (ms)": summary([one["p99_ms"] for one in rounds], 1),
        "refused": int(sum(one["refused"] for one in rounds)),
        "all there": there >= done,
        "server's CPU for one (ms)": round(used * 1000 / done, 2),
    }  # fmt: skip


async def _inside(place: Path) -> tuple[float, float]:
    """(creates per second, ms of CPU for each)."""
    store = Store(place / "store.db")
    try:
        served = kinds.Kinds()
        cache = Cache(store, {kind.stored_as: kind.strategy.selectable for kind in served.stored()})
        registry = Registry(store, cache, served)
        await namespaces.ensure_permanent(registry)
        policy = LivePolicy()
        policy.load(registry)
        await ensure_builtin(registry)
        registry.admission = chain.make(registry, policy, Authorizer(policy).allows, chain.Options())
        pods, body, numbers = kinds.builtin("Pod"), msgspec.json.encode(POD), iter(range(CREATES))
        options = WriteOptions(manager="bench")

        async def write() -> None:
            for number in numbers:
                new = decode(body)
                new["metadata"]["name"] = f"p{number}"
                await registry.create(pods, "default", new, options)

        started, used = time.monotonic(), time.process_time()
        await asyncio.gather(*(write() for _ in range(CONNECTIONS)))
        return CREATES / (time.monotonic() - started), (time.process_time() - used) * 1000 / CREATES
    finally:
        store.close()


def inside() -> Result:
    rounds = []
    for _ in range(ROUNDS):
        with folder() as place:
            rounds.append(uvloop.run(_inside(place)))
    return {
        "per second": summary([one[0] for one in rounds], 0),
        "CPU for one (ms)": summary([one[1] for one in rounds]),
    }


# --- a list, watches, a start ----------------------------------------------------------------------------------------


def sample(place: Path) -> bytes:
    """A pod as the server stores it."""
    with serving(place, backup_hours="0") as server, server.http() as http:
        assert http.post("/api/v1/namespaces/default/pods", json=POD).status_code == 201
        server.kill(signal.SIGTERM)
    with closing(Store(server.folder / STORE_FILE)) as store:
        return next(value for key, _, value in store.objects() if key.name == "web")


async def _filled(path: Path, value: bytes, pods: int, maps: int) -> None:
    store = Store(path)
    try:
        for start in range(0, pods + maps, 1_000):
            writes = []
            for number in range(start, min(start + 1_000, pods + maps)):
                if number < pods:
                    document = decode(value)
                    document["metadata"] |= {
                        "name": f"n{number}",
                        "uid": new_uid(),
                        "labels": {"app": f"a{number % 500}"},
                    }
                    key = Key("", "pods", "default", f"n{number}")
                else:
                    metadata = {"name": f"n{number}", "namespace": "default", "uid": new_uid()}
                    document = {"apiVersion": "v1", "kind": "ConfigMap", "metadata": metadata, "data": {"a": "b" * 500}}
                    key = Key("", "configmaps", "default", f"n{number}")
                writes.append(store.commit(Write(key, stored(document), 0)))
            await asyncio.gather(*writes)
    finally:
        store.close()


def fill(server: ServerProcess, value: bytes, pods: int, maps: int = 0) -> None:
    """While it does not run."""
    asyncio.run(_filled(server.folder / STORE_FILE, value, pods, maps))


def memory(server: ServerProcess, row: str = "VmRSS") -> float:
    """MB."""
    assert server.process is not None
    text = Path(f"/proc/{server.process.pid}/status").read_text()
    found = re.search(rf"{row}:\s+(\d+) kB", text)
    assert found is not None
    return int(found[1]) * 1024 / 1e6


def listing(server: ServerProcess, accept: str) -> tuple[float, float]:
    """(seconds, MB above what was resident) of one list of everything."""
    assert server.process is not None
    Path(f"/proc/{server.process.pid}/clear_refs").write_text("5")  # the high-water mark starts anew
    before = memory(server)
    command = ["curl", "-sk", "-o", "/dev/null", "-w", "%{time_total}", "-H", f"Authorization: Bearer {server.token}"]
    out = subprocess.run(
        [*command, "-H", f"Accept: {accept}", f"{server.url}/api/v1/pods"], capture_output=True, text=True, check=True,
        timeout=60,
    ).stdout  # fmt: skip
    return float(out), memory(server, "VmHWM") - before


def lists() -> Result:
    result: Result = {}
    with folder() as place:
        value = sample(place)
        server = ServerProcess(place, {"backup_hours": "0"})
        fill(server, value, LISTED)
        with running(server):
            for name, accept in (("objects", "application/json"), ("table", TABLE)):
                rounds = [listing(server, accept) for _ in range(5)]
                result[f"{name} (s)"] = summary([one[0] for one in rounds])
                result[f"{name}, extra memory (MB)"] = round(max(one[1] for one in rounds), 1)
    return result


@contextmanager
def running(server: ServerProcess) -> Iterator[ServerProcess]:
    server.start()
    try:
        yield server
    finally:
        server.kill(signal.SIGTERM)


def watches(kind: str) -> Result:
    with folder() as place, serving(place) as server:
        assert server.process is not None
        used, before = cpu_seconds(server.process.pid), memory(server)
        command = [PYTHON, "-m", "bench.api_watch", server.url, server.token, kind]
        numbers = [str(WATCHES), str(EVENTS), str(WATCH_SECONDS)]
        out = subprocess.run([*command, *numbers], capture_output=True, text=True, check=True, timeout=180).stdout
        used = cpu_seconds(server.process.pid) - used
        grown = memory(server, "VmHWM") - before
    found: Result = json.loads(out)
    return {**found, "server's CPU (s)": round(used, 1), "memory of the watches (MB)": round(grown)}


def starts() -> Result:
    seconds, resident, later = [], [], []
    with folder() as place:
        value = sample(place)
        server = ServerProcess(place, {"backup_hours": "0"})
        fill(server, value, OBJECTS * 3 // 5, OBJECTS * 2 // 5)
        size = (server.folder / STORE_FILE).stat().st_size
        for _ in range(ROUNDS):
            started = time.monotonic()
            with running(server):
                seconds.append(time.monotonic() - started)
                resident.append(memory(server))
                time.sleep(15)  # controllers look at everything once
                later.append(memory(server))
    return {
        "seconds": summary(seconds), "resident (MB)": summary(resident, 0),
        "resident 15 s later (MB)": summary(later, 0), "store (MB)": round(size / 1e6),
    }  # fmt: skip


def measure() -> Result:
    floors = {"commits alone (per s)": round(commit_floor()), "TLS echo alone (per s)": round(echo_floor())}
    https, local, listed, started = over_https(), inside(), lists(), starts()
    watched = {kind: watches(kind) for kind in ("pods", "configmaps")}
    met = (
        https["per second"]["median"] >= 1_000 and local["per second"]["median"] >= 3_000
        and listed["objects (s)"]["median"] <= 1.0 and listed["objects, extra memory (MB)"] <= 150
        and all(one["p99_ms"] <= 250 and one["events per second"] >= EVENTS * 0.95 for one in watched.values())
        and started["seconds"]["median"] <= 3.0 and started["resident (MB)"]["max"] <= 250
    )  # fmt: skip
    return {
        "what": "the embedded API server: pods created, 10,000 listed, 1,000 watches, a start with 50,000 objects",
        "unit": "see each",
        "floors": floors,
        "creates over HTTPS": https,
        "of the lower floor": round(https["per second"]["median"] / min(floors.values()), 2),
        "creates inside the process": local,
        "list of 10,000": listed,
        "1,000 watches": watched,
        "start with 50,000": started,
        "bar": ">= 1,000/s over HTTPS, >= 3,000/s inside; list <= 1 s, <= 150 MB; watches p99 <= 250 ms; "
        "start <= 3 s, <= 250 MB",
        "verdict": verdict(met),
    }  # fmt: skip
