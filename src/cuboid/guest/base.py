"""What the layers above may ask of the agent in a guest. Messages are those of `proto/agent.proto` (`agent_pb2`).

One suite, `tests/contract/test_guest_contract.py`, runs against the real agent in a VM and against the fake.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Awaitable, Callable
from typing import Protocol

from cuboid.guest import agent_pb2 as pb

EventHook = Callable[[pb.Event], Awaitable[None]]
"""Called for each event in order; it is acknowledged to the guest when the hook has returned. May be called again for
one that was not acknowledged before a reconnect: events have numbers."""


class Stream(Protocol):
    """A streaming call. Leaving the context resets it if it has not ended."""

    @property
    def id(self) -> int: ...

    async def send(self, data: bytes, channel: int = 0) -> None:
        """Waits for credit. ConnectionError (a `GuestLostError`) when the channel is gone."""
        ...

    async def send_end(self, channel: int = 0) -> None: ...

    def received(self) -> AsyncIterator[tuple[int, bytes]]:
        """(channel, bytes) until the reply; credit goes back as the caller takes."""
        ...

    async def reply(self) -> pb.Reply:
        """The guest's last word; raises GuestError if it is an error. DATA not taken by then is dropped."""
        ...

    async def __aenter__(self) -> Stream: ...

    async def __aexit__(self, *details: object) -> None: ...


class Guest(Protocol):
    """A connection to one agent that reconnects by itself until `close`."""

    @property
    def connected(self) -> bool: ...

    async def connect(self, *, timeout: float) -> pb.HelloAck:
        """Connect, trying again until `timeout` seconds have passed. DeadlineError, HostileError."""
        ...

    async def setup(self, call: pb.Setup, *, timeout: float = 30.0) -> pb.SetupDone: ...

    async def rehearse(self, call: pb.Rehearse, *, timeout: float = 30.0) -> None:
        """Set up a pod, start a container, end it, undo all of it. ConflictError after Setup; both need entropy."""
        ...

    async def renew(self, call: pb.Renew, *, timeout: float = 10.0) -> None:
        """A new identity after a restore. ConflictError before Setup, InvalidError with too little entropy."""
        ...

    async def start_container(self, call: pb.StartContainer, *, timeout: float = 30.0) -> pb.Started: ...

    async def signal(self, container: str, number: int, *, everyone: bool = False, exec_stream: int = 0) -> None: ...

    async def remove_container(self, name: str, *, keep_logs: bool = False) -> None: ...

    async def write_volume(self, call: pb.WriteVolume) -> None: ...

    async def resize(self, *, container: str = "", stream: int = 0, rows: int, cols: int) -> None: ...

    async def set_resources(self, container: str, resources: pb.Resources) -> None:
        """Other limits for a container that runs. ConflictError if it uses more memory than the new limit."""
        ...

    async def ack_logs(self, container: str, offset: int) -> None: ...

    async def set_time(self, call: pb.SetTime) -> None: ...

    async def stats(self, *, timeout: float = 5.0) -> pb.Stats: ...

    async def list(self, *, timeout: float = 5.0) -> pb.State: ...

    async def shutdown(self, *, timeout: float = 5.0) -> None: ...

    async def exec(self, call: pb.Exec) -> Stream: ...

    async def attach(self, call: pb.Attach) -> Stream: ...

    async def logs(self, container: str, offset: int, *, follow: bool) -> Stream: ...

    async def copy_in(self, container: str, path: str) -> Stream: ...

    async def copy_out(self, container: str, path: str) -> Stream: ...

    async def port_forward(self, port: int, host: str = "") -> Stream: ...

    def hold(self, frozen: bool) -> None:
        """The machine is paused on purpose, or no longer. While it is, silence does not end the connection, calls under
        way wait, and new ones fail at once (GuestLostError): nothing piles up before a guest that reads nothing."""
        ...

    async def close(self) -> None: ...
