"""The host's client of one agent: implements `base.Guest` over a Unix socket and reconnects by itself."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path

from cuboid.guest import agent_pb2 as pb
from cuboid.guest.base import EventHook
from cuboid.guest.channel import Connection, Way, open_connection
from cuboid.guest.errors import GuestLostError
from cuboid.guest.stream import GuestStream
from cuboid.lib.aio import TaskSet, deadline
from cuboid.lib.errors import CuboidError, DeadlineError, HostileError, UnavailableError, UnsupportedError
from cuboid.lib.log import get_log

log = get_log(__name__)

CALL_SECONDS = 10.0  # default deadline of calls that only change something small
PING_SECONDS = 10.0
SILENT_PINGS = 3  # after so many pings' time without a byte from the guest the connection is made anew
RETRY_FIRST = 0.02  # s; between attempts to connect, doubling
RETRY_LONGEST = 1.0
GREET_FIRST, GREET_LONGEST = 1.0, 64.0  # s; for an answer to a greeting, doubling: then a connection is made anew
HOOK_RETRY = 1.0  # s; after an event hook that failed
FINAL = (HostileError, UnsupportedError)  # no new connection helps

Final = Callable[[CuboidError], None]


async def _ignore(event: pb.Event) -> None:
    """The hook of those who want no events."""


class AgentClient:
    """A connection to the agent behind `way`, a Unix socket or what opens one. One per guest: QEMU takes one host at
    a time.

    `on_event` gets each event in order and is called again until it succeeds; the event is acknowledged then.
    `on_final` is told once if the guest is cut off for good (it broke the rules, or speaks another version).
    """

    def __init__(
        self, way: Way, on_event: EventHook | None = None, *, on_final: Final | None = None,
        ping_seconds: float = PING_SECONDS, name: str = "",
    ) -> None:  # fmt: skip
        self._way = way
        self._hook = on_event or _ignore
        self._on_final = on_final
        self._ping_seconds = ping_seconds
        self._name = name or (way.parent.name if isinstance(way, Path) else "")
        self._tasks = TaskSet(f"guest/{self._name}")
        self._connection: Connection | None = None
        self._ack: pb.HelloAck | None = None
        self._final: CuboidError | None = None
        self._changed = asyncio.Event()  # connected, lost or final
        self._events: asyncio.Queue[pb.Event] = asyncio.Queue()
        self._done = 0  # number of the last event that the hook has taken
        self._started = False
        self._frozen = False

    @property
    def connected(self) -> bool:
        return self._connection is not None and self._connection.open

    # --- connection ------------------------------------------------------------------------------------------------

    async def connect(self, *, timeout: float) -> pb.HelloAck:
        if not self._started:
            self._started = True
            self._tasks.start(self._keep_connected(), name="connect")
            self._tasks.start(self._pump_events(), name="events")
        async with deadline(timeout, "connecting to the guest agent"):
            await self._wait_connected()
        assert self._ack is not None
        return self._ack

    def hold(self, frozen: bool) -> None:
        self._frozen = frozen
        if self._connection is not None:
            self._connection.heard = asyncio.get_running_loop().time()  # from now on it has to answer again

    async def close(self) -> None:
        self._final = self._final or GuestLostError("the channel to the guest was closed by us")
        if self._connection is not None:
            self._connection.cut(self._final)
        await self._tasks.cancel()

    async def _wait_connected(self) -> Connection:
        while True:
            if self._final is not None:
                raise self._final
            if self._frozen:
                raise GuestLostError("the pod's machine is paused")
            if self._connection is not None and self._connection.open:
                return self._connection
            self._changed.clear()
            await self._changed.wait()

    async def _keep_connected(self) -> None:
        pause, patience = RETRY_FIRST, GREET_FIRST
        while self._final is None:
            try:
                await self._hold_connection(patience)
                pause, patience = RETRY_FIRST, GREET_FIRST
                await asyncio.sleep(pause)
            except DeadlineError:  # a guest may have missed that its host is there; a new connection is told again
                patience = min(patience * 2, GREET_LONGEST)
            except FINAL as error:
                self._end_for_good(error)
            except (GuestLostError, UnavailableError, OSError):
                await asyncio.sleep(pause)
                pause = min(pause * 2, RETRY_LONGEST)

    async def _hold_connection(self, patience: float) -> None:
        """Connect, greet, and return when the connection has ended; raise if it never was a good one."""
        ended = asyncio.Event()
        reasons: list[CuboidError] = []

        def lost(error: CuboidError) -> None:
            reasons.append(error)
            ended.set()

        connection = await open_connection(self._way, self._take_event, lost)
        try:
            self._forget_events()
            self._ack = await connection.greet(patience)
            self._connection = connection
            if self._done:  # events may have come, and been dealt with, together with the greeting's answer
                connection.acknowledge(self._done)
            self._changed.set()
            while not ended.is_set():
                await self._keep_alive(connection, ended)
        finally:
            connection.cut(GuestLostError("the channel to the guest was closed"))
            self._connection = None
            self._changed.set()
        if reasons and isinstance(reasons[0], FINAL):
            raise reasons[0]

    async def _keep_alive(self, connection: Connection, ended: asyncio.Event) -> None:
        with suppress(TimeoutError):
            async with asyncio.timeout(self._ping_seconds):
                await ended.wait()
                return
        if self._frozen:
            return
        if asyncio.get_running_loop().time() - connection.heard > self._ping_seconds * SILENT_PINGS:
            connection.cut(GuestLostError("the guest agent has not answered for too long"))
        else:
            connection.ping()

    def _end_for_good(self, error: CuboidError) -> None:
        self._final = error
        self._changed.set()
        log.warning("guest cut off", channel=self._name, reason=str(error))
        if self._on_final is not None:
            self._on_final(error)

    # --- events ----------------------------------------------------------------------------------------------------

    def _take_event(self, event: pb.Event) -> None:
        self._events.put_nowait(event)

    def _forget_events(self) -> None:
        """The guest sends again what is not acknowledged."""
        while not self._events.empty():
            self._events.get_nowait()

    async def _pump_events(self) -> None:
        while True:
            event = await self._events.get()
            if event.number > self._done:
                await self._deliver(event)
            self._done = max(self._done, event.number)
            if self._connection is not None:
                self._connection.acknowledge(event.number)

    async def _deliver(self, event: pb.Event) -> None:
        """Until the hook takes it. The hook is others' code: an event must not be lost for any failure of it."""
        while True:
            try:
                return await self._hook(event)
            except Exception:
                log.exception("the event hook failed and is called again", event=event.number)
                await asyncio.sleep(HOOK_RETRY)

    # --- calls -----------------------------------------------------------------------------------------------------

    async def _open(self, call: pb.Call, timeout: float = CALL_SECONDS) -> GuestStream:
        async with deadline(timeout, "waiting for the connection to the guest agent"):
            connection = await self._wait_connected()
        return connection.call(call)

    async def _ask(self, call: pb.Call, timeout: float = CALL_SECONDS, wanted: str = "empty") -> pb.Reply:
        name = str(call.WhichOneof("call")).replace("_", " ")
        async with deadline(timeout, f"the guest agent's answer to {name}"):
            connection = await self._wait_connected()
            async with connection.call(call) as stream:
                reply = await stream.reply()
        if reply.WhichOneof("reply") != wanted:
            connection.cut(HostileError(f"the guest answered {name} with {reply.WhichOneof('reply')}, not {wanted}"))
            await self._wait_connected()
        return reply

    async def setup(self, call: pb.Setup, *, timeout: float = 30.0) -> pb.SetupDone:
        return (await self._ask(pb.Call(setup=call), timeout, "setup")).setup

    async def rehearse(self, call: pb.Rehearse, *, timeout: float = 30.0) -> None:
        await self._ask(pb.Call(rehearse=call), timeout)

    async def renew(self, call: pb.Renew, *, timeout: float = 10.0) -> None:
        await self._ask(pb.Call(renew=call), timeout)

    async def start_container(self, call: pb.StartContainer, *, timeout: float = 30.0) -> pb.Started:
        return (await self._ask(pb.Call(start_container=call), timeout, "started")).started

    async def signal(self, container: str, number: int, *, everyone: bool = False, exec_stream: int = 0) -> None:
        call = pb.Signal(container=container, number=number, all=everyone, exec_stream=exec_stream)
        await self._ask(pb.Call(signal=call))

    async def remove_container(self, name: str, *, keep_logs: bool = False) -> None:
        await self._ask(pb.Call(remove_container=pb.RemoveContainer(name=name, keep_logs=keep_logs)), wanted="removed")

    async def write_volume(self, call: pb.WriteVolume) -> None:
        await self._ask(pb.Call(write_volume=call))

    async def resize(self, *, container: str = "", stream: int = 0, rows: int, cols: int) -> None:
        await self._ask(pb.Call(resize=pb.Resize(container=container, stream=stream, rows=rows, cols=cols)))

    async def set_resources(self, container: str, resources: pb.Resources) -> None:
        await self._ask(pb.Call(set_resources=pb.SetResources(container=container, resources=resources)))

    async def ack_logs(self, container: str, offset: int) -> None:
        await self._ask(pb.Call(ack_logs=pb.AckLogs(container=container, offset=offset)))

    async def set_time(self, call: pb.SetTime) -> None:
        await self._ask(pb.Call(set_time=call))

    async def stats(self, *, timeout: float = 5.0) -> pb.Stats:
        return (await self._ask(pb.Call(stats=pb.GetStats()), timeout, "stats")).stats

    async def list(self, *, timeout: float = 5.0) -> pb.State:
        return (await self._ask(pb.Call(list=pb.List()), timeout, "state")).state

    async def shutdown(self, *, timeout: float = 5.0) -> None:
        """Returns when the agent has confirmed, or the channel broke: it may be gone before its answer is out."""
        with suppress(GuestLostError):
            await self._ask(pb.Call(shutdown=pb.Shutdown()), timeout)

    async def exec(self, call: pb.Exec) -> GuestStream:
        return await self._open(pb.Call(exec=call))

    async def attach(self, call: pb.Attach) -> GuestStream:
        return await self._open(pb.Call(attach=call))

    async def logs(self, container: str, offset: int, *, follow: bool) -> GuestStream:
        stream = await self._open(pb.Call(logs=pb.Logs(container=container, offset=offset, follow=follow)))
        stream.ignored = frozenset({1})  # where channel 0 starts if bytes are gone; LogsEnd tells it as well
        return stream

    async def copy_in(self, container: str, path: str) -> GuestStream:
        return await self._open(pb.Call(copy_in=pb.CopyIn(container=container, path=path)))

    async def copy_out(self, container: str, path: str) -> GuestStream:
        return await self._open(pb.Call(copy_out=pb.CopyOut(container=container, path=path)))

    async def port_forward(self, port: int, host: str = "") -> GuestStream:
        return await self._open(pb.Call(port_forward=pb.PortForward(host=host, port=port)))
