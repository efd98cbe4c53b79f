"""HTTP/1.1 of a command: one request after the other on a socket of its own.

The standard library's client takes a third of a command's start to import (it parses headers as e-mail); an API server
needs lengths, chunks and upgrades. `Parser` is pure: bytes in, status, headers and body out.
"""

from __future__ import annotations

import io
import select
import socket
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import suppress
from typing import IO, Any, Protocol

from cuboid.lib.errors import HostileError

READ = 65_536
MAX_HEAD = 65_536  # bytes of status line and headers
IDLE_SECONDS = 30.0  # a connection unused for longer is not trusted to be open
Data = bytes | IO[bytes] | None


class Source(Protocol):
    """Something to wait for that may have read ahead: then `waiting`, though its socket shows nothing."""

    @property
    def waiting(self) -> bool: ...

    def fileno(self) -> int: ...


def ready(sources: Sequence[Source], seconds: float | None = None) -> list[Source]:
    """Those that have something to read, waited for at most `seconds`."""
    waiting = [source for source in sources if source.waiting]
    return select.select(sources, [], [], 0 if waiting else seconds)[0] or waiting


class Parser:
    """One answer. `feed` what comes, `eof` when the connection ends; both raise HostileError for what is no HTTP."""

    def __init__(self) -> None:
        self.status = 0
        self.headers: dict[str, str] = {}  # names in lower case; of one name, the last
        self.body = bytearray()  # decoded and not taken yet
        self.done = False  # the whole body has come
        self._rest = bytearray()
        self._step: Callable[[], bool] = self._head
        self._left = 0  # bytes of the body or of its present chunk

    @property
    def begun(self) -> bool:
        """Status and headers are known."""
        return self.status >= 200 or self.status == 101

    @property
    def rest(self) -> bytes:
        """What came after the end: of an upgraded connection."""
        return bytes(self._rest)

    @property
    def reusable(self) -> bool:
        ends = self.headers.get("connection", "").lower() == "close" or self._step == self._until_close
        return self.done and not ends and not self._rest

    def feed(self, data: bytes) -> None:
        self._rest += data
        while not self.done and self._step():
            pass

    def eof(self) -> None:
        if self._step != self._until_close:
            raise HostileError("the connection ended in the middle of an answer")
        self.done = True

    def take(self, limit: int) -> bytes:
        piece = bytes(self.body[:limit])
        del self.body[:limit]
        return piece

    def _line(self) -> bytes | None:
        """The next line without its end, None while it is not whole."""
        end = self._rest.find(b"\n")
        if end < 0:
            if len(self._rest) > MAX_HEAD:
                raise HostileError("the answer has a line without an end")
            return None
        line = bytes(self._rest[:end]).rstrip(b"\r")
        del self._rest[: end + 1]
        return line

    def _head(self) -> bool:
        end = self._rest.find(b"\r\n\r\n")
        if end < 0:
            if len(self._rest) > MAX_HEAD:
                raise HostileError("the answer's headers have no end")
            return False
        first, *lines = bytes(self._rest[:end]).decode("latin-1").split("\r\n")
        del self._rest[: end + 4]
        version, _, after = first.partition(" ")
        code = after[:3]
        if not version.startswith("HTTP/1.") or len(code) < 3 or not (code.isascii() and code.isdecimal()):
            raise HostileError(f"the answer begins with {first[:60]!r}, which is no HTTP")
        self.status = int(code)
        rows = (line.partition(":") for line in lines)
        self.headers = {name.strip().lower(): value.strip() for name, _, value in rows}
        self._choose_body()
        return True

    def _choose_body(self) -> None:
        if self.status == 101 or self.status in (204, 304):
            self.done = True
        elif self.status < 200:
            return  # 100 Continue: the answer itself follows
        elif "chunked" in self.headers.get("transfer-encoding", "").lower():
            self._step = self._chunk_size
        elif (length := self.headers.get("content-length")) is not None:
            self._left = _number(length, 10)
            self._step = self._sized
        else:
            self._step = self._until_close

    def _sized(self) -> bool:
        self._move()
        self.done = not self._left
        return False

    def _until_close(self) -> bool:
        self._left = len(self._rest)
        self._move()
        return False

    def _chunk_size(self) -> bool:
        line = self._line()
        if line is None:
            return False
        self._left = _number(line.partition(b";")[0].strip().decode("latin-1"), 16)
        self._step = self._chunk if self._left else self._trailer
        return True

    def _chunk(self) -> bool:
        self._move()
        if not self._left:
            self._step = self._chunk_end
        return not self._left

    def _chunk_end(self) -> bool:
        line = self._line()
        if line:
            raise HostileError("a chunk of the answer is longer than it said")
        if line is not None:
            self._step = self._chunk_size
        return line is not None

    def _trailer(self) -> bool:
        line = self._line()
        self.done = line == b""
        return line is not None

    def _move(self) -> None:
        taken = min(self._left, len(self._rest))
        self.body += self._rest[:taken]
        del self._rest[:taken]
        self._left -= taken


def _number(text: str, base: int) -> int:
    if not text.isascii() or not text.isalnum() or len(text) > 15:
        raise HostileError(f"{text[:40]!r} is no length")
    try:
        return int(text, base)
    except ValueError as error:
        raise HostileError(f"{text[:40]!r} is no length") from error


class _Body(io.RawIOBase):
    """Reads wait for the network. OSError when it breaks."""

    def __init__(self, connection: Connection, parser: Parser) -> None:
        super().__init__()
        self._connection = connection
        self._parser = parser

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: Any) -> int:
        while not self._parser.body and not self._parser.done:
            self._connection.receive(self._parser)
        piece = self._parser.take(len(buffer))
        buffer[: len(piece)] = piece
        return len(piece)

    def close(self) -> None:
        """What was not read to its end leaves the connection unusable."""
        if not self.closed and not self._parser.done:
            self._connection.close()
        super().close()


class Response(io.BufferedReader):
    """An answer as a file: status and headers are here, the body is read as it comes."""

    def __init__(self, connection: Connection, parser: Parser) -> None:
        super().__init__(_Body(connection, parser), READ)
        self.status = parser.status
        self.headers = parser.headers
        self._parser = parser
        self._connection = connection

    @property
    def waiting(self) -> bool:
        return bool(self._parser.body) or self._parser.done

    def fileno(self) -> int:
        """To wait for with `ready`, before `arrived`."""
        return self._connection.wire.fileno()

    def arrived(self) -> bytes:
        """What has come, without waiting for more than one read of the socket; b"" at the end or between chunks."""
        if not self._parser.body and not self._parser.done:
            self._connection.receive(self._parser)
        return self._parser.take(len(self._parser.body))

    @property
    def over(self) -> bool:
        return self._parser.done and not self._parser.body


class Connection:
    """To one server, opened when needed. `dial(seconds)` gives a connected socket."""

    def __init__(self, dial: Callable[[float | None], socket.socket], host: str, timeout: float | None) -> None:
        self._dial = dial
        self._host = host
        self._timeout = timeout
        self._socket: socket.socket | None = None
        self._parser: Parser | None = None
        self._used = 0.0

    @property
    def wire(self) -> socket.socket:
        if self._socket is None:
            raise ConnectionError("the connection is closed")
        return self._socket

    def request(self, method: str, target: str, headers: Mapping[str, str], data: Data = None) -> Response:
        """Send it and wait until the answer begins. OSError, HostileError."""
        return self.answer(self.send(method, target, headers, data))

    def send(self, method: str, target: str, headers: Mapping[str, str], data: Data = None) -> Parser:
        """Send it; its answer is for `answer`."""
        framed, more = _framing(data)
        rows = {"Host": self._host, **headers, **framed}
        head = f"{method} {target} HTTP/1.1\r\n" + "".join(f"{key}: {value}\r\n" for key, value in rows.items())
        if "\n" in "".join((method, target, *rows.values())):
            raise HostileError("a request may not hold a line break")
        self._open()
        self._parser = Parser()
        self.wire.sendall(head.encode() + b"\r\n" + (data if isinstance(data, bytes) else b""))
        with suppress(BrokenPipeError, ConnectionResetError):  # a server that has heard enough: it says why
            for piece in more:
                self.wire.sendall(piece)
        return self._parser

    def answer(self, parser: Parser) -> Response:
        while not parser.begun:
            self.receive(parser)
        return Response(self, parser)

    def _open(self) -> None:
        fresh = time.monotonic() - self._used < IDLE_SECONDS
        if self._socket is not None and not (fresh and self._parser is not None and self._parser.reusable):
            self.close()
        if self._socket is None:
            self._socket = self._dial(self._timeout)

    def receive(self, parser: Parser) -> None:
        """One read of the socket into the parser."""
        data = self.wire.recv(READ)
        self._used = time.monotonic()
        if data:
            parser.feed(data)
        else:
            parser.eof()

    def hand_over(self) -> socket.socket:
        """The socket, which is the caller's to close from now on."""
        wire, self._socket = self.wire, None
        return wire

    def close(self) -> None:
        if self._socket is not None:
            self._socket.close()
        self._socket = None


def _framing(data: Data) -> tuple[dict[str, str], Iterable[bytes]]:
    if data is None:
        return {}, ()
    if isinstance(data, bytes):
        return {"Content-Length": str(len(data))}, ()
    return {"Transfer-Encoding": "chunked"}, _chunks(data)


def _chunks(data: IO[bytes]) -> Iterator[bytes]:
    while piece := data.read(READ):
        yield b"%x\r\n%b\r\n" % (len(piece), piece)
    yield b"0\r\n\r\n"
