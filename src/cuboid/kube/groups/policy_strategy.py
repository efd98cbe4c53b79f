"""Strategy of PodDisruptionBudget. Source: kubernetes/pkg/apis/policy/validation."""

from __future__ import annotations

from cuboid.kube import syntax
from cuboid.kube.fields import Fields
from cuboid.kube.strategy import Object, SpecStrategy
from cuboid.kube.validate_selectors import validate_amount, validate_selector

_COUNTS = ("currentHealthy", "desiredHealthy", "disruptionsAllowed", "expectedPods")
_POLICIES = ("AlwaysAllow", "IfHealthyBudget")


class BudgetStrategy(SpecStrategy):
    name_rule = staticmethod(syntax.path_segment)

    def prepare_create(self, new: Object, now: str) -> None:
        new["status"] = dict.fromkeys(_COUNTS, 0)

    def default(self, new: Object) -> None:
        new.setdefault("spec", {})

    def validate_body(self, new: Object, fields: Fields) -> None:
        spec = new["spec"]
        if "minAvailable" in spec and "maxUnavailable" in spec:
            fields.invalid("spec", spec, "minAvailable and maxUnavailable cannot be both set")
        for key in ("minAvailable", "maxUnavailable"):
            if key in spec:
                validate_amount(spec[key], f"spec.{key}", fields)
        validate_selector(spec.get("selector"), "spec.selector", fields)
        policy = spec.get("unhealthyPodEvictionPolicy", "AlwaysAllow")
        if policy not in _POLICIES:
            fields.unsupported("spec.unhealthyPodEvictionPolicy", policy, _POLICIES)

    def validate_status(self, new: Object, old: Object, fields: Fields) -> None:
        super().validate_status(new, old, fields)
        for key in _COUNTS:
            fields.negative(f"status.{key}", new.get("status", {}).get(key))
