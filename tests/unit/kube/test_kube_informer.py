"""An informer leaves a server that is away more and more time."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import aclosing
from typing import Any

import pytest

from cuboid.kube import informer as module
from cuboid.kube.client import PODS, Listed
from cuboid.kube.informer import MAX_DELAY, Informer
from cuboid.lib.errors import UnavailableError


class AwayClient:
    """Lists once; its watches fail at once."""

    away = True

    async def list(self, *_: Any, **__: Any) -> Listed:
        return Listed([], "1", "")

    async def watch(self, *_: Any, **__: Any) -> AsyncIterator[Any]:
        if self.away:
            raise UnavailableError("away")
        yield


async def test_a_server_that_stays_away_is_asked_less_and_less(monkeypatch: pytest.MonkeyPatch) -> None:
    pauses: list[float] = []
    enough = asyncio.Event()

    async def sleep(seconds: float) -> None:
        pauses.append(seconds)
        if len(pauses) == 12:
            enough.set()
            await asyncio.get_running_loop().create_future()

    monkeypatch.setattr(module.asyncio, "sleep", sleep)  # type: ignore[attr-defined]
    informer = Informer(AwayClient(), PODS)  # type: ignore[arg-type]

    async def follow() -> None:
        async with aclosing(informer.events()) as events:
            async for _ in events:
                pytest.fail("nothing has changed")

    task = asyncio.ensure_future(follow())
    await enough.wait()
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    assert pauses[0] <= 0.1
    assert all(MAX_DELAY / 2 <= pause <= MAX_DELAY for pause in pauses[-4:])
