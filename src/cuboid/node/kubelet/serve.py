"""The HTTPS server of the node agent's API, in the daemon's own loop. It speaks with holders of a client certificate
of the installation's CA that names the platform's own group, and nobody else: the API server decides about all others.
"""

from __future__ import annotations

import asyncio
import socket
import ssl
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import uvicorn
from starlette.types import ASGIApp
from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol

from cuboid.kube.identity import MASTERS
from cuboid.kube.streaming.wire import ServerWire
from cuboid.lib.aio import TaskSet
from cuboid.lib.errors import InvalidError, UnavailableError
from cuboid.lib.log import get_log
from cuboid.lib.paths import Paths
from cuboid.lib.serving import Server, listen_here, until_started

log = get_log(__name__)

START_SECONDS = 10.0
DRAIN_SECONDS = 3  # open requests at the end
MAX_MESSAGE = 4 << 20  # bytes of one WebSocket message
LOOK_SECONDS = 600.0  # between looks at the certificate's file


class _OwnProtocol(HttpToolsProtocol):
    """Hangs up on users of the API that have a certificate: they are let in there, not here."""

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        connection = transport.get_extra_info("ssl_object")
        if connection is not None and MASTERS not in _organizations(connection.getpeercert() or {}):
            log.warning(
                "a caller of the node's API is none of the platform's", address=transport.get_extra_info("peername")
            )
            transport.abort()
        super().connection_made(transport)


def _organizations(certificate: Mapping[str, Any]) -> list[str]:
    rows = [row for part in certificate.get("subject", ()) for row in part]
    return [value for key, value in rows if key == "organizationName"]


@dataclass(frozen=True)
class Keys:
    """PEM files: the CA whose clients may call, and the server's own certificate and key."""

    ca: Path
    cert: Path
    key: Path

    @classmethod
    def of_folder(cls, folder: Path) -> Keys:
        """As the API server writes them: `ca.crt`, `node.crt`, `node.key`."""
        return cls(folder / "ca.crt", folder / "node.crt", folder / "node.key")


def tls_context(keys: Keys) -> ssl.SSLContext:
    """UnavailableError while the files are not there, InvalidError if they do not fit."""
    missing = [path for path in (keys.ca, keys.cert, keys.key) if not path.exists()]
    if missing:
        raise UnavailableError(f"{missing[0]} does not exist", hint="the API server makes it at its first start")
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.minimum_version = ssl.TLSVersion.TLSv1_2
    context.verify_mode = ssl.CERT_REQUIRED
    try:
        context.load_verify_locations(keys.ca)
        context.load_cert_chain(keys.cert, keys.key)
    except ssl.SSLError as error:
        raise InvalidError(f"the node's keys in {keys.cert.parent} cannot be used: {error.reason}") from error
    return context


@asynccontextmanager
async def serve_kubelet(
    app: ASGIApp, host: str, port: int, keys: Keys, paths: Paths | None = None
) -> AsyncIterator[int]:
    """Serves during the block; gives the port, which is free to choose with 0. UnavailableError if it is taken.

    With `paths`, also on a Unix socket for the API server of this machine, if there is one: a TLS handshake is a large
    part of what attaching to a container costs.
    """
    context = tls_context(keys)
    with _listener(host, port) as listener:
        port = listener.getsockname()[1]
        local = _local(paths, port) if paths else None
        server = Server(_config(app, context), local)
        async with TaskSet("kubelet", grace=DRAIN_SECONDS + 2.0) as tasks:
            serving = tasks.start(server.serve([listener]), name="http")
            await until_started(server, serving, START_SECONDS, "the node's HTTPS server")
            tasks.start(_follow(context, keys), name="certificate")
            try:
                yield port
            finally:
                server.should_exit = True
                await asyncio.wait([serving], timeout=DRAIN_SECONDS + 1.0)


async def _follow(context: ssl.SSLContext, keys: Keys) -> None:
    """A certificate that was made anew is shown from the next connection on; those that are open go on."""
    known = keys.cert.stat().st_mtime_ns
    while True:
        await asyncio.sleep(LOOK_SECONDS)
        try:
            found = keys.cert.stat().st_mtime_ns
            if found != known:
                context.load_cert_chain(keys.cert, keys.key)
                known = found
        except OSError as error:  # ssl.SSLError is one: half of a pair is there, the other half comes
            log.warning("the node's certificate can not be read again", error=str(error))


def _local(paths: Paths, port: int) -> socket.socket | None:
    """May be opened by the user id that the API server runs as: who owns that one's own socket."""
    try:
        uid = paths.api_socket.stat().st_uid
    except FileNotFoundError:
        return None
    return listen_here(paths.node_socket(port), uid)


def _listener(host: str, port: int) -> socket.socket:
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    try:
        listener = socket.create_server((host, port), family=family, backlog=256)
    except OSError as error:
        raise UnavailableError(
            f"cannot listen on {host} port {port}: {error.strerror}", hint="does another node agent or kubelet run?"
        ) from error
    # Accepted sockets inherit it. Without, each handshake waits 40 ms for a delayed acknowledgement.
    listener.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    return listener


def _config(app: ASGIApp, context: ssl.SSLContext) -> uvicorn.Config:
    return uvicorn.Config(
        app,
        http=_OwnProtocol,
        ws=ServerWire,
        ws_max_size=MAX_MESSAGE,
        ws_per_message_deflate=False,
        ws_ping_interval=None,  # a client that is held back answers no ping; the API server is on this machine
        lifespan="off",
        log_config=None,
        log_level="warning",
        access_log=False,
        server_header=False,
        timeout_keep_alive=60,
        timeout_graceful_shutdown=DRAIN_SECONDS,
        ssl_context_factory=lambda *_: context,
    )
