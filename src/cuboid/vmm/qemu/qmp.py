"""QMP, thin on the `qemu.qmp` package: a deadline on every call, one reconnection, events as a callback."""

from __future__ import annotations

import asyncio
import logging
import os
import socket
from collections.abc import Callable, Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any

from qemu.qmp import EventListener, Message, QMPClient, QMPError, Runstate
from qemu.qmp.qmp_client import ExecInterruptedError, ExecuteError

from cuboid.lib.aio import deadline
from cuboid.lib.errors import CuboidError, UnavailableError

for _name in ("protocol", "qmp_client"):  # they log what they raise; we say it once, as an error
    logging.getLogger(f"qemu.qmp.{_name}").setLevel(logging.CRITICAL)

Command = tuple[str, Mapping[str, Any]]
EventHook = Callable[[str, Mapping[str, Any]], None]


class QmpRefusedError(CuboidError):
    """QEMU understood the command and refused it."""

    reason = "VmmRefused"


class _Client(QMPClient):
    def give(self, descriptor: int) -> None:
        """Send a descriptor ahead of the command that takes it (`QMPClient.send_fd_scm` needs more than uvloop has)."""
        if self._writer is None:
            raise UnavailableError("not connected to the VMM")
        ours = self._writer.get_extra_info("socket").fileno()
        with socket.socket(fileno=os.dup(ours)) as link:
            socket.send_fds(link, [b" "], [descriptor])

    def _cb_outbound(self, msg: Message) -> Message:
        """The package writes each message out as text for a log that nobody keeps: a third of a command's cost."""
        return msg

    def _cb_inbound(self, msg: Message) -> Message:
        return msg


class _Hook(EventListener):
    """Hands events over as they arrive, instead of queueing them."""

    def __init__(self, hook: EventHook) -> None:
        super().__init__()
        self._hook = hook

    async def put(self, event: Any) -> None:
        data = event.get("data")
        self._hook(str(event["event"]), data if isinstance(data, dict) else {})


class Qmp:
    """The control connection of one VMM. QEMU takes one at a time; a new one can follow when the old is closed."""

    def __init__(self, path: Path, on_event: EventHook, *, seconds: float) -> None:
        self._path = path
        self._on_event = on_event
        self._seconds = seconds
        self._client: _Client | None = None
        self._connecting = asyncio.Lock()
        self._giving = asyncio.Lock()

    async def connect(self, seconds: float = 0.0) -> None:
        """UnavailableError or DeadlineError if the VMM does not answer."""
        await self.close()
        client = _Client()
        client.events.names.add("")  # a queue nobody reads, which a guest could fill: takes no event now
        client.register_listener(_Hook(self._on_event))
        try:
            async with deadline(seconds or self._seconds, "the VMM's greeting"):
                await client.connect(str(self._path))
        except QMPError as error:
            raise UnavailableError(f"the VMM does not answer: {error}") from error
        self._client = client

    async def execute(self, command: str, arguments: Mapping[str, Any] | None = None, *, seconds: float = 0.0) -> Any:
        """QmpRefusedError if QEMU refuses, UnavailableError if it is gone, DeadlineError. Connects again once."""
        try:
            return await self._execute(command, arguments, seconds)
        except UnavailableError:
            async with self._connecting:
                if not self._connected():
                    await self.connect()
            return await self._execute(command, arguments, seconds)

    async def give(self, descriptor: int, fdset: int, *then: Command) -> None:
        """Let the VMM have a copy of a descriptor, as `/dev/fdset/N`; then more, as `execute_all` does it."""
        async with self._giving:  # QEMU keeps one descriptor per connection until a command takes it
            if self._client is None or not self._connected():
                raise UnavailableError("not connected to the VMM")
            try:
                self._client.give(descriptor)
            except OSError as error:
                raise UnavailableError(f"the VMM takes no descriptor: {error.strerror}") from error
            await self.execute_all(("add-fd", {"fdset-id": fdset}), *then)

    async def execute_all(self, *commands: Command) -> None:
        """Commands that are sent without waiting between them; QEMU obeys in order, whether one fails or not.

        Raises the first failure that there was, after all have been answered. The errors of `execute`; connects not.
        """
        sent = [self._execute(name, arguments, 0.0) for name, arguments in commands]
        for answer in await asyncio.gather(*sent, return_exceptions=True):
            if isinstance(answer, BaseException):
                raise answer

    async def take_back(self, fdset: int) -> None:
        """Close what `give` gave; QEMU goes on with what it has opened through it."""
        with suppress(QmpRefusedError):
            await self.execute("remove-fd", {"fdset-id": fdset})

    def _connected(self) -> bool:
        return self._client is not None and self._client.runstate == Runstate.RUNNING

    async def _execute(self, command: str, arguments: Mapping[str, Any] | None, seconds: float) -> Any:
        if self._client is None or not self._connected():
            raise UnavailableError("not connected to the VMM")
        try:
            async with deadline(seconds or self._seconds, f"the VMM's answer to {command}"):
                return await self._client.execute(command, dict(arguments or {}))
        except ExecuteError as error:
            raise QmpRefusedError(f"the VMM refused {command}: {error}") from error
        except (ExecInterruptedError, QMPError) as error:
            raise UnavailableError(f"the VMM went away during {command}") from error

    async def close(self) -> None:
        client, self._client = self._client, None
        if client is None:
            return
        with suppress(QMPError, OSError, EOFError, TimeoutError):
            async with asyncio.timeout(self._seconds):
                await client.disconnect()
