"""A registry that misbehaves on command, on loopback: plain HTTP/1.1, one answer per connection."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass, field

from cuboid.images.archive import write_manifest
from cuboid.images.base import ImageConfig
from cuboid.images.build import image_config
from cuboid.images.manifest import OCI_CONFIG, OCI_LAYER, OCI_MANIFEST, Descriptor
from tests.harness.images import sha256


@dataclass(frozen=True)
class Request:
    method: str
    path: str  # with its query
    headers: dict[str, str]  # names in lower case


@dataclass
class Answer:
    status: int = 200
    headers: dict[str, str] = field(default_factory=dict)
    body: bytes = b""
    length: int | None = None  # Content-Length, if it is to lie
    pause: float = 0.0  # s between any two bytes
    endless: bool = False  # the body again and again
    hang_up_after: int | None = None  # bytes of the body


Handler = Callable[[Request], Answer | None]


class FakeRegistry:
    """Serves `objects` (path after /v2/ to bytes) unless the handler answers first; counts what it is asked."""

    def __init__(self) -> None:
        self.objects: dict[str, bytes] = {}
        self.handler: Handler = lambda request: None
        self.requests: list[Request] = []
        self.host = ""
        self._serving: set[asyncio.Task[None]] = set()

    def add_image(self, repository: str, tag: str, *layers: bytes, **changes: object) -> list[str]:
        """Plain layers; the digests of the layers. `changes` overwrite fields of the configuration."""
        raw_config = image_config(ImageConfig(cmd=("/bin/true",)), [sha256(layer) for layer in layers])
        raw_config = json.dumps({**json.loads(raw_config), **changes}).encode()
        config = Descriptor(sha256(raw_config), len(raw_config), OCI_CONFIG)
        manifest = write_manifest(config, tuple(Descriptor(sha256(raw), len(raw), OCI_LAYER) for raw in layers))
        for raw in (raw_config, *layers):
            self.objects[f"{repository}/blobs/{sha256(raw)}"] = raw
        for name in (tag, sha256(manifest)):
            self.objects[f"{repository}/manifests/{name}"] = manifest
        return [sha256(layer) for layer in layers]

    def asked(self, part: str) -> list[Request]:
        return [request for request in self.requests if part in request.path]

    def _answer(self, request: Request) -> Answer:
        self.requests.append(request)
        if (answer := self.handler(request)) is not None:
            return answer
        if request.path == "/v2/":
            return Answer(200)
        body = self.objects.get(request.path.removeprefix("/v2/"))
        if body is None:
            return Answer(404)
        return ranged(request, body)

    def accept(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.create_task(self._serve(reader, writer))
        self._serving.add(task)
        task.add_done_callback(self._serving.discard)

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            with suppress(OSError, asyncio.IncompleteReadError):
                request = _parse(await reader.readuntil(b"\r\n\r\n"))
                await _write(writer, self._answer(request))
        finally:
            writer.close()
            with suppress(OSError):
                await writer.wait_closed()

    async def stop(self) -> None:
        for task in self._serving:
            task.cancel()
        await asyncio.gather(*self._serving, return_exceptions=True)


def ranged(request: Request, body: bytes) -> Answer:
    """A blob or manifest as a well-behaved registry sends it."""
    headers = {"Content-Type": OCI_MANIFEST if "/manifests/" in request.path else "application/octet-stream"}
    if start := request.headers.get("range", "").removeprefix("bytes=").partition("-")[0]:
        headers["Content-Range"] = f"bytes {start}-{len(body) - 1}/{len(body)}"
        return Answer(206, headers, body[int(start) :])
    return Answer(200, headers, body)


def _parse(raw: bytes) -> Request:
    first, *lines = raw.decode("latin-1").split("\r\n")
    method, path, _ = first.split(" ", 2)
    pairs = [line.partition(":") for line in lines if line]
    return Request(method, path, {name.lower(): value.strip() for name, _, value in pairs})


async def _write(writer: asyncio.StreamWriter, answer: Answer) -> None:
    length = len(answer.body) if answer.length is None else answer.length
    headers = {"Connection": "close", **answer.headers}
    if not answer.endless:
        headers["Content-Length"] = str(length)
    head = "".join(f"{name}: {value}\r\n" for name, value in headers.items())
    writer.write(f"HTTP/1.1 {answer.status} X\r\n{head}\r\n".encode())
    if answer.pause:
        for byte in answer.body:
            writer.write(bytes([byte]))
            await writer.drain()
            await asyncio.sleep(answer.pause)
        return
    writer.write(answer.body[: answer.hang_up_after])
    await writer.drain()
    while answer.endless:
        writer.write(answer.body)
        await writer.drain()


@asynccontextmanager
async def fake_registry(address: str = "127.0.0.1") -> AsyncIterator[FakeRegistry]:
    registry = FakeRegistry()
    server = await asyncio.start_server(registry.accept, address, 0)
    registry.host = f"{address}:{server.sockets[0].getsockname()[1]}"
    async with server:
        try:
            yield registry
        finally:
            await registry.stop()
