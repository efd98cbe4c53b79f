"""`python -m cuboid.controllers`: controllers beside an API server, over HTTP. Several may be started: one acts."""

from __future__ import annotations

import argparse
import asyncio
import os
import signal
import socket
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import uvloop

from cuboid.controllers.registry import chosen
from cuboid.kube import kubeconfig, own_definitions
from cuboid.kube.client import Client
from cuboid.kube.controller.leader import Leader
from cuboid.kube.controller.recorder import Recorder
from cuboid.kube.controller.remote import RemoteSource
from cuboid.kube.controller.runtime import Runtime
from cuboid.kube.controller.view import Controller
from cuboid.lib.aio import TaskSet
from cuboid.lib.errors import CuboidError, InvalidError
from cuboid.lib.log import get_log, set_up

log = get_log(__name__)

LEASE = "cuboid-controllers"


@dataclass(frozen=True)
class Options:
    """`everything`: also those controllers that a real Kubernetes has itself."""

    kubeconfig: Path
    everything: bool


def options(arguments: Sequence[str] | None = None) -> Options:
    parser = argparse.ArgumentParser("python -m cuboid.controllers", description="Cuboid's controllers")
    parser.add_argument("--kubeconfig", type=Path, required=True, help="whose current context is used")
    parser.add_argument(
        "--all",
        action="store_true",
        dest="everything",
        help="also those that Kubernetes has itself: for an API server that runs no controllers",
    )
    given = parser.parse_args(arguments)
    return Options(given.kubeconfig, given.everything)


def main(arguments: Sequence[str] | None = None) -> int:
    set_up(os.environ.get("CUBOID_LOG_LEVEL", "info"))
    given = options(arguments)
    try:
        with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
            runner.run(run(given))
    except CuboidError as error:
        log.error("the controllers can not run", reason=error.reason, error=str(error))
        return 1
    return 0


async def run(given: Options) -> None:
    """Until SIGTERM or SIGINT."""
    controllers = chosen(embedded=given.everything)
    if not controllers:
        raise InvalidError(
            "there is no controller that Kubernetes lacks", hint="--all starts those that it has as well"
        )
    stop = asyncio.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        asyncio.get_running_loop().add_signal_handler(number, stop.set)
    async with kubeconfig.client(kubeconfig.load(given.kubeconfig)) as client, TaskSet("main") as tasks:
        leader = Leader(client, LEASE, f"{socket.gethostname()}_{os.getpid()}")
        tasks.start(leader.lead(lambda: control(client, controllers)), name="leader")
        await stop.wait()
    log.info("ended")


async def control(client: Client, controllers: Sequence[Controller]) -> None:
    """Until cancelled: what is known of the cluster is thrown away with it."""
    await own_definitions.until_served(client)
    recorder = Recorder(client, LEASE)
    runtime = Runtime(client, RemoteSource(client), recorder, controllers)
    async with TaskSet("control") as tasks:
        tasks.start(recorder.run(), name="events")
        await runtime.run()
