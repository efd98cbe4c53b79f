"""A world for the sandbox core: does at once, and counts, what the core asks for; can be interrupted at any point."""

from __future__ import annotations

import random
from collections import Counter, deque
from typing import Any

from cuboid.kube.types import Pod, pod
from cuboid.node.sandbox import events as ev
from cuboid.node.sandbox import instructions as do
from cuboid.node.sandbox import state as st
from cuboid.node.sandbox.core import step
from cuboid.node.sandbox.plan import plan


def make_pod(*containers: dict[str, Any], inits: tuple[dict[str, Any], ...] = (), **spec: Any) -> Pod:
    annotations = spec.pop("annotations", {})
    mine = [{"name": "app", "image": "demo:1"}, *containers] if not containers else list(containers)
    full = {"containers": mine, "initContainers": list(inits), "terminationGracePeriodSeconds": 30, **spec}
    meta = {"name": "demo", "namespace": "default", "uid": "0f1e2d3c-0001", "annotations": annotations}
    return pod({"apiVersion": "v1", "kind": "Pod", "metadata": meta, "spec": full})


class Process:
    """A container in the simulated guest."""

    def __init__(self, attempt: int, now: float) -> None:
        self.attempt, self.started_at, self.running = attempt, now, True
        self.code, self.signal, self.ended_at = 0, 0, 0.0


class World:
    """`exits` says what a container does by itself: name → codes of its attempts in turn (missing: it runs on)."""

    def __init__(self, pod: Pod, *, exits: dict[str, list[int]] | None = None, rules: st.Rules = st.RULES) -> None:
        self.now = 1_700_000_000.0
        self.pod = pod
        self.state = st.new(plan(pod), rules)
        self.exits = {name: list(codes) for name, codes in (exits or {}).items()}
        self.deaf: set[str] = set()  # containers that ignore their stop signal
        self.network = self.disk = self.holds = False
        self.vm: int | None = None
        self.set_up = self.frozen = False
        self.clock_off = False  # of the guest, after a pause
        self.processes: dict[str, Process] = {}
        self.resources: dict[str, int] = {}  # containers that were told new limits while they ran, and their attempt
        self.in_api = True
        self.forgotten = False
        self.counts: Counter[str] = Counter()
        self.trace: list[do.Instruction] = []
        self.notes: list[str] = []
        self.queue: deque[ev.Event] = deque()
        self.todo: deque[do.Instruction] = deque()
        self.failures: dict[str, ev.Event] = {}  # instruction class name → event to answer with, once
        self.mute: set[str] = set()  # instruction class names that are never answered

    # --- driving ---------------------------------------------------------------------------------------------------

    def send(self, event: ev.Event) -> None:
        self.state, instructions = step(self.state, event)
        st.validate(self.state)
        assert st.from_json(st.to_json(self.state)) == self.state
        self.todo.extend(instructions)

    def admit(self) -> World:
        self.send(ev.Admitted(at=self.now))
        return self.settle()

    def act(self) -> bool:
        """One instruction or one event; False when there is nothing to do."""
        if self.todo:
            self._do(self.todo.popleft())
            return True
        if self.queue:
            self.send(self.queue.popleft())
            return True
        return False

    def settle(self) -> World:
        for _ in range(2000):
            if not self.act():
                return self
        raise AssertionError("the core never comes to rest")

    def advance(self, seconds: float) -> World:
        """Let time pass; timers fire when they are due."""
        until = self.now + seconds
        for _ in range(1000):
            timer = self.state.timer
            if not timer or timer > until:
                self.now = until
                return self.settle()
            self.now = max(self.now, timer)
            self.send(ev.TimerFired(at=self.now))
            self.settle()
        raise AssertionError("the timer never stops firing")

    def until_quiet(self) -> World:
        """Follow the timers until none is set, a day at most."""
        return self.advance(86_400.0)

    def interrupt(self) -> World:
        """kill -9 of the node agent and its restart: only the state on disk and what is on the host are left."""
        self.todo.clear()
        self.queue.clear()
        self.state = st.from_json(st.to_json(self.state))
        if self.forgotten:
            return self
        self.send(
            ev.Recovered(
                at=self.now, network=self.network, disk=self.disk, vm=self.vm is not None, vm_frozen=self.frozen
            )
        )
        if not self.in_api:
            self.send(ev.Vanished(at=self.now))
        return self.settle()

    def reboot(self) -> World:
        self.vm, self.set_up, self.processes, self.network, self.frozen = None, False, {}, False, False
        self.todo.clear()
        self.queue.clear()
        self.send(ev.Recovered(at=self.now, network=False, disk=self.disk, vm=False, rebooted=True))
        return self.settle()

    def update(self, pod: Pod, deleted_grace: float | None = None, refusal: tuple[str, str] | None = None) -> World:
        self.send(ev.Updated(at=self.now, plan=plan(pod), deleted_grace=deleted_grace, refusal=refusal))
        return self.settle()

    def delete(self, grace: float = 30.0) -> World:
        return self.update(self.pod, grace)

    def vm_dies(self, cause: str = "VMMDied") -> World:
        assert self.vm is not None
        attempt, self.vm, self.set_up, self.processes, self.frozen = self.vm, None, False, {}, False
        self.send(ev.VmEnded(at=self.now, attempt=attempt, cause=cause, detail="gone"))
        return self.settle()

    def exit(self, name: str, code: int, signal: int = 0, oom: bool = False) -> World:
        self._end(name, code, signal, oom)
        return self.settle()

    def probe(self, name: str, check: ev.Check, ok: bool) -> World:
        self.send(ev.ProbeChanged(at=self.now, name=name, attempt=self.run(name).attempt, check=check, ok=ok))
        return self.settle()

    def run(self, name: str = "app") -> st.Run:
        found = self.state.run(name)
        assert found is not None
        return found

    def ended(self, name: str = "app") -> st.Ended:
        found = self.run(name).ended
        assert found is not None
        return found

    def last(self, name: str = "app") -> st.Ended:
        found = self.run(name).last
        assert found is not None
        return found

    # --- acting ------------------------------------------------------------------------------------------------------

    def _do(self, instruction: do.Instruction) -> None:
        self.trace.append(instruction)
        kind = type(instruction).__name__
        self.counts[kind] += 1
        if kind in self.mute:
            return
        if kind in self.failures:
            self.queue.append(self.failures.pop(kind))
            return
        handler = getattr(self, f"_do_{kind}", None)
        if handler is not None:
            handler(instruction)

    def _do_AttachNetwork(self, _: do.AttachNetwork) -> None:
        self.network = True
        self.queue.append(ev.NetworkAttached(at=self.now, ips=("10.0.0.2",)))

    def _do_DetachNetwork(self, _: do.DetachNetwork) -> None:
        assert self.vm is None, "the network goes before the VM"
        self.network = False
        self.queue.append(ev.NetworkDetached(at=self.now))

    def _do_CreateDisk(self, _: do.CreateDisk) -> None:
        self.disk = True
        self.queue.append(ev.DiskReady(at=self.now))

    def _do_RemoveDisk(self, _: do.RemoveDisk) -> None:
        assert self.vm is None, "the disk goes before the VM"
        self.disk = False
        self.queue.append(ev.DiskRemoved(at=self.now))

    def _do_PullImage(self, i: do.PullImage) -> None:
        self.holds = True
        self.queue.append(ev.ImagePulled(at=self.now, name=i.name, image_id="sha256:1", digest="sha256:2"))

    def _do_ReleaseImages(self, _: do.ReleaseImages) -> None:
        self.holds = False
        self.queue.append(ev.ImagesReleased(at=self.now))

    def _do_CreateVm(self, i: do.CreateVm) -> None:
        assert self.network and self.disk and self.vm is None, "two VMs, or one without what it needs"
        self.vm, self.set_up, self.processes, self.clock_off = i.attempt, False, {}, False
        self.queue.append(ev.VmCreated(at=self.now, attempt=i.attempt))

    def _do_Setup(self, i: do.Setup) -> None:
        if self.vm is None:  # it has just died: the call gets no answer, the event tells
            return
        assert self.vm == i.attempt and not self.frozen, "a guest that stands still is asked"
        self.set_up = True
        self.queue.append(ev.SetupDone(at=self.now, attempt=i.attempt, found=tuple(self._found())))

    def _found(self) -> list[ev.FoundContainer]:
        return [
            ev.FoundContainer(
                name, p.attempt, p.running, p.started_at, True, True, True, p.code, p.signal, False, p.ended_at
            )
            for name, p in self.processes.items()
        ]

    def _do_KillVm(self, i: do.KillVm) -> None:
        assert not (i.clean and self.frozen), "a guest that stands still cannot write its disks"
        self.vm, self.set_up, self.processes, self.frozen = None, False, {}, False
        self.queue.append(ev.VmGone(at=self.now, attempt=i.attempt))

    def _do_PauseVm(self, i: do.PauseVm) -> None:
        if self.vm is None:
            return
        assert self.vm == i.attempt and self.set_up
        self.frozen = self.clock_off = True
        self.queue.append(ev.VmPaused(at=self.now, attempt=i.attempt))

    def _do_ResumeVm(self, i: do.ResumeVm) -> None:
        if self.vm is None:
            return
        self.frozen = False
        self.queue.append(ev.VmResumed(at=self.now, attempt=i.attempt))

    def _do_ApplyResources(self, i: do.ApplyResources) -> None:
        if self.vm is None:
            return
        assert self.vm == i.attempt and self.set_up and not self.frozen, "a guest that stands still is asked"
        for name in i.names:
            if name in self.processes:
                self.resources[name] = self.processes[name].attempt
        self.queue.append(ev.Resized(at=self.now, attempt=i.attempt, names=i.names))

    def _do_SetClock(self, i: do.SetClock) -> None:
        if self.vm is None:
            return
        assert not self.frozen
        self.clock_off = False
        self.queue.append(ev.ClockSet(at=self.now, attempt=i.attempt))

    def _do_StartContainer(self, i: do.StartContainer) -> None:
        if self.vm is None:
            return
        assert not self.frozen, "a container starts in a machine that stands still"
        assert self.set_up, "a container starts before its machine is set up"
        old = self.processes.get(i.name)
        if old is None or old.attempt < i.attempt:
            assert old is None or not old.running, "started twice"
            self.counts[f"start {i.name}"] += 1
            self.processes[i.name] = Process(i.attempt, self.now)
        process = self.processes[i.name]
        self.queue.append(ev.Started(at=self.now, name=i.name, attempt=i.attempt, started_at=process.started_at))
        if self.exits.get(i.name) and process.running:
            self._end(i.name, self.exits[i.name].pop(0))

    def _end(self, name: str, code: int, signal: int = 0, oom: bool = False) -> None:
        process = self.processes[name]
        if not process.running:
            return
        process.running, process.code, process.signal, process.ended_at = False, code, signal, self.now
        self.queue.append(
            ev.Exited(
                at=self.now,
                name=name,
                attempt=process.attempt,
                code=code,
                signal=signal,
                oom=oom,
                started_at=process.started_at,
                finished_at=self.now,
            )
        )

    def _do_StopSignal(self, i: do.StopSignal) -> None:
        assert not self.frozen, "a signal goes to a machine that stands still"
        process = self.processes.get(i.name)
        if process is None or process.attempt != i.attempt or not process.running:
            return
        if i.kill:
            self._end(i.name, 137, 9)
        elif i.name not in self.deaf:
            self._end(i.name, 143, 15)

    def _do_RunHook(self, i: do.RunHook) -> None:
        self.queue.append(ev.HookDone(at=self.now, name=i.name, attempt=i.attempt, point=i.point))

    def _do_RecordEvent(self, i: do.RecordEvent) -> None:
        self.notes.append(i.reason)

    def _do_DeletePod(self, _: do.DeletePod) -> None:
        self.in_api = False
        self.queue.append(ev.PodDeleted(at=self.now))

    def _do_Forget(self, _: do.Forget) -> None:
        self.forgotten = True

    def nothing_left(self) -> bool:
        return not (self.network or self.disk or self.holds or self.vm is not None or self.processes)

    def shuffled(self, seed: int) -> None:
        """Events that wait, in another order."""
        events = list(self.queue)
        random.Random(seed).shuffle(events)
        self.queue = deque(events)
