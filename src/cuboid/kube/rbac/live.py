"""The policy of a server: filled from its registry, and kept current with every batch of the store's events."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from contextlib import suppress
from typing import Any

from cuboid.kube import kinds
from cuboid.kube.cache import decode
from cuboid.kube.rbac import builtin
from cuboid.kube.rbac.policy import GROUP, Policy
from cuboid.kube.registry import Registry, WriteOptions
from cuboid.kube.store import Event
from cuboid.lib.errors import AlreadyExistsError

_KINDS = {
    kind.plural: kind
    for kind in (kinds.builtin(name, GROUP) for name in ("Role", "ClusterRole", "RoleBinding", "ClusterRoleBinding"))
}


class LivePolicy(Policy):
    def load(self, registry: Registry) -> None:
        """All that exists, and from then on what changes. Once, before anything is asked."""
        registry.cache.listen(self.saw)
        for kind in _KINDS.values():
            for entry in registry.of(kind):
                self.put(kind.kind, entry.object())

    def saw(self, events: Sequence[Event]) -> None:
        for event in events:
            kind = _KINDS.get(event.key.resource) if event.key.group == GROUP else None
            if kind is None:
                continue
            if event.type == "DELETED":
                self.remove(kind.kind, (event.key.namespace, event.key.name))
            else:
                self.put(kind.kind, decode(event.value))


async def ensure_builtin(registry: Registry) -> None:
    """Create what a fresh store lacks, and give built-in roles the rules of this version, unless their annotation
    `rbac.authorization.kubernetes.io/autoupdate` is "false". Idempotent."""
    await asyncio.gather(*(_ensure(registry, name, wanted) for name, wanted in builtin.documents()))


async def _ensure(registry: Registry, name: str, wanted: dict[str, Any]) -> None:
    kind = kinds.builtin(name, GROUP)
    entry = registry.of(kind).get("", wanted["metadata"]["name"])
    if entry is None:
        with suppress(AlreadyExistsError):
            await registry.create(kind, "", wanted, WriteOptions())
        return
    found = entry.object()
    if (found["metadata"].get("annotations") or {}).get(builtin.AUTOUPDATE) != "true":
        return
    owned = _AGGREGATED if "aggregationRule" in wanted else _OWNED
    changed = {**found, **{key: wanted[key] for key in owned if key in wanted}}
    if changed != found:
        await registry.update(kind, "", entry.key.name, changed, WriteOptions())


_OWNED = ("rules", "subjects")
_AGGREGATED = ("aggregationRule",)
"""Its rules are what it gathers."""
