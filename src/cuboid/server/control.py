"""Controllers and scheduler of the embedded API server: they run in its process, on its event loop, over its cache."""

from __future__ import annotations

from cuboid.controllers.garbage import Garbage, follow_new_kinds
from cuboid.controllers.registry import chosen
from cuboid.controllers.volumes_provision import ensure_standard
from cuboid.kube.controller.recorder import Recorder
from cuboid.kube.controller.runtime import Runtime
from cuboid.kube.controller.sources import LocalSource
from cuboid.kube.controller.view import Controller
from cuboid.kube.identity import MASTERS, User
from cuboid.kube.local import LocalClient
from cuboid.kube.registry import Registry
from cuboid.lib.aio import TaskSet
from cuboid.scheduler import loop as scheduling

MANAGER = "cuboid-controllers"
_USER = User("system:kube-controller-manager", (MASTERS, "system:authenticated"))
_SCHEDULER = User("system:kube-scheduler", (MASTERS, "system:authenticated"))


def start(registry: Registry, tasks: TaskSet, *more: Controller, alone: bool = True) -> None:
    """They end with `tasks`; `more` need something of the server. Nobody is elected: a store has one process.

    Not `alone`, others do the work from processes of their own, all but `more`.
    """
    client = LocalClient(registry, _USER, MANAGER)
    recorder = Recorder(client, MANAGER)
    controllers = [*(chosen(embedded=True, registry=registry) if alone else ()), *more]
    runtime = Runtime(client, LocalSource(registry), recorder, controllers)
    tasks.start(recorder.run(), name="events")
    tasks.start(runtime.run(), name="controllers")
    tasks.start(ensure_standard(client), name="storage-class")
    for collector in controllers:
        if isinstance(collector, Garbage):
            tasks.start(follow_new_kinds(collector, runtime.follow), name="garbage-kinds")
    if alone:
        tasks.start(_schedule(registry, tasks), name="scheduler")


async def _schedule(registry: Registry, tasks: TaskSet) -> None:
    client, source = LocalClient(registry, _SCHEDULER, scheduling.NAME), LocalSource(registry)
    recorder = Recorder(client, scheduling.NAME)
    scheduler = scheduling.Scheduler(client, source, recorder)
    tasks.start(recorder.run(), name="scheduler-events")
    await source.run(tasks)
    await scheduler.run()
