"""An agent without a VM: the same contract on a Unix socket, its containers scripted, its faults chosen by the test.

It refuses impossible states as the real one does: a container before Setup, of an unknown image, started while it runs.
"""

from __future__ import annotations

import asyncio
import time
import uuid
from collections.abc import Awaitable, Callable, Mapping
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from cuboid.guest import agent_pb2 as pb
from cuboid.guest.fake_parts import (
    STOPPED_BY,
    Errors,
    FakeContainer,
    Refused,
    Script,
    need_entropy,
    run_command,
    started_reply,
    state_of,
)
from cuboid.guest.fake_wire import FakeGone, FakeStream, FakeWire, Faults
from cuboid.lib.aio import TaskSet

__all__ = ["FakeAgent", "FakeContainer", "Refused", "Script", "run_command"]

ExecHandler = Callable[[pb.Exec, FakeStream], Awaitable[int]]


class FakeAgent:
    """`async with FakeAgent(path) as agent:` serves until the end of the block.

    `scripts` are by container name, looked up at each start; `on_exec` replaces the few commands known here (true,
    false, echo, cat, sleep, and `sh -c "exit N"`). `setup`, `rehearsals`, `renewals`, `volumes`,
    `files` and `containers` show what the host did.
    """

    def __init__(
        self, path: Path, scripts: Mapping[str, Script] | None = None, *, on_exec: ExecHandler | None = None
    ) -> None:
        self.path = path
        self.scripts: dict[str, Script] = dict(scripts or {})
        self.faults = Faults()
        self.setup: pb.Setup | None = None
        self.rehearsals: list[pb.Rehearse] = []
        self.renewals: list[pb.Renew] = []
        self.containers: dict[str, FakeContainer] = {}
        self.volumes: dict[str, dict[str, bytes]] = {}
        self.files: dict[tuple[str, str], bytes] = {}  # (container, path): the tar that was copied in
        self.signals: list[tuple[str, int]] = []
        self.times: list[pb.SetTime] = []
        self.late_images: set[str] = set()  # that came after Setup
        self.memory_used = 0  # of each container, for whoever wants to limit it
        self.shut_down = asyncio.Event()
        self.wire = FakeWire(self._on_call, self.faults)
        self._on_exec = on_exec or run_command
        self._tasks = TaskSet("fake-agent", grace=2.0)
        self._execs: dict[int, asyncio.Task[None]] = {}
        self._server: asyncio.Server | None = None
        self._last_pid = 100

    async def __aenter__(self) -> FakeAgent:
        self._server = await asyncio.start_unix_server(self._serve, str(self.path))
        return self

    async def __aexit__(self, *_: object) -> None:
        assert self._server is not None
        self._server.close()
        self.wire.cut()
        await self._tasks.cancel()
        self.path.unlink(missing_ok=True)

    def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._tasks.start(self.wire.serve(reader, writer), name="connection")

    # --- calls -----------------------------------------------------------------------------------------------------

    def _on_call(self, call: pb.Call, stream: FakeStream) -> None:
        task = self._tasks.start(self._answer(call, stream), name=f"call-{stream.id}")
        if call.WhichOneof("call") == "exec":
            self._execs[stream.id] = task

    async def _answer(self, call: pb.Call, stream: FakeStream) -> None:
        name = str(call.WhichOneof("call"))
        try:
            reply = await getattr(self, f"_do_{name}")(getattr(call, name), stream)
        except Refused as refused:
            reply = pb.Reply(error=refused.error)
        except FakeGone:
            return
        finally:
            self._execs.pop(stream.id, None)
        stream.reply(reply)

    def _container(self, name: str) -> FakeContainer:
        if name not in self.containers:
            raise Refused(Errors.NOT_FOUND, f"there is no container {name}")
        return self.containers[name]

    def _running(self, name: str) -> FakeContainer:
        container = self._container(name)
        if container.exit is not None:
            raise Refused(Errors.CONFLICT, f"container {name} is not running")
        return container

    async def _do_setup(self, call: pb.Setup, _: FakeStream) -> pb.Reply:
        if self.setup is not None and self.setup != call:
            raise Refused(Errors.CONFLICT, "the pod is set up already, with something else")
        if any(interface.device for interface in call.interfaces):
            need_entropy(call.entropy)
        if self.setup is None:
            self.wire.boot_id = call.boot_id or f"fake-{uuid.uuid4()}"
        self.setup = call
        for volume in call.volumes:
            self.volumes.setdefault(volume.name, {file.path: file.content for file in volume.files.files})
        done = pb.SetupDone(kernel="fake", memory_bytes=128 << 20, phases_ns={"total": 1_000_000})
        done.boot_id = self.wire.boot_id
        return pb.Reply(setup=done)

    async def _do_rehearse(self, call: pb.Rehearse, _: FakeStream) -> pb.Reply:
        """Checks what the real one would meet, and leaves nothing but the note that it took place."""
        if self.setup is not None:
            raise Refused(Errors.CONFLICT, "the pod is set up already: it is too late to rehearse")
        need_entropy(call.setup.entropy)
        if call.start.image not in {image.name for image in call.setup.images}:
            raise Refused(Errors.NOT_FOUND, f"there is no image {call.start.image}")
        script = self.scripts.get(call.start.name, Script())
        if script.start_error is not None:
            raise Refused(script.start_error.code, script.start_error.message)
        self.rehearsals.append(call)
        return pb.Reply(empty=pb.Empty())

    async def _do_renew(self, call: pb.Renew, _: FakeStream) -> pb.Reply:
        if self.setup is None:
            raise Refused(Errors.CONFLICT, "the pod is not set up")
        need_entropy(call.entropy)
        self.wire.boot_id = call.boot_id or self.wire.boot_id
        self.renewals.append(call)
        return pb.Reply(empty=pb.Empty())

    async def _do_start_container(self, call: pb.StartContainer, _: FakeStream) -> pb.Reply:
        if self.setup is None:
            raise Refused(Errors.CONFLICT, "the pod is not set up")
        if call.HasField("image_device"):
            self.late_images.add(call.image_device.name)
        if call.image not in {image.name for image in self.setup.images} | self.late_images:
            raise Refused(Errors.NOT_FOUND, f"there is no image {call.image}")
        old = self.containers.get(call.name)
        if old is not None and old.call.attempt == call.attempt:
            return started_reply(old)
        if old is not None and old.exit is None:
            raise Refused(Errors.CONFLICT, f"container {call.name} is running")
        if call.process_target:
            self._running(call.process_target)
        script = self.scripts.get(call.name) or known(list(call.args))
        if script.start_error is not None:
            raise Refused(script.start_error.code, script.start_error.message)
        return started_reply(self._start(call, script, old))

    def _start(self, call: pb.StartContainer, script: Script, old: FakeContainer | None) -> FakeContainer:
        self._last_pid += 1
        container = FakeContainer(call, script, self._last_pid, time.time_ns())
        if old is not None:
            container.log, container.log_start, container.attached = old.log, old.log_start, old.attached
        self.containers[call.name] = container
        container.task = self._tasks.start(self._run(container), name=call.name)
        for kind, changes in script.probes.items():
            self._tasks.start(self._probe(container, kind, changes), name=f"{call.name}/probe")
        return container

    async def _run(self, container: FakeContainer) -> None:
        for channel, line in container.script.output:
            await self.write(container.call.name, line, channel)
        if container.script.exit_after is not None:
            await asyncio.sleep(container.script.exit_after)
            self.end(container.call.name, code=container.script.exit_code, oom=container.script.oom)

    async def _probe(self, container: FakeContainer, kind: Any, changes: list[tuple[float, bool]]) -> None:
        begin = time.monotonic()
        for after, success in changes:
            await asyncio.sleep(max(0.0, begin + after - time.monotonic()))
            if container.exit is not None:
                return
            container.probe_ok[kind] = success
            change = pb.ProbeChanged(name=container.call.name, attempt=container.call.attempt, kind=kind)
            change.success, change.message = success, "" if success else "scripted"
            self.wire.push(pb.Event(probe=change))

    async def write(self, name: str, line: bytes, channel: int = 1) -> None:
        """A container writes a line: to its log and to whoever is attached."""
        container = self.containers[name]
        stamp = datetime.now(UTC).strftime("%Y-%m-%dT%H:%M:%S.%f") + "000Z"
        source = "stdout" if channel == 1 else "stderr"
        container.log += f"{stamp} {source} F ".encode() + line + b"\n"
        container.changed.set()
        if container.history is not None:
            container.history.append((channel, line + b"\n"))
        for stream in [stream for stream in container.attached if not stream.over]:
            await stream.send(line + b"\n", channel)

    def end(self, name: str, *, code: int = 0, signal: int = 0, oom: bool = False) -> None:
        """A container ends. Nothing happens if it has ended already."""
        container = self.containers[name]
        if container.exit is not None:
            return
        container.exit = pb.ExitStatus(
            code=128 + signal if signal else code, signal=signal, oom_killed=oom, finished_unix_ns=time.time_ns(),
            message=container.script.message, started_unix_ns=container.started_ns,
        )  # fmt: skip
        if oom:
            self.wire.push(pb.Event(oom=pb.OutOfMemory(name=name, attempt=container.call.attempt, pid=container.pid)))
        exited = pb.ContainerExited(name=name, attempt=container.call.attempt, exit=container.exit)
        self.wire.push(pb.Event(exited=exited))
        container.changed.set()
        for stream in container.attached:
            stream.reply(pb.Reply(exit=container.exit))
        container.attached.clear()

    async def _do_signal(self, call: pb.Signal, _: FakeStream) -> pb.Reply:
        if call.exec_stream:
            if call.exec_stream not in self._execs:
                raise Refused(Errors.NOT_FOUND, "there is no such exec")
            killed = pb.ExitStatus(code=128 + call.number, signal=call.number, finished_unix_ns=time.time_ns())
            self.wire.streams[call.exec_stream].reply(pb.Reply(exit=killed))
            self._execs[call.exec_stream].cancel()
            return pb.Reply(empty=pb.Empty())
        container = self._running(call.container)
        self.signals.append((call.container, call.number))
        if call.number in STOPPED_BY and (call.number == 9 or call.number not in container.script.ignores):
            self.end(call.container, signal=call.number)
        return pb.Reply(empty=pb.Empty())

    async def _do_remove_container(self, call: pb.RemoveContainer, _: FakeStream) -> pb.Reply:
        container = self._container(call.name)
        self.end(call.name, signal=9)
        if container.task is not None:
            container.task.cancel()
        del self.containers[call.name]
        container.changed.set()
        return pb.Reply(removed=pb.RemovedContainer())

    async def _do_write_volume(self, call: pb.WriteVolume, _: FakeStream) -> pb.Reply:
        if call.volume not in self.volumes:
            raise Refused(Errors.NOT_FOUND, f"there is no volume {call.volume}")
        self.volumes[call.volume] = {file.path: file.content for file in call.files}
        return pb.Reply(empty=pb.Empty())

    async def _do_resize(self, call: pb.Resize, _: FakeStream) -> pb.Reply:
        if call.stream and call.stream not in self._execs:
            raise Refused(Errors.NOT_FOUND, "there is no such exec")
        if not call.stream and not self._running(call.container).call.tty:
            raise Refused(Errors.CONFLICT, f"container {call.container} has no terminal")
        return pb.Reply(empty=pb.Empty())

    async def _do_set_resources(self, call: pb.SetResources, _: FakeStream) -> pb.Reply:
        container = self._running(call.container)
        if 0 < call.resources.memory_bytes < self.memory_used:
            raise Refused(Errors.CONFLICT, f"{self.memory_used} bytes of memory are in use")
        container.call.resources.CopyFrom(call.resources)
        return pb.Reply(empty=pb.Empty())

    async def _do_set_time(self, call: pb.SetTime, _: FakeStream) -> pb.Reply:
        self.times.append(call)
        return pb.Reply(empty=pb.Empty())

    async def _do_shutdown(self, _call: pb.Shutdown, _: FakeStream) -> pb.Reply:
        for name in self.containers:
            self.end(name, signal=9)
        self.shut_down.set()
        return pb.Reply(empty=pb.Empty())

    async def _do_stats(self, _call: pb.GetStats, _: FakeStream) -> pb.Reply:
        running = [name for name, container in self.containers.items() if container.exit is None]
        containers = [pb.ContainerStats(name=name, cpu_ns=1_000_000, memory_bytes=1 << 20, pids=1) for name in running]
        stats = pb.Stats(unix_ns=time.time_ns(), containers=containers, memory_total_bytes=128 << 20)
        stats.memory_available_bytes, stats.agent_memory_bytes = 100 << 20, 3 << 20
        return pb.Reply(stats=stats)

    async def _do_list(self, _call: pb.List, _: FakeStream) -> pb.Reply:
        state = pb.State(set_up=self.setup is not None, last_event=self.wire.last_event)
        state.containers.extend(state_of(container) for container in self.containers.values())
        return pb.Reply(state=state)

    # --- streaming calls -------------------------------------------------------------------------------------------

    async def _do_exec(self, call: pb.Exec, stream: FakeStream) -> pb.Reply:
        self._running(call.container)
        started = time.time_ns()
        try:
            async with asyncio.timeout(call.timeout_ms / 1000 if call.timeout_ms else None):
                code = await self._on_exec(call, stream)
        except TimeoutError:
            exit_status = pb.ExitStatus(code=137, signal=9, timed_out=True, started_unix_ns=started)
            return pb.Reply(exit=exit_status)
        return pb.Reply(exit=pb.ExitStatus(code=code, started_unix_ns=started, finished_unix_ns=time.time_ns()))

    async def _do_attach(self, call: pb.Attach, stream: FakeStream) -> pb.Reply:
        container = self._container(call.container)
        history = container.history if call.history else None
        if history is None:
            self._running(call.container)
        else:
            container.history = None
        container.attached.append(stream)
        for channel, written in history or ():
            await stream.send(written, channel)
        if container.exit is not None:
            return pb.Reply(exit=container.exit)
        try:
            while True:
                _, data = await stream.receive()
                container.stdin += data or b""
                for line in (data or b"").splitlines() if list(container.call.args) == ["cat"] else ():
                    await self.write(call.container, line)
        finally:
            if stream in container.attached:
                container.attached.remove(stream)

    async def _do_logs(self, call: pb.Logs, stream: FakeStream) -> pb.Reply:
        self._container(call.container)
        container, offset = self.containers[call.container], call.offset
        begin = container.log_start
        first = offset = max(offset, begin)
        if first != call.offset:
            await stream.send(first.to_bytes(8, "little"), 1)
        while True:
            piece = bytes(container.log[offset - container.log_start :])
            await stream.send(piece)
            offset += len(piece)
            container = self.containers.get(call.container, container)
            if piece:
                continue
            if not call.follow or call.container not in self.containers:
                return pb.Reply(logs=pb.LogsEnd(first_offset=first, end_offset=offset, dropped_bytes=begin))
            await self._wait_log(container, stream)

    async def _wait_log(self, container: FakeContainer, stream: FakeStream) -> None:
        container.changed.clear()
        waits = [
            self._tasks.start(container.changed.wait(), name=f"log-{stream.id}"),
            self._tasks.start(stream.gone(), name=f"gone-{stream.id}"),
        ]
        try:
            await asyncio.wait(waits, return_when=asyncio.FIRST_COMPLETED)
        finally:
            for task in waits:
                task.cancel()
        if stream.over:
            raise FakeGone

    async def _do_ack_logs(self, call: pb.AckLogs, _: FakeStream) -> pb.Reply:
        container = self._container(call.container)
        drop = min(max(0, call.offset - container.log_start), len(container.log))
        del container.log[:drop]
        container.log_start += drop
        return pb.Reply(empty=pb.Empty())

    async def _do_copy_in(self, call: pb.CopyIn, stream: FakeStream) -> pb.Reply:
        self._running(call.container)
        tar = bytearray()
        while (item := await stream.receive())[1] is not None:
            tar += item[1]
        self.files[call.container, call.path] = bytes(tar)
        return pb.Reply(empty=pb.Empty())

    async def _do_copy_out(self, call: pb.CopyOut, stream: FakeStream) -> pb.Reply:
        self._running(call.container)
        if (call.container, call.path) not in self.files:
            raise Refused(Errors.NOT_FOUND, f"{call.path} does not exist")
        await stream.send(self.files[call.container, call.path])
        return pb.Reply(empty=pb.Empty())

    async def _do_port_forward(self, call: pb.PortForward, stream: FakeStream) -> pb.Reply:
        """Echoes; port 1 is closed, as on any sensible machine."""
        if call.port == 1:
            raise Refused(Errors.FAILED, "connection refused")
        while (item := await stream.receive())[1] is not None:
            await stream.send(item[1])
        return pb.Reply(empty=pb.Empty())


def known(args: list[str]) -> Script:
    """What a container does that has no script: `true` and `echo` end by themselves, all else runs; `sh -c "echo …; …"`
    has said its words then."""
    match args:
        case ["sh", "-c", text] if text.startswith("echo "):
            return Script(output=[(1, text.partition(";")[0].removeprefix("echo ").encode())])
        case ["true"]:
            return Script(exit_after=0.0)
        case ["echo", *words]:
            return Script(output=[(1, " ".join(words).encode())], exit_after=0.0)
        case _:
            return Script()
