"""One pod of this node: its queue of events, its record, and what is done for it. A serial queue per pod."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from cuboid.guest.base import Guest
from cuboid.kube.names import ADMITTED_AT, BOUND_AT
from cuboid.kube.types import Pod
from cuboid.kube.types import pod as parse_pod
from cuboid.lib.aio import TaskSet
from cuboid.lib.errors import ConflictError, UnavailableError
from cuboid.lib.log import get_log
from cuboid.node import claims, resize, status
from cuboid.node.receipt import Timeline
from cuboid.node.records import Record, Records
from cuboid.node.sandbox import events as ev
from cuboid.node.sandbox import instructions as do
from cuboid.node.sandbox.core import step
from cuboid.node.sandbox.plan import plan
from cuboid.node.sandbox.state import RunStage, Sandbox, VmStage
from cuboid.node.status_writer import StatusWriter
from cuboid.node.steps.confine import host_memory
from cuboid.node.steps.perform import Performer
from cuboid.node.steps.tools import Tools
from cuboid.node.steps.work import PodWork
from cuboid.vmm.base import Vm, VmStats

log = get_log(__name__)
SAVE_RETRY_SECONDS = 1.0
MAX_TIMER = 86_400.0  # seconds; a later one is looked at again then
Queued = tuple[ev.Event, "asyncio.Future[None] | None"]


class PodWorker:
    """Also the `PodView` of this pod. `on_gone` is called once when nothing is left of it."""

    def __init__(
        self, tools: Tools, records: Records, record: Record, tasks: TaskSet, on_gone: Callable[[PodWorker], None]
    ) -> None:
        pod = parse_pod(record.pod)
        self._tools = tools
        self._records = records
        self._record = record
        self._on_gone = on_gone
        self.on_change: Callable[[], None] = lambda: None  # told when what it shows has changed
        self._queue: asyncio.Queue[Queued] = asyncio.Queue()
        self._saving = asyncio.Lock()
        self._timer: asyncio.TimerHandle | None = None
        self._closed = False
        self._on_disk = False  # whether the last record written outlives the host
        meta = pod.metadata
        self._status = StatusWriter(tools.api, meta.namespace, meta.name, meta.uid, self._render)
        self.work = PodWork(
            tools=tools, pod=pod, folder=records.folder(meta.uid), post=self.post, submit=self.submit,
            state=lambda: self.state, remember=self._remember, handle=lambda: self._record.handle or {},
            intend=self._intend,
            last_status=self._last_status, tasks=tasks,
            timeline=Timeline(tools.clock),
        )  # fmt: skip
        self.work.timeline.began(meta.annotations.get(ADMITTED_AT, ""), meta.annotations.get(BOUND_AT, ""))
        self._performer = Performer(self.work)
        self._tasks = [
            tasks.start(self._run(), name=f"pod/{meta.uid}"),
            tasks.start(self._status.run(), name=f"status/{meta.uid}"),
        ]

    # --- PodView -----------------------------------------------------------------------------------------------------

    @property
    def uid(self) -> str:
        return self.work.uid

    @property
    def pod(self) -> Pod:
        return self.work.pod

    @property
    def state(self) -> Sandbox:
        return self._record.sandbox

    @property
    def containers(self) -> list[str]:
        return [container.name for container in self.state.plan.containers]

    def guest(self) -> Guest:
        """ConflictError while the pod is paused: its guest would not answer."""
        if self.state.frozen:
            name = self.pod.metadata.name
            raise ConflictError(f"pod {name} is paused: its machine stands still", hint=f"cuboid resume {name}")
        return self.work.require_guest()

    def running(self, container: str) -> bool:
        run = self.state.run(container)
        return run is not None and run.stage is RunStage.RUNNING

    def begun(self, container: str) -> bool:
        run = self.state.run(container)
        return run is not None and run.stage in (RunStage.RUNNING, RunStage.EXITED)

    def tty(self, container: str) -> bool:
        return self.work.container(container).tty

    async def vmm_stats(self) -> VmStats | None:
        return await self.work.vm.stats() if self.work.vm is not None else None

    def log_folder(self, container: str) -> Path:
        return self.work.log_folder(container)

    @property
    def out_of_touch(self) -> bool:
        """The VM is up and not paused, but its agent cannot be spoken with."""
        guest = self.work.guest
        return (
            not self.state.frozen and self.state.machine.stage is VmStage.UP and (guest is None or not guest.connected)
        )

    @property
    def connecting(self) -> bool:
        """There is a VM, and its agent is about to be spoken with."""
        return self.work.vm is not None and not self.state.frozen and self.state.machine.stage is VmStage.SETTING_UP

    def unreachable(self) -> ev.VmEnded:
        attempt, text = self.state.machine.attempt, "the guest's agent does not answer"
        return ev.VmEnded(at=self._tools.clock.now(), attempt=attempt, cause="GuestUnreachable", detail=text)

    # --- events ------------------------------------------------------------------------------------------------------

    async def submit(self, event: ev.Event) -> None:
        """Hand an event in; returns when what follows from it is durable, UnavailableError if it will not be."""
        if self._closed:
            raise UnavailableError("the pod takes no more events")
        done: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._queue.put_nowait((event, done))
        await done

    def post(self, event: ev.Event) -> None:
        if not self._closed:
            self._queue.put_nowait((event, None))

    def tell_again(self) -> None:
        """The API has taken this node for lost, and its pods for not ready."""
        self._status.again()

    def update(self, raw: dict[str, Any]) -> None:
        """The pod object has changed."""
        raw = claims.kept(raw, self._record.pod)
        pod = parse_pod(raw)
        before, self.work.pod, self._record.pod = self.work.pod, pod, raw
        meta = pod.metadata
        grace = None if meta.deletion_timestamp is None else float(meta.deletion_grace_period_seconds or 0)
        refusal = self._refusal(pod)
        self.post(ev.Updated(at=self._tools.clock.now(), plan=plan(pod), deleted_grace=grace, refusal=refusal))
        if pod.spec.readiness_gates:  # conditions of others have a say in ours
            self._status.mark()
        shown = (meta.labels, meta.annotations) != (before.metadata.labels, before.metadata.annotations)
        guest = self.work.guest
        if shown and guest is not None and guest.connected and not self.state.frozen:
            self._tools.refresher.track(pod, guest, self.work.facts)

    def _refusal(self, pod: Pod) -> tuple[str, str] | None:
        """Why the pod's machine cannot give it the resources that it asks for now."""
        if self.state.machine.stage is VmStage.ABSENT:
            return None
        return resize.refusal(pod, self.work.size, self.work.size_of, host_memory() >> 20)

    async def _run(self) -> None:
        while not self._closed:
            batch = [await self._queue.get()]
            while not self._queue.empty():
                batch.append(self._queue.get_nowait())
            before = self.state
            instructions = [instruction for event, _ in batch for instruction in self._step(event)]
            durable = _must_outlive_host(before, self.state, batch, instructions)
            if self.state != before or (durable and not self._on_disk):
                await self._save(durable=durable)
            if self.state.phase == "Failed" and before.phase != "Failed":
                self._tools.metrics.failed(self.state.reason or "Error")
            for _, done in batch:
                if done is not None and not done.done():
                    done.set_result(None)
            for instruction in instructions:
                self._perform(instruction)

    def _step(self, event: ev.Event) -> list[do.Instruction]:
        self._record.sandbox, instructions = step(self.state, event)
        return instructions

    def _perform(self, instruction: do.Instruction) -> None:
        if isinstance(instruction, do.SetTimer):
            self._set_timer(instruction.at)
        elif isinstance(instruction, do.PatchStatus):
            self._status.mark()
            self.on_change()
        elif isinstance(instruction, do.RecordEvent):
            record = self._tools.recorder.warning if instruction.warning else self._tools.recorder.normal
            record(self.pod, instruction.reason, instruction.message)
        elif isinstance(instruction, do.Forget):
            self._forget()
        else:
            if isinstance(instruction, do.CreateVm) and instruction.attempt:
                self.work.timeline.restart()
                self.work.timeline.note(f"start {instruction.attempt + 1} of the pod's machine")
            self._performer.perform(instruction)

    def _set_timer(self, at: float) -> None:
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        if at:
            seconds = min(max(at - self._tools.clock.now(), 0.0), MAX_TIMER)
            self._timer = asyncio.get_running_loop().call_later(seconds, self._fire)

    def _fire(self) -> None:
        self._timer = None
        self.post(ev.TimerFired(at=self._tools.clock.now()))

    # --- record and status -------------------------------------------------------------------------------------------

    async def _save(self, *, durable: bool) -> None:
        """Written when this returns; a full disk is waited for, as nothing may be done that is not on record."""
        async with self._saving:
            while True:
                try:
                    if durable:
                        await asyncio.to_thread(self._records.save, self.uid, self._record)
                    else:  # 0.3 ms without the disk: a thread takes longer
                        self._records.save(self.uid, self._record, durable=False)
                    self._on_disk = durable
                    return
                except OSError as error:
                    log.error("cannot write a pod's record", pod=self.pod.metadata.name, error=str(error))
                await asyncio.sleep(SAVE_RETRY_SECONDS)

    async def _remember(self, vm: Vm, attempt: int, start: str) -> None:
        size = self.work.size
        made = {"attempt": attempt, "start": start, "size": [size.vcpus, size.memory_mib]}
        self._record.handle = {**vm.handle(), **made}
        await self._save(durable=False)

    async def _intend(self, slot: str) -> None:
        self._record.slot = slot
        await self._save(durable=False)

    def _render(self, conditions: list[dict[str, Any]]) -> dict[str, Any]:
        now = self._tools.clock.now()
        return status.render(self.state, self._record.pod, host_ip=self._tools.host_ip, now=now, previous=conditions)

    async def _last_status(self) -> None:
        self._status.mark()
        await self._status.flush()

    def _forget(self) -> None:
        self._records.remove(self.uid)
        self.close()
        self._on_gone(self)

    def close(self) -> None:
        """No more events; those who wait for one to be durable are told that it is not."""
        self._closed = True
        self._set_timer(0.0)
        while not self._queue.empty():
            _, done = self._queue.get_nowait()
            if done is not None and not done.done():
                done.set_exception(UnavailableError("the pod takes no more events"))
        current = asyncio.current_task()
        for task in self._tasks:
            if task is not current:
                task.cancel()


def _must_outlive_host(
    before: Sandbox, after: Sandbox, batch: Sequence[Queued], instructions: Sequence[do.Instruction]
) -> bool:
    """Whether the record must be on disk before acting on it.

    The host's end takes VMs, networks and all that is under way with it. What must be known afterwards is that a
    container was started, what its guest was told we know, and how the pod ends.
    """
    if any(done is not None for _, done in batch) or any(isinstance(i, do.StartContainer) for i in instructions):
        return True
    return (before.phase, before.ending, before.plan) != (after.phase, after.ending, after.plan)
