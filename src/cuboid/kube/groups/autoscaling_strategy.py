"""Strategy of HorizontalPodAutoscaler, as `autoscaling/v2`. Source: kubernetes/pkg/apis/autoscaling/v2/defaults.go."""

from __future__ import annotations

from typing import Any

from cuboid.kube.fields import Fields
from cuboid.kube.strategy import Object, SpecStrategy
from cuboid.kube.validate_autoscaling import validate_autoscaler, validate_autoscaler_status

_PERCENT = {"type": "Percent", "value": 100, "periodSeconds": 15}
_PODS = {"type": "Pods", "value": 4, "periodSeconds": 15}


class AutoscalerStrategy(SpecStrategy):
    def prepare_create(self, new: Object, now: str) -> None:
        new["status"] = {"desiredReplicas": 0}

    def default(self, new: Object) -> None:
        spec = new.setdefault("spec", {})
        spec.setdefault("minReplicas", 1)
        if not spec.get("metrics"):
            target = {"type": "Utilization", "averageUtilization": 80}
            spec["metrics"] = [{"type": "Resource", "resource": {"name": "cpu", "target": target}}]
        if "behavior" in spec:
            up = {"stabilizationWindowSeconds": 0, "selectPolicy": "Max", "policies": [dict(_PODS), dict(_PERCENT)]}
            spec["behavior"]["scaleUp"] = _filled(spec["behavior"].get("scaleUp"), up)
            down = {"selectPolicy": "Max", "policies": [dict(_PERCENT)]}
            spec["behavior"]["scaleDown"] = _filled(spec["behavior"].get("scaleDown"), down)

    def validate_body(self, new: Object, fields: Fields) -> None:
        validate_autoscaler(new["spec"], fields)

    def validate_status(self, new: Object, old: Object, fields: Fields) -> None:
        super().validate_status(new, old, fields)
        validate_autoscaler_status(new.get("status", {}), fields)


def _filled(given: Object | None, defaults: dict[str, Any]) -> Object:
    return {**defaults, **(given or {})}
