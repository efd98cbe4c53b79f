"""Names' objects from the server's watch cache, and which namespaces an address may know of."""

from __future__ import annotations

import asyncio
from collections.abc import Collection, Mapping
from typing import Any

from cuboid.kube import kinds
from cuboid.kube.cache import Entry, Filter, ResourceCache
from cuboid.kube.names import TENANT
from cuboid.kube.registry import Registry
from cuboid.kube.selectors import Requirement
from cuboid.lib.errors import CuboidError

Raw = Mapping[str, Any]
SERVICE_NAME = "kubernetes.io/service-name"
_SERVICES, _SLICES = kinds.builtin("Service"), kinds.builtin("EndpointSlice", "discovery.k8s.io")
_PODS, _NAMESPACES = kinds.builtin("Pod"), kinds.builtin("Namespace")
_WATCH_SECONDS = 3600.0


class CacheDirectory:
    """`run` keeps the tables that are looked up by address: of services and of pods."""

    def __init__(self, registry: Registry) -> None:
        self._registry = registry
        self._services: dict[str, set[tuple[str, str]]] = {}
        self._pods: dict[str, set[tuple[str, str]]] = {}
        self._news = asyncio.Event()

    # --- for the zone ------------------------------------------------------------------------------------------------

    def service(self, namespace: str, name: str) -> Raw | None:
        entry = self._registry.of(_SERVICES).get(namespace, name)
        return None if entry is None else entry.object()

    def slices(self, namespace: str, service: str) -> list[Raw]:
        wanted = _labelled(SERVICE_NAME, service, namespace)
        return [entry.object() for entry in self._registry.of(_SLICES).select(wanted)]

    def by_address(self, address: str) -> list[Raw]:
        found = (self.service(*place) for place in sorted(self._services.get(address, ())))
        return [item for item in found if item is not None]

    def pod_exists(self, namespace: str, address: str) -> bool:
        return any(place[0] == namespace for place in self._pods.get(address, ()))

    # --- who may know what -------------------------------------------------------------------------------------------

    def knows(self, address: str) -> bool:
        """Whether a pod has this address."""
        return address in self._pods

    async def wait_for(self, address: str, seconds: float) -> bool:
        """A pod that has just started may ask before the API has learned its address."""
        try:
            async with asyncio.timeout(seconds):
                while address not in self._pods:
                    self._news.clear()
                    await self._news.wait()
        except TimeoutError:
            return False
        return True

    def visible(self, address: str) -> Collection[str] | None:
        """The namespaces of the tenant whose pod has this address; None, all, for pods of no tenant."""
        found: set[str] = set()
        for namespace, _ in self._pods.get(address, ()):
            tenant = self._tenant(namespace)
            if not tenant:
                return None
            found |= {entry.key.name for entry in self._registry.of(_NAMESPACES).select(_labelled(TENANT, tenant))}
        return found

    def tenant(self, address: str) -> str:
        """Whose pod has this address, "" for nobody's."""
        return next((name for namespace, _ in self._pods.get(address, ()) if (name := self._tenant(namespace))), "")

    def _tenant(self, namespace: str) -> str:
        entry = self._registry.of(_NAMESPACES).get("", namespace)
        return "" if entry is None else entry.labels.get(TENANT, "")

    # --- following ---------------------------------------------------------------------------------------------------

    async def run(self) -> None:
        """Until cancelled."""
        async with asyncio.TaskGroup() as group:
            group.create_task(self._follow(self._registry.of(_SERVICES), self._services, _service_addresses))
            group.create_task(self._follow(self._registry.of(_PODS), self._pods, _pod_addresses))

    async def _follow(self, cache: ResourceCache, table: dict[str, set[tuple[str, str]]], addresses: Any) -> None:
        while True:
            watcher = cache.watch(Filter(), self._registry.cache.revision)
            table.clear()
            for entry in cache.select(Filter()):
                _put(table, entry, addresses(entry))
            self._news.set()
            try:
                while True:
                    for _, change in await watcher.take(_WATCH_SECONDS):
                        if change.previous is not None:
                            _drop(table, change.previous, addresses(change.previous))
                        if change.type != "DELETED":
                            _put(table, change.entry, addresses(change.entry))
                            self._news.set()
            except CuboidError:
                continue  # fell behind: everything is looked at again
            finally:
                cache.unwatch(watcher)


def _labelled(key: str, value: str, namespace: str = "") -> Filter:
    return Filter(namespace, (Requirement(key, "=", frozenset((value,))),))


def _service_addresses(entry: Entry) -> list[str]:
    spec = entry.object().get("spec", {})
    return [ip for ip in spec.get("clusterIPs") or [spec.get("clusterIP", "")] if ip and ip != "None"]


def _pod_addresses(entry: Entry) -> list[str]:
    if entry.fields.get("status.phase") in ("Succeeded", "Failed"):
        return []
    address = entry.fields.get("status.podIP", "")
    return [address] if address else []


def _put(table: dict[str, set[tuple[str, str]]], entry: Entry, addresses: list[str]) -> None:
    for address in addresses:
        table.setdefault(address, set()).add((entry.key.namespace, entry.key.name))


def _drop(table: dict[str, set[tuple[str, str]]], entry: Entry, addresses: list[str]) -> None:
    for address in addresses:
        places = table.get(address, set())
        places.discard((entry.key.namespace, entry.key.name))
        if not places:
            table.pop(address, None)
