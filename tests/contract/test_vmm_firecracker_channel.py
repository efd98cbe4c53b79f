"""The client of the guest agent over Firecracker's vsock: greetings, calls and new connections as over any channel."""

from __future__ import annotations

import asyncio
import os
import socket
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from pathlib import Path

import pytest

from cuboid.guest.client import AgentClient
from cuboid.guest.fake import FakeAgent
from cuboid.lib.errors import CuboidError, HostileError
from cuboid.vmm.firecracker.channel import open_channel

PORT = 1024


class Vsock:
    """Firecracker's socket in front of an agent's; `refusals` connections find nobody listening."""

    def __init__(self, agent: Path) -> None:
        self.agent = agent
        self.refusals = 0
        self.greeting = b"OK 1073741824\n"
        self.connections = 0
        self._writers: list[asyncio.StreamWriter] = []
        self._tasks: set[asyncio.Task[None]] = set()

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        assert task is not None
        self._tasks.add(task)
        self.connections += 1
        with suppress(ConnectionError, asyncio.CancelledError):
            line = await reader.readline()
            if self.refusals or line != b"CONNECT 1024\n":
                self.refusals = max(0, self.refusals - 1)
            else:
                inside, outside = await asyncio.open_unix_connection(str(self.agent))
                self._writers += [writer, outside]
                writer.write(self.greeting)
                async with asyncio.TaskGroup() as group:
                    group.create_task(self._copy(reader, outside))
                    group.create_task(self._copy(inside, writer))
        writer.close()

    async def _copy(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with suppress(ConnectionError):
            while data := await reader.read(65536):
                writer.write(data)
        writer.close()

    async def cut(self) -> None:
        for writer in self._writers:
            writer.transport.abort()
        self._writers.clear()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        self._tasks.clear()


@asynccontextmanager
async def vsock(folder: Path) -> AsyncIterator[Vsock]:
    async with FakeAgent(folder / "agent") as agent:
        made = Vsock(agent.path)
        server = await asyncio.start_unix_server(made.serve, str(folder / "v.sock"))
        async with server:
            yield made
            await made.cut()


async def opened(folder: Path) -> socket.socket:
    return await open_channel(folder / "v.sock", os.getpid(), PORT, seconds=5)


async def test_an_agent_behind_a_vsock_is_greeted_and_called(tmp_path: Path) -> None:
    async with vsock(tmp_path):
        client = AgentClient(lambda: opened(tmp_path))
        assert (await client.connect(timeout=10)).version == 1
        await client.close()


async def test_a_guest_that_does_not_listen_yet_is_tried_again(tmp_path: Path) -> None:
    async with vsock(tmp_path) as front:
        front.refusals = 3
        client = AgentClient(lambda: opened(tmp_path))
        await client.connect(timeout=10)
        assert front.connections == 4
        await client.close()


async def test_a_lost_connection_is_made_anew(tmp_path: Path) -> None:
    async with vsock(tmp_path) as front:
        client = AgentClient(lambda: opened(tmp_path))
        await client.connect(timeout=10)
        await front.cut()
        async with asyncio.timeout(10):
            while not (client.connected and front.connections == 2):
                await asyncio.sleep(0.01)
        await client.close()


async def test_a_vsock_that_breaks_the_rules_cuts_its_guest_off_for_good(tmp_path: Path) -> None:
    async with vsock(tmp_path) as front:
        front.greeting = b"I AM THE AGENT\n"
        reasons: list[CuboidError] = []
        client = AgentClient(lambda: opened(tmp_path), on_final=reasons.append)
        with pytest.raises(HostileError):
            await client.connect(timeout=10)
        assert isinstance(reasons[0], HostileError)
        await client.close()
