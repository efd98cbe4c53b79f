from __future__ import annotations

import asyncio
import threading

import pytest

from cuboid.lib.threads import in_thread


async def test_the_result_and_the_error_of_a_thread_come_back() -> None:
    assert await in_thread(divmod, 7, 2) == (3, 1)
    with pytest.raises(ZeroDivisionError):
        await in_thread(divmod, 7, 0)


async def test_a_cancelled_caller_waits_for_its_thread() -> None:
    started, go, ended = threading.Event(), threading.Event(), threading.Event()

    def work() -> None:
        started.set()
        go.wait(5)
        ended.set()

    caller = asyncio.create_task(in_thread(work))
    while not started.is_set():
        await asyncio.sleep(0.001)
    caller.cancel()
    await asyncio.sleep(0.01)
    assert not caller.done()
    go.set()
    with pytest.raises(asyncio.CancelledError):
        await caller
    assert ended.is_set()
