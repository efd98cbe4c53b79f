"""The client of `cuboid.kube.client` without HTTP: for what runs in the API server's process, on its event loop.

The same calls, the same errors, the same admission; only the wire is missing. Both pass the same contract tests.
"""

from __future__ import annotations

import random
from collections.abc import AsyncGenerator
from dataclasses import replace
from typing import Any

from cuboid.kube import selectors, status, subresource
from cuboid.kube.cache import Filter
from cuboid.kube.client import SECONDS, STRATEGIC, Client, KubeClient, Listed, Resource
from cuboid.kube.identity import SERVER, User
from cuboid.kube.kind import Kind
from cuboid.kube.registry import DeleteOptions, Registry, WriteOptions
from cuboid.lib.aio import deadline
from cuboid.lib.errors import DeadlineError, GoneError, NotFoundError

Object = dict[str, Any]
_WATCH_SECONDS = 300.0
_BOOKMARK_SECONDS = 60.0


class LocalClient:
    """`user` is who asks, `manager` the field manager of what it writes."""

    def __init__(self, registry: Registry, user: User = SERVER, manager: str = "cuboid") -> None:
        self._registry = registry
        self._user = user
        self._manager = manager

    def _kind(self, resource: Resource) -> Kind:
        kind = self._registry.kinds.find(resource.group, resource.version, resource.plural)
        if kind is None:
            raise NotFoundError("the server could not find the requested resource")
        return kind

    def _options(self) -> WriteOptions:
        return WriteOptions(user=self._user, manager=self._manager, validation="Ignore")

    async def get(
        self, resource: Resource, name: str, namespace: str = "", *, sub: str = "", seconds: float = SECONDS
    ) -> Object:
        kind = self._kind(resource)
        if sub:
            return await subresource.get(self._registry, kind, namespace, name, sub)
        return kind.from_storage(self._registry.entry(kind, namespace, name).object())

    async def list(
        self, resource: Resource, namespace: str = "", *, labels: str = "", fields: str = "", limit: int = 0,
        token: str = "", seconds: float = SECONDS,
    ) -> Listed:  # fmt: skip
        kind = self._kind(resource)
        page = self._registry.list(kind, self._filter(kind, namespace, labels, fields), limit, token)
        items = [kind.from_storage(entry.object()) for entry in page.entries]
        return Listed(items, str(page.revision), page.token)

    def _filter(self, kind: Kind, namespace: str, labels: str, fields: str) -> Filter:
        known = kind.strategy.selectable({"metadata": {}}) if fields else {}
        return Filter(namespace, selectors.parse_labels(labels), selectors.parse_fields(fields, known))

    async def create(
        self, resource: Resource, body: Object, namespace: str = "", *, name: str = "", sub: str = "",
        seconds: float = SECONDS,
    ) -> Object:  # fmt: skip
        kind = self._kind(resource)
        async with deadline(seconds, f"creating {kind.plural}"):
            if sub:
                return await subresource.create(self._registry, kind, namespace, name, sub, body, self._options())
            return (await self._registry.create(kind, namespace, body, self._options())).object

    async def update(self, resource: Resource, body: Object, *, sub: str = "", seconds: float = SECONDS) -> Object:
        kind, metadata = self._kind(resource), body["metadata"]
        place = (metadata.get("namespace", ""), metadata["name"])
        async with deadline(seconds, f"updating {kind.plural}"):
            if sub:
                return await subresource.update(self._registry, kind, *place, sub, body, self._options())
            return (await self._registry.update(kind, *place, body, self._options())).object

    async def patch(
        self, resource: Resource, name: str, body: Any, namespace: str = "", *, form: str = STRATEGIC, sub: str = "",
        force: bool = False, seconds: float = SECONDS,
    ) -> Object:  # fmt: skip
        kind = self._kind(resource)
        options = replace(self._options(), force=force)
        async with deadline(seconds, f"patching {kind.plural}"):
            if sub:
                return await subresource.patch(self._registry, kind, namespace, name, sub, body, form, options)
            return (await self._registry.patch(kind, namespace, name, body, form, options)).object

    async def delete(
        self, resource: Resource, name: str, namespace: str = "", *, grace: int | None = None, uid: str = "",
        propagation: str = "", seconds: float = SECONDS,
    ) -> Object:  # fmt: skip
        kind = self._kind(resource)
        options = DeleteOptions(grace=grace, uid=uid, propagation=propagation, user=self._user)
        async with deadline(seconds, f"deleting {kind.plural}"):
            return (await self._registry.delete(kind, namespace, name, options)).object

    async def watch(
        self, resource: Resource, namespace: str = "", *, since: str, labels: str = "", fields: str = ""
    ) -> AsyncGenerator[tuple[str, Object], None]:
        kind = self._kind(resource)
        cache, registry = self._registry.of(kind), self._registry
        number = registry.parse_version(since)
        if number > registry.cache.revision:
            raise status.expired(number, registry.cache.revision)
        watcher = cache.watch(self._filter(kind, namespace, labels, fields), number)
        left = _WATCH_SECONDS * random.uniform(1, 2)
        try:
            while left > 0:
                changes = await watcher.take(_BOOKMARK_SECONDS)
                for type_, change in changes:
                    yield type_, kind.from_storage(change.entry.object())
                if not changes:
                    left -= _BOOKMARK_SECONDS
                    yield "BOOKMARK", {"metadata": {"resourceVersion": str(registry.cache.revision)}}
        except DeadlineError as error:
            raise GoneError(str(error), reason="Expired") from error
        finally:
            cache.unwatch(watcher)


_SAME: type[Client] = KubeClient  # checked by mypy: both speak alike
_TOO: type[Client] = LocalClient
