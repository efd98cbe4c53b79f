"""How many VMs boot at once. First come, first served."""

from __future__ import annotations

import asyncio


class BootGate:
    """A fair semaphore whose slots are given back once, whoever asks, however often."""

    def __init__(self, slots: int) -> None:
        self._slots = asyncio.Semaphore(slots)  # wakes waiters in the order of their coming

    async def enter(self) -> BootSlot:
        await self._slots.acquire()
        return BootSlot(self._slots)


class BootSlot:
    def __init__(self, slots: asyncio.Semaphore) -> None:
        self._slots: asyncio.Semaphore | None = slots

    def leave(self) -> None:
        """Idempotent."""
        slots, self._slots = self._slots, None
        if slots is not None:
            slots.release()
