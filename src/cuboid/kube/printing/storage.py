"""How `kubectl get` prints volumes, claims and their classes. Source: kubernetes/pkg/printers/internalversion."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from cuboid.kube.columns import PLAIN, Column, age
from cuboid.kube.quota_usage import storage_class

Raw = Mapping[str, Any]
_NAME, _AGE = PLAIN
_UNSET = "<unset>"
_SHORT = {"ReadWriteOnce": "RWO", "ReadOnlyMany": "ROX", "ReadWriteMany": "RWX", "ReadWriteOncePod": "RWOP"}

VOLUME = (
    _NAME, Column("Capacity"), Column("Access Modes"), Column("Reclaim Policy"), Column("Status"), Column("Claim"),
    Column("StorageClass"), Column("VolumeAttributesClass"), Column("Reason"), _AGE, Column("VolumeMode", priority=1),
)  # fmt: skip


def volume(document: Raw, now: float) -> list[Any]:
    metadata, spec, status = document["metadata"], document.get("spec", {}), document.get("status", {})
    ref = spec.get("claimRef", {})
    claim = f"{ref.get('namespace', '')}/{ref.get('name', '')}" if ref else ""
    return [
        metadata["name"], spec.get("capacity", {}).get("storage", ""), _modes(spec.get("accessModes", [])),
        spec.get("persistentVolumeReclaimPolicy", ""), _phase(metadata, status), claim, storage_class(document),
        spec.get("volumeAttributesClassName") or _UNSET, status.get("reason", ""),
        age(metadata.get("creationTimestamp"), now), spec.get("volumeMode", _UNSET),
    ]  # fmt: skip


CLAIM = (
    _NAME, Column("Status"), Column("Volume"), Column("Capacity"), Column("Access Modes"), Column("StorageClass"),
    Column("VolumeAttributesClass"), _AGE, Column("VolumeMode", priority=1),
)  # fmt: skip


def claim(document: Raw, now: float) -> list[Any]:
    metadata, spec, status = document["metadata"], document.get("spec", {}), document.get("status", {})
    bound = bool(spec.get("volumeName"))
    return [
        metadata["name"], _phase(metadata, status), spec.get("volumeName", ""),
        status.get("capacity", {}).get("storage", "") if bound else "",
        _modes(status.get("accessModes", [])) if bound else "", storage_class(document),
        spec.get("volumeAttributesClassName") or _UNSET, age(metadata.get("creationTimestamp"), now),
        spec.get("volumeMode", _UNSET),
    ]  # fmt: skip


def _phase(metadata: Raw, status: Raw) -> str:
    return "Terminating" if metadata.get("deletionTimestamp") else str(status.get("phase", ""))


def _modes(modes: list[str]) -> str:
    return ",".join(_SHORT[mode] for mode in _SHORT if mode in modes)


CLASS = (
    _NAME, Column("Provisioner"), Column("ReclaimPolicy"), Column("VolumeBindingMode"), Column("AllowVolumeExpansion"),
    _AGE,
)  # fmt: skip
_DEFAULT = "storageclass.kubernetes.io/is-default-class"


def class_(document: Raw, now: float) -> list[Any]:
    metadata = document["metadata"]
    default = (metadata.get("annotations") or {}).get(_DEFAULT) == "true"
    return [
        metadata["name"] + (" (default)" if default else ""), document.get("provisioner", ""),
        document.get("reclaimPolicy", "Delete"), document.get("volumeBindingMode", "Immediate"),
        str(bool(document.get("allowVolumeExpansion"))).lower(), age(metadata.get("creationTimestamp"), now),
    ]  # fmt: skip
