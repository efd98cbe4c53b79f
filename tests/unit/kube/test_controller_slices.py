"""Many changes at once are told in slices: what else waits for the loop is not kept waiting for all of them."""

from __future__ import annotations

import asyncio
from typing import Any

from cuboid.kube.client import PODS, Resource
from cuboid.kube.controller.sources import SLICE, LocalSource
from cuboid.kube.registry import Registry


class Sliced(LocalSource):
    def __init__(self, registry: Any) -> None:
        super().__init__(registry)
        self.told: list[list[Any]] = []

    def hand_out(self, resource: Resource, changes: list[Any]) -> None:
        self.told.append(changes)


class _Lots:
    """A watcher that has many changes, then none."""

    def __init__(self, changes: list[Any]) -> None:
        self._changes = changes

    async def take(self, seconds: float) -> list[Any]:
        if not self._changes:
            await asyncio.sleep(seconds)
        taken, self._changes = self._changes, []
        return taken


async def test_others_get_their_turn_between_slices_and_nothing_is_lost() -> None:
    registry: Registry | Any = type("Nothing", (), {"kinds": type("Empty", (), {"find": lambda *_: None})()})()
    source, changes = Sliced(registry), list(range(3 * SLICE + 1))
    lots: Any = _Lots(changes)
    task = asyncio.create_task(source._watch(PODS, lots))
    await asyncio.sleep(0)
    assert [len(one) for one in source.told] == [SLICE]  # and this test has had its turn
    for _ in range(8):
        await asyncio.sleep(0)
    task.cancel()
    await asyncio.gather(task, return_exceptions=True)
    assert [change for one in source.told for change in one] == changes
