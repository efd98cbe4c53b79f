"""Small questions about objects as they come from the API: plain JSON dictionaries."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from cuboid.kube.selectors import Requirement, Selector

Object = dict[str, Any]
Raw = Mapping[str, Any]
_OPERATORS = {"In": "in", "NotIn": "notin", "Exists": "exists", "DoesNotExist": "!exists"}


def uid(document: Raw) -> str:
    return str(document["metadata"].get("uid", ""))


def name(document: Raw) -> str:
    return str(document["metadata"]["name"])


def namespace(document: Raw) -> str:
    return str(document["metadata"].get("namespace", ""))


def labels(document: Raw) -> Mapping[str, str]:
    found: Mapping[str, str] = document["metadata"].get("labels") or {}
    return found


def notes(document: Raw) -> Mapping[str, str]:
    """Its annotations."""
    found: Mapping[str, str] = document["metadata"].get("annotations") or {}
    return found


def deleting(document: Raw) -> bool:
    return bool(document["metadata"].get("deletionTimestamp"))


def controller(document: Raw) -> Raw | None:
    """The owner reference with `controller: true`."""
    return next((ref for ref in document["metadata"].get("ownerReferences", []) if ref.get("controller")), None)


def owner_reference(owner: Raw) -> Object:
    """What an object gets to be controlled by `owner`."""
    return {
        "apiVersion": owner["apiVersion"],
        "kind": owner["kind"],
        "name": name(owner),
        "uid": uid(owner),
        "controller": True,
        "blockOwnerDeletion": True,
    }


def condition(document: Raw, type_: str) -> Raw | None:
    found: Raw | None = next(
        (item for item in document.get("status", {}).get("conditions", []) if item.get("type") == type_), None
    )
    return found


def is_true(document: Raw, type_: str) -> bool:
    found = condition(document, type_)
    return found is not None and found.get("status") == "True"


def ready(pod: Raw) -> bool:
    return is_true(pod, "Ready")


def phase(pod: Raw) -> str:
    return str(pod.get("status", {}).get("phase", ""))


def finished(pod: Raw) -> bool:
    return phase(pod) in ("Succeeded", "Failed")


def active(pod: Raw) -> bool:
    """Neither finished nor asked to end."""
    return not finished(pod) and not deleting(pod)


def label_selector(given: Raw | None) -> Selector | None:
    """A `LabelSelector`; None (which selects nothing) when it is absent. An empty one selects everything."""
    if given is None:
        return None
    found = [Requirement(key, "=", frozenset((value,))) for key, value in (given.get("matchLabels") or {}).items()]
    for item in given.get("matchExpressions") or []:
        found.append(Requirement(item["key"], _OPERATORS[item["operator"]], frozenset(item.get("values") or ())))
    return tuple(found)
