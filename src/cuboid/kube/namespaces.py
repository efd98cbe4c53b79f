"""Namespaces that always exist, and the finalizers of one that ends."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from cuboid.kube import kinds
from cuboid.kube.kinds import Kind
from cuboid.kube.registry import Registry, WriteOptions
from cuboid.lib.errors import AlreadyExistsError, CuboidError
from cuboid.lib.log import get_log

log = get_log(__name__)

PERMANENT = ("default", "kube-system", "kube-node-lease", "kube-public")
_NAMESPACE = kinds.builtin("Namespace")
_ACCOUNT = kinds.builtin("ServiceAccount")


async def ensure_permanent(registry: Registry) -> None:
    """Create what a fresh store lacks. Idempotent. What can not be made now is said, and nothing else waits for it: a
    server whose namespace is about to end has to come up all the same."""
    for name in PERMANENT:
        try:
            await _create(registry, _NAMESPACE, "", name)
            await _create(registry, _ACCOUNT, name, "default")
        except CuboidError as error:
            log.warning("a namespace of the platform is not as it should be", namespace=name, error=str(error))


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
