"""What the volumes of a pod ask of its node: which nodes can have them, and which of them wait for a node. Pure."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from cuboid.kube import objects
from cuboid.scheduler import terms

Raw = Mapping[str, Any]
SELECTED_NODE = "volume.kubernetes.io/selected-node"
"""On a claim that waits for its first consumer: the node for which a volume is to be made."""


@dataclass(frozen=True)
class Claims:
    """`problem` is why the pod can be nowhere yet, "" if there is none. `affinities` are those of bound volumes, one of
    whose terms must match the node; `waiting` the claims that want to be told the node first."""

    problem: str = ""
    affinities: tuple[Raw, ...] = ()
    waiting: tuple[Raw, ...] = ()


NO_CLAIMS = Claims()
Lookup = Callable[[str, str], Raw | None]
"""By namespace and name."""


def claims(pod: Raw, claim_of: Lookup, volume_of: Lookup, class_of: Lookup) -> Claims:
    names = [_claim_name(pod, volume) for volume in pod["spec"].get("volumes") or ()]
    names = [name for name in names if name]
    if not names:
        return NO_CLAIMS
    affinities: list[Raw] = []
    waiting: list[Raw] = []
    for name in names:
        claim = claim_of(objects.namespace(pod), name)
        if claim is None:
            return Claims(f'persistentvolumeclaim "{name}" not found')
        if objects.deleting(claim):
            return Claims(f'persistentvolumeclaim "{name}" is being deleted')
        if claim.get("status", {}).get("phase") == "Lost":
            return Claims(f'persistentvolumeclaim "{name}" bound to non-existent persistentvolume')
        volume_name = claim["spec"].get("volumeName", "")
        if volume_name and claim.get("status", {}).get("phase") == "Bound":
            volume = volume_of("", volume_name) or {}
            if required := volume.get("spec", {}).get("nodeAffinity", {}).get("required"):
                affinities.append(required)
        elif not volume_name and _waits(claim, class_of):
            waiting.append(claim)
        else:
            return Claims("pod has unbound immediate PersistentVolumeClaims")
    return Claims("", tuple(affinities), tuple(waiting))


def _claim_name(pod: Raw, volume: Raw) -> str:
    if "ephemeral" in volume:
        return f"{objects.name(pod)}-{volume['name']}"
    return str((volume.get("persistentVolumeClaim") or {}).get("claimName", ""))


def _waits(claim: Raw, class_of: Lookup) -> bool:
    found = class_of("", claim["spec"].get("storageClassName") or "")
    return found is not None and found.get("volumeBindingMode") == "WaitForFirstConsumer"


def fits(found: Claims, labels: Mapping[str, str], name: str) -> bool:
    return all(terms.node_terms_match(item.get("nodeSelectorTerms", []), labels, name) for item in found.affinities)


def selected_node(claim: Raw) -> str:
    """The node that a waiting claim was told, "" if none yet."""
    return str(objects.notes(claim).get(SELECTED_NODE, ""))
