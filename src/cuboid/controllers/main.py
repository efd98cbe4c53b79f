"""`python -m cuboid.controllers`: controllers beside an API server, over HTTP. Several may be started: one acts."""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from cuboid.controllers.registry import chosen
from cuboid.kube import own_definitions
from cuboid.kube.client import Client
from cuboid.kube.controller import alone
from cuboid.kube.controller.recorder import Recorder
from cuboid.kube.controller.remote import RemoteSource
from cuboid.kube.controller.runtime import Runtime
from cuboid.kube.controller.view import Controller
from cuboid.lib.aio import TaskSet
from cuboid.lib.errors import InvalidError

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
    given = options(arguments)
    return alone.run("the controllers", lambda: run(given))


async def run(given: Options) -> None:
    """Until SIGTERM or SIGINT."""
    controllers = chosen(embedded=given.everything)
    if not controllers:
        raise InvalidError(
            "there is no controller that Kubernetes lacks", hint="--all starts those that it has as well"
        )
    await alone.lead(given.kubeconfig, LEASE, lambda client: control(client, controllers))


async def control(client: Client, controllers: Sequence[Controller]) -> None:
    """Until cancelled: what is known of the cluster is thrown away with it."""
    await own_definitions.until_served(client)
    recorder = Recorder(client, LEASE)
    runtime = Runtime(client, RemoteSource(client), recorder, controllers)
    async with TaskSet("control") as tasks:
        tasks.start(recorder.run(), name="events")
        await runtime.run()
