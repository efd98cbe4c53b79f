"""Volumes of the class `standard`: named volumes of a node, made when a claim asks for one. Pure."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

from cuboid.controllers.volumes_match import HOSTNAME, size_asked
from cuboid.kube import objects, quantity
from cuboid.kube.client import STORAGE_CLASSES, Client
from cuboid.kube.quota_usage import storage_class
from cuboid.kube.types import NAMED_VOLUME_DRIVER, VOLUME_DATA
from cuboid.lib.errors import AlreadyExistsError, CuboidError
from cuboid.lib.log import get_log

log = get_log(__name__)

Object = dict[str, Any]
Raw = Mapping[str, Any]

DEFAULT_NOTE = "storageclass.kubernetes.io/is-default-class"
PROVISIONED_BY = "pv.kubernetes.io/provisioned-by"
BOUND_BY_CONTROLLER = "pv.kubernetes.io/bound-by-controller"
DATA_FINALIZER = VOLUME_DATA
PROTECTION = "kubernetes.io/pv-protection"
_MODES = {"ReadWriteOnce", "ReadWriteOncePod"}
_MIB = 1 << 20


def is_ours(volume: Raw) -> bool:
    """Whether its data is a named volume of a node."""
    return (volume["spec"].get("csi") or {}).get("driver") == NAMED_VOLUME_DRIVER


def name_for(claim: Raw) -> str:
    return f"pvc-{objects.uid(claim)}"


def problem(claim: Raw) -> str:
    """Why no named volume can be what the claim asks for, "" if one can."""
    spec = claim["spec"]
    if others := sorted(set(spec.get("accessModes") or []) - _MODES):
        return f"a named volume has one pod at a time and cannot be {', '.join(others)}: use NFS for several"
    if spec.get("volumeMode", "Filesystem") != "Filesystem":
        return f"a named volume is a file system, not {spec['volumeMode']}"
    if spec.get("selector"):
        return "claim.Spec.Selector is not supported for dynamic provisioning"
    if spec.get("dataSource") or spec.get("dataSourceRef"):
        return "a named volume is made empty, not from a data source"
    return ""


def volume_for(claim: Raw, class_: Raw, node: Raw) -> Object:
    """The volume for this claim, on this node, bound to it from the start. The name is the same at every attempt."""
    name, namespace = name_for(claim), objects.namespace(claim)
    size = quantity.format_bytes(-(-max(size_asked(claim), 1) // _MIB) * _MIB)
    policy = class_.get("reclaimPolicy") or "Delete"
    host = objects.labels(node).get(HOSTNAME, objects.name(node))
    term = {"matchExpressions": [{"key": HOSTNAME, "operator": "In", "values": [host]}]}
    return {
        "apiVersion": "v1", "kind": "PersistentVolume",
        "metadata": {
            "name": name, "annotations": {PROVISIONED_BY: NAMED_VOLUME_DRIVER},
            "finalizers": [PROTECTION, *([DATA_FINALIZER] if policy == "Delete" else [])],
        },
        "spec": {
            "capacity": {"storage": size}, "accessModes": list(claim["spec"].get("accessModes") or []),
            "persistentVolumeReclaimPolicy": policy, "storageClassName": storage_class(claim),
            "volumeMode": "Filesystem", "claimRef": claim_reference(claim),
            "csi": {
                "driver": NAMED_VOLUME_DRIVER, "volumeHandle": f"{namespace}/{name}",
                "volumeAttributes": {"name": name, "size": size}, "fsType": "ext4",
            },
            "nodeAffinity": {"required": {"nodeSelectorTerms": [term]}},
        },
    }  # fmt: skip


def claim_reference(claim: Raw) -> Object:
    return {
        "apiVersion": "v1", "kind": "PersistentVolumeClaim", "namespace": objects.namespace(claim),
        "name": objects.name(claim), "uid": objects.uid(claim),
    }  # fmt: skip


def node_for(claim: Raw, nodes: Iterable[Object]) -> Object | None:
    """Where the volume of a claim goes that does not wait for its first pod: always the same of the same nodes."""
    ready = [n for n in nodes if objects.is_true(n, "Ready") and not n.get("spec", {}).get("unschedulable")]
    ready.sort(key=objects.name)
    return ready[sum(objects.uid(claim).encode()) % len(ready)] if ready else None


def default_class(classes: Iterable[Object]) -> str:
    """The newest of those that say they are the default, "" for none."""
    marked = [one for one in classes if objects.notes(one).get(DEFAULT_NOTE) == "true"]
    marked.sort(key=lambda one: (one["metadata"].get("creationTimestamp", ""), objects.name(one)))
    return objects.name(marked[-1]) if marked else ""


STANDARD: Object = {
    "apiVersion": "storage.k8s.io/v1", "kind": "StorageClass",
    "metadata": {"name": "standard", "annotations": {DEFAULT_NOTE: "true"}},
    "provisioner": NAMED_VOLUME_DRIVER, "reclaimPolicy": "Delete", "volumeBindingMode": "WaitForFirstConsumer",
}  # fmt: skip


async def ensure_standard(client: Client) -> None:
    """At the server's start. Whoever wants no default class takes the mark off instead of deleting it."""
    try:
        await client.create(STORAGE_CLASSES, STANDARD)
    except AlreadyExistsError:
        return
    except CuboidError as error:  # a full disk: all else is served
        log.warning("the standard storage class could not be made", error=str(error))
