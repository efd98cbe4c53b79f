"""Which flow a request belongs to: its tenant's, else its service account's namespace's, else its user's."""

from __future__ import annotations

from starlette.types import Scope

from cuboid.kube import kinds, tenants
from cuboid.kube.identity import MASTERS, User
from cuboid.kube.registry import Registry
from cuboid.lib.errors import NotFoundError
from cuboid.server.fairness import Flow

_TENANT = kinds.builtin("Tenant", tenants.GROUP)
_NODES = "system:nodes"
_SYSTEM_NAMES = ("system:node:", "system:kube-", "system:apiserver")
_SYSTEM_RESOURCES = ("leases", "nodes")
"""What keeps nodes and leaders alive; with an administrator's rights it is the system's own, whoever sends it."""
WIDE = 1_000
"""Objects that a list may be over before it counts as more than one request."""
LARGE = 128 * 1024
"""Bytes of a body that count as one request more: checking it takes time by its size."""
WIDEST = 10.0


class Flows:
    def __init__(self, registry: Registry) -> None:
        self._registry = registry
        self._weights: dict[str, tuple[int, float]] = {}  # by tenant: version of the object, weight

    def of(self, scope: Scope) -> Flow:
        """`user` and `wanted` of the scope are set."""
        user: User = scope.get("caller") or scope["user"]  # who acts as somebody else is still who asks
        if _NODES in user.groups or user.name.startswith(_SYSTEM_NAMES):
            return Flow(user.name, system=True)
        if MASTERS in user.groups:
            return Flow(user.name, system=scope["wanted"].resource in _SYSTEM_RESOURCES)
        tenant = tenants.tenant_of(user, self._labels(user))
        if tenant:
            return Flow(f"tenant:{tenant}", self._weight(tenant))
        return Flow(user.name)

    def _labels(self, user: User) -> dict[str, str]:
        if not user.name.startswith("system:serviceaccount:"):
            return {}
        entry = self._registry.cache["", "namespaces"].get("", user.name.split(":")[2])
        return {} if entry is None else dict(entry.labels)

    def _weight(self, tenant: str) -> float:
        try:
            entry = self._registry.entry(_TENANT, "", tenant)
        except NotFoundError:
            return 1.0
        known = self._weights.get(tenant)
        if known is None or known[0] != entry.rv:
            spec = entry.object().get("spec") or {}
            known = self._weights[tenant] = (entry.rv, max(0.01, float(spec.get("weight") or 1)))
        return known[1]

    def width(self, scope: Scope) -> float:
        """How much work a request is, in ordinary ones: a list of everything is more, and so is a large body."""
        wanted = scope["wanted"]
        if (size := length(scope)) > LARGE:
            return min(WIDEST, 1.0 + size / LARGE)
        if wanted.verb != "list" or b"limit=" in scope["query_string"]:
            return 1.0
        kind = self._registry.kinds.find(wanted.group, wanted.version, wanted.resource)
        if kind is None:
            return 1.0
        return min(WIDEST, 1.0 + self._registry.of(kind).count / WIDE)


def length(scope: Scope) -> int:
    """Bytes of the body as announced; one that comes in pieces of unknown number is taken for a large one."""
    for name, value in scope["headers"]:
        if name == b"content-length":
            return int(value) if value.isdigit() and len(value) < 12 else 0
        if name == b"transfer-encoding":
            return 4 * LARGE
    return 0
