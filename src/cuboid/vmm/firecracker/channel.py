"""The agent's byte stream behind Firecracker's vsock: a Unix socket with a greeting of its own (`docs/vsock.md`)."""

from __future__ import annotations

import asyncio
import re
import socket
from pathlib import Path

from cuboid.lib.aio import deadline
from cuboid.lib.errors import HostileError, UnavailableError
from cuboid.vmm.firecracker.http import connect_to

_CONNECTED = re.compile(rb"OK [0-9]{1,10}\n")
MAX_LINE = 14  # bytes of that line


async def open_channel(path: Path, pid: int, port: int, *, seconds: float) -> socket.socket:
    """A connection to what listens on the guest's vsock `port`; from here on every byte is the guest's.

    UnavailableError while nothing listens there, DeadlineError (a paused guest does not answer), HostileError.
    """
    async with deadline(seconds, "the answer of the VM's vsock"):
        connection = await connect_to(path, pid)
        try:
            await _ask_for(connection, port)
        except OSError as error:
            connection.close()
            raise UnavailableError("the guest's agent does not listen") from error
        except BaseException:
            connection.close()
            raise
        return connection


async def _ask_for(connection: socket.socket, port: int) -> None:
    """One byte at a time: what follows the line belongs to somebody else."""
    loop = asyncio.get_running_loop()
    await loop.sock_sendall(connection, b"CONNECT %d\n" % port)
    line = b""
    while not line.endswith(b"\n") and len(line) < MAX_LINE:
        piece = await loop.sock_recv(connection, 1)
        if not piece:
            raise UnavailableError("the guest's agent does not listen")
        line += piece
    if _CONNECTED.fullmatch(line) is None:
        raise HostileError("the VM's vsock does not answer as it should")
