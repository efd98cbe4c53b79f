"""Remote commands (`exec`, `attach`): channels of one WebSocket, `v5.channel.k8s.io` and its predecessors.

A message is one byte naming the channel, then data. Source: k8s.io/apimachinery/pkg/util/remotecommand and the
conventions of kubelets.
"""

from __future__ import annotations

import asyncio
import base64
import binascii
import json
from collections.abc import AsyncIterator
from contextlib import suppress
from dataclasses import dataclass
from typing import Any, Protocol

from cuboid.kube.streaming.groups import first
from cuboid.kube.streaming.socket import DisconnectedError, Socket

PROTOCOLS = (
    "v5.channel.k8s.io",
    "v4.channel.k8s.io",
    "v4.base64.channel.k8s.io",
    "channel.k8s.io",
    "base64.channel.k8s.io",
)
STDIN, STDOUT, STDERR, ERROR, RESIZE = range(5)
CLOSE = 255
"""Channel of v5: its one byte of data is a channel that the client sends nothing more on."""
PROBE_SECONDS = 10.0  # while stdin is blocked, whether the client still lives is seen by sending it nothing
RESIZE_LIMIT = 200  # bytes
TERMINAL_LIMIT = 65_535  # rows, columns
STATUS_SECONDS = 10.0
FIRST_SIZE_SECONDS = 0.25


class Command(Protocol):
    """What runs behind the channels."""

    async def stdin(self, data: bytes) -> None:
        """Returns when it has been taken. BrokenPipeError if the command takes no more."""
        ...

    async def stdin_end(self) -> None: ...

    async def resize(self, rows: int, cols: int) -> None: ...

    def output(self) -> AsyncIterator[tuple[int, bytes]]:
        """(STDOUT or STDERR, bytes) until the command has ended."""
        ...

    async def result(self) -> Result:
        """How it ended; after `output`."""
        ...


@dataclass(frozen=True)
class Result:
    """`exit_code` of the command, or `message` if it could not be run or followed to its end."""

    exit_code: int = 0
    message: str = ""

    def status(self) -> dict[str, Any]:
        """The `metav1.Status` on the error channel, as kubectl reads it."""
        if self.message:
            return {
                "metadata": {},
                "status": "Failure",
                "message": f"Internal error occurred: {self.message}",
                "reason": "InternalError",
                "details": {"causes": [{"message": self.message}]},
                "code": 500,
            }
        if self.exit_code == 0:
            return {"metadata": {}, "status": "Success"}
        return {
            "metadata": {},
            "status": "Failure",
            "message": f"command terminated with non-zero exit code: exit status {self.exit_code}",
            "reason": "NonZeroExitCode",
            "details": {"causes": [{"reason": "ExitCode", "message": str(self.exit_code)}]},
        }


@dataclass(frozen=True)
class Channels:
    """Which of the standard streams the client has asked for."""

    stdin: bool = False
    stdout: bool = True
    stderr: bool = True
    tty: bool = False

    @property
    def lowest_writable(self) -> int:
        return STDOUT if self.stdout else STDERR if self.stderr else ERROR


class _Codec:
    """Messages to channels and back, plain or base64."""

    def __init__(self, protocol: str) -> None:
        self._base64 = "base64" in protocol
        self.closes = protocol.startswith("v5.")
        self.json_status = protocol.startswith(("v4.", "v5."))

    def encode(self, channel: int, data: bytes) -> bytes | str:
        if self._base64:
            return chr(ord("0") + channel) + base64.b64encode(data).decode()
        return bytes((channel,)) + data

    def decode(self, message: bytes | str) -> tuple[int, bytes]:
        """ValueError if it is no message of the protocol."""
        raw = message.encode() if isinstance(message, str) else message
        if not raw:
            raise ValueError("a message without a channel")
        if not self._base64:
            return raw[0], raw[1:]
        try:
            return raw[0] - ord("0"), base64.b64decode(raw[1:], validate=True)
        except binascii.Error as error:
            raise ValueError("a message that is not base64") from error


async def serve_command(socket: Socket, protocol: str, channels: Channels, command: Command) -> None:
    """Connect client and command until the command has ended (the client gets its result) or the client is gone.
    The caller ends the command afterwards. No error escapes for what the client does."""
    session = _Session(socket, _Codec(protocol), channels, command)
    with suppress(DisconnectedError):
        try:
            await session.run()
        except ValueError as error:
            await socket.close(1002, str(error))
        except TimeoutError:
            await socket.close(1011, "the command's result did not come in time")


class _Session:
    def __init__(self, socket: Socket, codec: _Codec, channels: Channels, command: Command) -> None:
        self._socket = socket
        self._codec = codec
        self._channels = channels
        self._command = command
        self._stdin_open = channels.stdin
        self._busy = False  # a message of the client is being handed on

    async def run(self) -> None:
        """DisconnectedError, or ValueError if the client broke the protocol."""
        await self._send(self._channels.lowest_writable, b"")  # tells the client that the connection stands
        try:
            async with asyncio.TaskGroup() as group:
                helpers = [group.create_task(self._input()), group.create_task(self._probe())]
                await self._output()
                for helper in helpers:
                    helper.cancel()
        except BaseExceptionGroup as errors:
            raise first(errors, ValueError, DisconnectedError) from errors
        async with asyncio.timeout(STATUS_SECONDS):
            await self._end(await self._command.result())

    async def _end(self, result: Result) -> None:
        status = result.status()
        if self._codec.json_status:
            await self._send(ERROR, json.dumps(status).encode())
        elif status["status"] != "Success":
            await self._send(ERROR, str(status["message"]).encode())
        await self._socket.close()

    async def _send(self, channel: int, data: bytes) -> None:
        await self._socket.send(self._codec.encode(channel, data))

    async def _output(self) -> None:
        wanted = {STDOUT: self._channels.stdout, STDERR: self._channels.stderr}
        async for channel, data in self._command.output():
            channel = STDOUT if self._channels.tty else channel  # a terminal has one stream
            if wanted.get(channel) and data:
                await self._send(channel, data)

    async def _probe(self) -> None:
        while True:
            await asyncio.sleep(PROBE_SECONDS)
            if self._busy:  # nobody reads from the socket meanwhile
                await self._send(self._channels.lowest_writable, b"")

    async def _input(self) -> None:
        while True:
            channel, data = self._codec.decode(await self._socket.receive())
            self._busy = True
            await self._message(channel, data)
            self._busy = False

    async def _message(self, channel: int, data: bytes) -> None:
        if channel == STDIN and self._stdin_open:
            if data:
                await self._stdin(data)
        elif channel == RESIZE and self._channels.tty:
            await self._command.resize(*terminal_size(data))
        elif channel == CLOSE and self._codec.closes and data == bytes((STDIN,)) and self._stdin_open:
            self._stdin_open = False
            with suppress(BrokenPipeError):
                await self._command.stdin_end()

    async def _stdin(self, data: bytes) -> None:
        try:
            await self._command.stdin(data)
        except BrokenPipeError:
            self._stdin_open = False


class _Replayed:
    """A socket whose first message was read before."""

    def __init__(self, socket: Socket, message: bytes | str) -> None:
        self._socket = socket
        self._message: bytes | str | None = message

    async def receive(self) -> bytes | str:
        if self._message is not None:
            message, self._message = self._message, None
            return message
        return await self._socket.receive()

    async def send(self, message: bytes | str) -> None:
        await self._socket.send(message)

    async def close(self, code: int = 1000, reason: str = "") -> None:
        await self._socket.close(code, reason)


async def first_size(socket: Socket, protocol: str) -> tuple[Socket, tuple[int, int]]:
    """(rows, columns) with which a client on a terminal begins, (0, 0) if it does not; and the socket to go on with.

    A program that asks for the size at once should get it: so it is started when the size is known, or after a moment.
    """
    try:
        async with asyncio.timeout(FIRST_SIZE_SECONDS):
            message = await socket.receive()
    except TimeoutError:
        return socket, (0, 0)
    with suppress(ValueError):
        channel, data = _Codec(protocol).decode(message)
        if channel == RESIZE:
            return socket, terminal_size(data)
    return _Replayed(socket, message), (0, 0)


def terminal_size(data: bytes) -> tuple[int, int]:
    """(rows, columns) of a resize message. ValueError if it is none."""
    if len(data) > RESIZE_LIMIT:
        raise ValueError("a terminal size that is too long")
    size = json.loads(data)
    if not isinstance(size, dict):
        raise ValueError("a terminal size that is no object")
    rows, cols = size.get("Height"), size.get("Width")
    if type(rows) is not int or type(cols) is not int or not (0 <= rows <= TERMINAL_LIMIT >= cols >= 0):
        raise ValueError("a terminal size without a height and width")
    return rows, cols
