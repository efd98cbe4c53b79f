"""Claims get volumes: one that exists and fits, or a new one of their class. One step per plan, each of which a change
of the objects leads to the next: there is no order of writes to be interrupted.

Source of the behaviour: kubernetes/pkg/controller/volume/persistentvolume, syncClaim.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

from cuboid.controllers import volumes_match as match
from cuboid.controllers import volumes_provision as provision
from cuboid.kube import objects
from cuboid.kube.client import NODES, STORAGE_CLASSES, VOLUME_CLAIMS, VOLUMES
from cuboid.kube.controller.instructions import NOTHING, Create, Plan, Tell, Update
from cuboid.kube.controller.view import Change, Key, View, Watch, itself
from cuboid.kube.quota_usage import storage_class
from cuboid.kube.types import NAMED_VOLUME_DRIVER

Object = dict[str, Any]
Raw = Mapping[str, Any]

BIND_COMPLETED = "pv.kubernetes.io/bind-completed"
PROVISIONER_NOTE = "volume.kubernetes.io/storage-provisioner"
SELECTED_NODE = "volume.kubernetes.io/selected-node"
NO_PROVISIONER = "kubernetes.io/no-provisioner"
NO_NODE_SECONDS = 5.0
_NO_VOLUME = "no persistent volumes available for this claim and no storage class is set"
_WAIT = "waiting for first consumer to be created before binding"
_EXTERNAL = (
    "Waiting for a volume to be created either by the external provisioner '{}' or manually by the system "
    "administrator. If volume creation is delayed, please verify that the provisioner is running and correctly "
    "registered."
)
_LOST = "Bound claim has lost its PersistentVolume. Data on the volume is lost!"
_LOST_REFERENCE = "Bound claim has lost reference to PersistentVolume. Data on the volume is lost!"
_MISBOUND = "Two claims are bound to the same volume, this one is bound incorrectly"


def of_volume(change: Change, view: View) -> Iterable[Key]:
    """The claims that a volume is or was for; one that became free may be for any that waits."""
    for document in (change.old, change.new):
        if document is not None and (ref := document["spec"].get("claimRef")):
            yield Key(ref.get("namespace", ""), ref.get("name", ""))
    if change.type == "DELETED" or not change.new["spec"].get("claimRef"):
        yield from _waiting(view, objects.name(change.new))


def _waiting(view: View, volume: str = "") -> Iterable[Key]:
    for claim in view.select(VOLUME_CLAIMS):
        if claim["spec"].get("volumeName", "") == volume or not claim["spec"].get("volumeName"):
            yield Key(objects.namespace(claim), objects.name(claim))


def of_class(change: Change, view: View) -> Iterable[Key]:
    return _waiting(view) if change.type != "DELETED" else ()


class VolumeBinder:
    """The key is a claim."""

    name = "persistentvolume-binder"
    watches = (
        Watch(VOLUME_CLAIMS, itself, initial=True), Watch(VOLUMES, of_volume), Watch(STORAGE_CLASSES, of_class),
    )  # fmt: skip

    def plan(self, key: Key, view: View, now: float) -> Plan:
        claim = view.get(VOLUME_CLAIMS, key.namespace, key.name)
        if claim is None or objects.deleting(claim):
            return NOTHING
        name = claim["spec"].get("volumeName", "")
        if BIND_COMPLETED in objects.notes(claim):
            return _bound(claim, view.get(VOLUMES, "", name) if name else None)
        if name:
            return _asked_for(claim, view.get(VOLUMES, "", name))
        if "storageClassName" not in claim["spec"] and not storage_class(claim):
            default = provision.default_class(view.select(STORAGE_CLASSES))
            if default:
                spec = {**claim["spec"], "storageClassName": default}
                return Plan((Update(VOLUME_CLAIMS, {**claim, "spec": spec}),))
        return _search(claim, view)


# --- a claim that was bound ------------------------------------------------------------------------------------------


def _bound(claim: Object, volume: Object | None) -> Plan:
    if not claim["spec"].get("volumeName"):
        return _lost(claim, "ClaimLost", _LOST_REFERENCE)
    if volume is None:
        return _lost(claim, "ClaimLost", _LOST)
    if match.is_for(volume, claim):
        return _bind(claim, volume)
    if not volume["spec"].get("claimRef") and not match.misfit(volume, claim):
        return _bind(claim, volume)  # who writes the annotation gets no volume past its class and size
    return _lost(claim, "ClaimMisbound", _MISBOUND)


def _lost(claim: Object, reason: str, message: str) -> Plan:
    if objects.phase(claim) == "Lost":
        return NOTHING
    status = {**claim.get("status", {}), "phase": "Lost"}
    return Plan(
        (Update(VOLUME_CLAIMS, {**claim, "status": status}, sub="status"), Tell(claim, "Warning", reason, message))
    )


# --- one that names its volume ---------------------------------------------------------------------------------------


def _asked_for(claim: Object, volume: Object | None) -> Plan:
    if volume is None:
        return _pending(claim)
    if match.is_for(volume, claim):
        return _bind(claim, volume)
    name = objects.name(volume)
    if volume["spec"].get("claimRef"):
        return _pending(
            claim, Tell(claim, "Warning", "FailedBinding", f'volume "{name}" already bound to a different claim.')
        )
    if why := match.misfit(volume, claim):
        text = f'Cannot bind to requested volume "{name}": {why}'
        return _pending(claim, Tell(claim, "Warning", "VolumeMismatch", text))
    return _bind(claim, volume)


# --- one that takes what there is ------------------------------------------------------------------------------------


def _search(claim: Object, view: View) -> Plan:
    name = storage_class(claim)
    class_ = view.get(STORAGE_CLASSES, "", name) if name else None
    waits = class_ is not None and class_.get("volumeBindingMode") == "WaitForFirstConsumer"
    selected = objects.notes(claim).get(SELECTED_NODE, "")
    node = view.get(NODES, "", selected) if selected else None
    volume = match.best(claim, view.select(VOLUMES), node)
    if volume is not None and (match.is_for(volume, claim) or not waits or node is not None):
        return _bind(claim, volume)
    if not name:
        return _pending(claim, Tell(claim, "Normal", "FailedBinding", _NO_VOLUME))
    if class_ is None:
        text = f'storageclass.storage.k8s.io "{name}" not found'
        return _pending(claim, Tell(claim, "Warning", "ProvisioningFailed", text))
    if waits and node is None:
        return _pending(claim, Tell(claim, "Normal", "WaitForFirstConsumer", _WAIT))
    return _provision(claim, class_, node, view)


def _provision(claim: Object, class_: Raw, node: Object | None, view: View) -> Plan:
    provisioner = class_["provisioner"]
    if provisioner == NO_PROVISIONER:
        text = f"no volume plugin matched name: {provisioner}"
        return _pending(claim, Tell(claim, "Warning", "ProvisioningFailed", text))
    if objects.notes(claim).get(PROVISIONER_NOTE) != provisioner:
        metadata = {**claim["metadata"], "annotations": {**objects.notes(claim), PROVISIONER_NOTE: provisioner}}
        return Plan((Update(VOLUME_CLAIMS, {**claim, "metadata": metadata}),))
    if provisioner != NAMED_VOLUME_DRIVER:
        return _pending(claim, Tell(claim, "Normal", "ExternalProvisioning", _EXTERNAL.format(provisioner)))
    if why := provision.problem(claim):
        text = f'failed to provision volume with StorageClass "{objects.name(class_)}": {why}'
        return _pending(claim, Tell(claim, "Warning", "ProvisioningFailed", text))
    place = node or provision.node_for(claim, view.select(NODES))
    if place is None:
        text = f'failed to provision volume with StorageClass "{objects.name(class_)}": no node is ready'
        plan = _pending(claim, Tell(claim, "Warning", "ProvisioningFailed", text))
        return Plan(plan.instructions, NO_NODE_SECONDS)
    volume = provision.volume_for(claim, class_, place)
    text = f"Successfully provisioned volume {objects.name(volume)}"
    made = Create(VOLUMES, volume, exists_is_fine=True, tell=Tell(claim, "Normal", "ProvisioningSucceeded", text))
    return Plan((made,))


def _pending(claim: Object, event: Tell | None = None) -> Plan:
    events = () if event is None else (event,)
    if objects.phase(claim) == "Pending":
        return Plan(events)
    status = {**claim.get("status", {}), "phase": "Pending"}
    return Plan((Update(VOLUME_CLAIMS, {**claim, "status": status}, sub="status"), *events))


# --- binding, one write after the other ------------------------------------------------------------------------------


def _bind(claim: Object, volume: Object) -> Plan:
    if not match.is_bound_to(volume, claim):
        made = not match.is_for(volume, claim)
        notes = {**objects.notes(volume), **({provision.BOUND_BY_CONTROLLER: "yes"} if made else {})}
        spec = {
            **volume["spec"],
            "claimRef": {**(volume["spec"].get("claimRef") or {}), **provision.claim_reference(claim)},
        }
        metadata = {**volume["metadata"], **({"annotations": notes} if notes else {})}
        return Plan((Update(VOLUMES, {**volume, "metadata": metadata, "spec": spec}),))
    name = objects.name(volume)
    notes = {**objects.notes(claim), BIND_COMPLETED: "yes"}
    if not claim["spec"].get("volumeName"):
        notes[provision.BOUND_BY_CONTROLLER] = "yes"
    if claim["spec"].get("volumeName") != name or notes != objects.notes(claim):
        metadata = {**claim["metadata"], "annotations": notes}
        spec = {**claim["spec"], "volumeName": name}
        return Plan((Update(VOLUME_CLAIMS, {**claim, "metadata": metadata, "spec": spec}),))
    granted = {"accessModes": volume["spec"].get("accessModes") or [], "capacity": volume["spec"].get("capacity") or {}}
    status = {**claim.get("status", {}), "phase": "Bound", **granted}
    if status == claim.get("status"):
        return NOTHING
    return Plan((Update(VOLUME_CLAIMS, {**claim, "status": status}, sub="status"),))
