"""uvicorn inside a daemon, whose signals are the daemon's. It may have a second listener, for this machine alone."""

from __future__ import annotations

import asyncio
import contextlib
import os
import socket
from collections.abc import Iterator
from pathlib import Path

import uvicorn

from cuboid.lib.aio import deadline
from cuboid.lib.errors import UnavailableError

BACKLOG = 1024
LOOK_SECONDS = 0.005


class Server(uvicorn.Server):
    """`local` is a Unix socket that listens: the same application without TLS."""

    def __init__(self, config: uvicorn.Config, local: socket.socket | None = None) -> None:
        super().__init__(config)
        self._local = local

    @contextlib.contextmanager
    def capture_signals(self) -> Iterator[None]:
        yield

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        await super().startup(sockets)
        if self._local is not None:
            loop = asyncio.get_running_loop()
            self.servers.append(await loop.create_unix_server(self._protocol, sock=self._local, backlog=BACKLOG))

    def _protocol(self) -> asyncio.Protocol:
        make = self.config.http_protocol_class
        return make(config=self.config, server_state=self.server_state, app_state=self.lifespan.state)  # type: ignore[call-arg]


async def until_started(server: uvicorn.Server, serving: asyncio.Task[None], seconds: float, what: str) -> None:
    """UnavailableError if it ends at its start."""
    async with deadline(seconds, f"starting {what}"):
        while not server.started:
            if serving.done():
                raise UnavailableError(f"{what} ended at its start")
            await asyncio.sleep(LOOK_SECONDS)


def listen_here(path: Path, uid: int) -> socket.socket:
    """A Unix socket that root and this user id may open, nobody else. UnavailableError."""
    path.unlink(missing_ok=True)  # of a daemon that was killed
    listener = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    try:
        before = os.umask(0o177)
        try:
            listener.bind(str(path))
        finally:
            os.umask(before)
        if os.geteuid() == 0:
            os.chown(path, uid, -1)
    except OSError as error:
        listener.close()
        raise UnavailableError(f"can not listen on {path}: {error.strerror}") from error
    listener.listen(BACKLOG)
    return listener
