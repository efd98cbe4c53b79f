"""Strategy of PodDisruptionBudget. Source: kubernetes/pkg/registry/policy/poddisruptionbudget/strategy.go."""

from __future__ import annotations

from cuboid.kube.strategy import Object, SpecStrategy


class BudgetStrategy(SpecStrategy):
    def prepare_create(self, new: Object, now: str) -> None:
        new["status"] = {"currentHealthy": 0, "desiredHealthy": 0, "disruptionsAllowed": 0, "expectedPods": 0}
