"""Rows of `rbac.authorization.k8s.io`: who may do what."""

from __future__ import annotations

from cuboid.kube.groups.rbac_strategy import BindingStrategy, RoleStrategy
from cuboid.kube.kind import Kind
from cuboid.kube.printing import cluster

ROWS: tuple[Kind, ...] = (
    Kind(
        "rbac.authorization.k8s.io",
        "v1",
        "Role",
        "roles",
        True,
        "io.k8s.api.rbac.v1.Role",
        RoleStrategy(namespaced=True),
        cluster.CREATED,
        cluster.created,
    ),
    Kind(
        "rbac.authorization.k8s.io",
        "v1",
        "ClusterRole",
        "clusterroles",
        False,
        "io.k8s.api.rbac.v1.ClusterRole",
        RoleStrategy(namespaced=False),
        cluster.CREATED,
        cluster.created,
    ),
    Kind(
        "rbac.authorization.k8s.io",
        "v1",
        "RoleBinding",
        "rolebindings",
        True,
        "io.k8s.api.rbac.v1.RoleBinding",
        BindingStrategy(namespaced=True),
        cluster.BINDING,
        cluster.binding,
    ),
    Kind(
        "rbac.authorization.k8s.io",
        "v1",
        "ClusterRoleBinding",
        "clusterrolebindings",
        False,
        "io.k8s.api.rbac.v1.ClusterRoleBinding",
        BindingStrategy(namespaced=False),
        cluster.BINDING,
        cluster.binding,
    ),
)
