"""What becomes of volumes: their phase, what happens when their claim is gone, and what keeps them and their claims.

The data of a named volume is on its node: its node agent removes it when the volume is being deleted, and then takes
its finalizer off. Only when the node itself is gone is that done here: the data went with it.
Source of the behaviour: kubernetes/pkg/controller/volume/persistentvolume syncVolume, pvcprotection and pvprotection.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

from cuboid.controllers import volumes_match as match
from cuboid.controllers import volumes_provision as provision
from cuboid.kube import objects
from cuboid.kube.client import NODES, PODS, VOLUME_CLAIMS, VOLUMES
from cuboid.kube.controller.instructions import NOTHING, Delete, Plan, Tell, Update
from cuboid.kube.controller.view import Change, Key, View, Watch, itself

Object = dict[str, Any]
Raw = Mapping[str, Any]
CLAIM_PROTECTION = "kubernetes.io/pvc-protection"


def of_claim(change: Change, view: View) -> Iterable[Key]:
    """The volumes of a claim: those it names, and those made for it."""
    names = {document["spec"].get("volumeName") for document in (change.old, change.new) if document is not None}
    names.add(provision.name_for(change.new))
    return [Key("", name) for name in sorted(name for name in names if name)]


def of_node(change: Change, view: View) -> Iterable[Key]:
    """Volumes whose node is gone."""
    if change.type == "DELETED":
        for volume in view.select(VOLUMES):
            if objects.deleting(volume):
                yield Key("", objects.name(volume))


class VolumeReclaimer:
    """The key is a volume."""

    name = "persistentvolume-reclaimer"
    watches = (Watch(VOLUMES, itself, initial=True), Watch(VOLUME_CLAIMS, of_claim), Watch(NODES, of_node))

    def plan(self, key: Key, view: View, now: float) -> Plan:
        volume = view.get(VOLUMES, "", key.name)
        if volume is None:
            return NOTHING
        claim = _claim(volume, view)
        if objects.deleting(volume):
            return _leaving(volume, claim, view)
        finalizers = volume["metadata"].get("finalizers") or []
        wanted = [item for item in finalizers if item != provision.DATA_FINALIZER or _policy(volume) == "Delete"]
        wanted += [] if provision.PROTECTION in wanted else [provision.PROTECTION]
        if wanted != finalizers:
            return Plan((Update(VOLUMES, {**volume, "metadata": {**volume["metadata"], "finalizers": wanted}}),))
        if not (volume["spec"].get("claimRef") or {}).get("uid"):
            return _phase(volume, "Available")
        if claim is None:
            return _reclaim(volume)
        bound_to = claim["spec"].get("volumeName", "")
        if bound_to == key.name:
            return _phase(volume, "Bound")
        return _unneeded(volume) if bound_to else _phase(volume, objects.phase(volume) or "Available")


def _policy(volume: Raw) -> str:
    return str(volume["spec"].get("persistentVolumeReclaimPolicy", "Retain"))


def _claim(volume: Raw, view: View) -> Object | None:
    """The very claim that it is bound to."""
    ref = volume["spec"].get("claimRef") or {}
    if not ref.get("uid"):
        return None
    found = view.get(VOLUME_CLAIMS, ref["namespace"], ref["name"])
    return found if found is not None and objects.uid(found) == ref["uid"] else None


def _phase(volume: Object, phase: str, message: str = "", *more: Tell | Delete) -> Plan:
    wanted = {"phase": phase, **({"message": message} if message else {})}
    before = volume.get("status", {})
    if {key: value for key, value in before.items() if key in ("phase", "message")} == wanted:
        return Plan(tuple(item for item in more if isinstance(item, Delete)))
    rest = {key: value for key, value in before.items() if key not in ("phase", "message", "reason")}
    return Plan((Update(VOLUMES, {**volume, "status": {**rest, **wanted}}, sub="status"), *more))


def _reclaim(volume: Object) -> Plan:
    """Its claim is gone."""
    policy, name = _policy(volume), objects.name(volume)
    if policy == "Retain":
        return _phase(volume, "Released")
    if policy == "Delete" and provision.is_ours(volume) and match.hostnames(volume):
        return _delete(volume)
    if policy == "Delete" and volume["spec"].get("csi") and not provision.is_ours(volume):
        return _phase(volume, "Released")  # by whoever provisioned it
    why = f'error getting deleter volume plugin for volume "{name}": no deletable volume plugin matched'
    return _phase(volume, "Failed", why, Tell(volume, "Warning", "VolumeFailedDelete", why))


def _delete(volume: Object) -> Plan:
    finalizers = volume["metadata"].get("finalizers") or []
    if provision.DATA_FINALIZER not in finalizers:  # one that an administrator made
        metadata = {**volume["metadata"], "finalizers": [*finalizers, provision.DATA_FINALIZER]}
        return Plan((Update(VOLUMES, {**volume, "metadata": metadata}),))
    if objects.phase(volume) != "Released":
        return _phase(volume, "Released")
    return Plan((Delete(VOLUMES, objects.name(volume), uid=objects.uid(volume)),))


def _unneeded(volume: Object) -> Plan:
    """Its claim has taken another one meanwhile."""
    notes, name = objects.notes(volume), objects.name(volume)
    if provision.PROVISIONED_BY in notes and _policy(volume) == "Delete":
        return Plan((Delete(VOLUMES, name, uid=objects.uid(volume)),))
    spec = {key: value for key, value in volume["spec"].items() if key != "claimRef"}
    if provision.BOUND_BY_CONTROLLER not in notes:
        spec["claimRef"] = {key: volume["spec"]["claimRef"][key] for key in ("namespace", "name")}
    kept = {key: value for key, value in notes.items() if key != provision.BOUND_BY_CONTROLLER}
    metadata = {**volume["metadata"], "annotations": kept}
    return Plan((Update(VOLUMES, {**volume, "metadata": metadata, "spec": spec}),))


def _leaving(volume: Object, claim: Raw | None, view: View) -> Plan:
    finalizers = volume["metadata"].get("finalizers") or []
    in_use = claim is not None and claim["spec"].get("volumeName") == objects.name(volume)
    let_go = set()
    if not in_use:
        let_go.add(provision.PROTECTION)
        if _policy(volume) != "Delete" or not any(_exists(host, view) for host in match.hostnames(volume)):
            let_go.add(provision.DATA_FINALIZER)
    kept = [item for item in finalizers if item not in let_go]
    if kept == finalizers:
        return NOTHING
    return Plan((Update(VOLUMES, {**volume, "metadata": {**volume["metadata"], "finalizers": kept}}),))


def _exists(host: str, view: View) -> bool:
    if view.get(NODES, "", host) is not None:
        return True
    return any(objects.labels(node).get(match.HOSTNAME) == host for node in view.select(NODES))


# --- claims ----------------------------------------------------------------------------------------------------------


def of_pod(change: Change, view: View) -> Iterable[Key]:
    if change.type == "DELETED":
        for name in claims_of(change.new):
            yield Key(objects.namespace(change.new), name)


def claims_of(pod: Raw) -> set[str]:
    """Names of the claims that a pod uses."""
    names = set()
    for volume in pod["spec"].get("volumes") or []:
        if volume.get("persistentVolumeClaim"):
            names.add(str(volume["persistentVolumeClaim"]["claimName"]))
        elif "ephemeral" in volume:
            names.add(f"{objects.name(pod)}-{volume['name']}")
    return names


class ClaimProtection:
    """A claim that is deleted stays until no pod on a node uses it."""

    name = "persistentvolumeclaim-protection"
    watches = (Watch(VOLUME_CLAIMS, itself, initial=True), Watch(PODS, of_pod))

    def plan(self, key: Key, view: View, now: float) -> Plan:
        claim = view.get(VOLUME_CLAIMS, key.namespace, key.name)
        if claim is None:
            return NOTHING
        finalizers = claim["metadata"].get("finalizers") or []
        if not objects.deleting(claim):
            if CLAIM_PROTECTION in finalizers:
                return NOTHING
            wanted = [*finalizers, CLAIM_PROTECTION]
        elif CLAIM_PROTECTION not in finalizers or _used(key, view):
            return NOTHING
        else:
            wanted = [item for item in finalizers if item != CLAIM_PROTECTION]
        return Plan((Update(VOLUME_CLAIMS, {**claim, "metadata": {**claim["metadata"], "finalizers": wanted}}),))


def _used(key: Key, view: View) -> bool:
    return any(pod["spec"].get("nodeName") and key.name in claims_of(pod) for pod in view.select(PODS, key.namespace))
