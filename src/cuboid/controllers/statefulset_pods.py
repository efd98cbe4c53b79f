"""The pods of a StatefulSet: their names, numbers, identities, and the claims that each of them keeps.

Source: kubernetes/pkg/controller/statefulset/stateful_set_utils.go.
"""

from __future__ import annotations

import copy
import re
from collections.abc import Iterator, Mapping
from typing import Any

from cuboid.controllers import common, revisions
from cuboid.kube import objects
from cuboid.kube.client import PODS, VOLUME_CLAIMS
from cuboid.kube.controller.instructions import Create, Delete, Patch, Tell
from cuboid.kube.controller.view import View

Object = dict[str, Any]
Raw = Mapping[str, Any]
POD_NAME = "statefulset.kubernetes.io/pod-name"
POD_INDEX = "apps.kubernetes.io/pod-index"
_NAME = re.compile(r"(.*)-(0|[1-9][0-9]{0,9})", re.ASCII | re.DOTALL)


def ordinal(found: Raw, pod: Raw) -> int | None:
    """Which of the set's pods it is; None for one whose name is not of this set."""
    match = _NAME.fullmatch(objects.name(pod))
    return int(match[2]) if match and match[1] == objects.name(found) else None


def name_of(found: Raw, number: int) -> str:
    return f"{objects.name(found)}-{number}"


def start(found: Raw) -> int:
    return int((found["spec"].get("ordinals") or {}).get("start", 0))


def replicas(found: Raw) -> int:
    return int(found["spec"].get("replicas", 1))


def revision_of(pod: Raw) -> str:
    return objects.labels(pod).get(revisions.HASH, "")


def running_and_ready(pod: Raw) -> bool:
    return objects.phase(pod) == "Running" and objects.ready(pod)


def healthy(pod: Raw) -> bool:
    return running_and_ready(pod) and not objects.deleting(pod)


def creation(found: Raw, revision: Raw, number: int) -> Create:
    """The pod of this number, of the template that a revision keeps."""
    pod = common.pod_from(revisions.template(revision), found)
    name = name_of(found, number)
    pod["metadata"].pop("generateName")
    pod["metadata"]["name"] = name
    labels = {**_identity(name, number), revisions.HASH: objects.name(revision)}
    pod["metadata"]["labels"] = {**pod["metadata"].get("labels", {}), **labels}
    pod["spec"] |= {"hostname": name}
    if found["spec"].get("serviceName"):
        pod["spec"]["subdomain"] = found["spec"]["serviceName"]
    claimed = {
        template: {"name": template, "persistentVolumeClaim": {"claimName": claim}}
        for template, claim in claim_names(found, number)
    }
    if claimed:
        kept = [volume for volume in pod["spec"].get("volumes") or () if volume["name"] not in claimed]
        pod["spec"]["volumes"] = [*kept, *claimed.values()]
    return Create(PODS, pod, objects.namespace(found), tell=told(found, "create", "Pod", name))


def told(found: Raw, verb: str, kind: str, name: str) -> Tell:
    text = f"{verb} {kind} {name} in StatefulSet {objects.name(found)} successful"
    return Tell(dict(found), "Normal", f"Successful{verb.capitalize()}", text)


def deletion(found: Raw, pod: Raw) -> Delete:
    name = objects.name(pod)
    return Delete(PODS, name, objects.namespace(pod), objects.uid(pod), tell=told(found, "delete", "Pod", name))


def _identity(name: str, number: int) -> dict[str, str]:
    return {POD_NAME: name, POD_INDEX: str(number)}


def identified(pod: Raw, number: int) -> list[Patch]:
    """Labels that tell which one it is, where somebody took them away."""
    wanted = _identity(objects.name(pod), number)
    if all(objects.labels(pod).get(key) == value for key, value in wanted.items()):
        return []
    body = {"metadata": {"uid": objects.uid(pod), "labels": wanted}}
    return [Patch(PODS, objects.name(pod), body, objects.namespace(pod))]


# --- claims ----------------------------------------------------------------------------------------------------------


def claim_names(found: Raw, number: int) -> Iterator[tuple[str, str]]:
    """Name of the template and of the claim."""
    for template in found["spec"].get("volumeClaimTemplates") or ():
        name = objects.name(template)
        yield name, f"{name}-{name_of(found, number)}"


def claims_missing(found: Raw, number: int, view: View) -> list[Create] | None:
    """What has to be created for a pod; None while an old claim of the same name is on its way out."""
    made = []
    namespace = objects.namespace(found)
    for template, (_, name) in zip(
        found["spec"].get("volumeClaimTemplates") or (), claim_names(found, number), strict=True
    ):
        known = view.get(VOLUME_CLAIMS, namespace, name)
        if known is None:
            body = _claim(found, template, name)
            made.append(Create(VOLUME_CLAIMS, body, namespace, True, told(found, "create", "Claim", name)))
        elif objects.deleting(known):
            return None
    return made


def _claim(found: Raw, template: Raw, name: str) -> Object:
    body = copy.deepcopy(dict(template))
    body.pop("status", None)
    labels = (found["spec"]["selector"].get("matchLabels")) or {}
    body["metadata"] |= {"name": name, "labels": {**body["metadata"].get("labels", {}), **labels}}
    body["metadata"].pop("namespace", None)
    if _when(found, "whenDeleted"):
        body["metadata"]["ownerReferences"] = [_reference(found)]
    return body


def _when(found: Raw, key: str) -> bool:
    """Whether claims are deleted then."""
    return bool((found["spec"].get("persistentVolumeClaimRetentionPolicy") or {}).get(key) == "Delete")


def _reference(owner: Raw) -> Object:
    """Not a controller's: the claim only goes when this object does."""
    made = objects.owner_reference(owner)
    return {key: made[key] for key in ("apiVersion", "kind", "name", "uid")}


def claims_kept(found: Raw, pod: Raw, number: int, view: View, *, condemned: bool) -> list[Patch]:
    """Who owns the claims of a pod decides what becomes of them: the set (they go with it), the pod (they go when it is
    scaled away) or nobody (they stay)."""
    owner = None
    if condemned and _when(found, "whenScaled"):
        owner = _reference(pod)
    elif _when(found, "whenDeleted"):
        owner = _reference(found)
    patches = []
    for _, name in claim_names(found, number):
        known = view.get(VOLUME_CLAIMS, objects.namespace(found), name)
        if known is None or objects.deleting(known):
            continue
        refs: list[Object] = known["metadata"].get("ownerReferences", [])
        ours = [ref for ref in refs if _is_ours(ref, found, pod)]
        others = [ref for ref in refs if ref not in ours]
        wanted = [*others, owner] if owner is not None else others
        if [_plain(ref) for ref in ours] != ([] if owner is None else [owner]):
            seen = {"uid": objects.uid(known), "resourceVersion": known["metadata"]["resourceVersion"]}
            body = {"metadata": {**seen, "ownerReferences": wanted or None}}
            patches.append(Patch(VOLUME_CLAIMS, name, body, objects.namespace(found)))
    return patches


def _is_ours(ref: Raw, found: Raw, pod: Raw) -> bool:
    return (ref["kind"], ref["name"]) in (("StatefulSet", objects.name(found)), ("Pod", objects.name(pod)))


def _plain(ref: Raw) -> Object:
    return {key: ref[key] for key in ("apiVersion", "kind", "name", "uid")}
