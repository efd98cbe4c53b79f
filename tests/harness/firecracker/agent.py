"""The scripted guest agent as the guest of the stand-in: what a pod's node finds behind a Firecracker's vsock."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import NoReturn

from cuboid.guest.fake import FakeAgent
from tests.harness.firecracker.vmm import Serve

PATH = Path("/run/guest.sock")  # in the jail
_kept: list[object] = []  # tasks and the agent live as long as the process


async def started(end: Callable[[int], NoReturn]) -> Serve:
    """How a connection is served by the agent; when it is told to shut down, `end(0)` is called."""
    agent = FakeAgent(PATH)
    await agent.__aenter__()

    async def ended() -> None:
        await agent.shut_down.wait()
        await asyncio.sleep(0.05)  # its answer is on the way
        end(0)

    _kept.extend([agent, asyncio.create_task(ended())])
    return serve


async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    inside, outside = await asyncio.open_unix_connection(str(PATH))
    await asyncio.gather(copy(reader, outside), copy(inside, writer))


async def copy(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    with suppress(ConnectionError):
        while data := await reader.read(65536):
            writer.write(data)
    writer.close()
