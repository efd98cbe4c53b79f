"""The client of the watch benchmark, in a process of its own: many watches, a writer, and when each event was read.

`python -m bench.api_watch URL TOKEN KIND WATCHES EVENTS_PER_SECOND SECONDS` prints one JSON line; KIND is pods or
configmaps.
"""

from __future__ import annotations

import asyncio
import json
import re
import ssl
import sys
import time
from typing import Any, cast

import uvloop

from bench.common import percentile

CHANGED = 100  # objects that are written in turn
WRITERS = 4
_VERSION = re.compile(rb'"resourceVersion":"(\d+)"')
_LENGTH = re.compile(rb"content-length: (\d+)")
_KEPT = 40  # bytes: a version may be cut between two reads


def made(kind: str, name: str) -> dict[str, Any]:
    if kind == "configmaps":
        return {"metadata": {"name": name}, "data": {"message": ""}}
    container = {"name": "main", "image": "registry.example/app:1", "ports": [{"containerPort": 80}]}
    return {"metadata": {"name": name}, "spec": {"schedulerName": "nobody", "containers": [container]}}


def change(kind: str, number: int) -> tuple[str, dict[str, Any]]:
    """Sub-resource and patch."""
    part = {"message": f"m{number}"}
    return ("", {"data": part}) if kind == "configmaps" else ("/status", {"status": part})


class Watch(asyncio.Protocol):
    """Notes when each version was read."""

    def __init__(self, request: bytes, acknowledged: dict[bytes, float], seconds: list[float]) -> None:
        self._request = request
        self._acknowledged = acknowledged
        self._seconds = seconds
        self._rest = b""
        self.transport: asyncio.Transport | None = None
        self.seen = 0

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self.transport = cast(asyncio.Transport, transport)  # uvloop's are alike, but no subclass
        self.transport.write(self._request)

    def data_received(self, data: bytes) -> None:
        now = time.monotonic()
        data, end = self._rest + data, 0
        for match in _VERSION.finditer(data):
            end = match.end()
            self.seen += 1
            written = self._acknowledged.get(match[1])
            self._seconds.append(now - written if written is not None else 0.0)
        self._rest = data[max(end, len(data) - _KEPT) :]


class Caller:
    """One kept connection."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter, head: str) -> None:
        self._reader, self._writer, self._head = reader, writer, head

    async def __call__(self, method: str, path: str, body: dict[str, Any], media: str) -> bytes:
        data = json.dumps(body).encode()
        head = f"{method} {path} HTTP/1.1\r\n{self._head}Content-Type: {media}\r\nContent-Length: {len(data)}\r\n\r\n"
        self._writer.write(head.encode() + data)
        answer = await self._reader.readuntil(b"\r\n\r\n")
        found = _LENGTH.search(answer)
        if not answer.startswith(b"HTTP/1.1 2") or found is None:
            raise RuntimeError(answer.decode())
        return await self._reader.readexactly(int(found[1]))

    def close(self) -> None:
        self._writer.close()


async def run(url: str, token: str, kind: str, watches: int, rate: float, seconds: float) -> dict[str, Any]:
    host, _, port = url.removeprefix("https://").rpartition(":")
    trust = ssl.create_default_context()
    trust.check_hostname, trust.verify_mode = False, ssl.CERT_NONE
    head = f"Host: {host}\r\nAuthorization: Bearer {token}\r\n"
    maker = Caller(*await asyncio.open_connection(host, int(port), ssl=trust), head)
    path, last = f"/api/v1/namespaces/default/{kind}", b""
    for number in range(CHANGED):
        last = await maker("POST", path, made(kind, f"w{number}"), "application/json")
    match = _VERSION.search(last)
    assert match is not None
    request = f"GET {path}?watch=true&resourceVersion={match[1].decode()} HTTP/1.1\r\n{head}\r\n".encode()
    acknowledged: dict[bytes, float] = {}
    found: list[float] = []
    loop = asyncio.get_running_loop()
    opened: list[Watch] = []
    for _ in range(watches):
        _, watch = await loop.create_connection(lambda: Watch(request, acknowledged, found), host, int(port), ssl=trust)
        opened.append(watch)
    callers = [Caller(*await asyncio.open_connection(host, int(port), ssl=trust), head) for _ in range(WRITERS)]
    await asyncio.sleep(1)
    found.clear()
    for watch in opened:
        watch.seen = 0
    started, used, numbers = time.monotonic(), time.process_time(), iter(range(int(rate * seconds)))

    async def write(call: Caller) -> None:
        for number in numbers:
            await asyncio.sleep(max(0.0, started + number / rate - time.monotonic()))
            sub, body = change(kind, number)
            answer = await call("PATCH", f"{path}/w{number % CHANGED}{sub}", body, "application/merge-patch+json")
            version = _VERSION.search(answer)
            assert version is not None
            acknowledged[version[1]] = time.monotonic()

    await asyncio.gather(*(write(call) for call in callers))
    took, cpu = time.monotonic() - started, time.process_time() - used
    await asyncio.sleep(2)
    result = {
        "events per second": round(len(acknowledged) / took, 1),
        "seen by all": all(watch.seen >= len(acknowledged) for watch in opened),
        "delivered": len(found),
        "median_ms": round(percentile(found, 50) * 1000, 1),
        "p99_ms": round(percentile(found, 99) * 1000, 1),
        "max_ms": round(max(found) * 1000, 1),
        "cpu of the client": round(cpu / took, 2),
        "bytes of an event": len(last),
    }
    for watch in opened:
        assert watch.transport is not None
        watch.transport.abort()
    for call in (maker, *callers):
        call.close()
    return result


if __name__ == "__main__":
    where, secret, what, *numbers = sys.argv[1:]
    print(json.dumps(uvloop.run(run(where, secret, what, int(numbers[0]), float(numbers[1]), float(numbers[2])))))
