"""The way to the agent through Firecracker's vsock: one line each way, then nothing but the agent's bytes."""

from __future__ import annotations

import asyncio
import os
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from pathlib import Path

import pytest

from cuboid.lib.errors import DeadlineError, HostileError, UnavailableError
from cuboid.vmm.firecracker.channel import open_channel


@asynccontextmanager
async def vsock(folder: Path, answer: bytes, *, close: bool = False) -> AsyncIterator[Path]:
    asked: list[bytes] = []
    over = asyncio.Event()
    over.set()

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        over.clear()
        with suppress(ConnectionError):
            asked.append(await reader.readline())
            writer.write(answer)
            if not close:
                await reader.read()
            writer.close()
            await writer.wait_closed()
        over.set()

    server = await asyncio.start_unix_server(serve, str(folder / "v"))
    async with server:
        yield folder / "v"
        await over.wait()
    assert asked in ([], [b"CONNECT 1024\n"])


async def test_what_follows_the_greeting_is_the_agents(tmp_path: Path) -> None:
    async with vsock(tmp_path, b"OK 1073741824\n\xb1\xc0agent") as path:
        connection = await open_channel(path, os.getpid(), 1024, seconds=5)
        with connection:
            assert await asyncio.get_running_loop().sock_recv(connection, 100) == b"\xb1\xc0agent"


async def test_nobody_listening_in_the_guest_is_said_so(tmp_path: Path) -> None:
    async with vsock(tmp_path, b"", close=True) as path:
        with pytest.raises(UnavailableError, match="does not listen"):
            await open_channel(path, os.getpid(), 1024, seconds=5)


@pytest.mark.parametrize("answer", [b"NO\n", b"OK \n", b"OK 1 2\n", b"OK 99999999999\n", b"\0" * 100, b"OK 1\r\n"])
async def test_another_greeting_is_hostile(tmp_path: Path, answer: bytes) -> None:
    async with vsock(tmp_path, answer) as path:
        with pytest.raises(HostileError, match="vsock"):
            await open_channel(path, os.getpid(), 1024, seconds=5)


async def test_a_guest_that_stands_still_is_given_up_in_time(tmp_path: Path) -> None:
    async with vsock(tmp_path, b"OK 12") as path:
        with pytest.raises(DeadlineError, match="vsock"):
            await open_channel(path, os.getpid(), 1024, seconds=0.05)


async def test_another_process_behind_the_socket_is_not_spoken_to(tmp_path: Path) -> None:
    async with vsock(tmp_path, b"OK 1\n") as path:
        with pytest.raises(HostileError, match="another process"):
            await open_channel(path, os.getpid() + 1, 1024, seconds=5)
