"""Names that the server makes up."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Iterator
from pathlib import Path

import pytest

from cuboid.kube import births, namespaces
from cuboid.kube.cache import Cache
from cuboid.kube.client import CONFIG_MAPS, JOBS
from cuboid.kube.kinds import Kinds
from cuboid.kube.local import LocalClient
from cuboid.kube.registry import Registry
from cuboid.kube.store import Store
from cuboid.lib.errors import AlreadyExistsError
from tests.harness.kube_server import pod

NS = "default"


@pytest.fixture
async def client(tmp_path: Path) -> AsyncIterator[LocalClient]:
    store = Store(tmp_path / "store.db")
    served = Kinds()
    cache = Cache(store, {kind.stored_as: kind.strategy.selectable for kind in served.stored()})
    registry = Registry(store, cache, served)
    await namespaces.ensure_permanent(registry)
    yield LocalClient(registry)
    store.close()


def lucky(monkeypatch: pytest.MonkeyPatch, *endings: str) -> None:
    """Random letters that are known."""
    left: Iterator[str] = iter(endings)
    monkeypatch.setattr(births, "generated", lambda prefix: prefix + next(left))


async def test_a_name_that_is_taken_is_made_up_again_before_anything_derives_from_it(
    client: LocalClient, monkeypatch: pytest.MonkeyPatch
) -> None:
    lucky(monkeypatch, "a", "a", "b")
    spec = {"template": {"spec": {**pod()["spec"], "restartPolicy": "Never"}}}
    body = {"metadata": {"generateName": "job-"}, "spec": spec}
    names = []
    for _ in range(2):
        made = await client.create(JOBS, body, NS)
        names.append(made["metadata"]["name"])
        assert made["spec"]["template"]["metadata"]["labels"]["job-name"] == made["metadata"]["name"]
    assert names == ["job-a", "job-b"]


async def test_two_that_come_at_once_get_names_of_their_own(
    client: LocalClient, monkeypatch: pytest.MonkeyPatch
) -> None:
    lucky(monkeypatch, "a", "a", "b")
    body = {"metadata": {"generateName": "x-"}}
    made = await asyncio.gather(*(client.create(CONFIG_MAPS, body, NS) for _ in range(2)))
    assert [item["metadata"]["name"] for item in made] == ["x-a", "x-b"]


async def test_when_all_are_taken_it_is_said_so(client: LocalClient, monkeypatch: pytest.MonkeyPatch) -> None:
    lucky(monkeypatch, *"a" * 30)
    await client.create(CONFIG_MAPS, {"metadata": {"generateName": "x-"}}, NS)
    with pytest.raises(AlreadyExistsError, match="the server was not able to generate a unique name for the object"):
        await client.create(CONFIG_MAPS, {"metadata": {"generateName": "x-"}}, NS)


def test_generated_names_fit_into_a_label() -> None:
    assert len(births.generated("p" * 100)) == 63
    assert len({births.new_uid() for _ in range(1000)}) == 1000
