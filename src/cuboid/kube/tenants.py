"""Tenants: names, who belongs to one, and which one a request is for. Pure."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from cuboid.kube.client import Resource
from cuboid.kube.identity import User
from cuboid.kube.names import TENANT

Raw = Mapping[str, Any]
GROUP = "cuboid.dev"
TENANTS = Resource(GROUP, "v1", "tenants", cluster=True)
TOKENS = Resource(GROUP, "v1", "tokens", cluster=True)
LABEL = TENANT
"""On a tenant's namespaces and on what the platform keeps in them: the name of the tenant."""
MANAGED = "cuboid-tenant"
"""Value of `app.kubernetes.io/managed-by` of what the tenant controller keeps: a tenant may not change it."""
MANAGED_LABEL = "app.kubernetes.io/managed-by"
FINALIZER = "cuboid.dev/tenant"
ROLES = ("admin", "edit", "view")
RESERVED = ("default", "kube-system", "kube-public", "kube-node-lease", "cuboid-system")
"""Namespaces that are nobody's."""
_PREFIX = "cuboid:tenant:"


def group_of(tenant: str, role: str = "") -> str:
    """The group of a tenant's token holders; with `role`, of those who have it."""
    return f"{_PREFIX}{tenant}:{role}" if role else f"{_PREFIX}{tenant}"


def holder(tenant: str, role: str, token: str) -> User:
    """Who calls with a tenant's token of this name."""
    groups = (group_of(tenant), group_of(tenant, role), "system:authenticated")
    return User(f"{_PREFIX}{tenant}:{token}", groups)


def tenant_of(user: User, labels_of_namespace: Mapping[str, str] | None = None) -> str:
    """The tenant that a user acts for, "" for none. A service account is its namespace's, whose labels are given."""
    for group in user.groups:
        if group.startswith(_PREFIX):
            return group.removeprefix(_PREFIX).partition(":")[0]
    if user.name.startswith("system:serviceaccount:") and labels_of_namespace:
        return labels_of_namespace.get(LABEL, "")
    return ""


def reserved_group(name: str) -> bool:
    """Whether only this server may say that somebody belongs to it, never an identity provider outside."""
    return name.startswith(("system:", _PREFIX))


def namespaces(tenant: Raw) -> list[str]:
    """Those it is to have, the first one named like itself."""
    more = (tenant.get("spec") or {}).get("namespaces") or []
    return list(dict.fromkeys([tenant["metadata"]["name"], *more]))
