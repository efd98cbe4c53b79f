"""How many VMs start at once. First come, first served; what is made ahead of demand waits until none does."""

from __future__ import annotations

import asyncio

QUIET_SECONDS = 0.2  # without a start, before anything is done ahead


class BootGate:
    """A fair semaphore whose slots are given back once, whoever asks, however often."""

    def __init__(self, slots: int) -> None:
        self._slots = asyncio.Semaphore(slots)  # wakes waiters in the order of their coming
        self._inside = 0  # those who wait included
        self._empty = asyncio.Event()
        self._empty.set()

    async def enter(self) -> BootSlot:
        self._inside += 1
        self._empty.clear()
        try:
            await self._slots.acquire()
        except BaseException:
            self._left()
            raise
        return BootSlot(self)

    def leave(self) -> None:
        """For slots only: one of them is free again."""
        self._slots.release()
        self._left()

    def _left(self) -> None:
        self._inside -= 1
        if not self._inside:
            self._empty.set()

    async def quiet(self) -> None:
        """Return when nothing has started for a moment."""
        while True:
            await self._empty.wait()
            await asyncio.sleep(QUIET_SECONDS)
            if not self._inside:
                return


class BootSlot:
    def __init__(self, gate: BootGate) -> None:
        self._gate: BootGate | None = gate

    def leave(self) -> None:
        """Idempotent."""
        gate, self._gate = self._gate, None
        if gate is not None:
            gate.leave()
