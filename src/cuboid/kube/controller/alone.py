"""A process of its own for what also runs inside the API server: over HTTP, one of several elected by a Lease."""

from __future__ import annotations

import asyncio
import os
import signal
import socket
from collections.abc import Callable, Coroutine
from pathlib import Path
from typing import Any

import uvloop

from cuboid.kube import kubeconfig
from cuboid.kube.client import Client
from cuboid.kube.controller.leader import Leader
from cuboid.lib.aio import TaskSet
from cuboid.lib.errors import CuboidError
from cuboid.lib.log import get_log, set_up

log = get_log(__name__)


def run(what: str, work: Callable[[], Coroutine[Any, Any, None]]) -> int:
    """The process' exit status. `what` names it in the log when it can not run."""
    set_up(os.environ.get("CUBOID_LOG_LEVEL", "info"))
    try:
        with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
            runner.run(work())
    except CuboidError as error:
        log.error(f"{what} can not run", reason=error.reason, error=str(error))
        return 1
    return 0


async def lead(file: Path, lease: str, work: Callable[[Client], Coroutine[Any, Any, None]]) -> None:
    """Do the work whenever this process holds the lease, until SIGTERM or SIGINT. `file` is a kubeconfig."""
    stop = asyncio.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        asyncio.get_running_loop().add_signal_handler(number, stop.set)
    async with kubeconfig.client(kubeconfig.load(file)) as client, TaskSet("main") as tasks:
        leader = Leader(client, lease, f"{socket.gethostname()}_{os.getpid()}")
        tasks.start(leader.lead(lambda: work(client)), name="leader")
        await stop.wait()
    log.info("ended")
