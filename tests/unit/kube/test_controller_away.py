"""Controllers over HTTP while the server is away: nothing is made twice, and nobody leads who has lost the lease."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from typing import Any

import pytest

from cuboid.kube.client import CONFIG_MAPS, SECRETS
from cuboid.kube.controller import leader as leading
from cuboid.kube.controller import remote
from cuboid.kube.controller.instructions import NOTHING, Create, Plan
from cuboid.kube.controller.leader import Leader
from cuboid.kube.controller.remote import RemoteSource
from cuboid.kube.controller.sources import Follower
from cuboid.kube.controller.view import Key, View
from cuboid.kube.informer import Informer
from cuboid.lib.aio import TaskSet
from cuboid.lib.errors import UnavailableError
from tests.harness.control import World
from tests.unit.kube.test_controller_runtime import Mirror, running, until


@pytest.fixture
async def world() -> AsyncIterator[World]:
    async with World() as made:
        yield made


class Gate:
    """A client whose watches of Secrets can be held up: what is written is not seen."""

    def __init__(self, client: Any) -> None:
        self._client = client
        self.open = asyncio.Event()
        self.open.set()

    def __getattr__(self, name: str) -> Any:
        return getattr(self._client, name)

    async def watch(self, resource: Any, *args: Any, **more: Any) -> AsyncIterator[Any]:
        async for event in self._client.watch(resource, *args, **more):
            if resource == SECRETS:
                await self.open.wait()
            yield event


class Counting(Mirror):
    """One Secret with a generated name for all ConfigMaps together."""

    def plan(self, key: Key, view: View, now: float) -> Plan:
        self.seen.append(key)
        if view.select(SECRETS, key.namespace):
            return NOTHING
        return Plan((Create(SECRETS, {"metadata": {"generateName": "made-"}}, key.namespace),))


async def test_what_is_not_seen_for_long_is_not_made_again(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(remote, "BLIND_SECONDS", 0.1)
    monkeypatch.setattr(remote, "LOOK_SECONDS", 0.05)
    gate = Gate(world.client)
    async with running(gate, RemoteSource(gate), mirror := Counting()):  # type: ignore[arg-type]
        await until(lambda: True)
        await asyncio.sleep(0.2)
        gate.open.clear()
        await world.create(CONFIG_MAPS, {"metadata": {"name": "one"}})
        await until(lambda: mirror.seen)
        await asyncio.sleep(6)
        for number in range(3):
            await world.client.patch(CONFIG_MAPS, "one", {"data": {"n": str(number)}}, "default")
            await asyncio.sleep(0.2)
        assert len(world.select(SECRETS)) == 1
        gate.open.set()
        await until(lambda: len(mirror.seen) > 1)
    assert len(world.select(SECRETS)) == 1


async def test_what_went_before_it_was_seen_is_not_waited_for(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(remote, "LOOK_SECONDS", 0.05)
    source = RemoteSource(world.client)
    source.follow(SECRETS, Follower(lambda change: None, True, lambda: None))
    async with TaskSet("test") as tasks:
        await source.run(tasks)
        made = await world.client.create(SECRETS, {"metadata": {"name": "short"}}, "default")
        await world.client.delete(SECRETS, "short", "default")
        await until(lambda: source.get(SECRETS, "default", "short") is None)
        async with asyncio.timeout(5):
            assert await source.seen(SECRETS, made, 60)


async def test_an_informer_says_how_far_it_knows_everything(world: World) -> None:
    informer = Informer(world.client, SECRETS)
    assert informer.reached == 0
    made = await world.client.create(SECRETS, {"metadata": {"name": "one"}}, "default")
    async for _ in informer.events():
        break
    assert informer.reached >= int(made["metadata"]["resourceVersion"])


async def test_calls_that_hang_do_not_let_a_leader_outlast_its_lease(monkeypatch: pytest.MonkeyPatch) -> None:
    """Two calls, each as long as it may take, after attempts that failed: others have taken over by then."""
    for name, seconds in (("RENEW_SECONDS", 0.7), ("RETRY_SECONDS", 0.2), ("CALL_SECONDS", 0.3)):
        monkeypatch.setattr(leading, name, seconds)
    lost = 0.0
    loop = asyncio.get_running_loop()

    class Hanging:
        leads, since = False, 0.0

        async def get(self, *_: Any, **__: Any) -> Any:
            if not self.leads:
                return {"metadata": {"resourceVersion": "1"}, "spec": {}}
            if loop.time() - self.since < 0.5:
                raise UnavailableError("no network")
            await asyncio.sleep(0.3)
            return {"metadata": {"resourceVersion": "1"}, "spec": {"holderIdentity": "me"}}

        async def update(self, *_: Any, **__: Any) -> Any:
            if self.leads:
                await asyncio.sleep(0.3)
                raise UnavailableError("no network")
            self.leads, self.since = True, loop.time()

    client = Hanging()

    async def work() -> None:
        nonlocal lost
        try:
            await loop.create_future()
        finally:
            lost = loop.time()

    async with TaskSet("test") as tasks:
        tasks.start(Leader(client, "the-lease", "me").lead(work), name="leader")  # type: ignore[arg-type]
        await until(lambda: lost, 5)
    assert lost - client.since < 0.9
