"""One of several leads; it is followed by another when it ends, and when it falls silent."""

from __future__ import annotations

import asyncio
import functools
from collections.abc import AsyncIterator
from typing import Any

import pytest

from cuboid.kube.client import LEASES
from cuboid.kube.controller import leader as module
from cuboid.kube.controller.leader import LEASE_SECONDS, NAMESPACE, RENEW_SECONDS, RETRY_SECONDS, Leader
from cuboid.lib.aio import TaskSet
from cuboid.lib.clock import ManualClock
from cuboid.lib.errors import UnavailableError
from tests.harness.control import World


@pytest.fixture
async def world() -> AsyncIterator[World]:
    async with World() as made:
        yield made


@pytest.fixture(autouse=True)
def _quick(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "RETRY_SECONDS", 0.01)


class Candidate:
    def __init__(self, world: World, name: str) -> None:
        self.clock = ManualClock(0)
        self.away = False
        self.leader = Leader(Away(self, world.client), "the-lease", name, elapsed=self.clock.monotonic)
        self.leads = False

    async def work(self) -> None:
        self.leads = True
        try:
            await asyncio.get_running_loop().create_future()
        finally:
            self.leads = False


class Away:
    """A client whose network may fail."""

    def __init__(self, candidate: Candidate, client: Any) -> None:
        self._candidate = candidate
        self._client = client

    def __getattr__(self, name: str) -> Any:
        if self._candidate.away:
            raise UnavailableError("no network")
        return getattr(self._client, name)


async def until(found: Any, seconds: float = 10.0) -> None:
    async with asyncio.timeout(seconds):
        while not found():
            await asyncio.sleep(0.005)


def holder(world: World) -> str:
    return str(world.get(LEASES, "the-lease", NAMESPACE)["spec"]["holderIdentity"])


def version(world: World) -> str:
    return str(world.get(LEASES, "the-lease", NAMESPACE)["metadata"]["resourceVersion"])


def _other(world: World, known: str) -> bool:
    return version(world) != known


async def test_only_one_leads_and_the_next_one_follows_at_once_when_it_ends(world: World) -> None:
    first, second = Candidate(world, "first"), Candidate(world, "second")
    async with TaskSet("test") as tasks:
        leading = tasks.start(first.leader.lead(first.work), name="first")
        await until(lambda: first.leads)
        tasks.start(second.leader.lead(second.work), name="second")
        await asyncio.sleep(0.1)
        assert not second.leads
        leading.cancel()
        await until(lambda: second.leads)
        assert not first.leads
        assert holder(world) == "second"
        assert world.get(LEASES, "the-lease", NAMESPACE)["spec"]["leaseTransitions"] == 1


async def test_one_that_falls_silent_stops_and_is_followed(world: World) -> None:
    first, second = Candidate(world, "first"), Candidate(world, "second")
    async with TaskSet("test") as tasks:
        tasks.start(first.leader.lead(first.work), name="first")
        await until(lambda: first.leads)
        tasks.start(second.leader.lead(second.work), name="second")
        first.away = True
        await asyncio.sleep(0.1)
        first.clock.advance(RENEW_SECONDS + 0.1)
        await until(lambda: not first.leads)
        assert not second.leads
        second.clock.advance(LEASE_SECONDS + 0.1)
        await until(lambda: second.leads)
        first.away = False
        await asyncio.sleep(0.1)
        assert not first.leads
        assert holder(world) == "second"


async def test_a_holder_that_renews_is_not_followed_whatever_the_clocks_say(world: World) -> None:
    first, second = Candidate(world, "first"), Candidate(world, "second")
    async with TaskSet("test") as tasks:
        tasks.start(first.leader.lead(first.work), name="first")
        await until(lambda: first.leads)
        tasks.start(second.leader.lead(second.work), name="second")
        for _ in range(10):
            world.clock.advance(1)
            before = version(world)
            await until(functools.partial(_other, world, before))
            await asyncio.sleep(0.1)
            second.clock.advance(LEASE_SECONDS * 0.6)
        assert first.leads
        assert not second.leads


async def test_work_that_ends_ends_it(world: World) -> None:
    async def work() -> None:
        return None

    await Leader(world.client, "the-lease", "only").lead(work)
    assert holder(world) == ""


def test_a_silent_holder_is_followed_within_fifteen_seconds() -> None:
    assert LEASE_SECONDS + 2 * 1.2 * RETRY_SECONDS <= 15
    assert RENEW_SECONDS + module.CALL_SECONDS <= LEASE_SECONDS
