"""Port forwarding: connections of a client's machine carried to ports of a pod.

Two forms. `SPDY/3.1+portforward.k8s.io` (kubectl): for each connection the client opens an error and a data stream with
the same `requestID`. `v4.channel.k8s.io` (other clients): the ports are in the query, port number i has channels 2i
(data) and 2i+1 (error), each of which the server opens with the port as two bytes, little-endian.
"""

from __future__ import annotations

import asyncio
import base64
import struct
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import AbstractAsyncContextManager, suppress
from typing import Protocol

from cuboid.kube.streaming.groups import first
from cuboid.kube.streaming.socket import DisconnectedError, Socket
from cuboid.kube.streaming.spdy import REFUSED_STREAM, ProtocolError
from cuboid.kube.streaming.tunnel import ResetError, SpdySession, SpdyStream
from cuboid.lib.aio import TaskSet
from cuboid.lib.errors import CuboidError

SPDY_PROTOCOL = "SPDY/3.1+portforward.k8s.io"
CHANNEL_PROTOCOLS = ("v4.channel.k8s.io", "v4.base64.channel.k8s.io")
PROTOCOLS = (SPDY_PROTOCOL, *CHANNEL_PROTOCOLS)
PAIR_SECONDS = 30.0  # an error stream waits that long for its data stream
MAX_PORTS = 32  # of one channel connection
CLOSE_SECONDS = 5.0


class Tunnel(Protocol):
    """A connection to a port in the pod."""

    async def send(self, data: bytes) -> None:
        """CuboidError or ConnectionError when the port takes no more."""
        ...

    async def send_end(self) -> None: ...

    def received(self) -> AsyncIterator[bytes]:
        """Bytes until the port has closed the connection. CuboidError says why there is none."""
        ...


Dial = Callable[[int], AbstractAsyncContextManager[Tunnel]]
"""Opens a connection to a port; entering raises CuboidError with one sentence if nobody listens."""


async def serve_ports(socket: Socket, protocol: str, ports: Sequence[int], dial: Dial, name: str) -> None:
    """Forward until the client is gone. `name` is the pod's, for error texts. `ports` matter to channels only."""
    async with TaskSet("port-forward", grace=CLOSE_SECONDS) as tasks:
        with suppress(DisconnectedError):
            if protocol == SPDY_PROTOCOL:
                await _Pairs(socket, dial, name, tasks).run()
            else:
                await _Channels(socket, protocol, ports, dial, name).run()
    await socket.close()


def _text(port: int, name: str, error: BaseException) -> bytes:
    return f"error forwarding port {port} to pod {name}: {error}".encode()


# --- SPDY ------------------------------------------------------------------------------------------------------------


class _Pairs:
    """Finds the two streams of a connection and carries it."""

    def __init__(self, socket: Socket, dial: Dial, name: str, tasks: TaskSet) -> None:
        self._session = SpdySession(socket, self._opened)
        self._socket = socket
        self._dial = dial
        self._name = name
        self._tasks = tasks
        self._waiting: dict[str, asyncio.Future[SpdyStream]] = {}  # request id → the data stream to come

    async def run(self) -> None:
        try:
            await self._session.run()
        except ProtocolError as error:
            await self._socket.close(1002, str(error))

    async def _opened(self, stream: SpdyStream) -> None:
        """ValueError for a stream that says nothing useful."""
        port = parse_port(stream.headers.get("port", ""))
        request = stream.headers.get("requestid", "")
        kind = stream.headers.get("streamtype", "")
        if kind == "error" and request not in self._waiting:
            self._waiting[request] = asyncio.get_running_loop().create_future()
            self._tasks.start(self._connection(stream, request, port), name=f"{port}/{request}")
        elif kind == "data" and (found := self._waiting.get(request)) and not found.done():
            found.set_result(stream)
        else:
            raise ValueError("a stream that belongs to no connection")

    async def _connection(self, errors: SpdyStream, request: str, port: int) -> None:
        try:
            async with asyncio.timeout(PAIR_SECONDS):
                data = await self._waiting[request]
        except TimeoutError:
            await errors.reset(REFUSED_STREAM)
            return
        finally:
            del self._waiting[request]
        with suppress(DisconnectedError, ResetError):
            try:
                await self._carry(data, port)
            except (CuboidError, ConnectionError) as error:
                if not isinstance(error, DisconnectedError | ResetError):
                    await errors.send(_text(port, self._name, error))
            await errors.close()
            await data.close()
            await data.ignore()

    async def _carry(self, data: SpdyStream, port: int) -> None:
        """Both directions, until the port has closed the connection or the client has reset it."""
        async with self._dial(port) as tunnel:
            try:
                async with asyncio.TaskGroup() as group:
                    up = group.create_task(_upwards(data, tunnel))
                    async for piece in tunnel.received():
                        await data.send(piece)
                    await data.close()
                    up.cancel()
            except BaseExceptionGroup as errors:
                raise first(errors) from errors


async def _upwards(data: SpdyStream, tunnel: Tunnel) -> None:
    """From the client to the port. A port that takes no more is no error: its answer may still be under way."""
    try:
        async for piece in data.received():
            await tunnel.send(piece)
        await tunnel.send_end()
    except (ResetError, DisconnectedError):
        raise
    except (CuboidError, ConnectionError):
        await data.ignore()


def parse_port(text: str) -> int:
    """ValueError unless it is a port number."""
    if not text.isascii() or not text.isdecimal() or len(text) > 5 or not 0 < int(text) < 65_536:
        raise ValueError(f"{text[:20]!r} is not a port")
    return int(text)


# --- channels --------------------------------------------------------------------------------------------------------


class _Channels:
    """One connection per port, all of them opened at once."""

    def __init__(self, socket: Socket, protocol: str, ports: Sequence[int], dial: Dial, name: str) -> None:
        self._socket = socket
        self._base64 = "base64" in protocol
        self._ports = ports
        self._dial = dial
        self._name = name
        self._tunnels: dict[int, Tunnel] = {}

    async def run(self) -> None:
        if not 0 < len(self._ports) <= MAX_PORTS:
            await self._socket.close(1008, f"between 1 and {MAX_PORTS} ports can be forwarded")
            return
        for index, port in enumerate(self._ports):
            for channel in (2 * index, 2 * index + 1):
                await self._send(channel, struct.pack("<H", port))
        async with asyncio.TaskGroup() as group:
            carriers = [group.create_task(self._carry(i, port)) for i, port in enumerate(self._ports)]
            reader = group.create_task(self._read())
            await asyncio.wait([*carriers, reader], return_when=asyncio.FIRST_COMPLETED)
            if not reader.done():
                await asyncio.wait(carriers)
            for task in (*carriers, reader):
                task.cancel()

    async def _send(self, channel: int, data: bytes) -> None:
        message = bytes((channel,)) + data
        text = chr(ord("0") + channel) + base64.b64encode(data).decode()
        await self._socket.send(text if self._base64 else message)

    async def _carry(self, index: int, port: int) -> None:
        with suppress(DisconnectedError):
            try:
                async with self._dial(port) as tunnel:
                    self._tunnels[index] = tunnel
                    async for piece in tunnel.received():
                        await self._send(2 * index, piece)
            except (CuboidError, ConnectionError) as error:
                await self._send(2 * index + 1, _text(port, self._name, error))
            finally:
                self._tunnels.pop(index, None)

    async def _read(self) -> None:
        """Ends when the client is gone or sends what is no message."""
        with suppress(DisconnectedError, ValueError):
            while True:
                channel, data = self._decode(await self._socket.receive())
                if channel % 2 == 0 and data and (tunnel := self._tunnels.get(channel // 2)):
                    with suppress(CuboidError, ConnectionError):
                        await tunnel.send(data)

    def _decode(self, message: bytes | str) -> tuple[int, bytes]:
        raw = message.encode() if isinstance(message, str) else message
        if not raw:
            raise ValueError("a message without a channel")
        return (raw[0] - ord("0"), base64.b64decode(raw[1:], validate=True)) if self._base64 else (raw[0], raw[1:])
