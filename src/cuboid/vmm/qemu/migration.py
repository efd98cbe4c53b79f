"""The state of a paused VMM into a file and back.

Memory that is a shared file (a template's) is not written: it stays where it is (`x-ignore-shared`). All other memory
is, each page at a place of its own, so that pages of zeros are holes and nothing is written twice (`mapped-ram`).
"""

from __future__ import annotations

import asyncio
import os
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from cuboid.lib.aio import deadline
from cuboid.lib.errors import CuboidError, UnavailableError
from cuboid.vmm.qemu import command
from cuboid.vmm.qemu.qmp import Command, Qmp

URI = f"file:/dev/fdset/{command.STATE_FDSET}"
UNLIMITED = 1 << 40  # bytes per second; QEMU's own default is 128 MiB
ASK_SECONDS = 0.5  # between questions, should an event be lost with a connection
ENDS = ("completed", "failed", "cancelled")


@dataclass(frozen=True)
class Incoming:
    """How a VM that goes on from a snapshot gets its memory."""

    memory_stays: bool


class Migration:
    """Follows the state of the one migration that a VMM can be in."""

    def __init__(self, qmp: Qmp, *, disks: bool) -> None:
        self._qmp = qmp
        self._disks = disks
        self._moved = asyncio.Event()
        self._status = ""

    def on_event(self, data: Mapping[str, Any]) -> None:
        if data.get("status") in ENDS:
            self._status = str(data["status"])
            self._moved.set()

    async def _begin(self, *commands: Command, memory_stays: bool) -> None:
        switches = {"x-ignore-shared": memory_stays, "mapped-ram": not memory_stays}
        wanted = [{"capability": name, "state": state} for name, state in switches.items()]
        self._status = ""
        self._moved.clear()
        await self._qmp.execute_all(("migrate-set-capabilities", {"capabilities": wanted}), *commands)

    async def save(self, path: Path, seconds: float, *, memory_stays: bool) -> None:
        """Write the state to a new file. The VM must be stopped, and stays so. UnavailableError, DeadlineError."""
        descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
        try:
            await self._qmp.give(descriptor, command.STATE_FDSET)
        finally:
            os.close(descriptor)
        try:
            speed = ("migrate-set-parameters", {"max-bandwidth": UNLIMITED})
            await self._begin(speed, ("migrate", {"uri": URI}), memory_stays=memory_stays)
            await self._end(seconds, "the VMM's state on disk")
        except BaseException:
            with suppress(CuboidError):
                await self._qmp.execute("migrate_cancel")
            raise
        finally:
            with suppress(CuboidError):
                await self._qmp.take_back(command.STATE_FDSET)
        await self._activate_disks()

    async def load(self, seconds: float, *, memory_stays: bool) -> None:
        """Read the state that the VMM was started with. UnavailableError (it ends over what it cannot read)."""
        await self._begin(("migrate-incoming", {"uri": URI}), memory_stays=memory_stays)
        await self._end(seconds, "the VMM's state from disk")
        await self._activate_disks()

    async def _activate_disks(self) -> None:
        """QEMU would do that when the guest goes on; disks that are exchanged before would stay behind, and so does
        always what is in no device."""
        if self._disks:
            gauge = {"active": True, "node-name": command.GAUGE}
            await self._qmp.execute_all(("blockdev-set-active", {"active": True}), ("blockdev-set-active", gauge))

    async def _end(self, seconds: float, what: str) -> None:
        async with deadline(seconds, what):
            while not self._status:
                with suppress(TimeoutError):
                    await asyncio.wait_for(self._moved.wait(), ASK_SECONDS)
                    continue
                if (status := await self._ask()) in ENDS:
                    self._status = status
        if self._status != "completed":
            reason = (await self._qmp.execute("query-migrate")).get("error-desc", "without a reason")
            raise UnavailableError(f"the VMM's state was not saved: {reason}")

    async def _ask(self) -> str:
        reply = await self._qmp.execute("query-migrate")
        return str(reply.get("status", "")) if isinstance(reply, dict) else ""
