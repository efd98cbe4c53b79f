"""Rows of `autoscaling`: the current version, and the older face of the same objects."""

from __future__ import annotations

from cuboid.kube import autoscalers
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
        autoscalers.V2,
        AutoscalerStrategy(),
        autoscaling.AUTOSCALER,
        autoscaling.autoscaler,
        ("hpa",),
        categories=("all",),
        subresources=(status_of("HorizontalPodAutoscaler"),),
    ),
    Kind(
        "autoscaling",
        "v1",
        "HorizontalPodAutoscaler",
        "horizontalpodautoscalers",
        True,
        "io.k8s.api.autoscaling.v1.HorizontalPodAutoscaler",
        AutoscalerStrategy(),
        autoscaling.AUTOSCALER,
        lambda document, now: autoscaling.autoscaler(autoscalers.to_v2(document), now),
        ("hpa",),
        categories=("all",),
        subresources=(status_of("HorizontalPodAutoscaler"),),
        storage=("autoscaling", "horizontalpodautoscalers"),
        to_storage=autoscalers.to_v2,
        from_storage=autoscalers.from_v2,
    ),
)
