"""ConfigMaps, Secrets and events at a real API server: what `objects` and `events` need of a `KubeClient`."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from contextlib import aclosing
from typing import Any

from cuboid.kube.client import CONFIG_MAPS, EVENTS, MERGE, SECRETS, KubeClient, Resource
from cuboid.kube.informer import Informer
from cuboid.kube.types import ConfigMap, Secret, config_map, secret
from cuboid.lib.aio import TaskSet
from cuboid.lib.errors import CuboidError, NotFoundError
from cuboid.lib.log import get_log
from cuboid.node.objects import Kind, ObjectKey

log = get_log(__name__)
RETRY_SECONDS = 10.0
_RESOURCES: dict[Kind, Resource] = {"ConfigMap": CONFIG_MAPS, "Secret": SECRETS}
Raw = dict[str, Any]


class WatchedObjects:
    """An `ObjectReader`. Objects named to `watch` are kept up to date and `changed` is called for each change of one;
    others are fetched when asked for. One watch per object, as kubelets do: a node needs to see no others."""

    def __init__(self, client: KubeClient, *, changed: Callable[[ObjectKey], None] | None = None) -> None:
        self._client = client
        self.changed = changed
        self._informers: dict[ObjectKey, Informer] = {}
        self._tasks: dict[ObjectKey, asyncio.Task[None]] = {}
        self._set = TaskSet("objects")

    async def __aenter__(self) -> WatchedObjects:
        return self

    async def __aexit__(self, *_: object) -> None:
        await self._set.cancel()

    async def config_map(self, namespace: str, name: str) -> ConfigMap | None:
        raw = await self._read(ObjectKey("ConfigMap", namespace, name))
        return None if raw is None else config_map(raw)

    async def secret(self, namespace: str, name: str) -> Secret | None:
        raw = await self._read(ObjectKey("Secret", namespace, name))
        return None if raw is None else secret(raw)

    async def _read(self, key: ObjectKey) -> Raw | None:
        informer = self._informers.get(key)
        if informer is not None and informer.synced.is_set():
            return informer.objects.get((key.namespace, key.name))
        try:
            return await self._client.get(_RESOURCES[key.kind], key.name, key.namespace)
        except NotFoundError:
            return None

    def watch(self, keys: set[ObjectKey]) -> None:
        """Watch these from now on and no others."""
        for gone in self._tasks.keys() - keys:
            self._tasks.pop(gone).cancel()
            self._informers.pop(gone, None)
        for key in keys - self._tasks.keys():
            self._tasks[key] = self._set.start(self._follow(key), name=f"{key.kind}/{key.namespace}/{key.name}")

    async def _follow(self, key: ObjectKey) -> None:
        while True:
            informer = Informer(self._client, _RESOURCES[key.kind], key.namespace, fields=f"metadata.name={key.name}")
            self._informers[key] = informer
            try:
                async with aclosing(informer.events()) as events:
                    async for _ in events:
                        if self.changed:
                            self.changed(key)
            except CuboidError as error:  # not allowed to see it, say; that may change
                log.warning("an object of a volume cannot be watched", object="/".join(key), error=str(error))
                self._informers.pop(key, None)
            await asyncio.sleep(RETRY_SECONDS)


class KubeEvents:
    """An `EventSink`."""

    def __init__(self, client: KubeClient) -> None:
        self._client = client

    async def create_event(self, namespace: str, event: Raw) -> None:
        await self._client.create(EVENTS, event, namespace)

    async def patch_event(self, namespace: str, name: str, changes: Raw) -> None:
        await self._client.patch(EVENTS, name, changes, namespace, form=MERGE)
