"""The node agent's process: settings, parts, edges, signals. SIGTERM ends it; the pods run on."""

from __future__ import annotations

import argparse
import asyncio
import os
import signal
import socket
from collections.abc import AsyncIterator, Sequence
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass
from pathlib import Path

import uvloop

from cuboid.kube.client import KubeClient
from cuboid.lib import heap
from cuboid.lib.clock import SystemClock
from cuboid.lib.errors import CuboidError, UnavailableError
from cuboid.lib.log import get_log, set_up
from cuboid.lib.paths import Paths
from cuboid.lib.settings import load
from cuboid.lib.systemd import notify
from cuboid.net.services import ServiceRules
from cuboid.net.settings import NetSettings
from cuboid.node import parts
from cuboid.node.claims import KubeClaims
from cuboid.node.daemon import NodeDaemon
from cuboid.node.events import EventRecorder
from cuboid.node.kube_api import KubeApi, KubeObjects
from cuboid.node.kubelet.app import kubelet_app, sweep_spool
from cuboid.node.kubelet.serve import Keys, serve_kubelet
from cuboid.node.metrics import NodeMetrics
from cuboid.node.services import ServiceProxy, fixed
from cuboid.node.settings import NodeSettings
from cuboid.node.steps.gate import BootGate
from cuboid.node.steps.tools import Tools
from cuboid.node.volumes import VolumeRefresher
from cuboid.node.volumes_data import VolumeData

log = get_log(__name__)
KEYS_SECONDS = 30.0  # how long the API server's first start is waited for
FILES_WANTED = 65_536  # open files: a few per pod


@dataclass(frozen=True)
class Options:
    server: str
    paths: Paths
    token_file: Path
    ca_file: Path
    clean: bool


def options(arguments: Sequence[str] | None = None) -> Options:
    parser = argparse.ArgumentParser("python -m cuboid.node", description="Cuboid's node agent")
    default = Paths.default()
    parser.add_argument("--server", default="https://127.0.0.1:6443", help="URL of the Kubernetes API")
    parser.add_argument("--state", type=Path, default=default.state, help="folder that survives a reboot")
    parser.add_argument("--run", type=Path, default=default.run, help="folder that does not")
    parser.add_argument("--token-file", type=Path, help="default: the API server's, below --state")
    parser.add_argument("--ca-file", type=Path, help="default: the API server's, below --state")
    parser.add_argument("--clean", action="store_true", help="end every VM and network of this host, then exit")
    given = parser.parse_args(arguments)
    keys = given.state / "server"
    return Options(
        given.server, Paths(given.state, given.run), given.token_file or _token_in(keys),
        given.ca_file or keys / "ca.crt", given.clean,
    )  # fmt: skip


def _token_in(keys: Path) -> Path:
    """The agent's own, which `cuboid up` makes; the administrator's where a server was started without it."""
    own = keys / "node.token"
    return own if own.exists() else keys / "admin.token"


def main(arguments: Sequence[str] | None = None) -> int:
    set_up(os.environ.get("CUBOID_LOG_LEVEL", "info"))
    given = options(arguments)
    try:
        settings = load(NodeSettings, "node")
        parts.raise_file_limit(FILES_WANTED)
        with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
            runner.run(parts.clean_host(given.paths, settings) if given.clean else run(settings, given))
    except CuboidError as error:
        log.error("the node agent cannot run", reason=error.reason, error=str(error))
        return 1
    return 0


async def run(settings: NodeSettings, given: Options) -> None:
    """Until SIGTERM or SIGINT."""
    stop = asyncio.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        asyncio.get_running_loop().add_signal_handler(number, stop.set)
    await _files((given.token_file, given.ca_file))
    token = given.token_file.read_text().strip()
    async with KubeClient(given.server, token, given.ca_file) as client:
        await _run(settings, given, client, stop)


async def _files(files: Sequence[Path]) -> None:
    """The API server writes them at its first start."""
    for _ in range(int(KEYS_SECONDS / 0.1)):
        if all(file.exists() for file in files):
            return
        await asyncio.sleep(0.1)
    missing = next(file for file in files if not file.exists())
    raise UnavailableError(f"{missing} does not exist", hint="is the API server running?")


async def _run(settings: NodeSettings, given: Options, client: KubeClient, stop: asyncio.Event) -> None:
    clock, paths = SystemClock(), given.paths.make()
    name = settings.name or socket.gethostname().lower()
    driver = await parts.driver(paths, settings)
    api, objects = KubeApi(client, clock), KubeObjects(client, clock)
    refresher = VolumeRefresher(objects, watched=objects.watch)
    objects.on_change = refresher.changed
    recorder = EventRecorder(api, name)
    accel = driver.capabilities().accel
    metrics, gate = NodeMetrics(), BootGate(settings.boot_slots(accel))
    network, disks, boots = parts.network(paths), parts.disks(paths), parts.boots(settings)
    templates = parts.templates(paths, settings, driver, gate, clock)
    warm = parts.warm(paths, settings, templates, driver, network, disks, gate, metrics, clock)
    warm.favour(parts.ordinary_shape(settings, boots.ordinary, driver), disk_bytes=settings.disk_mib << 20)
    net = load(NetSettings, "net")
    constant = fixed(_api_url(given), settings.dns_port, net.service_subnet)
    services = ServiceProxy(client, ServiceRules(net), constant)
    tools = Tools(
        settings=settings, driver=driver, network=network, disks=disks,
        images=parts.images(paths), objects=objects, api=api, recorder=recorder, refresher=refresher,
        guest=parts.guest, boots=boots,
        gate=gate, templates=templates, warm=warm, clock=clock,
        dns=parts.cluster_dns(settings), service_env=services.environment,
        node=name, host_ip=settings.address, cpus=os.cpu_count() or 1, metrics=metrics,
    )  # fmt: skip
    daemon = NodeDaemon(tools, paths.state, KubeClaims(client))
    daemon.accel_reason = (await driver.probe()).reason
    async with _edge(daemon, tools, given) as port:
        daemon.port = port
        log.info("node agent runs", node=name, driver=f"{driver.name}/{accel}", port=port)
        edges = {"events": recorder.run(), "objects": objects.run()}
        edges["volume-data"] = VolumeData(client, disks, name).run()
        if settings.services:
            edges["services"] = services.run()
        try:
            await daemon.run(stop, edges=edges, ready=_ready)
        finally:
            await disks.close()
    log.info("ended, pods run on")


def _api_url(given: Options) -> str:
    """Where pods are led to by the address of the API's service; "" if it is not known."""
    if not given.server.startswith("unix:"):
        return given.server
    try:
        return (given.ca_file.parent / "data" / "address").read_text().strip()  # the embedded server's, once it answers
    except OSError:
        return ""


def _ready() -> None:
    heap.settle()
    notify("READY=1")


@asynccontextmanager
async def _edge(daemon: NodeDaemon, tools: Tools, given: Options) -> AsyncIterator[int]:
    """The HTTPS API. Gives its port."""
    keys, spool = Keys.of_folder(given.ca_file.parent), given.paths.state / "spool"
    spool.mkdir(mode=0o700, exist_ok=True)
    sweep_spool(spool)
    await _files((keys.ca, keys.cert, keys.key))
    app = kubelet_app(daemon, tools.images, tools.disks, node=tools.node, spool=spool, metrics=daemon.metrics)
    async with AsyncExitStack() as stack:
        serving = serve_kubelet(app, tools.settings.address, tools.settings.port, keys, given.paths)
        yield await stack.enter_async_context(serving)
