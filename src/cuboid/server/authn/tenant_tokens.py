"""Bearer tokens of tenants: objects of the API that hold a token's hash. Deleted is taken back, at once."""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from cuboid.kube import kinds, tenants
from cuboid.kube.cache import decode
from cuboid.kube.registry import Registry
from cuboid.kube.store import Event
from cuboid.lib.clock import parse_rfc3339
from cuboid.lib.errors import UnauthorizedError
from cuboid.server.authn.credential import Credential
from cuboid.server.tokens import digest

_TOKEN = kinds.builtin("Token", tenants.GROUP)
_TENANT = kinds.builtin("Tenant", tenants.GROUP)


@dataclass(frozen=True)
class Issued:
    name: str
    tenant: str
    role: str
    expires: float


class TenantTokens:
    """By hash; kept current with every batch of the store's events."""

    def __init__(self, registry: Registry) -> None:
        self._registry = registry
        self._by_hash: dict[str, Issued] = {}
        self._hash_of: dict[str, str] = {}  # by name of the Token object
        for entry in registry.of(_TOKEN):
            self._put(entry.object())
        registry.cache.listen(self._saw)

    def _saw(self, events: Sequence[Event]) -> None:
        for event in events:
            if (event.key.group, event.key.resource) == _TOKEN.stored_as:
                self._by_hash.pop(self._hash_of.pop(event.key.name, ""), None)
                if event.type != "DELETED":
                    self._put(decode(event.value))

    def _put(self, token: dict[str, Any]) -> None:
        name, spec = token["metadata"]["name"], token["spec"]
        if token["metadata"].get("deletionTimestamp"):
            return
        issued = Issued(name, spec["tenant"], spec["role"], parse_rfc3339(spec["expirationTimestamp"]))
        self._by_hash[spec["sha256"]] = issued
        self._hash_of[name] = spec["sha256"]

    async def check(self, token: str) -> Credential | None:
        """None for what is no tenant's token. What the look-up's time tells is about a hash, not about a token."""
        key = digest(token)
        found = self._by_hash.get(key)
        if found is None:
            return None
        if not self._holds(key, found):
            raise UnauthorizedError("Unauthorized")
        user = tenants.holder(found.tenant, found.role, found.name)
        return Credential(user, lambda: self._holds(key, found))

    def _holds(self, key: str, issued: Issued) -> bool:
        tenant = self._registry.of(_TENANT).get("", issued.tenant)
        return self._by_hash.get(key) is issued and tenant is not None and issued.expires > time.time()
