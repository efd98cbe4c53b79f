"""Which statuses are written, and when: steps of a start together, what people wait for at once."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from typing import Any, cast

import pytest

from cuboid.lib.errors import UnavailableError
from cuboid.node import status_writer
from cuboid.node.api import Api
from cuboid.node.status_writer import StatusWriter


def pending(ip: str | None = None, reason: str = "ContainerCreating") -> dict[str, Any]:
    state = {"waiting": {"reason": reason}}
    return {"phase": "Pending", "podIP": ip, "containerStatuses": [{"name": "main", "state": state}]}


RUNNING = {"phase": "Running", "containerStatuses": [{"name": "main", "state": {"running": {}}}]}


class World:
    def __init__(self) -> None:
        self.status: dict[str, Any] = {}
        self.written: list[dict[str, Any]] = []
        self.failures: list[Exception] = []
        self.writer = StatusWriter(cast(Api, self), "default", "web", "u-1", lambda conditions: self.status)

    async def patch_pod_status(self, namespace: str, name: str, uid: str, status: dict[str, Any]) -> None:
        if self.failures:
            raise self.failures.pop()
        self.written.append(status)

    async def show(self, status: dict[str, Any]) -> None:
        self.status = status
        self.writer.mark()
        await asyncio.sleep(0)

    async def settled(self) -> list[dict[str, Any]]:
        await asyncio.wait_for(self.writer.flush(), 5)
        return self.written


@pytest.fixture
async def world(monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[World]:
    monkeypatch.setattr(status_writer, "RETRY_FIRST", 0.001)
    world = World()
    task = asyncio.get_running_loop().create_task(world.writer.run())
    yield world
    task.cancel()
    await asyncio.gather(task, return_exceptions=True)


async def test_a_short_start_is_one_write(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(status_writer, "PATIENCE", 30.0)
    for status in (pending(), pending("10.0.0.2"), RUNNING):
        await world.show(status)
    assert await world.settled() == [RUNNING]


async def test_a_long_start_is_told_while_it_goes_on(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(status_writer, "PATIENCE", 0.01)
    await world.show(pending())
    assert await world.settled() == [pending()]
    await world.show(RUNNING)
    assert await world.settled() == [pending(), RUNNING]


@pytest.mark.parametrize("status", [pending(reason="ErrImagePull"), {"phase": "Failed", "reason": "Evicted"}])
async def test_what_goes_wrong_is_told_at_once(
    world: World, status: dict[str, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(status_writer, "PATIENCE", 30.0)
    await world.show(pending())
    await world.show(status)
    assert await world.settled() == [status]


async def test_the_newest_status_is_written_until_it_is_there(world: World) -> None:
    world.failures = [UnavailableError("the API is away")] * 3
    await world.show(RUNNING)
    assert await world.settled() == [RUNNING]
    assert not world.failures
