"""Strategies of `apps`: defaults, status at birth, what may change. Source: kubernetes/pkg/apis/apps/v1/defaults.go."""

from __future__ import annotations

from typing import Any

from cuboid.kube.pod_defaults import default_template
from cuboid.kube.strategy import Object, SpecStrategy


def _spec(new: Object) -> dict[str, Any]:
    spec: dict[str, Any] = new.setdefault("spec", {})
    return spec


class _WorkloadStrategy(SpecStrategy):
    """A set of pods of one template."""

    counted: tuple[str, ...] = ()
    """What the status of a new object says even when it is zero."""

    def prepare_create(self, new: Object, now: str) -> None:
        new["status"] = dict.fromkeys(self.counted, 0)

    def default(self, new: Object) -> None:
        spec = _spec(new)
        default_template(spec.setdefault("template", {}))
        self.default_spec(spec)

    def default_spec(self, spec: Object) -> None: ...


class DeploymentStrategy(_WorkloadStrategy):
    def default_spec(self, spec: Object) -> None:
        spec.setdefault("replicas", 1)
        spec.setdefault("revisionHistoryLimit", 10)
        spec.setdefault("progressDeadlineSeconds", 600)
        strategy = spec.setdefault("strategy", {})
        if not strategy.get("type"):
            strategy["type"] = "RollingUpdate"
        if strategy["type"] == "RollingUpdate":
            rolling = strategy.setdefault("rollingUpdate", {})
            rolling.setdefault("maxUnavailable", "25%")
            rolling.setdefault("maxSurge", "25%")


class ReplicaSetStrategy(_WorkloadStrategy):
    counted = ("replicas",)

    def default_spec(self, spec: Object) -> None:
        spec.setdefault("replicas", 1)


class StatefulSetStrategy(_WorkloadStrategy):
    counted = ("replicas", "availableReplicas")

    def default_spec(self, spec: Object) -> None:
        spec.setdefault("replicas", 1)
        spec.setdefault("revisionHistoryLimit", 10)
        spec.setdefault("serviceName", "")
        if not spec.get("podManagementPolicy"):
            spec["podManagementPolicy"] = "OrderedReady"
        update = spec.setdefault("updateStrategy", {})
        if not update.get("type"):
            update["type"] = "RollingUpdate"
            update.setdefault("rollingUpdate", {})
        if update["type"] == "RollingUpdate" and "rollingUpdate" in update:
            update["rollingUpdate"].setdefault("partition", 0)
        retention = spec.setdefault("persistentVolumeClaimRetentionPolicy", {})
        for key in ("whenDeleted", "whenScaled"):
            if not retention.get(key):
                retention[key] = "Retain"
        for claim in spec.get("volumeClaimTemplates", []):
            claim.update(apiVersion="v1", kind="PersistentVolumeClaim", status={"phase": "Pending"})
            claim.setdefault("spec", {}).setdefault("volumeMode", "Filesystem")


class DaemonSetStrategy(_WorkloadStrategy):
    counted = ("currentNumberScheduled", "desiredNumberScheduled", "numberMisscheduled", "numberReady")

    def default_spec(self, spec: Object) -> None:
        spec.setdefault("revisionHistoryLimit", 10)
        update = spec.setdefault("updateStrategy", {})
        if not update.get("type"):
            update["type"] = "RollingUpdate"
        if update["type"] == "RollingUpdate":
            rolling = update.setdefault("rollingUpdate", {})
            rolling.setdefault("maxUnavailable", 1)
            rolling.setdefault("maxSurge", 0)
