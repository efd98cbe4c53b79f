"""The client's HTTP: kept connections, endless answers, servers that break off or talk nonsense."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager

import pytest

from cuboid.kube.client import PODS, KubeClient
from cuboid.kube.transport import Transport
from cuboid.lib.errors import UnavailableError

Handler = Callable[[asyncio.StreamReader, asyncio.StreamWriter], Awaitable[None]]


@asynccontextmanager
async def served(handler: Handler) -> AsyncIterator[tuple[Transport, str]]:
    async def run(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            await handler(reader, writer)
        except (asyncio.IncompleteReadError, ConnectionError):
            return
        finally:
            writer.close()

    server = await asyncio.start_server(run, "127.0.0.1", 0)
    url = f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}"
    transport = Transport(url, None, {"Accept": "application/json"})
    try:
        yield transport, url
    finally:
        await transport.close()
        server.close()
        await server.wait_closed()


def reply(body: bytes) -> bytes:
    return b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n%s" % (len(body), body)


async def test_requests_share_a_connection_and_carry_their_bodies() -> None:
    seen: list[bytes] = []

    async def handler(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        seen.append(b"connected")
        while True:
            head = await reader.readuntil(b"\r\n\r\n")
            seen.append(
                head.split(b" HTTP")[0] + (await reader.readexactly(3) if b"Content-Length: 3" in head else b"")
            )
            for byte in reply(b"{}"):
                writer.write(bytes([byte]))

    async with served(handler) as (transport, _):
        assert (await transport.request("GET", "/a?b=c")).content == b"{}"
        assert (await transport.request("POST", "/d", body=b"xyz", media="text/plain")).status == 200
    assert seen == [b"connected", b"GET /a?b=c", b"POST /dxyz"]


async def test_a_connection_that_the_server_closed_is_replaced() -> None:
    async def handler(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(b"\r\n\r\n")
        writer.write(reply(b"1"))

    async with served(handler) as (transport, _):
        for _ in range(3):
            assert (await transport.request("GET", "/")).content == b"1"
            await asyncio.sleep(0.01)


@pytest.mark.parametrize(
    "answer",
    [
        b"",
        b"HTTP/1.1 200",
        b"HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nab",
        b"\x16\x03 nonsense",
        b"HTTP/9.9 what\r\n\r\n",
    ],
)
async def test_a_broken_answer_is_unavailable(answer: bytes) -> None:
    async def handler(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(b"\r\n\r\n")
        writer.write(answer)

    async with served(handler) as (transport, _):
        with pytest.raises(UnavailableError, match="does not answer"):
            await transport.request("GET", "/")


async def test_a_watch_yields_events_as_they_come_and_ends_with_the_answer() -> None:
    lines = [b'{"type":"ADDED","object":{"metadata":{"name":"%d"}}}\n' % number for number in range(3)]

    async def handler(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(b"\r\n\r\n")
        writer.write(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n")
        for part in (lines[0][:9], lines[0][9:] + lines[1], lines[2]):
            writer.write(b"%x\r\n%s\r\n" % (len(part), part))
            await writer.drain()
            await asyncio.sleep(0.01)
        writer.write(b"0\r\n\r\n")

    async with served(handler) as (_, url), KubeClient(url) as client:
        found = [(kind, item["metadata"]["name"]) async for kind, item in client.watch(PODS, since="1")]
    assert found == [("ADDED", "0"), ("ADDED", "1"), ("ADDED", "2")]


async def test_a_watch_with_a_line_that_is_no_event_is_unavailable() -> None:
    async def handler(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(b"\r\n\r\n")
        writer.write(reply(b'{"kind":"what"}\n'))

    async with served(handler) as (_, url), KubeClient(url) as client:
        with pytest.raises(UnavailableError, match="can not be read"):
            async for _ in client.watch(PODS, since="1"):
                pass
