"""Structured concurrency: every task has a name, an owner and an end."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Coroutine
from types import TracebackType
from typing import Any, TypeVar

from cuboid.lib.errors import DeadlineError
from cuboid.lib.log import get_log

T = TypeVar("T")
log = get_log(__name__)


async def to_the_end(future: asyncio.Future[T]) -> T:
    """Await what cannot be interrupted (a thread's work). A cancellation is raised too, but after it has ended."""
    try:
        return await asyncio.shield(future)
    except asyncio.CancelledError:
        if not future.done():
            await asyncio.wait([future])
        if not future.cancelled():
            future.exception()  # taken note of: the cancellation is what is raised
        raise


async def uninterrupted(coroutine: Coroutine[Any, Any, T]) -> T:
    """Run a coroutine to its end even when cancelled. It must end by itself in bounded time."""
    return await to_the_end(asyncio.ensure_future(coroutine))


async def in_thread(function: Callable[[], T]) -> T:
    """Run blocking work in a thread, to its end even when cancelled: then nothing goes on behind the caller's back."""
    return await to_the_end(asyncio.get_running_loop().run_in_executor(None, function))


class deadline:
    """`async with`: raises DeadlineError naming `what` if the block takes longer than `seconds`.

    A class, not a generator: several are around every request.
    """

    __slots__ = ("_scope", "_seconds", "_what")

    def __init__(self, seconds: float, what: str) -> None:
        self._scope = asyncio.timeout(seconds)
        self._seconds = seconds
        self._what = what

    async def __aenter__(self) -> None:
        await self._scope.__aenter__()

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        try:
            await self._scope.__aexit__(kind, error, trace)
        except TimeoutError as late:
            raise DeadlineError(f"{self._what} took longer than {self._seconds:g} s") from late


async def within(seconds: float, awaitable: Awaitable[T], what: str) -> T:
    """`await awaitable`, or DeadlineError naming `what` after `seconds`."""
    async with deadline(seconds, what):
        return await awaitable


class TaskSet:
    """A daemon's tasks: the failure of one is logged and given to `on_error`, the others go on.

    For independent work (one task per pod, per connection). Work that stands or falls together goes in an
    `asyncio.TaskGroup`. Leaving the context cancels what still runs and waits for at most `grace` seconds.
    """

    def __init__(
        self, name: str, *, grace: float = 10.0, on_error: Callable[[str, BaseException], None] | None = None
    ) -> None:
        self._name = name
        self._grace = grace
        self._on_error = on_error
        self._tasks: set[asyncio.Task[Any]] = set()

    def start(self, coroutine: Coroutine[Any, Any, T], *, name: str) -> asyncio.Task[T]:
        task = asyncio.create_task(coroutine, name=f"{self._name}/{name}")
        self._tasks.add(task)
        task.add_done_callback(self._ended)
        return task

    def _ended(self, task: asyncio.Task[Any]) -> None:
        self._tasks.discard(task)
        if task.cancelled() or (error := task.exception()) is None:
            return
        log.error("task failed", task=task.get_name(), error=f"{type(error).__name__}: {error}")
        if self._on_error:
            self._on_error(task.get_name(), error)

    def __len__(self) -> int:
        return len(self._tasks)

    async def __aenter__(self) -> TaskSet:
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.cancel()

    async def cancel(self) -> None:
        """Cancel all tasks and wait for their ends, `grace` seconds at most."""
        tasks = [task for task in self._tasks if task is not asyncio.current_task()]
        for task in tasks:
            task.cancel()
        if tasks:
            _, late = await asyncio.wait(tasks, timeout=self._grace)
            for task in late:
                log.warning("task did not end in time", task=task.get_name(), grace=self._grace)


async def gather_all(*coroutines: Coroutine[Any, Any, Any]) -> list[Any]:
    """Runs all to their ends; then raises the first failure, if any (the others are logged)."""
    results = await asyncio.gather(*coroutines, return_exceptions=True)
    errors = [result for result in results if isinstance(result, BaseException)]
    for error in errors[1:]:
        log.warning("also failed", error=f"{type(error).__name__}: {error}")
    if errors:
        raise errors[0]
    return results
