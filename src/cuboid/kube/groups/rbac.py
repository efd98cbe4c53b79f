"""Rows of `rbac.authorization.k8s.io`: who may do what."""

from __future__ import annotations

from cuboid.kube import columns as c
from cuboid.kube.kind import Kind
from cuboid.kube.strategy import Strategy


def _any_name(text: str) -> list[str]:
    """What can stand in a URL may be the name of a role: `system:node`."""
    return []


class RbacStrategy(Strategy):
    name_rule = staticmethod(_any_name)


ROWS: tuple[Kind, ...] = (
    Kind(
        "rbac.authorization.k8s.io",
        "v1",
        "Role",
        "roles",
        True,
        "io.k8s.api.rbac.v1.Role",
        RbacStrategy(),
        c.PLAIN,
        c.plain,
    ),
    Kind(
        "rbac.authorization.k8s.io",
        "v1",
        "ClusterRole",
        "clusterroles",
        False,
        "io.k8s.api.rbac.v1.ClusterRole",
        RbacStrategy(),
        c.PLAIN,
        c.plain,
    ),
    Kind(
        "rbac.authorization.k8s.io",
        "v1",
        "RoleBinding",
        "rolebindings",
        True,
        "io.k8s.api.rbac.v1.RoleBinding",
        RbacStrategy(),
        c.PLAIN,
        c.plain,
    ),
    Kind(
        "rbac.authorization.k8s.io",
        "v1",
        "ClusterRoleBinding",
        "clusterrolebindings",
        False,
        "io.k8s.api.rbac.v1.ClusterRoleBinding",
        RbacStrategy(),
        c.PLAIN,
        c.plain,
    ),
)
