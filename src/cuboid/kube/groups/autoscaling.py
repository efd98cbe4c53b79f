"""Rows of `autoscaling`."""

from __future__ import annotations

from cuboid.kube import columns as c
from cuboid.kube.groups.autoscaling_strategy import AutoscalerStrategy
from cuboid.kube.kind import Kind, status_of

ROWS: tuple[Kind, ...] = (
    Kind(
        "autoscaling",
        "v2",
        "HorizontalPodAutoscaler",
        "horizontalpodautoscalers",
        True,
        "io.k8s.api.autoscaling.v2.HorizontalPodAutoscaler",
        AutoscalerStrategy(),
        c.PLAIN,
        c.plain,
        ("hpa",),
        categories=("all",),
        subresources=(status_of("HorizontalPodAutoscaler"),),
    ),
)
