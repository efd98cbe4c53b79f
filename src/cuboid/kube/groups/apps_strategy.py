"""Strategies of `apps`: defaults, status at birth, what may change. Source: kubernetes/pkg/apis/apps/v1/defaults.go."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from cuboid.kube import syntax
from cuboid.kube import validate_apps as apps
from cuboid.kube.fields import Fields
from cuboid.kube.pod_defaults import default_template
from cuboid.kube.strategy import Object, SpecStrategy, Strategy
from cuboid.kube.validate_storage import validate_claim


def _spec(new: Object) -> dict[str, Any]:
    spec: dict[str, Any] = new.setdefault("spec", {})
    return spec


class _WorkloadStrategy(SpecStrategy):
    """A set of pods of one template."""

    counted: tuple[str, ...] = ()
    """What the status of a new object says even when it is zero."""
    readiness = "readyReplicas"
    """The name of what is ready, in a complaint."""

    def prepare_create(self, new: Object, now: str) -> None:
        new["status"] = dict.fromkeys(self.counted, 0)

    def default(self, new: Object) -> None:
        spec = _spec(new)
        default_template(spec.setdefault("template", {}))
        self.default_spec(spec)

    def default_spec(self, spec: Object) -> None: ...

    def validate_update(self, new: Object, old: Object, fields: Fields) -> None:
        """A spec that did not change was validated when it came."""
        if new["spec"] == old["spec"]:
            Strategy.validate_status(self, new, old, fields)
        else:
            super().validate_update(new, old, fields)

    def validate_change(self, new: Object, old: Object, fields: Fields) -> None:
        fields.immutable("spec.selector", new["spec"].get("selector"), old["spec"].get("selector"))

    def validate_status(self, new: Object, old: Object, fields: Fields) -> None:
        super().validate_status(new, old, fields)
        status = new.get("status", {})
        apps.validate_counts(status, old.get("status", {}), fields)
        apps.validate_replica_counts(status, fields, self.readiness)


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

    def validate_body(self, new: Object, fields: Fields) -> None:
        apps.validate_deployment(new["spec"], fields)


class ReplicaSetStrategy(_WorkloadStrategy):
    counted = ("replicas",)

    def default_spec(self, spec: Object) -> None:
        spec.setdefault("replicas", 1)

    def validate_body(self, new: Object, fields: Fields) -> None:
        apps.validate_replica_set(new["spec"], fields)

    def selectable(self, document: Mapping[str, Any]) -> dict[str, str]:
        replicas = document.get("status", {}).get("replicas", 0)
        return {**super().selectable(document), "status.replicas": str(replicas)}


class StatefulSetStrategy(_WorkloadStrategy):
    name_rule = staticmethod(syntax.dns_label)
    counted = ("replicas", "availableReplicas")
    readiness = "status.readyReplicas"

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

    def validate(self, new: Object, fields: Fields) -> None:
        super().validate(new, fields)
        for index, claim in enumerate(new["spec"].get("volumeClaimTemplates", [])):
            validate_claim(claim["spec"], fields.under(f"spec.volumeClaimTemplates[{index}]"))

    def validate_body(self, new: Object, fields: Fields) -> None:
        apps.validate_stateful_set(new["spec"], fields)

    def validate_change(self, new: Object, old: Object, fields: Fields) -> None:
        apps.validate_stateful_change(new["spec"], old["spec"], fields)


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

    def validate_body(self, new: Object, fields: Fields) -> None:
        apps.validate_daemon_set(new["spec"], fields)


class RevisionStrategy(Strategy):
    """ControllerRevision: a former template, which does not change."""

    def validate_body(self, new: Object, fields: Fields) -> None:
        fields.negative("revision", new.get("revision"))

    def validate(self, new: Object, fields: Fields) -> None:
        super().validate(new, fields)
        if new.get("data") is None:
            fields.required("data", "data is mandatory")
        elif not isinstance(new["data"], dict):
            fields.required("data", "data must be a valid JSON object")

    def validate_change(self, new: Object, old: Object, fields: Fields) -> None:
        fields.immutable("data", new.get("data"), old.get("data"))
