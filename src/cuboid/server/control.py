"""The controllers of the embedded API server: they run in its process, on its event loop, over its watch cache."""

from __future__ import annotations

from cuboid.controllers.registry import chosen
from cuboid.kube.controller.recorder import Recorder
from cuboid.kube.controller.runtime import Runtime
from cuboid.kube.controller.sources import LocalSource
from cuboid.kube.identity import MASTERS, User
from cuboid.kube.local import LocalClient
from cuboid.kube.registry import Registry
from cuboid.lib.aio import TaskSet

MANAGER = "cuboid-controllers"
_USER = User("system:kube-controller-manager", (MASTERS, "system:authenticated"))


def start(registry: Registry, tasks: TaskSet) -> None:
    """They end with `tasks`. Nobody is elected: a server's store has one process."""
    client = LocalClient(registry, _USER, MANAGER)
    recorder = Recorder(client, MANAGER)
    runtime = Runtime(client, LocalSource(registry), recorder, chosen(embedded=True))
    tasks.start(recorder.run(), name="events")
    tasks.start(runtime.run(), name="controllers")
