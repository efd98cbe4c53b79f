"""The life of namespaces: those that always exist, the account in each, and the end of one with all that is in it."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from typing import Any

from cuboid.kube import kinds
from cuboid.kube.cache import Filter
from cuboid.kube.kinds import Kind
from cuboid.kube.registry import DeleteOptions, Registry, WriteOptions
from cuboid.lib.aio import TaskSet
from cuboid.lib.errors import AlreadyExistsError, CuboidError, DeadlineError, GoneError, NotFoundError
from cuboid.lib.log import get_log

log = get_log(__name__)

PERMANENT = ("default", "kube-system", "kube-node-lease", "kube-public")
RECHECK = 2.0
"""Seconds after which a namespace that is being emptied is looked at again."""
_NAMESPACE = kinds.builtin("Namespace")
_ACCOUNT = kinds.builtin("ServiceAccount")


async def ensure_permanent(registry: Registry) -> None:
    """Create what a fresh store lacks. Idempotent."""
    for name in PERMANENT:
        await _create(registry, _NAMESPACE, "", name)
        await _create(registry, _ACCOUNT, name, "default")


async def _create(registry: Registry, kind: Kind, namespace: str, name: str) -> None:
    if registry.of(kind).get(namespace, name) is not None:
        return
    try:
        await registry.create(kind, namespace, {"metadata": {"name": name}}, WriteOptions())
    except AlreadyExistsError:
        return


async def set_finalizers(registry: Registry, name: str, finalizers: Sequence[str]) -> dict[str, Any]:
    """Replace `spec.finalizers`; taking the last one from a namespace that is being deleted removes it."""
    entry = registry.entry(_NAMESPACE, "", name)
    new = entry.object()
    new["spec"] = {"finalizers": [str(item) for item in finalizers]} if finalizers else {}
    return (await registry.replace(_NAMESPACE, entry, new)).object


async def keep(registry: Registry) -> None:
    """Runs for as long as the server does."""
    async with TaskSet("namespaces") as tasks:
        while True:
            try:
                await _follow(registry, tasks)
            except (DeadlineError, GoneError):
                log.info("fell behind the namespaces, looking at all of them again")


async def _follow(registry: Registry, tasks: TaskSet) -> None:
    cache = registry.of(_NAMESPACE)
    ending: set[str] = set()
    watcher = cache.watch(Filter(), registry.cache.revision)
    try:
        while True:
            for entry in list(cache):
                name = entry.key.name
                if entry.fields["status.phase"] != "Terminating":
                    await _account(registry, name)
                elif name not in ending:
                    ending.add(name)
                    tasks.start(_end(registry, name, ending), name=name)
            await watcher.take(60.0)
    finally:
        cache.unwatch(watcher)


async def _account(registry: Registry, name: str) -> None:
    try:
        await _create(registry, _ACCOUNT, name, "default")
    except CuboidError as error:
        log.info("no service account made", namespace=name, error=str(error))


async def _end(registry: Registry, name: str, ending: set[str]) -> None:
    """Delete the contents, wait until the last pod has ended, then let the namespace go."""
    try:
        while True:
            if await _emptied(registry, name):
                break
            await asyncio.sleep(RECHECK)
        await set_finalizers(registry, name, [])
    except NotFoundError:
        return
    finally:
        ending.discard(name)


async def _emptied(registry: Registry, name: str) -> bool:
    for kind in registry.kinds.stored():
        if kind.namespaced:
            await registry.delete_collection(kind, Filter(name), DeleteOptions(propagation="Background"))
    return not any(registry.of(kind).select(Filter(name)) for kind in registry.kinds.stored() if kind.namespaced)
