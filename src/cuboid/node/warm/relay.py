"""A guest that is spoken with before its pod is known: its events and its end find their pod later."""

from __future__ import annotations

from collections.abc import Callable
from typing import Protocol

from cuboid.guest import agent_pb2 as pb
from cuboid.guest.base import EventHook, Guest
from cuboid.lib.errors import CuboidError
from cuboid.vmm.base import Vm

Final = Callable[[CuboidError], None]


class GuestFactory(Protocol):
    def __call__(self, vm: Vm, on_event: EventHook, *, on_final: Final) -> Guest: ...


class Relay:
    """Passes on what a guest says, once there is somebody to hear it. Before, a machine has nothing to say."""

    def __init__(self) -> None:
        self._on_event: EventHook | None = None
        self._on_final: Final | None = None
        self._final: CuboidError | None = None

    def connect(self, on_event: EventHook, on_final: Final) -> None:
        """From now on. What broke the channel before is told at once."""
        self._on_event, self._on_final = on_event, on_final
        if self._final is not None:
            on_final(self._final)

    async def event(self, event: pb.Event) -> None:
        if self._on_event is not None:
            await self._on_event(event)

    def final(self, error: CuboidError) -> None:
        self._final = error
        if self._on_final is not None:
            self._on_final(error)
