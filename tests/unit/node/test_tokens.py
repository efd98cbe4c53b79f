"""Tokens of pods: asked for once, renewed in time, kept while the API is away."""

from __future__ import annotations

from typing import Any, cast

import pytest

from cuboid.kube.client import SERVICE_ACCOUNTS, Client, Resource
from cuboid.kube.types import Pod, ServiceAccountTokenProjection, pod
from cuboid.lib.clock import ManualClock, rfc3339
from cuboid.lib.errors import CuboidError, UnavailableError
from cuboid.node.tokens import AccountTokens

Raw = dict[str, Any]
WANTED = ServiceAccountTokenProjection("token", expiration_seconds=3600)


class FakeClient:
    def __init__(self, clock: ManualClock) -> None:
        self.clock = clock
        self.asked: list[Raw] = []
        self.failure: CuboidError | None = None
        self.answer: Raw | None = None

    async def create(
        self, resource: Resource, body: Raw, namespace: str = "", *, name: str = "", sub: str = "", seconds: float = 0
    ) -> Raw:
        assert (resource, sub) == (SERVICE_ACCOUNTS, "token")
        if self.failure:
            raise self.failure
        self.asked.append({**body["spec"], "account": f"{namespace}/{name}"})
        ends = rfc3339(self.clock.now() + body["spec"]["expirationSeconds"])
        given = {"token": f"t{len(self.asked)}", "expirationTimestamp": ends}
        return {"status": given} if self.answer is None else self.answer


class World:
    def __init__(self) -> None:
        self.clock = ManualClock()
        self.client = FakeClient(self.clock)
        self.tokens = AccountTokens(cast(Client, self.client), self.clock)

    async def get(self, name: str = "web", **wanted: Any) -> str:
        asked = ServiceAccountTokenProjection("token", **wanted) if wanted else WANTED
        return await self.tokens.token(make(name), asked)


def make(name: str = "web") -> Pod:
    spec = {"serviceAccountName": "builder", "containers": [{"name": "main"}]}
    return pod({"metadata": {"name": name, "namespace": "shop", "uid": f"uid-{name}"}, "spec": spec})


async def test_a_token_is_asked_for_once_and_bound_to_its_pod() -> None:
    world = World()
    assert [await world.get(), await world.get()] == ["t1", "t1"]
    bound = {"apiVersion": "v1", "kind": "Pod", "name": "web", "uid": "uid-web"}
    assert world.client.asked == [
        {"audiences": [], "expirationSeconds": 3600, "boundObjectRef": bound, "account": "shop/builder"}
    ]


async def test_each_pod_audience_and_life_has_a_token_of_its_own() -> None:
    world = World()
    found = [await world.get(), await world.get("other"), await world.get(audience="vault")]
    assert found == ["t1", "t2", "t3"]
    assert world.client.asked[2]["audiences"] == ["vault"]


@pytest.mark.parametrize(("life", "good_for"), [(3600, 2880), (1_000_000, 86_400)])
async def test_it_is_renewed_after_four_fifths_of_its_life_or_a_day(life: int, good_for: int) -> None:
    world = World()
    wanted = ServiceAccountTokenProjection("token", expiration_seconds=life)
    assert world.tokens.due(make(), wanted)
    await world.tokens.token(make(), wanted)
    world.clock.advance(good_for - 1)
    assert not world.tokens.due(make(), wanted)
    assert await world.tokens.token(make(), wanted) == "t1"
    world.clock.advance(1)
    assert world.tokens.due(make(), wanted)
    assert await world.tokens.token(make(), wanted) == "t2"


async def test_while_the_api_is_away_the_old_one_serves_until_it_ends() -> None:
    world = World()
    await world.get()
    world.client.failure = UnavailableError("no API")
    world.clock.advance(3000)
    assert await world.get() == "t1"
    assert not world.tokens.due(make(), WANTED), "the API is not asked with every look"
    world.clock.advance(30)
    assert world.tokens.due(make(), WANTED)
    world.clock.advance(600)
    with pytest.raises(UnavailableError):
        await world.get()
    world.client.failure = None
    assert await world.get() == "t2"


async def test_tokens_that_have_ended_are_not_kept() -> None:
    world = World()
    for number in range(3):
        await world.get(f"pod-{number}")
    world.clock.advance(4000)
    await world.get()
    assert len(world.tokens._held) == 1


@pytest.mark.parametrize("answer", [{}, {"status": None}, {"status": {"token": "t", "expirationTimestamp": "soon"}}])
async def test_an_answer_without_a_token_is_an_error(answer: Raw) -> None:
    world = World()
    world.client.answer = answer
    with pytest.raises(UnavailableError, match="no token in it"):
        await world.get()
