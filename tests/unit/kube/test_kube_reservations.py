"""What admission reserves for a write that its caller gave up stays reserved until the write has ended."""

from __future__ import annotations

import asyncio
from pathlib import Path

import pytest

from cuboid.kube import kinds, namespaces
from cuboid.kube.admission import Chain, Release, Request
from cuboid.kube.cache import Cache
from cuboid.kube.kind import Kind
from cuboid.kube.registry import Registry, WriteOptions
from cuboid.kube.store import Store

CONFIG_MAP = kinds.builtin("ConfigMap")


class One:
    """A quota of one config map that counts what is there and what is under way."""

    def __init__(self) -> None:
        self.reserved = 0

    def handles(self, kind: Kind, operation: str, sub: str) -> bool:
        return kind.kind == "ConfigMap"

    def admit(self, request: Request) -> None: ...

    def reserve(self, request: Request) -> Release | None:
        self.reserved += 1

        def release() -> None:
            self.reserved -= 1

        return release


async def test_a_write_that_is_given_up_keeps_its_place_until_it_has_ended(tmp_path: Path) -> None:
    store = Store(tmp_path / "store.db")
    try:
        rows = kinds.Kinds()
        cache = Cache(store, {kind.stored_as: kind.strategy.selectable for kind in rows.stored()})
        quota = One()
        registry = Registry(store, cache, rows, Chain(quota))
        await namespaces.ensure_permanent(registry)
        body = {"metadata": {"name": "m"}}
        writing = asyncio.create_task(registry.create(CONFIG_MAP, "default", body, WriteOptions()))
        await asyncio.sleep(0)
        assert quota.reserved == 1
        writing.cancel()
        with pytest.raises(asyncio.CancelledError):
            await writing
        assert quota.reserved == 1
        async with asyncio.timeout(10):
            while quota.reserved:
                await asyncio.sleep(0.01)
    finally:
        store.close()
