"""Strategies of volumes, claims and their classes. Source: kubernetes/pkg/apis/{core,storage}/v1/defaults.go."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from cuboid.kube.fields import Fields
from cuboid.kube.strategy import Object, StatusStrategy, Strategy
from cuboid.kube.validate_storage import (
    validate_claim,
    validate_claim_change,
    validate_class,
    validate_class_change,
    validate_volume,
    validate_volume_change,
)

VOLUME_PROTECTION = "kubernetes.io/pv-protection"
_SOURCES = (("", "PersistentVolumeClaim"), ("snapshot.storage.k8s.io", "VolumeSnapshot"))
CLAIM_PROTECTION = "kubernetes.io/pvc-protection"


class _Protected(StatusStrategy):
    """What is in use when it is deleted stays until it no longer is: a controller takes the finalizer away."""

    protection = ""

    def prepare_create(self, new: Object, now: str) -> None:
        new["status"] = {"phase": "Pending"}
        finalizers = new["metadata"].setdefault("finalizers", [])
        if self.protection not in finalizers:
            finalizers.append(self.protection)

    def default(self, new: Object) -> None:
        spec = new.setdefault("spec", {})
        spec.setdefault("volumeMode", "Filesystem")
        self.default_spec(spec)

    def default_spec(self, spec: Object) -> None: ...

    def validate_update(self, new: Object, old: Object, fields: Fields) -> None:
        """A spec that did not change was validated when it came."""
        if new["spec"] == old.get("spec"):
            Strategy.validate_status(self, new, old, fields)
        else:
            super().validate_update(new, old, fields)


class VolumeStrategy(_Protected):
    protection = VOLUME_PROTECTION

    def default_spec(self, spec: Object) -> None:
        spec.setdefault("persistentVolumeReclaimPolicy", "Retain")
        if "hostPath" in spec:
            spec["hostPath"].setdefault("type", "")

    def validate_body(self, new: Object, fields: Fields) -> None:
        validate_volume(new["spec"], fields)

    def validate_change(self, new: Object, old: Object, fields: Fields) -> None:
        validate_volume_change(new["spec"], old.get("spec", {}), fields)

    def selectable(self, document: Mapping[str, Any]) -> dict[str, str]:
        return {**super().selectable(document), "name": document["metadata"].get("name", "")}


class ClaimStrategy(_Protected):
    protection = CLAIM_PROTECTION

    def default_spec(self, spec: Object) -> None:
        """A source may be named in two ways, and is then found in both."""
        if "dataSource" in spec and "dataSourceRef" not in spec:
            spec["dataSourceRef"] = dict(spec["dataSource"])
        elif "dataSourceRef" in spec and "dataSource" not in spec:
            reference = spec["dataSourceRef"]
            if not reference.get("namespace") and (reference.get("apiGroup", ""), reference.get("kind")) in _SOURCES:
                spec["dataSource"] = {key: value for key, value in reference.items() if key != "namespace"}

    def validate_body(self, new: Object, fields: Fields) -> None:
        validate_claim(new["spec"], fields)

    def validate_change(self, new: Object, old: Object, fields: Fields) -> None:
        validate_claim_change(new["spec"], old.get("spec", {}), old.get("status", {}), fields)

    def selectable(self, document: Mapping[str, Any]) -> dict[str, str]:
        return {**super().selectable(document), "name": document["metadata"].get("name", "")}


class ClassStrategy(Strategy):
    def default(self, new: Object) -> None:
        new.setdefault("reclaimPolicy", "Delete")
        new.setdefault("volumeBindingMode", "Immediate")

    def validate_body(self, new: Object, fields: Fields) -> None:
        validate_class(new, fields)

    def validate_change(self, new: Object, old: Object, fields: Fields) -> None:
        validate_class_change(new, old, fields)
