"""Strategies of quotas and ranges of limits. Source: kubernetes/pkg/apis/core/v1/defaults.go."""

from __future__ import annotations

from cuboid.kube.fields import Fields
from cuboid.kube.strategy import Object, StatusStrategy, Strategy
from cuboid.kube.validate_limits import validate_amounts, validate_quota, validate_quota_change, validate_range


class QuotaStrategy(StatusStrategy):
    def default(self, new: Object) -> None:
        new.setdefault("spec", {})

    def validate_body(self, new: Object, fields: Fields) -> None:
        validate_quota(new["spec"], fields)

    def validate_change(self, new: Object, old: Object, fields: Fields) -> None:
        validate_quota_change(new["spec"], old.get("spec", {}), fields)

    def validate_status(self, new: Object, old: Object, fields: Fields) -> None:
        super().validate_status(new, old, fields)
        for key in ("hard", "used"):
            validate_amounts(new.get("status", {}).get(key, {}), f"status.{key}", fields)


class RangeStrategy(Strategy):
    def default(self, new: Object) -> None:
        """What a container gets that names nothing is what it may have at most, or at least."""
        for item in new.setdefault("spec", {}).get("limits", []):
            if item.get("type") != "Container":
                continue
            limits = {**item.get("max", {}), **item.get("default", {})}
            requests = {**item.get("min", {}), **limits, **item.get("defaultRequest", {})}
            for key, amounts in (("default", limits), ("defaultRequest", requests)):
                if amounts:
                    item[key] = amounts

    def validate_body(self, new: Object, fields: Fields) -> None:
        validate_range(new["spec"], fields)
