"""Rows of `policy`."""

from __future__ import annotations

from cuboid.kube.groups.policy_strategy import BudgetStrategy
from cuboid.kube.kind import Kind, status_of
from cuboid.kube.printing import autoscaling

ROWS: tuple[Kind, ...] = (
    Kind(
        "policy",
        "v1",
        "PodDisruptionBudget",
        "poddisruptionbudgets",
        True,
        "io.k8s.api.policy.v1.PodDisruptionBudget",
        BudgetStrategy(),
        autoscaling.BUDGET,
        autoscaling.budget,
        ("pdb",),
        subresources=(status_of("PodDisruptionBudget"),),
    ),
)
