"""From an instruction to the coroutine that carries it out."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from typing import Any

from cuboid.lib.errors import CuboidError
from cuboid.lib.log import get_log
from cuboid.node.sandbox import events as ev
from cuboid.node.sandbox import instructions as do
from cuboid.node.steps import api, confine, containers, host, machine, pause, resize
from cuboid.node.steps.host import text
from cuboid.node.steps.work import PodWork

log = get_log(__name__)
Step = Callable[[PodWork, Any], Awaitable[ev.Event | None]]
RETRY_FIRST, RETRY_LONGEST = 0.5, 30.0  # seconds between attempts of what has to succeed

STEPS: dict[type[Any], Step] = {
    do.AttachNetwork: host.attach_network, do.CreateDisk: host.create_disk, do.PullImage: host.pull_image,
    do.CreateVm: machine.create_vm, do.Setup: machine.set_up, do.StartContainer: containers.start_container,
    do.StopSignal: containers.stop_signal, do.RunHook: containers.run_hook, do.WriteReceipt: api.write_receipt,
    do.PauseVm: pause.pause_vm, do.ResumeVm: pause.resume_vm, do.SetClock: pause.set_clock, do.Confine: confine.confine,
    do.ApplyResources: resize.apply_resources,
}  # fmt: skip
FINAL_STEPS: dict[type[Any], Step] = {
    do.KillVm: machine.kill_vm, do.DetachNetwork: host.detach_network, do.RemoveDisk: host.remove_disk,
    do.ReleaseImages: host.release_images, do.DeletePod: api.delete_pod,
}  # fmt: skip
"""Tried until they succeed: a pod must not hang in its end."""


class Performer:
    """Carries out one pod's instructions, each as a task of its own; their events go to the pod's queue."""

    def __init__(self, work: PodWork) -> None:
        self._work = work
        self._running: dict[str, asyncio.Task[None]] = {}

    def perform(self, instruction: do.Instruction) -> None:
        if isinstance(instruction, do.CancelPull):
            self._cancel(_key(do.PullImage(instruction.name)))
            return
        if isinstance(instruction, do.KillVm):
            self._cancel_all(
                do.CreateVm, do.Setup, do.StartContainer, do.StopSignal, do.RunHook, do.PauseVm, do.ResumeVm,
                do.SetClock, do.ApplyResources,
            )  # fmt: skip
        key = _key(instruction)
        self._cancel(key)
        coroutine = self._carry_out(instruction)
        task = self._work.tasks.start(coroutine, name=f"{type(instruction).__name__}/{self._work.uid}")
        self._running[key] = task
        task.add_done_callback(lambda ended: self._ended(key, ended))

    def _ended(self, key: str, task: asyncio.Task[None]) -> None:
        if self._running.get(key) is task:
            del self._running[key]

    def _cancel(self, key: str) -> None:
        if (task := self._running.pop(key, None)) is not None:
            task.cancel()

    def _cancel_all(self, *kinds: type[Any]) -> None:
        names = {kind.__name__ for kind in kinds}
        for key in [key for key in self._running if key.partition(" ")[0] in names]:
            self._cancel(key)

    async def _carry_out(self, instruction: do.Instruction) -> None:
        kind = type(instruction)
        if kind in FINAL_STEPS:
            event = await self._until_done(FINAL_STEPS[kind], instruction)
        else:
            event = await STEPS[kind](self._work, instruction)
        if event is not None:
            self._work.post(event)

    async def _until_done(self, step: Step, instruction: do.Instruction) -> ev.Event | None:
        pause = RETRY_FIRST
        while True:
            try:
                return await step(self._work, instruction)
            except (CuboidError, OSError) as error:
                name = type(instruction).__name__
                log.warning("will be tried again", step=name, pod=self._work.pod.metadata.name, error=text(error))
            await asyncio.sleep(pause)
            pause = min(pause * 2, RETRY_LONGEST)


def _key(instruction: do.Instruction) -> str:
    """One at a time of each kind, per container where it names one."""
    extra = "kill" if isinstance(instruction, do.StopSignal) and instruction.kill else ""
    return f"{type(instruction).__name__} {getattr(instruction, 'name', '')} {extra}"
