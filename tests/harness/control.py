"""A world for controllers: the real registry in this process, a clock that tests move, a kubelet that obeys tests.

    async with World(lambda: [ReplicaSets()]) as world:
        await world.create(REPLICA_SETS, {...})             # as a user would; namespace "default" unless named
        await world.settle()                                 # plans are made and carried out until none is left
        await world.live()                                   # as well, the kubelet starts and ends pods
        await world.advance(30)                              # seconds pass; keys are looked at when they asked for it
        world.pods(), world.get(REPLICA_SETS, "web"), world.told   # what is there, and which events were told

Wall time is the world's as long as it lasts (`time.time` is replaced). Everything happens in one fixed order.

*Interruption.* A scenario is a coroutine function that drives a world and returns what must be the same at its end;
`world.outline(PODS, ...)` is such a thing: objects without uids, random names, versions and times.

    async def scenario(world: World) -> object: ...
    await every_interrupted_point(lambda: [ReplicaSets()], scenario)

runs it once as it is, and then once for every write that controllers made in it: behind that write they are killed
(nothing else of the plan is done), all of their state is thrown away, and new ones begin from the objects alone.
"""

from __future__ import annotations

import asyncio
import json
import re
import shutil
import tempfile
import time
from collections import deque
from collections.abc import Awaitable, Callable, Iterable
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar
from unittest.mock import patch

from cuboid.kube import namespaces, objects
from cuboid.kube.admission import Chain
from cuboid.kube.cache import Cache, Watcher
from cuboid.kube.client import MERGE, NODES, PODS, Resource
from cuboid.kube.controller.act import Actor, Failure, told
from cuboid.kube.controller.instructions import Plan, Tell
from cuboid.kube.controller.runtime import waker
from cuboid.kube.controller.sources import Follower, LocalSource
from cuboid.kube.controller.view import Change, Controller, Key
from cuboid.kube.kinds import Kinds
from cuboid.kube.local import LocalClient
from cuboid.kube.registry import Registry
from cuboid.kube.store import Store
from cuboid.lib.clock import ManualClock
from cuboid.lib.errors import ConflictError, CuboidError, NotFoundError
from tests.harness.fake_kubelet import FakeKubelet

Object = dict[str, Any]
T = TypeVar("T")
Make = Callable[[], Iterable[Controller]]
STEPS = 5_000
"""Plans in one `settle` before controllers are said never to come to rest."""
_FOLDER = Path("/dev/shm") if Path("/dev/shm").is_dir() else None
_TIME = re.compile(r"\b\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d(\.\d+)?(Z|\+00:00)")


class Killed(Exception):
    """The controllers' process ends here."""


@dataclass(frozen=True)
class Told:
    """An event, as controllers told it."""

    kind: str
    name: str
    type: str
    reason: str
    message: str


class Killer(LocalClient):
    """The controllers' client: counts their writes, one at a time, and ends behind number `last`."""

    def __init__(self, registry: Registry, last: int) -> None:
        super().__init__(registry)
        self._last = last
        self._one = asyncio.Lock()
        self.writes = 0

    async def _counted(self, write: Awaitable[Object]) -> Object:
        async with self._one:
            if self.writes == self._last:
                asyncio.ensure_future(write).cancel()
                raise Killed
            result = await write
            self.writes += 1
            if self.writes == self._last:
                raise Killed
            return result

    async def create(self, *args: Any, **more: Any) -> Object:
        return await self._counted(super().create(*args, **more))

    async def update(self, *args: Any, **more: Any) -> Object:
        return await self._counted(super().update(*args, **more))

    async def patch(self, *args: Any, **more: Any) -> Object:
        return await self._counted(super().patch(*args, **more))

    async def delete(self, *args: Any, **more: Any) -> Object:
        return await self._counted(super().delete(*args, **more))

    def revive(self) -> None:
        self._last = -1


class World:
    """`make` gives new controllers; `admission` are plug-ins of the registry; see the module."""

    def __init__(self, make: Make = tuple, *, last_write: int = -1, admission: Chain | None = None) -> None:
        self._make = make
        self._last_write = last_write
        self._admission = admission
        self.clock = ManualClock(float(int(time.time())))
        self.told: list[Told] = []
        self.failures: list[str] = []
        """Plans that ended with an error which is no conflict: the error's text."""
        self.after_plan: Callable[[], None] = lambda: None
        """For what has to be true all the time."""

    async def __aenter__(self) -> World:
        with ExitStack() as stack:
            stack.enter_context(patch("time.time", self.clock.now))
            folder = Path(tempfile.mkdtemp(prefix="cbw-", dir=_FOLDER))
            stack.callback(shutil.rmtree, folder)
            store = Store(folder / "store.db")
            stack.callback(store.close)
            await self._begin(store)
            self._end = stack.pop_all()
        return self

    async def _begin(self, store: Store) -> None:
        kinds = Kinds()
        cache = Cache(store, {kind.stored_as: kind.strategy.selectable for kind in kinds.stored()})
        self.registry = Registry(store, cache, kinds, self._admission)
        await namespaces.ensure_permanent(self.registry)
        self.client = LocalClient(self.registry)
        self.view = LocalSource(self.registry)
        self.kubelet = FakeKubelet(self.client, self.clock.now)
        self._killer = Killer(self.registry, self._last_write)
        self._watchers: dict[Resource, Watcher] = {}
        self.source = LocalSource(self.registry)
        self._start()

    async def __aexit__(self, *_: object) -> None:
        self._end.close()

    # --- what users and nodes do -------------------------------------------------------------------------------------

    async def create(self, resource: Resource, body: Object, namespace: str = "default") -> Object:
        return await self.client.create(resource, body, "" if resource.cluster else namespace)

    async def patch(
        self, resource: Resource, name: str, body: Object, namespace: str = "default", *, sub: str = ""
    ) -> Object:
        """A merge patch."""
        place = "" if resource.cluster else namespace
        return await self.client.patch(resource, name, body, place, form=MERGE, sub=sub)

    async def delete(
        self,
        resource: Resource,
        name: str,
        namespace: str = "default",
        *,
        propagation: str = "",
        grace: int | None = None,
    ) -> None:
        place = "" if resource.cluster else namespace
        await self.client.delete(resource, name, place, propagation=propagation, grace=grace)

    async def add_node(self, name: str, *, labels: Object | None = None, taints: Iterable[Object] = ()) -> Object:
        """A ready node with room for everything."""
        room = {"cpu": "64", "memory": "256Gi", "pods": "1000", "ephemeral-storage": "1Ti"}
        ready = {"type": "Ready", "status": "True", "reason": "KubeletReady", "message": "ready"}
        body = {
            "metadata": {"name": name, "labels": {"kubernetes.io/hostname": name, **(labels or {})}},
            "spec": {"taints": list(taints)} if taints else {},
            "status": {"capacity": room, "allocatable": room, "conditions": [ready]},
        }
        return await self.create(NODES, body)

    # --- what there is -----------------------------------------------------------------------------------------------

    def get(self, resource: Resource, name: str, namespace: str = "default") -> Object:
        """NotFoundError if there is none."""
        found = self.view.get(resource, namespace, name)
        if found is None:
            raise NotFoundError(f"{resource.plural} {name} does not exist")
        return found

    def select(self, resource: Resource, namespace: str = "") -> list[Object]:
        return self.view.select(resource, namespace)

    def pods(self, namespace: str = "") -> list[Object]:
        """Those not asked to end and not finished."""
        return [pod for pod in self.select(PODS, namespace) if objects.active(pod)]

    def reasons(self) -> list[str]:
        """Of the events that were told."""
        return [event.reason for event in self.told]

    def outline(self, *resources: Resource) -> list[str]:
        """The objects as JSON lines without what differs from run to run."""
        found = [document for resource in resources for document in self.select(resource)]
        names: dict[str, str] = {}
        for document in found:
            metadata = document["metadata"]
            names[metadata["uid"]] = f"<{document['kind']}>"
            if prefix := metadata.get("generateName"):
                names[metadata["name"]] = f"{prefix}*"
        lines = []
        for document in found:
            metadata = document["metadata"]
            for key in ("resourceVersion", "managedFields", "generation"):
                metadata.pop(key, None)
            document.get("status", {}).pop("observedGeneration", None)
            line = _TIME.sub("<time>", json.dumps(document, sort_keys=True))
            for name, standard in names.items():
                line = line.replace(name, standard)
            lines.append(line)
        return sorted(lines)

    @property
    def writes(self) -> int:
        """Of controllers."""
        return self._killer.writes

    # --- controllers -------------------------------------------------------------------------------------------------

    def _start(self) -> None:
        """New controllers, which know nothing."""
        for resource, watcher in self._watchers.items():
            self.source.end(resource, watcher)
        self.source = LocalSource(self.registry)
        self.controllers = tuple(self._make())
        self._ready: deque[tuple[Controller, Key]] = deque()
        self._due: dict[tuple[Controller, Key], float] = {}
        self._failed: dict[tuple[Controller, Key], int] = {}
        self._watchers = {}
        for controller in self.controllers:
            self._follow(controller)
        for resource in {watch.resource: None for one in self.controllers for watch in one.watches}:
            begun = self.source.begin(resource)
            assert begun is not None, f"{resource} is not served"
            self._watchers[resource] = begun

    def restart(self) -> None:
        """The controllers are killed, between two writes, and new ones start."""
        self._start()

    def _follow(self, controller: Controller) -> None:
        def add(key: Key) -> None:
            if (controller, key) not in self._ready:
                self._ready.append((controller, key))

        for watch in controller.watches:
            listener = waker(watch, self.source, add)
            self.source.follow(watch.resource, Follower(listener, watch.initial, lambda: None))

    def tell(self, about: Object, type_: str, reason: str, message: str) -> None:
        """Controllers' events come here."""
        self.told.append(Told(about["kind"], objects.name(about), type_, reason, message))

    async def _deliver(self) -> None:
        for resource, watcher in self._watchers.items():
            self.source.hand_out(resource, await watcher.take(0))

    def _wake_due(self) -> None:
        for work in [work for work, when in self._due.items() if when <= self.clock.now()]:
            del self._due[work]
            if work not in self._ready:
                self._ready.append(work)

    async def settle(self, plans: int = 0) -> None:
        """Until no plan is left to make now, or so many of them were made. Raises what a controller broke with, or if
        they never come to rest. `after_plan` is called behind each."""
        last: deque[str] = deque(maxlen=8)
        for _ in range(plans or STEPS):
            await self._deliver()
            self._wake_due()
            if not self._ready:
                return
            try:
                last.append(await self._step(*self._ready.popleft()))
            except Killed:
                self._killer.revive()
                self._start()
            self.after_plan()
        if plans:
            return
        raise AssertionError("controllers do not come to rest: " + "; ".join(last))

    async def _step(self, controller: Controller, key: Key) -> str:
        plan = controller.plan(key, self.source, self.clock.now())
        work = (controller, key)
        line = f"{controller.name} {key.namespace}/{key.name}: {', '.join(told(plan))}"
        try:
            await Actor(self._killer, self).carry_out(plan)
        except Failure as failure:
            await self._failure(work, failure.error)
            return line
        self._failed.pop(work, None)
        if plan.again is not None:
            self._later(work, plan.again)
        return line

    async def _failure(self, work: tuple[Controller, Key], error: CuboidError) -> None:
        count = self._failed[work] = self._failed.get(work, 0) + 1
        if isinstance(error, ConflictError):
            assert count < 50, f"{work[0].name} {work[1]} conflicts for ever: {error}"
            self._ready.append(work)
        else:
            self.failures.append(str(error))
            self._later(work, min(2.0 ** (count - 1), 60.0))

    def _later(self, work: tuple[Controller, Key], seconds: float) -> None:
        when = self.clock.now() + seconds
        self._due[work] = min(when, self._due.get(work, when))

    async def advance(self, seconds: float) -> None:
        """Time passes; keys are worked on at the moments that they asked for."""
        end = self.clock.now() + seconds
        while True:
            await self.settle()
            work = min(self._due, key=self._due.__getitem__, default=None)
            if work is None or self._due[work] > end:
                break
            self.clock.advance(max(self._due[work] - self.clock.now(), 0.0))
        self.clock.advance(end - self.clock.now())
        await self.settle()

    async def live(self, rounds: int = 200) -> None:
        """Controllers and kubelet, until neither has anything to do now: pods run and are ready, deleted ones end."""
        for _ in range(rounds):
            await self.settle()
            if not await self.kubelet.work():
                return
        raise AssertionError("pods come and go for ever")

    def plans(self) -> list[str]:
        """What controllers would do now about everything that they are about: empty at rest."""
        wanted: list[str] = []
        for controller in self.controllers:
            keys = {
                key
                for watch in controller.watches
                if watch.initial
                for document in self.source.every(watch.resource)
                for key in watch.keys(Change("ADDED", document), self.source)
            }
            for key in sorted(keys):
                wanted += _wanted(controller.plan(key, self.source, self.clock.now()))
        return wanted


def _wanted(plan: Plan) -> list[str]:
    return told(Plan(tuple(item for item in plan.instructions if not isinstance(item, Tell))))


async def every_interrupted_point(
    make: Make, scenario: Callable[[World], Awaitable[T]], *, admission: Callable[[], Chain] = Chain, step: int = 1
) -> int:
    """See the module. `step` above 1 tries only every so many of the points. The number of writes."""
    async with World(make, admission=admission()) as world:
        expected, writes = await scenario(world), world.writes
    assert writes > 0, "the controllers wrote nothing: there is nothing to interrupt"
    for point in range(1, writes + 1, step):
        async with World(make, last_write=point, admission=admission()) as world:
            found = await scenario(world)
            assert found == expected, f"killed behind write {point} of {writes}, it ends otherwise"
    return writes
