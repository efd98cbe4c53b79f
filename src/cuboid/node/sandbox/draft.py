"""A state being changed within one step, with the instructions gathered on the way."""

from __future__ import annotations

from typing import Any, TypeVar

import msgspec

from cuboid.node.sandbox import instructions as do
from cuboid.node.sandbox.plan import Role
from cuboid.node.sandbox.state import Machine, Part, Run, Sandbox, Stage

S = TypeVar("S", bound=msgspec.Struct)


def changed(struct: S, **changes: Any) -> S:
    return msgspec.structs.replace(struct, **changes)


class Draft:
    def __init__(self, state: Sandbox, now: float) -> None:
        self.state = state
        self.now = now
        self.out: list[do.Instruction] = []
        self._wake = 0.0

    def set(self, **changes: Any) -> None:
        self.state = changed(self.state, **changes)

    def machine(self, **changes: Any) -> Machine:
        self.set(machine=changed(self.state.machine, **changes))
        return self.state.machine

    def run(self, name: str, **changes: Any) -> Run:
        """Change one container; its new state."""
        runs = tuple(changed(run, **changes) if run.name == name else run for run in self.state.runs)
        self.set(runs=runs)
        return next(run for run in runs if run.name == name)

    def image(self, name: str, **changes: Any) -> None:
        run = next(run for run in self.state.runs if run.name == name)
        self.run(name, image=changed(run.image, **changes))

    def failed(self, part: Part, reason: str, message: str, wait: float) -> Part:
        """The part after a failure, to be asked for again after `wait` seconds."""
        return changed(
            part, stage=Stage.ABSENT, failures=part.failures + 1,
            failed_at=self.now, retry_at=self.now + wait, reason=reason, message=message,
        )  # fmt: skip

    def ends(self) -> bool:
        return self.state.ending is not None

    def emit(self, instruction: do.Instruction) -> None:
        self.out.append(instruction)

    def note(self, reason: str, message: str, *, warning: bool = False) -> None:
        self.emit(do.RecordEvent(reason, message, warning))

    def wake(self, at: float) -> None:
        """Look again at this time (the earliest one asked for counts)."""
        self._wake = at if not self._wake else min(self._wake, at)

    def due(self, at: float) -> bool:
        """Whether `at` has come; if not, wake then."""
        if self.now >= at:
            return True
        self.wake(at)
        return False

    def finish(self, before: Sandbox) -> None:
        """The timer, and the status if anything that it may show has changed."""
        if self.state.gone:
            self.emit(do.Forget())
            return
        if self._wake != self.state.timer:
            self.set(timer=self._wake)
            self.emit(do.SetTimer(self._wake))
        if changed(self.state, timer=0.0) != changed(before, timer=0.0):
            self.emit(do.PatchStatus())


def backoff(base: float, limit: float, failures: int) -> float:
    """Seconds to wait after so many failures: base, doubled each time, up to the limit; 0 for none."""
    return 0.0 if failures <= 0 else min(base * 2.0 ** min(failures - 1, 30), limit)


def apps(state: Sandbox) -> list[Run]:
    return [run for container, run in state.pairs if container.role is Role.APP]
