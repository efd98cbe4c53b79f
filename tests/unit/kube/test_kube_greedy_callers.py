"""Callers that take a server's room: headers that never come to an end, pings whose answers nobody reads."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import suppress
from typing import Any

import pytest
import uvicorn

from cuboid.server import protocol


async def _app(scope: Any, receive: Any, send: Any) -> None:
    if scope["type"] == "websocket":
        await receive()
        await send({"type": "websocket.accept"})
        await receive()
        return
    await send({"type": "http.response.start", "status": 200, "headers": [(b"content-length", b"2")]})
    await send({"type": "http.response.body", "body": b"ok"})


@pytest.fixture
async def port(monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[int]:
    """A server on loopback that waits a tenth of a second for headers."""
    monkeypatch.setattr(protocol, "HEADER_SECONDS", 0.1)
    config = uvicorn.Config(
        _app,
        http=protocol.LimitedProtocol,
        ws=protocol.LimitedWebSocket,
        lifespan="off",
        log_config=None,
        access_log=False,
    )
    config.load()
    state = uvicorn.server.ServerState()
    loop = asyncio.get_running_loop()
    listener = await loop.create_server(lambda: protocol.LimitedProtocol(config, state, {}), "127.0.0.1", 0)
    async with listener:
        yield listener.sockets[0].getsockname()[1]


async def _hung_up(reader: asyncio.StreamReader) -> None:
    async with asyncio.timeout(10):
        with suppress(ConnectionResetError):
            assert await reader.read() == b""


@pytest.mark.parametrize("begin", [b"", b"GET / HTTP/1.1\r\nHost: x\r\nX-Slow: "])
async def test_a_caller_that_does_not_finish_its_headers_is_cut_off(port: int, begin: bytes) -> None:
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    writer.write(begin)
    await _hung_up(reader)
    writer.close()


async def test_a_later_request_has_no_more_time_and_a_finished_one_is_answered(port: int) -> None:
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    for _ in range(2):
        writer.write(b"GET / HTTP/1.1\r\nHost: x\r\n\r\n")
        assert (await reader.readuntil(b"\r\n\r\nok")).startswith(b"HTTP/1.1 200")
        await asyncio.sleep(0.2)  # longer than headers may take: the connection is kept
    writer.write(b"G")
    await _hung_up(reader)
    writer.close()


UPGRADE = (
    b"GET / HTTP/1.1\r\nHost: x\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n"
    b"Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: AAAAAAAAAAAAAAAAAAAAAA==\r\n\r\n"
)
PING = bytes([0x89, 0x80 | 125]) + bytes(4 + 125)  # with a mask of zeros
ENOUGH = 64 << 20  # bytes; what the kernel buffers is far less


async def test_a_client_that_pings_and_reads_nothing_is_cut_off(port: int) -> None:
    reader, writer = await asyncio.open_connection("127.0.0.1", port, limit=1024)
    writer.write(UPGRADE)
    assert (await reader.readuntil(b"\r\n\r\n")).startswith(b"HTTP/1.1 101")
    with pytest.raises(ConnectionError):
        for _ in range(ENOUGH // (500 * len(PING))):
            writer.write(PING * 500)
            await writer.drain()
    writer.close()
