"""How many VMs start at once. First come, first served; what is made ahead of demand waits until none does."""

from __future__ import annotations

import asyncio
import enum

QUIET_SECONDS = 0.2  # without a start, before anything is done ahead


class Start(enum.Enum):
    """What a start will cost: each has slots of its own, so that none waits behind a slower one."""

    QUICK = "quick"  # a machine that waits is taken
    BOOT = "boot"  # a template is restored, or a kernel boots
    OWN = "own"  # it boots with what the pod chose: it may hang, and holds up none but its like


class BootGate:
    """Fair semaphores whose slots are given back once, whoever asks, however often."""

    def __init__(self, slots: int) -> None:
        # Semaphores wake waiters in the order of their coming.
        self._slots = {start: asyncio.Semaphore(1 if start is Start.OWN else slots) for start in Start}
        self._inside = 0  # those who wait included
        self._empty = asyncio.Event()
        self._empty.set()

    async def enter(self, start: Start = Start.BOOT) -> BootSlot:
        self._inside += 1
        self._empty.clear()
        try:
            await self._slots[start].acquire()
        except BaseException:
            self._left()
            raise
        return BootSlot(self, start)

    def leave(self, start: Start) -> None:
        """For slots only: one of them is free again."""
        self._slots[start].release()
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
    def __init__(self, gate: BootGate, start: Start) -> None:
        self._gate: BootGate | None = gate
        self._start = start

    def leave(self) -> None:
        """Idempotent."""
        gate, self._gate = self._gate, None
        if gate is not None:
            gate.leave(self._start)
