"""Rows of `apps`: workloads of long-running pods."""

from __future__ import annotations

from cuboid.kube.groups.apps_strategy import (
    DaemonSetStrategy,
    DeploymentStrategy,
    ReplicaSetStrategy,
    RevisionStrategy,
    StatefulSetStrategy,
)
from cuboid.kube.kind import SCALE, Kind, status_of
from cuboid.kube.printing import apps

ROWS: tuple[Kind, ...] = (
    Kind(
        "apps",
        "v1",
        "Deployment",
        "deployments",
        True,
        "io.k8s.api.apps.v1.Deployment",
        DeploymentStrategy(),
        apps.DEPLOYMENT,
        apps.deployment,
        ("deploy",),
        categories=("all",),
        subresources=(
            status_of("Deployment"),
            SCALE,
        ),
    ),
    Kind(
        "apps",
        "v1",
        "ReplicaSet",
        "replicasets",
        True,
        "io.k8s.api.apps.v1.ReplicaSet",
        ReplicaSetStrategy(),
        apps.REPLICA_SET,
        apps.replica_set,
        ("rs",),
        categories=("all",),
        subresources=(
            status_of("ReplicaSet"),
            SCALE,
        ),
    ),
    Kind(
        "apps",
        "v1",
        "StatefulSet",
        "statefulsets",
        True,
        "io.k8s.api.apps.v1.StatefulSet",
        StatefulSetStrategy(),
        apps.STATEFUL_SET,
        apps.stateful_set,
        ("sts",),
        categories=("all",),
        subresources=(
            status_of("StatefulSet"),
            SCALE,
        ),
    ),
    Kind(
        "apps",
        "v1",
        "DaemonSet",
        "daemonsets",
        True,
        "io.k8s.api.apps.v1.DaemonSet",
        DaemonSetStrategy(),
        apps.DAEMON_SET,
        apps.daemon_set,
        ("ds",),
        categories=("all",),
        subresources=(status_of("DaemonSet"),),
    ),
    Kind(
        "apps",
        "v1",
        "ControllerRevision",
        "controllerrevisions",
        True,
        "io.k8s.api.apps.v1.ControllerRevision",
        RevisionStrategy(),
        apps.CONTROLLER_REVISION,
        apps.controller_revision,
    ),
)
