"""Definitions put into effect in one process: at once, one at a time for a name, and from what a killed server left."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from pathlib import Path
from typing import Any

import pytest

from cuboid.kube import namespaces
from cuboid.kube.cache import Cache
from cuboid.kube.client import DEFINITIONS, Resource
from cuboid.kube.crd import serving
from cuboid.kube.crd.serving import Definitions, restore
from cuboid.kube.kinds import Kinds
from cuboid.kube.local import LocalClient
from cuboid.kube.registry import Registry
from cuboid.kube.store import Store
from cuboid.lib.errors import CuboidError, ExhaustedError, GoneError, NotFoundError

FOOS = Resource("example.com", "v1", "foos")


def definition(plural: str = "foos", kind: str = "Foo", **properties: Any) -> dict[str, Any]:
    schema = {"type": "object", "properties": {"spec": {"type": "object", "properties": properties}}}
    version = {"name": "v1", "served": True, "storage": True, "schema": {"openAPIV3Schema": schema}}
    names = {"plural": plural, "singular": plural[:-1], "kind": kind}
    spec = {"group": "example.com", "scope": "Namespaced", "names": names, "versions": [version]}
    return {"metadata": {"name": f"{plural}.example.com"}, "spec": spec}


def item(name: str = "a", kind: str = "Foo", **spec: Any) -> dict[str, Any]:
    return {"apiVersion": "example.com/v1", "kind": kind, "metadata": {"name": name}, "spec": spec}


@asynccontextmanager
async def server(path: Path, *, settled: bool = True) -> AsyncIterator[LocalClient]:
    """A client of a registry over a store; not `settled`: statuses of definitions are never written."""
    store = Store(path / "store.db")
    try:
        kinds = Kinds()
        restore(store, kinds)
        registry = Registry(store, Cache(store, {k.stored_as: k.strategy.selectable for k in kinds.stored()}), kinds)
        await namespaces.ensure_permanent(registry)
        definitions = Definitions(registry)
        async with asyncio.timeout(20), asyncio.TaskGroup() as tasks:
            keeping = tasks.create_task(definitions.keep()) if settled else None
            try:
                yield LocalClient(registry)
            finally:
                if keeping is not None:
                    keeping.cancel()
    finally:
        store.close()


async def until_established(client: LocalClient, name: str) -> bool:
    while True:
        conditions = (await client.get(DEFINITIONS, name))["status"]["conditions"]
        if conditions:
            return any(one["type"] == "Established" and one["status"] == "True" for one in conditions)
        await asyncio.sleep(0.01)


async def test_a_kind_is_served_in_the_turn_in_which_its_definition_is_acknowledged(tmp_path: Path) -> None:
    async with server(tmp_path) as client:
        with pytest.raises(NotFoundError):
            await client.create(FOOS, item(), "default")
        await client.create(DEFINITIONS, definition(a={"type": "integer", "default": 5}))
        assert (await client.create(FOOS, item(), "default"))["spec"] == {"a": 5}
        assert await until_established(client, "foos.example.com")


async def test_of_definitions_that_want_one_name_at_once_one_gets_it(tmp_path: Path) -> None:
    async with server(tmp_path) as client:
        wanted = [definition(f"x{index}s", "Same") for index in range(8)]
        await asyncio.gather(*(client.create(DEFINITIONS, one) for one in wanted))
        found = [await until_established(client, one["metadata"]["name"]) for one in wanted]
        assert sum(found) == 1


async def test_objects_of_a_definition_whose_status_was_never_written_are_there_after_a_restart(tmp_path: Path) -> None:
    async with server(tmp_path, settled=False) as client:
        await client.create(DEFINITIONS, definition())
        await client.create(FOOS, item(), "default")
    async with server(tmp_path) as client:
        assert [one["metadata"]["name"] for one in (await client.list(FOOS)).items] == ["a"]
        assert await until_established(client, "foos.example.com")


async def test_a_deletion_that_a_restart_interrupted_goes_on(tmp_path: Path) -> None:
    async with server(tmp_path, settled=False) as client:
        await client.create(DEFINITIONS, definition())
        await client.create(FOOS, item(), "default")
        await client.delete(DEFINITIONS, "foos.example.com")
        assert (await client.get(FOOS, "a", "default"))["metadata"]["name"] == "a"
        with pytest.raises(CuboidError, match="is terminating"):
            await client.create(FOOS, item("b"), "default")
    async with server(tmp_path) as client:
        with suppress(NotFoundError):
            while True:
                await client.get(DEFINITIONS, "foos.example.com")
                await asyncio.sleep(0.01)
        with pytest.raises(NotFoundError):
            await client.list(FOOS)


async def test_what_a_full_disk_kept_from_being_written_is_written_later(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(serving, "RECHECK", 0.01)
    async with server(tmp_path) as client:
        refused: list[Any] = []

        async def full(self: Registry, *arguments: Any, **options: Any) -> Any:
            if len(refused) < 3:
                refused.append(arguments)
                raise ExhaustedError("the disk of the API's store is full")
            return await replace(self, *arguments, **options)

        replace = Registry.replace
        monkeypatch.setattr(Registry, "replace", full)
        await client.create(DEFINITIONS, definition())
        assert await until_established(client, "foos.example.com") and len(refused) == 3
        refused.clear()
        await client.delete(DEFINITIONS, "foos.example.com")
        with suppress(NotFoundError):
            while True:
                await client.get(DEFINITIONS, "foos.example.com")
                await asyncio.sleep(0.01)


async def test_a_watch_ends_with_its_kind(tmp_path: Path) -> None:
    async with server(tmp_path) as client:
        await client.create(DEFINITIONS, definition())
        await client.create(FOOS, item(), "default")
        seen = []

        async def follow() -> None:
            since = (await client.list(FOOS)).resource_version
            with pytest.raises(GoneError):
                async for kind, _ in client.watch(FOOS, since=since):
                    seen.append(kind)

        async with asyncio.TaskGroup() as tasks:
            tasks.create_task(follow())
            await asyncio.sleep(0.05)
            await client.delete(DEFINITIONS, "foos.example.com")
        assert [kind for kind in seen if kind != "BOOKMARK"] == ["DELETED"]


async def test_a_built_in_kind_keeps_its_name(tmp_path: Path) -> None:
    async with server(tmp_path) as client:
        group = {"group": "cuboid.dev"}
        body = definition("tenants", "Tenant")
        body["metadata"]["name"] = "tenants.cuboid.dev"
        body["spec"] |= group
        await client.create(DEFINITIONS, body)
        assert not await until_established(client, "tenants.cuboid.dev")


async def test_the_storage_version_moves_and_what_is_stored_is_shown_in_the_new_one(tmp_path: Path) -> None:
    async with server(tmp_path) as client:
        await client.create(DEFINITIONS, definition())
        await client.create(FOOS, item(), "default")
        await until_established(client, "foos.example.com")
        current = await client.get(DEFINITIONS, "foos.example.com")
        first = current["spec"]["versions"][0]
        current["spec"]["versions"] = [{**first, "storage": False}, {**first, "name": "v2"}]
        changed = await client.update(DEFINITIONS, current)
        assert changed["status"]["storedVersions"] == ["v1", "v2"]
        newer = Resource("example.com", "v2", "foos")
        for resource in (FOOS, newer):
            assert (await client.get(resource, "a", "default"))["apiVersion"] == f"example.com/{resource.version}"
        await client.create(newer, {**item("b"), "apiVersion": "example.com/v2"}, "default")
        assert {one["apiVersion"] for one in (await client.list(FOOS)).items} == {"example.com/v1"}
        current = await client.get(DEFINITIONS, "foos.example.com")
        current["spec"]["versions"] = current["spec"]["versions"][1:]
        with pytest.raises(CuboidError, match="v1 was previously a storage version"):
            await client.update(DEFINITIONS, current)
