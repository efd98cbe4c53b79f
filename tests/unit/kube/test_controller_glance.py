"""What is only looked at is decoded once, and never out of date."""

from __future__ import annotations

from pathlib import Path

from cuboid.kube import kinds, namespaces
from cuboid.kube.cache import Cache
from cuboid.kube.client import CONFIG_MAPS, MERGE
from cuboid.kube.controller import sources
from cuboid.kube.controller.sources import LocalSource
from cuboid.kube.local import LocalClient
from cuboid.kube.registry import Registry
from cuboid.kube.store import Store


async def test_a_look_shows_what_is_there_now_and_shares_it(tmp_path: Path) -> None:
    store = Store(tmp_path / "store.db")
    try:
        rows = kinds.Kinds()
        cache = Cache(store, {kind.stored_as: kind.strategy.selectable for kind in rows.stored()})
        registry = Registry(store, cache, rows)
        await namespaces.ensure_permanent(registry)
        client, source = LocalClient(registry), LocalSource(registry)
        for name in ("a", "b"):
            await client.create(CONFIG_MAPS, {"metadata": {"name": name}, "data": {"k": "1"}}, "default")
        first = source.glance(CONFIG_MAPS, "default")
        assert [one is other for one, other in zip(first, source.glance(CONFIG_MAPS, "default"), strict=True)] == [
            True
        ] * 2
        await client.patch(CONFIG_MAPS, "a", {"data": {"k": "2"}}, "default", form=MERGE)
        await client.delete(CONFIG_MAPS, "b", "default")
        assert [one["data"] for one in source.glance(CONFIG_MAPS, "default")] == [{"k": "2"}]
        assert source.glance(CONFIG_MAPS, "kube-system") == []
        assert len(source._glanced) <= sources.GLANCED
    finally:
        store.close()
