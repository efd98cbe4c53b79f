"""Rows of `autoscaling`."""

from __future__ import annotations

from cuboid.kube.groups.autoscaling_strategy import AutoscalerStrategy
from cuboid.kube.kind import Kind, status_of
from cuboid.kube.printing import autoscaling

ROWS: tuple[Kind, ...] = (
    Kind(
        "autoscaling",
        "v2",
        "HorizontalPodAutoscaler",
        "horizontalpodautoscalers",
        True,
        "io.k8s.api.autoscaling.v2.HorizontalPodAutoscaler",
        AutoscalerStrategy(),
        autoscaling.AUTOSCALER,
        autoscaling.autoscaler,
        ("hpa",),
        categories=("all",),
        subresources=(status_of("HorizontalPodAutoscaler"),),
    ),
)
