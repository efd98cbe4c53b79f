"""One run of a job for all who want its result at the same time."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine, Hashable
from dataclasses import dataclass, field
from typing import Any, Generic, TypeVar

from cuboid.images.base import Progress, ProgressHook
from cuboid.lib.aio import TaskSet

T = TypeVar("T")


@dataclass
class _Run(Generic[T]):
    waiting: int = 0
    hooks: list[ProgressHook] = field(default_factory=list)
    task: asyncio.Task[T | Exception] | None = None

    def tell(self, progress: Progress) -> None:
        for hook in self.hooks:
            hook(progress)


class SharedRuns(Generic[T]):
    """A run ends early only when the last of those who wait for it is cancelled."""

    def __init__(self, name: str) -> None:
        self._tasks = TaskSet(name)
        self._runs: dict[Hashable, _Run[T]] = {}

    async def join(
        self, key: Hashable, job: Callable[[ProgressHook], Coroutine[Any, Any, T]], hook: ProgressHook | None
    ) -> T:
        """The result of the run called `key`, started now or before; its failure is raised for everybody."""
        run = self._runs.get(key)
        if run is None:
            run = self._runs[key] = _Run()
            run.task = self._tasks.start(self._finish(key, job, run), name=str(key)[:80])
        assert run.task is not None
        run.waiting += 1
        if hook:
            run.hooks.append(hook)
        try:
            outcome = await asyncio.shield(run.task)
        except asyncio.CancelledError:
            if run.waiting == 1:
                run.task.cancel()
                self._forget(key, run)
                await asyncio.wait([run.task])
            raise
        finally:
            run.waiting -= 1
            if hook:
                run.hooks.remove(hook)
        if isinstance(outcome, Exception):
            raise outcome
        return outcome

    async def _finish(
        self, key: Hashable, job: Callable[[ProgressHook], Coroutine[Any, Any, T]], run: _Run[T]
    ) -> T | Exception:
        """A failure is a result here: it belongs to those who wait."""
        try:
            return await job(run.tell)
        except Exception as error:
            return error
        finally:
            self._forget(key, run)

    def _forget(self, key: Hashable, run: _Run[T]) -> None:
        if self._runs.get(key) is run:
            del self._runs[key]
