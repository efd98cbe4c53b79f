"""exec and attach: `v5.channel.k8s.io` over a WebSocket, from and to this process' own streams.

One loop that waits for whatever comes first: the network, stdin, or another size of the terminal. It reads stdin only
when all of it before has been sent, so a command that does not read stops the one that writes to it.
"""

from __future__ import annotations

import json
import os
import select
import sys
from collections import Counter
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

from cuboid.cli.api import Api, error_of
from cuboid.cli.websocket import Socket
from cuboid.lib.errors import UnavailableError

STDIN, STDOUT, STDERR, ERROR, RESIZE, CLOSE = 0, 1, 2, 3, 4, 255
EXEC = "v5.channel.k8s.io"
DETACH_KEYS = b"\x10\x11"  # ctrl-p ctrl-q, as Docker's
READ = 65_536
Query = Sequence[tuple[str, str]]


def run_stream(
    api: Api, path: str, query: Query, *, stdin: bool, tty: bool, shown: Counter[int] | None = None
) -> int | None:
    """Connect this process' stdin, stdout and stderr; returns the exit code that the far end told, None if detached.

    `shown` is counted up by the bytes written to STDOUT and STDERR, also when an error is raised.
    """
    return join(api.upgrade(path, query, EXEC).finish(), stdin=stdin, tty=tty, shown=shown)


def join(socket: Socket, *, stdin: bool, tty: bool, shown: Counter[int] | None = None) -> int | None:
    """`run_stream` on a WebSocket that is open already. It is closed then."""
    session = _Session(socket, tty, Counter() if shown is None else shown)
    try:
        if not tty:
            return session.run(stdin)
        from cuboid.cli import terminal

        with terminal.raw():
            return session.run(stdin)
    finally:
        socket.close()


def capture(api: Api, path: str, query: Query, limit: int = 16 << 20) -> tuple[bytes, bytes, int]:
    """(stdout, stderr, exit code) of a remote command without stdin, at most `limit` bytes each."""
    taken = {STDOUT: bytearray(), STDERR: bytearray(), ERROR: bytearray()}
    socket = api.upgrade(path, query, EXEC).finish()
    try:
        while not socket.over:
            if not socket.waiting:
                select.select([socket], [socket] if socket.unsent else [], [])
            socket.flush()
            for data in socket.receive():
                if data and data[0] in taken and len(taken[data[0]]) < limit:
                    taken[data[0]] += data[1:]
    finally:
        socket.close()
    code = exit_code(json.loads(taken[ERROR] or b"{}"))
    return bytes(taken[STDOUT]), bytes(taken[STDERR]), code


class _Session:
    def __init__(self, socket: Socket, tty: bool, shown: Counter[int]) -> None:
        self._socket = socket
        self._tty = tty
        self._shown = shown
        self._status: dict[str, Any] = {}
        self._feeding = False
        self._detached = False

    def run(self, stdin: bool) -> int | None:
        self._feeding = stdin
        with _news_of_size(self._tty) as resized:
            if self._tty:
                self._resize()
            while not (self._socket.over or self._detached):
                self._turn(resized)
        return None if self._detached else exit_code(self._status)

    def _turn(self, resized: int) -> None:
        socket = self._socket
        found = {socket.fileno(): select.POLLIN} if socket.waiting else self._wait(resized)
        if found.get(socket.fileno(), 0) & select.POLLOUT:
            socket.flush()
        if found.get(socket.fileno(), 0) & ~select.POLLOUT:
            for message in socket.receive():
                self._take(message)
        if resized in found:
            os.read(resized, READ)
            self._resize()
        if self._feeding and _stdin() in found:
            self._feed()

    def _wait(self, resized: int) -> dict[int, int]:
        """What has happened, by file descriptor."""
        poll = select.poll()
        poll.register(self._socket, select.POLLIN | (select.POLLOUT if self._socket.unsent else 0))
        if resized >= 0:
            poll.register(resized, select.POLLIN)
        if self._feeding and not self._socket.unsent:
            poll.register(_stdin(), select.POLLIN)
        return dict(poll.poll())

    def _resize(self) -> None:
        from cuboid.cli import terminal

        rows, columns = terminal.size()
        self._socket.send(bytes([RESIZE]) + json.dumps({"Width": columns, "Height": rows}).encode())

    def _feed(self) -> None:
        data = os.read(_stdin(), READ)
        if self._tty and DETACH_KEYS in data:
            self._detached = True
        elif data:
            self._socket.send(bytes([STDIN]) + data)
        else:
            self._feeding = False
            self._socket.send(bytes([CLOSE, STDIN]))

    def _take(self, message: bytes) -> None:
        channel, data = message[:1], message[1:]
        if channel == bytes([ERROR]):
            self._status = json.loads(data or b"{}")
        elif channel in (bytes([STDOUT]), bytes([STDERR])):
            stream = sys.stdout if channel == bytes([STDOUT]) else sys.stderr
            stream.buffer.write(data)
            stream.buffer.flush()
            self._shown[channel[0]] += len(data)


def _stdin() -> int:
    return sys.stdin.fileno()


@contextmanager
def _news_of_size(tty: bool) -> Iterator[int]:
    """A descriptor that can be read when the terminal has another size; -1 without a terminal."""
    if not tty:
        yield -1
        return
    from cuboid.cli import terminal

    reading, writing = os.pipe()
    os.set_blocking(writing, False)
    with os.fdopen(reading), os.fdopen(writing), terminal.on_resize(lambda: _notify(writing)):
        yield reading


def _notify(descriptor: int) -> None:
    try:
        os.write(descriptor, b".")
    except BlockingIOError:  # so many changes that nobody has read the first one
        return


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
