"""Connections to Unix sockets that VMMs serve."""

from __future__ import annotations

import asyncio
import socket
from pathlib import Path

from cuboid.lib.errors import UnavailableError


async def connect(path: Path, what: str) -> socket.socket:
    """A connection to the socket at `path`. UnavailableError names `what` is served there."""
    connection = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM | socket.SOCK_CLOEXEC | socket.SOCK_NONBLOCK)
    try:
        await asyncio.get_running_loop().sock_connect(connection, str(path))
    except OSError as error:
        connection.close()
        raise UnavailableError(f"{what} does not answer: {error.strerror}") from error
    except BaseException:
        connection.close()
        raise
    return connection
