"""exec, attach and port-forward: `v5.channel.k8s.io` over a WebSocket, from and to this process' own streams."""

from __future__ import annotations

import asyncio
import json
import os
import select
import signal
import sys
from collections import Counter
from collections.abc import Sequence
from contextlib import suppress
from typing import Any
from urllib.parse import urlencode

from websockets.asyncio.client import ClientConnection, connect
from websockets.exceptions import ConnectionClosed, InvalidStatus
from websockets.typing import Subprotocol

from cuboid.cli import terminal
from cuboid.cli.api import Api, error_of
from cuboid.lib.errors import UnavailableError

STDIN, STDOUT, STDERR, ERROR, RESIZE, CLOSE = 0, 1, 2, 3, 4, 255
EXEC = Subprotocol("v5.channel.k8s.io")
FORWARD = Subprotocol("v4.channel.k8s.io")
DETACH_KEYS = b"\x10\x11"  # ctrl-p ctrl-q, as Docker's


async def open_stream(api: Api, path: str, query: Sequence[tuple[str, str]], protocol: Subprotocol) -> ClientConnection:
    """A WebSocket to the API; the API's own error where it refuses."""
    scheme = "wss" if api.tls else "ws"
    try:
        return await connect(
            f"{scheme}://{api.host}:{api.port}{path}?{urlencode(list(query))}",
            ssl=api.tls,
            additional_headers=api.headers(),
            subprotocols=[protocol],
            max_size=None,
            ping_interval=None,
            compression=None,
            open_timeout=30,
            proxy=None,
        )
    except InvalidStatus as error:
        raise error_of(error.response.status_code, bytes(error.response.body or b"")) from error
    except OSError as error:
        raise UnavailableError(
            f"the API at {api.connection.server} does not answer: {error}", hint="cuboid up"
        ) from error


def run_stream(
    api: Api,
    path: str,
    query: Sequence[tuple[str, str]],
    *,
    stdin: bool,
    tty: bool,
    shown: Counter[int] | None = None,
) -> int | None:
    """Connect this process' stdin, stdout and stderr; returns the exit code that the far end told, None if detached.

    `shown` is counted up by the bytes written to STDOUT and STDERR, also when an error is raised.
    """
    return asyncio.run(_Session(tty, Counter() if shown is None else shown).run(api, path, query, stdin))


def capture(api: Api, path: str, query: Sequence[tuple[str, str]], limit: int = 16 << 20) -> tuple[bytes, bytes, int]:
    """(stdout, stderr, exit code) of a remote command without stdin, at most `limit` bytes each."""
    return asyncio.run(_capture(api, path, query, limit))


async def _capture(api: Api, path: str, query: Sequence[tuple[str, str]], limit: int) -> tuple[bytes, bytes, int]:
    taken = {STDOUT: bytearray(), STDERR: bytearray(), ERROR: bytearray()}
    socket = await open_stream(api, path, query, EXEC)
    async with socket:
        try:
            async for message in socket:
                data = message.encode() if isinstance(message, str) else message
                if data and data[0] in taken and len(taken[data[0]]) < limit:
                    taken[data[0]] += data[1:]
        except ConnectionClosed:
            pass
    code = exit_code(json.loads(taken[ERROR] or b"{}"))
    return bytes(taken[STDOUT]), bytes(taken[STDERR]), code


class _Session:
    def __init__(self, tty: bool, shown: Counter[int]) -> None:
        self._tty = tty
        self._shown = shown
        self._status: dict[str, Any] = {}
        self._detached = False

    async def run(self, api: Api, path: str, query: Sequence[tuple[str, str]], stdin: bool) -> int | None:
        socket = await open_stream(api, path, query, EXEC)
        loop = asyncio.get_running_loop()
        with terminal.raw() if self._tty else _no_change():
            if self._tty:
                await self._resize(socket)
                loop.add_signal_handler(
                    signal.SIGWINCH, lambda: asyncio.run_coroutine_threadsafe(self._resize(socket), loop)
                )
            async with asyncio.TaskGroup() as group:
                feeder = group.create_task(self._feed(socket), name="stdin") if stdin else None
                try:
                    await self._take(socket)
                finally:
                    if feeder:
                        feeder.cancel()
                    with suppress(ConnectionClosed, TimeoutError):
                        async with asyncio.timeout(2):
                            await socket.close()
        return None if self._detached else exit_code(self._status)

    async def _resize(self, socket: ClientConnection) -> None:
        rows, columns = terminal.size()
        with suppress(ConnectionClosed):
            await socket.send(bytes([RESIZE]) + json.dumps({"Width": columns, "Height": rows}).encode())

    async def _feed(self, socket: ClientConnection) -> None:
        reader = _StdinReader()
        try:
            while data := await reader.read():
                if self._tty and DETACH_KEYS in data:
                    self._detached = True
                    await socket.close()
                    return
                await socket.send(bytes([STDIN]) + data)
            await socket.send(bytes([CLOSE, STDIN]))
        except ConnectionClosed:
            return
        finally:
            reader.close()

    async def _take(self, socket: ClientConnection) -> None:
        try:
            async for message in socket:
                data = message.encode() if isinstance(message, str) else message
                if not data:
                    continue
                if data[0] == ERROR:
                    self._status = json.loads(data[1:] or b"{}")
                elif data[0] in (STDOUT, STDERR):
                    await asyncio.to_thread(_write, data[0], data[1:])
                    self._shown[data[0]] += len(data) - 1
        except ConnectionClosed:
            return


def _write(channel: int, data: bytes) -> None:
    stream = sys.stdout if channel == STDOUT else sys.stderr
    stream.buffer.write(data)
    stream.buffer.flush()


def exit_code(status: dict[str, Any]) -> int:
    """The exit code in a remote command's `Status`; raises its error when the command could not run at all."""
    if status.get("status") == "Success":
        return 0
    for cause in status.get("details", {}).get("causes", []):
        if cause.get("reason") == "ExitCode":
            return int(cause["message"])
    if not status:
        raise UnavailableError("the connection to the container was lost")
    raise error_of(int(status.get("code", 500)), json.dumps(status).encode())


class _StdinReader:
    """Reads stdin as it comes. A terminal or pipe is watched by the loop, a plain file is read in a thread."""

    def __init__(self) -> None:
        self._descriptor = sys.stdin.fileno()
        self._loop = asyncio.get_running_loop()
        self._ready = asyncio.Event()
        try:
            self._loop.add_reader(self._descriptor, self._ready.set)
            self._watched = True
        except (PermissionError, OSError):  # epoll takes no plain files
            self._watched = False

    async def read(self) -> bytes:
        if not self._watched:
            return await asyncio.to_thread(os.read, self._descriptor, 65536)
        while True:
            await self._ready.wait()
            self._ready.clear()
            # The loop may have told of what the last read took: without a look, this read would stop the whole loop.
            if select.select([self._descriptor], [], [], 0)[0]:
                return os.read(self._descriptor, 65536)

    def close(self) -> None:
        if self._watched:
            self._loop.remove_reader(self._descriptor)


class _no_change:
    def __enter__(self) -> None: ...

    def __exit__(self, *_: object) -> None: ...
