"""Rows of `rbac.authorization.k8s.io`: who may do what."""

from __future__ import annotations

from cuboid.kube import columns as c
from cuboid.kube.kind import Kind
from cuboid.kube.strategy import Strategy

ROWS: tuple[Kind, ...] = (
    Kind(
        "rbac.authorization.k8s.io",
        "v1",
        "Role",
        "roles",
        True,
        "io.k8s.api.rbac.v1.Role",
        Strategy(),
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
        Strategy(),
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
        Strategy(),
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
        Strategy(),
        c.PLAIN,
        c.plain,
    ),
)
