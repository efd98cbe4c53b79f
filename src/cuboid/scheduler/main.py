"""`python -m cuboid.scheduler`: the scheduler beside an API server, over HTTP. Several may be started: one acts."""

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

from cuboid.kube import kubeconfig
from cuboid.kube.client import Client
from cuboid.kube.controller.leader import Leader
from cuboid.kube.controller.recorder import Recorder
from cuboid.kube.controller.remote import RemoteSource
from cuboid.lib.aio import TaskSet
from cuboid.lib.errors import CuboidError
from cuboid.lib.log import get_log, set_up
from cuboid.scheduler.loop import NAME, Scheduler

log = get_log(__name__)


@dataclass(frozen=True)
class Options:
    """`name` is the `schedulerName` of the pods that are placed."""

    kubeconfig: Path
    name: str


def options(arguments: Sequence[str] | None = None) -> Options:
    parser = argparse.ArgumentParser("python -m cuboid.scheduler", description="Cuboid's scheduler")
    parser.add_argument("--kubeconfig", type=Path, required=True, help="whose current context is used")
    parser.add_argument("--name", default="cuboid-scheduler", help="schedulerName of the pods to place")
    given = parser.parse_args(arguments)
    return Options(given.kubeconfig, given.name)


def main(arguments: Sequence[str] | None = None) -> int:
    set_up(os.environ.get("CUBOID_LOG_LEVEL", "info"))
    given = options(arguments)
    try:
        with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
            runner.run(run(given))
    except CuboidError as error:
        log.error("the scheduler can not run", reason=error.reason, error=str(error))
        return 1
    return 0


async def run(given: Options) -> None:
    """Until SIGTERM or SIGINT."""
    stop = asyncio.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        asyncio.get_running_loop().add_signal_handler(number, stop.set)
    async with kubeconfig.client(kubeconfig.load(given.kubeconfig)) as client, TaskSet("main") as tasks:
        leader = Leader(client, given.name, f"{socket.gethostname()}_{os.getpid()}")
        tasks.start(leader.lead(lambda: schedule(client, given.name)), name="leader")
        await stop.wait()
    log.info("ended")


async def schedule(client: Client, name: str = NAME) -> None:
    """Until cancelled: what is known of the cluster is thrown away with it."""
    recorder, source = Recorder(client, name), RemoteSource(client)
    scheduler = Scheduler(client, source, recorder, name)
    async with TaskSet("scheduler") as tasks:
        await source.run(tasks)
        tasks.start(recorder.run(), name="events")
        await scheduler.run()
