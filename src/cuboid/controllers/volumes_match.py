"""Which volume a claim can have. Pure.

Source: k8s.io/component-helpers/storage/volume, FindMatchingVolume.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

from cuboid.kube import objects, quantity, selectors
from cuboid.kube.quota_usage import storage_class

Object = dict[str, Any]
Raw = Mapping[str, Any]
HOSTNAME = "kubernetes.io/hostname"
_OPERATORS = ("In", "NotIn", "Exists", "DoesNotExist")


def size_asked(claim: Raw) -> int:
    """Bytes."""
    return quantity.to_int((claim["spec"].get("resources") or {}).get("requests", {}).get("storage", 0))


def size_of(volume: Raw) -> int:
    """Bytes."""
    return quantity.to_int(volume["spec"].get("capacity", {}).get("storage", 0))


def is_for(volume: Raw, claim: Raw) -> bool:
    """Whether the volume is bound to this claim, or was made for one of this name."""
    ref = volume["spec"].get("claimRef") or {}
    place = (ref.get("namespace"), ref.get("name"))
    return place == (objects.namespace(claim), objects.name(claim)) and ref.get("uid") in (None, "", objects.uid(claim))


def is_bound_to(volume: Raw, claim: Raw) -> bool:
    return is_for(volume, claim) and bool(volume["spec"]["claimRef"].get("uid"))


def misfit(volume: Raw, claim: Raw) -> str:
    """Why a volume is not what the claim asks for, in Kubernetes' words; "" if it is."""
    if size_of(volume) < size_asked(claim):
        return "requested PV is too small"
    if storage_class(volume) != storage_class(claim):
        return "storageClassName does not match"
    if volume["spec"].get("volumeMode", "Filesystem") != claim["spec"].get("volumeMode", "Filesystem"):
        return "incompatible volumeMode"
    if not set(claim["spec"].get("accessModes") or []) <= set(volume["spec"].get("accessModes") or []):
        return "incompatible accessMode"
    return ""


def best(claim: Raw, volumes: Iterable[Object], node: Raw | None) -> Object | None:
    """The one that was made for the claim, else the smallest that fits and can be had on `node` (None: any)."""
    wanted = objects.label_selector(claim["spec"].get("selector"))
    found: list[Object] = []
    for volume in volumes:
        if objects.deleting(volume):
            continue
        if volume["spec"].get("claimRef"):
            if is_for(volume, claim):
                return volume
            continue
        if volume.get("status", {}).get("phase", "Available") not in ("Available", "Pending", ""):
            continue
        if wanted is not None and not selectors.matches(wanted, objects.labels(volume)):
            continue
        if not misfit(volume, claim) and (node is None or reachable(volume, node)):
            found.append(volume)
    return min(found, key=lambda volume: (size_of(volume), objects.name(volume)), default=None)


def terms_of(volume: Raw) -> list[Raw] | None:
    """The terms of its node affinity, None for a volume that can be had everywhere."""
    required = (volume["spec"].get("nodeAffinity") or {}).get("required")
    return None if required is None else list(required.get("nodeSelectorTerms") or [])


def reachable(volume: Raw, node: Raw) -> bool:
    terms = terms_of(volume)
    if terms is None:
        return True
    labels = objects.labels(node)
    return any(_term(term, labels) for term in terms)


def _term(term: Raw, labels: Mapping[str, str]) -> bool:
    """A term without expressions, or with one that labels can not answer, matches nothing."""
    given = list(term.get("matchExpressions") or [])
    if not given or any(expression["operator"] not in _OPERATORS for expression in given):
        return False
    selector = objects.label_selector({"matchExpressions": given})
    return selector is not None and selectors.matches(selector, labels)


def hostnames(volume: Raw) -> list[str]:
    """The nodes that its affinity names one by one."""
    return [
        str(value)
        for term in terms_of(volume) or []
        for expression in term.get("matchExpressions") or []
        if expression["key"] == HOSTNAME and expression["operator"] == "In"
        for value in expression.get("values") or []
    ]
