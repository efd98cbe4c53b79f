"""`python -m cuboid.server`: the API server's process.

Everything that needs root (keys, port, folder) is done first; then the process takes an unprivileged user id, opens
the store and serves. SIGTERM and SIGINT end it: watches are closed, requests finished, the store synced.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import resource
import signal
import socket
import ssl
from collections.abc import AsyncIterator
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path

import uvicorn
import uvloop

import cuboid
from cuboid.controllers.accounts_tokens import TokenSecretController
from cuboid.kube import backup, kinds, namespaces, system_objects
from cuboid.kube.cache import Cache
from cuboid.kube.crd import serving as crd
from cuboid.kube.names import api_service_ip
from cuboid.kube.registry import Registry
from cuboid.kube.store import Store
from cuboid.lib import heap
from cuboid.lib.aio import TaskSet
from cuboid.lib.errors import CuboidError, UnavailableError
from cuboid.lib.log import get_log, set_up
from cuboid.lib.paths import Paths, write_atomic
from cuboid.lib.serving import Server, listen_here, until_started
from cuboid.lib.settings import load
from cuboid.lib.systemd import notify
from cuboid.server import backups, control, security, tls
from cuboid.server.app import make_app
from cuboid.server.backups import DATA, STORE_FILE, folder_of
from cuboid.server.context import Context
from cuboid.server.dns.serve import serving_names
from cuboid.server.protocol import LimitedProtocol, LimitedWebSocket
from cuboid.server.renewal import Renewal
from cuboid.server.settings import ServerSettings

log = get_log(__name__)

ADDRESS_FILE = f"{DATA}/address"
"""`https://host:port`, written when the server answers."""
BOOT_ID = Path("/proc/sys/kernel/random/boot_id")
LOOPBACK = "127.0.0.1"
START_SECONDS = 30.0
DRAIN_SECONDS = 5
"""Time for open requests at the end."""
_FILES = 8192  # descriptors wanted: one per client


@dataclass
class Prepared:
    """What was made with the rights of the start."""

    folder: Path
    url: str
    listener: socket.socket
    local: socket.socket
    config: uvicorn.Config
    context: Context
    hours: float  # between two backups


def main() -> int:
    set_up(os.environ.get("CUBOID_LOG_LEVEL", "info"))
    try:
        settings = load(ServerSettings, "server")
        with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
            runner.run(run(settings, Paths.default()))
    except CuboidError as error:
        log.error("the API server can not run", reason=error.reason, error=str(error))
        return 1
    return 0


async def run(settings: ServerSettings, paths: Paths) -> None:
    """Serve until SIGTERM or SIGINT."""
    folder = folder_of(paths.make())
    authority = tls.Authority(folder)
    listener = _listen(settings.host, settings.port)
    local = listen_here(paths.api_socket, settings.uid)  # after the port, which a second server does not get
    port = listener.getsockname()[1]
    host = settings.advertise_host or _reachable(settings.host)
    url = f"https://[{host}]:{port}" if ":" in host else f"https://{host}:{port}"
    names = _names(host, settings)
    own = authority.server("server", names)
    serving = tls.server_context(own, authority.ca_file)
    authority.server("node", _names(host, settings))  # for the node agent of this machine, which runs as root
    client_pair = authority.client("kubelet-client", "kube-apiserver-kubelet-client", "system:masters")
    material = security.Material.open(folder)
    context = tls.client_context(authority.ca_file, client_pair)
    renewal = Renewal(authority.signer(), folder / DATA)
    renewal.keep_fresh(serving, own)
    renewal.keep_fresh(context, client_pair)
    _raise_file_limit()
    _hand_over(folder, settings.uid)
    store = _open(folder / STORE_FILE, settings)
    try:
        served_kinds = kinds.Kinds()
        crd.restore(store, served_kinds)
        cache = Cache(store, {kind.stored_as: kind.strategy.selectable for kind in served_kinds.stored()})
        registry = Registry(store, cache, served_kinds)
        await namespaces.ensure_permanent(registry)
        guarded = await security.make(registry, settings, material, renewal)
        await system_objects.ensure(registry, url, dns=bool(settings.dns_port), subnet=settings.service_subnet)
        served = Context(
            registry, settings, guarded, context, node_socket=paths.node_socket, boot_id=BOOT_ID.read_text().strip()
        )
        config = _config(served, serving)
        config.load()
        await _serve(Prepared(folder, url, listener, local, config, served, settings.backup_hours))
    finally:
        store.close()
        listener.close()
        local.close()


def _open(path: Path, settings: ServerSettings) -> Store:
    """The store, after a backup of what another version of the program wrote."""
    if settings.backup_hours > 0:
        backup.before_upgrade(path, cuboid.__version__, datetime.now(UTC))
    return Store(path, history=settings.history, advice=lambda: backup.advice(path))


def _listen(host: str, port: int) -> socket.socket:
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    listener = socket.socket(family, socket.SOCK_STREAM)
    listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    listener.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    try:
        listener.bind((host, port))
    except OSError as error:
        listener.close()
        raise UnavailableError(
            f"can not listen on {host} port {port}: {error.strerror}", hint="is another server running there?"
        ) from error
    listener.listen(1024)
    return listener


def _reachable(host: str) -> str:
    return {"0.0.0.0": "127.0.0.1", "::": "::1"}.get(host, host)


def _names(host: str, settings: ServerSettings) -> list[str]:
    inside = ["kubernetes", "kubernetes.default", "kubernetes.default.svc"]
    inside += [f"kubernetes.default.svc.{settings.cluster_domain}", api_service_ip(settings.service_subnet)]
    return ["localhost", LOOPBACK, "::1", socket.gethostname(), host, *inside]


def _raise_file_limit() -> None:
    _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    with contextlib.suppress(OSError, ValueError):
        resource.setrlimit(resource.RLIMIT_NOFILE, (min(_FILES, hard) if hard > 0 else _FILES, hard))


def _hand_over(folder: Path, uid: int) -> None:
    """Give the store to the unprivileged user and become it. Keys and tokens stay with root: they are read."""
    data = folder / DATA
    data.mkdir(mode=0o700, exist_ok=True)
    data.chmod(0o700)
    if os.geteuid() != 0 or uid == 0:
        return
    hidden = next((path for path in (folder, Path(os.__file__), Path(cuboid.__file__)) if not _open_to_all(path)), None)
    if hidden is not None:
        log.warning("staying root: an unprivileged user could not read this", path=hidden, uid=uid)
        return
    for path in (data, *data.iterdir()):
        os.chown(path, uid, uid, follow_symlinks=False)
    os.setgroups([])
    os.setresgid(uid, uid, uid)
    os.setresuid(uid, uid, uid)


def _open_to_all(path: Path) -> bool:
    """Whether any user may go to this file or folder."""
    resolved = path.resolve()
    return all(parent.stat().st_mode & 0o001 for parent in resolved.parents) and (
        resolved.is_dir() or bool(resolved.stat().st_mode & 0o004)
    )


def _config(context: Context, serving: ssl.SSLContext) -> uvicorn.Config:
    return uvicorn.Config(
        make_app(context),
        http=LimitedProtocol,
        ws=LimitedWebSocket,
        ws_max_size=4 * 1024 * 1024,
        ws_per_message_deflate=False,
        ws_ping_interval=None,
        lifespan="off",
        log_config=None,
        log_level="warning",  # at "info" it writes the URL of every exec, with the command and the secrets in it
        access_log=False,
        proxy_headers=False,
        server_header=False,
        date_header=False,
        backlog=1024,
        timeout_keep_alive=120,
        timeout_graceful_shutdown=DRAIN_SECONDS,
        ssl_context_factory=lambda *_: serving,
    )


@contextlib.asynccontextmanager
async def _names_served(context: Context) -> AsyncIterator[None]:
    """The resolver of pods. Without it everything else goes on: two platforms on one machine want the same port."""
    settings = context.settings
    if not settings.dns_port:
        yield
        return
    async with contextlib.AsyncExitStack() as stack:
        try:
            served = serving_names(context.registry, LOOPBACK, settings.dns_port, settings.cluster_domain)
            await stack.enter_async_context(served)
        except UnavailableError as error:
            log.warning("pods can not resolve names", error=str(error))
        yield


async def _serve(prepared: Prepared) -> None:
    server = Server(prepared.config, prepared.local)
    loop = asyncio.get_running_loop()

    def stop() -> None:
        prepared.context.stopping = True
        prepared.context.registry.cache.wake()
        server.should_exit = True

    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, stop)
    definitions = crd.Definitions(prepared.context.registry)
    async with TaskSet("server") as tasks:
        serving = tasks.start(server.serve([prepared.listener]), name="http")
        prepared.context.security.start(tasks)
        tasks.start(definitions.keep(), name="definitions")
        settings = prepared.context.settings
        kept = system_objects.keep(
            prepared.context.registry, prepared.url, dns=bool(settings.dns_port), subnet=settings.service_subnet
        )
        tasks.start(kept, name="system-objects")
        tasks.start(backups.keep(prepared.folder / STORE_FILE, prepared.hours), name="backups")
        tokens = TokenSecretController(prepared.context.security.accounts)
        control.start(prepared.context.registry, tasks, tokens, alone=prepared.context.settings.controllers)
        await until_started(server, serving, START_SECONDS, "the HTTP server")
        write_atomic(prepared.folder / ADDRESS_FILE, prepared.url.encode() + b"\n", mode=0o644)
        heap.settle()
        notify("READY=1")
        log.info("serving", url=prepared.url, objects=sum(c.count for c in prepared.context.registry.cache))
        async with _names_served(prepared.context):
            await serving
    log.info("ended")
