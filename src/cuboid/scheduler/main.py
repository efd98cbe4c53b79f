"""`python -m cuboid.scheduler`: the scheduler beside an API server, over HTTP. Several may be started: one acts."""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from cuboid.kube.client import Client
from cuboid.kube.controller import alone
from cuboid.kube.controller.recorder import Recorder
from cuboid.kube.controller.remote import RemoteSource
from cuboid.lib.aio import TaskSet
from cuboid.scheduler.loop import NAME, Scheduler


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
    given = options(arguments)
    return alone.run("the scheduler", lambda: run(given))


async def run(given: Options) -> None:
    """Until SIGTERM or SIGINT."""
    await alone.lead(given.kubeconfig, given.name, lambda client: schedule(client, given.name))


async def schedule(client: Client, name: str = NAME) -> None:
    """Until cancelled: what is known of the cluster is thrown away with it."""
    recorder, source = Recorder(client, name), RemoteSource(client)
    scheduler = Scheduler(client, source, recorder, name)
    async with TaskSet("scheduler") as tasks:
        await source.run(tasks)
        tasks.start(recorder.run(), name="events")
        await scheduler.run()
