"""What the platform lives in stays; a server comes up whatever became of its own objects."""

from __future__ import annotations

from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from cuboid.kube import kinds, namespaces, system_objects
from cuboid.kube.admission import Chain
from cuboid.kube.admit.namespaces import PermanentNamespaces
from cuboid.kube.admit.quota import ResourceQuota
from cuboid.kube.cache import Cache, Filter
from cuboid.kube.kinds import Kinds
from cuboid.kube.registry import DeleteOptions, Registry, WriteOptions
from cuboid.kube.store import Store
from cuboid.lib.errors import ForbiddenError

NAMESPACE = kinds.builtin("Namespace")
URL = "https://192.0.2.1:6443"


@pytest.fixture
async def registry(tmp_path: Path) -> AsyncIterator[Registry]:
    store = Store(tmp_path / "store.db")
    served = Kinds()
    cache = Cache(store, {kind.stored_as: kind.strategy.selectable for kind in served.stored()})
    yield Registry(store, cache, served)
    store.close()


@pytest.mark.parametrize("name", namespaces.PERMANENT)
async def test_namespaces_of_the_platform_are_not_deleted(registry: Registry, name: str) -> None:
    await namespaces.ensure_permanent(registry)
    registry.admission = Chain(PermanentNamespaces())
    with pytest.raises(ForbiddenError) as error:
        await registry.delete(NAMESPACE, "", name, DeleteOptions())
    assert error.value.message == f'namespaces "{name}" is forbidden: this namespace may not be deleted'
    assert registry.of(NAMESPACE).get("", name)


async def test_all_namespaces_at_once_do_not_take_those_of_the_platform(registry: Registry) -> None:
    await namespaces.ensure_permanent(registry)
    registry.admission = Chain(PermanentNamespaces())
    await registry.create(NAMESPACE, "", {"metadata": {"name": "mine"}}, WriteOptions())
    with pytest.raises(ForbiddenError):
        await registry.delete_collection(NAMESPACE, Filter(), DeleteOptions())
    left = {entry.key.name for entry in registry.of(NAMESPACE) if entry.fields["status.phase"] == "Active"}
    assert left == set(namespaces.PERMANENT)


async def test_a_server_starts_on_a_store_in_which_one_of_them_ends(registry: Registry) -> None:
    """An older server let it be deleted, and something in it does not go."""
    await namespaces.ensure_permanent(registry)
    await registry.delete(NAMESPACE, "", "kube-public", DeleteOptions())
    account = kinds.builtin("ServiceAccount")
    await registry.delete(account, "kube-public", "default", DeleteOptions())
    await namespaces.ensure_permanent(registry)
    await system_objects.ensure(registry, URL, dns=True)
    assert registry.of(kinds.builtin("Service")).get("default", "kubernetes")


async def test_a_server_starts_though_a_quota_refuses_its_own_service(registry: Registry) -> None:
    await namespaces.ensure_permanent(registry)
    quota = {"metadata": {"name": "none"}, "spec": {"hard": {"services": "0"}}}
    await registry.create(kinds.builtin("ResourceQuota"), "default", quota, WriteOptions())
    registry.admission = Chain(ResourceQuota(registry))
    await system_objects.ensure(registry, URL, dns=True)
    assert registry.of(kinds.builtin("Service")).get("default", "kubernetes") is None
    assert registry.of(kinds.builtin("Service")).get("kube-system", "kube-dns")
    assert registry.of(kinds.builtin("Endpoints")).get("default", "kubernetes")
