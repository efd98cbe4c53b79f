from __future__ import annotations

import asyncio

import pytest

from cuboid.images.base import Phase, Progress, ProgressHook
from cuboid.images.shared import SharedRuns
from cuboid.lib.errors import UnavailableError


class Job:
    """Runs until `go` is set; counts its starts and ends."""

    def __init__(self, error: Exception | None = None) -> None:
        self.go = asyncio.Event()
        self.started = self.cancelled = 0
        self._error = error

    async def __call__(self, tell: ProgressHook) -> int:
        self.started += 1
        try:
            await self.go.wait()
        except asyncio.CancelledError:
            self.cancelled += 1
            raise
        tell(Progress(Phase.DONE))
        if self._error:
            raise self._error
        return self.started


async def test_callers_at_once_share_one_run_and_each_hears_of_it() -> None:
    runs, job, heard = SharedRuns[int]("test"), Job(), list[Progress]()
    callers = [asyncio.create_task(runs.join("key", job, heard.append)) for _ in range(3)]
    await asyncio.sleep(0)
    job.go.set()
    assert await asyncio.gather(*callers) == [1, 1, 1]
    assert len(heard) == 3


async def test_other_keys_and_later_calls_run_on_their_own() -> None:
    runs, job = SharedRuns[int]("test"), Job()
    job.go.set()
    assert [await runs.join(key, job, None) for key in ("a", "b", "a")] == [1, 2, 3]


async def test_a_failure_reaches_every_caller_and_is_forgotten() -> None:
    runs, failing = SharedRuns[int]("test"), Job(UnavailableError("down"))
    failing.go.set()
    results = await asyncio.gather(*(runs.join("key", failing, None) for _ in range(2)), return_exceptions=True)
    assert all(isinstance(result, UnavailableError) for result in results)
    job = Job()
    job.go.set()
    assert await runs.join("key", job, None) == 1


async def test_only_the_last_caller_to_leave_ends_the_run() -> None:
    runs, job = SharedRuns[int]("test"), Job()
    first, second = (asyncio.create_task(runs.join("key", job, None)) for _ in range(2))
    await asyncio.sleep(0.01)
    first.cancel()
    await asyncio.sleep(0.01)
    assert job.cancelled == 0
    second.cancel()
    for task in (first, second):
        with pytest.raises(asyncio.CancelledError):
            await task
    assert job.cancelled == 1


async def test_after_a_cancelled_run_the_next_caller_starts_anew() -> None:
    runs, job = SharedRuns[int]("test"), Job()
    with pytest.raises(TimeoutError):
        await asyncio.wait_for(runs.join("key", job, None), 0.01)
    job.go.set()
    assert await runs.join("key", job, None) == 2
