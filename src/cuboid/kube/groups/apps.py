"""Rows of `apps`: workloads of long-running pods."""

from __future__ import annotations

from cuboid.kube import columns as c
from cuboid.kube.groups.apps_strategy import (
    DaemonSetStrategy,
    DeploymentStrategy,
    ReplicaSetStrategy,
    RevisionStrategy,
    StatefulSetStrategy,
)
from cuboid.kube.kind import SCALE, Kind, status_of

ROWS: tuple[Kind, ...] = (
    Kind(
        "apps",
        "v1",
        "Deployment",
        "deployments",
        True,
        "io.k8s.api.apps.v1.Deployment",
        DeploymentStrategy(),
        c.PLAIN,
        c.plain,
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
        c.PLAIN,
        c.plain,
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
        c.PLAIN,
        c.plain,
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
        c.PLAIN,
        c.plain,
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
        c.PLAIN,
        c.plain,
    ),
)
