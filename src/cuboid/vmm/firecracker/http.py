"""HTTP/1.1 to one Firecracker over its Unix socket: one request per connection, a bounded whole answer.

The VMM at the other end runs a hostile guest, so its answers are hostile: each has a deadline and a size, is parsed
strictly, and is taken only from the process that the socket should belong to. The socket lies in a folder that the
VMM may write to and could lead anywhere; who listens is asked of the kernel before a byte is sent.
"""

from __future__ import annotations

import asyncio
import json
import re
import socket
import struct
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from cuboid.lib.aio import deadline
from cuboid.lib.errors import CuboidError, HostileError, UnavailableError
from cuboid.vmm.channel import connect
from cuboid.vmm.firecracker.requests import Request

MAX_HEAD = 16 << 10  # bytes of status line and headers
MAX_BODY = 256 << 10  # bytes; the longest honest answer is a VM's configuration of some kilobytes
MAX_FAULT = 300  # characters of the VMM's own words in an error
_STATUS = re.compile(rb"HTTP/1\.[01] ([1-5][0-9]{2})(?: [\x20-\x7e]*)?")
_HEADER = re.compile(rb"([!#$%&'*+.^_`|~0-9A-Za-z-]+):[ \t]*([\x20-\x7e\t]*)")
_LENGTH = re.compile(rb"[0-9]{1,9}")


class ApiRefusedError(CuboidError):
    """Firecracker understood the request and refused it."""

    reason = "VmmRefused"


@dataclass(frozen=True)
class Answer:
    status: int
    body: bytes


def encode(request: Request) -> bytes:
    content = b"" if request.body is None else json.dumps(request.body).encode()
    head = f"{request.method} {request.path} HTTP/1.1\r\nHost: localhost\r\nAccept: application/json\r\n"
    if content:
        head += f"Content-Type: application/json\r\nContent-Length: {len(content)}\r\n"
    return head.encode() + b"\r\n" + content


def parse_head(head: bytes) -> tuple[int, int]:
    """Status and length of the body, from everything before the empty line. HostileError."""
    first, *lines = head.split(b"\r\n")
    if (found := _STATUS.fullmatch(first)) is None:
        raise HostileError("the VMM's answer does not begin with a status line")
    length = 0
    lengths = 0
    for line in lines:
        if (header := _HEADER.fullmatch(line)) is None:
            raise HostileError("the VMM's answer has a malformed header")
        name, value = header[1].lower(), header[2].strip()
        if name == b"transfer-encoding":
            raise HostileError("the VMM's answer is in pieces")
        if name == b"content-length":
            if _LENGTH.fullmatch(value) is None:
                raise HostileError("the VMM's answer has no proper length")
            length, lengths = int(value), lengths + 1
    if lengths > 1:
        raise HostileError("the VMM's answer has several lengths")
    if length > MAX_BODY:
        raise HostileError(f"the VMM's answer is longer than {MAX_BODY} bytes")
    return int(found[1]), length


async def read_answer(reader: asyncio.StreamReader) -> Answer:
    """HostileError; UnavailableError if the connection ends in the middle."""
    try:
        head = await reader.readuntil(b"\r\n\r\n")
        status, length = parse_head(head[:-4])
        return Answer(status, await reader.readexactly(0 if status == 204 else length))
    except asyncio.IncompleteReadError as error:
        raise UnavailableError("the VMM went away in the middle of an answer") from error
    except asyncio.LimitOverrunError as error:
        raise HostileError(f"the headers of the VMM's answer are longer than {MAX_HEAD} bytes") from error


def fault(body: bytes) -> str:
    """What the VMM says is wrong: one printable line, whatever it sent."""
    try:
        content = json.loads(body)
        text = content["fault_message"] if isinstance(content, dict) else None
    except (ValueError, KeyError, RecursionError):
        text = None
    if not isinstance(text, str):
        return "it does not say why"
    return "".join(letter if letter.isprintable() else " " for letter in text[:MAX_FAULT]).strip()


def decode(answer: Answer) -> dict[str, Any]:
    """The JSON object of an answer that has one. HostileError."""
    try:
        content = json.loads(answer.body)
    except (ValueError, RecursionError) as error:
        raise HostileError("the VMM's answer is not JSON") from error
    if not isinstance(content, dict):
        raise HostileError("the VMM's answer is not a JSON object")
    return content


def peer(connection: socket.socket) -> int:
    """The pid (in our namespace) of the process that listens at the other end."""
    size = struct.calcsize("3i")
    pid, _, _ = struct.unpack("3i", connection.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, size))
    return int(pid)


async def connect_to(path: Path, pid: int) -> socket.socket:
    """A connection to the socket at `path`, served by the process `pid`. UnavailableError, HostileError."""
    connection = await connect(path, "the VMM")
    found = peer(connection)
    if found == pid:
        return connection
    connection.close()
    if found == 0:  # a full queue looks like a connection to asyncio
        raise UnavailableError("the VMM takes no connection now")
    raise HostileError("another process listens where the VMM should")


class Api:
    """The API of the VMM that runs as process `pid`."""

    def __init__(self, path: Path, pid: int, *, seconds: float) -> None:
        self._path = path
        self._pid = pid
        self._seconds = seconds

    async def call(self, request: Request, *, seconds: float = 0.0) -> Answer:
        """ApiRefusedError with the VMM's own words, UnavailableError, DeadlineError, HostileError."""
        what = f"the VMM's answer to {request.method} {request.path}"
        async with deadline(seconds or self._seconds, what):
            try:
                answer = await self._exchange(request)
            except OSError as error:
                raise UnavailableError(f"the VMM went away during {request.method} {request.path}") from error
        if not 200 <= answer.status < 300:
            raise ApiRefusedError(f"the VMM refused {request.method} {request.path}: {fault(answer.body)}")
        return answer

    async def _exchange(self, request: Request) -> Answer:
        reader, writer = await asyncio.open_unix_connection(
            sock=await connect_to(self._path, self._pid), limit=MAX_HEAD
        )
        try:
            writer.write(encode(request))
            return await read_answer(reader)
        finally:
            writer.transport.abort()

    async def get(self, request: Request, *, seconds: float = 0.0) -> dict[str, Any]:
        return decode(await self.call(request, seconds=seconds))
