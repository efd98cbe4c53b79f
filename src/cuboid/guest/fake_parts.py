"""What the fake agent's containers are: scripts, their state, the few commands that can be run in them, refusals."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from cuboid.guest import agent_pb2 as pb
from cuboid.guest.fake_wire import FakeStream

Errors = pb.Error
LEAST_ENTROPY = 32  # bytes, for a guest that is one of several clones
STOPPED_BY = frozenset({1, 2, 3, 9, 15})  # signals that end a container unless its script ignores them


@dataclass
class Script:
    """What a container does. The default runs until a signal ends it."""

    output: list[tuple[int, bytes]] = field(default_factory=list)  # (1 stdout or 2 stderr, a line without its end)
    exit_after: float | None = None  # s; None: never by itself
    exit_code: int = 0
    oom: bool = False
    ignores: frozenset[int] = frozenset()  # signals that do not end it
    start_error: pb.Error | None = None
    message: str = ""  # termination message
    probes: Mapping[Any, list[tuple[float, bool]]] = field(default_factory=dict)  # Probe.Kind: (s after start, success)


@dataclass
class FakeContainer:
    call: pb.StartContainer
    script: Script
    pid: int
    started_ns: int
    log: bytearray = field(default_factory=bytearray)
    log_start: int = 0
    exit: pb.ExitStatus | None = None
    attached: list[FakeStream] = field(default_factory=list)
    history: list[tuple[int, bytes]] | None = field(default_factory=list)  # until somebody takes it
    stdin: bytearray = field(default_factory=bytearray)
    changed: asyncio.Event = field(default_factory=asyncio.Event)
    task: asyncio.Task[None] | None = None
    probe_ok: dict[int, bool] = field(default_factory=dict)


class Refused(Exception):
    """The agent's answer is an error."""

    def __init__(self, code: Any, message: str) -> None:
        self.error = pb.Error(code=code, message=message)


async def run_command(call: pb.Exec, stream: FakeStream) -> int:
    """The commands that the fake knows. Gives the exit code."""
    match list(call.args):
        case ["true"]:
            return 0
        case ["false"]:
            return 1
        case ["echo", *words]:
            await stream.send(" ".join(words).encode() + b"\n", 1)
        case ["cat"]:
            while (item := await stream.receive())[1] is not None:
                await stream.send(item[1], 1)
        case ["sleep", seconds]:
            await asyncio.sleep(float(seconds))
        case ["sh", "-c", text] if text.startswith("exit "):
            return int(text.removeprefix("exit "))
        case [name, *_]:
            raise Refused(Errors.COMMAND_NOT_FOUND, f"{name}: not found in the container")
        case _:
            raise Refused(Errors.INVALID, "no command was given")
    return 0


def need_entropy(entropy: bytes) -> None:
    """Refused for a guest that is certainly a clone, and would draw what others draw."""
    if len(entropy) < LEAST_ENTROPY:
        raise Refused(Errors.INVALID, f"a restored guest needs {LEAST_ENTROPY} bytes of entropy, not {len(entropy)}")


def started_reply(container: FakeContainer) -> pb.Reply:
    return pb.Reply(started=pb.Started(pid=container.pid, started_unix_ns=container.started_ns))


def state_of(container: FakeContainer) -> pb.ContainerState:
    kinds = {probe.kind for probe in container.call.probes}

    def ok(kind: Any) -> bool:
        return container.probe_ok.get(kind, kind not in kinds)

    return pb.ContainerState(
        name=container.call.name, attempt=container.call.attempt, running=container.exit is None, pid=container.pid,
        started_unix_ns=container.started_ns, exit=container.exit, started_probe_ok=ok(pb.Probe.STARTUP),
        ready_probe_ok=ok(pb.Probe.READINESS), live_probe_ok=ok(pb.Probe.LIVENESS),
        log_end_offset=container.log_start + len(container.log),
    )  # fmt: skip
