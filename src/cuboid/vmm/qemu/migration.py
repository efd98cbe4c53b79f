"""Device state out of a paused VMM into a file, and the waiting for it on both sides."""

from __future__ import annotations

import asyncio
import os
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any

from cuboid.lib.aio import deadline
from cuboid.lib.errors import CuboidError, UnavailableError
from cuboid.vmm.qemu import command
from cuboid.vmm.qemu.qmp import Qmp

URI = f"file:/dev/fdset/{command.STATE_FDSET}"
ASK_SECONDS = 0.5  # between questions, should an event be lost with a connection
ENDS = ("completed", "failed", "cancelled")


class Migration:
    """Follows the state of the one migration that a VMM can be in."""

    def __init__(self, qmp: Qmp) -> None:
        self._qmp = qmp
        self._moved = asyncio.Event()

    def on_event(self, data: Mapping[str, Any]) -> None:
        if data.get("status") in ENDS:
            self._moved.set()

    async def _prepare(self) -> None:
        """Memory that is a shared file stays where it is."""
        wanted = [{"capability": "x-ignore-shared", "state": True}]
        await self._qmp.execute("migrate-set-capabilities", {"capabilities": wanted})

    async def save(self, path: Path, seconds: float) -> None:
        """Write the state to a new file. The VM must be stopped, and stays so. UnavailableError, DeadlineError."""
        descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
        try:
            await self._qmp.give(descriptor, command.STATE_FDSET)
        finally:
            os.close(descriptor)
        try:
            await self._prepare()
            await self._qmp.execute("migrate", {"uri": URI})
            await self._end(seconds, "the VMM's state on disk")
        except BaseException:
            with suppress(CuboidError):
                await self._qmp.execute("migrate_cancel")
            raise
        finally:
            with suppress(CuboidError):
                await self._qmp.take_back(command.STATE_FDSET)

    async def load(self, seconds: float) -> None:
        """Read the state that the VMM was started with. UnavailableError (it ends over what it cannot read)."""
        await self._prepare()
        await self._qmp.execute("migrate-incoming", {"uri": URI})
        await self._end(seconds, "the VMM's state from disk")
        # QEMU would do that when the guest goes on; disks that are exchanged before would stay behind.
        await self._qmp.execute("blockdev-set-active", {"active": True})

    async def _end(self, seconds: float, what: str) -> None:
        async with deadline(seconds, what):
            while True:
                self._moved.clear()
                if (status := await self._ask()) in ENDS:
                    break
                with suppress(TimeoutError):
                    await asyncio.wait_for(self._moved.wait(), ASK_SECONDS)
        if status != "completed":
            reason = (await self._qmp.execute("query-migrate")).get("error-desc", "without a reason")
            raise UnavailableError(f"the VMM's state was not saved: {reason}")

    async def _ask(self) -> str:
        reply = await self._qmp.execute("query-migrate")
        return str(reply.get("status", "")) if isinstance(reply, dict) else ""
