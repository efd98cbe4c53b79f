"""Who controls what: adoption of orphans that a selector chooses, release of what it no longer does.

Source of the rules: kubernetes/pkg/controller/controller_ref_manager.go.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from typing import Any

from cuboid.kube import objects, selectors
from cuboid.kube.client import Resource
from cuboid.kube.controller.instructions import Patch
from cuboid.kube.controller.view import Change, Key, KeysOf, View
from cuboid.kube.selectors import Selector

Object = dict[str, Any]
Raw = Mapping[str, Any]


@dataclass(frozen=True)
class Claim:
    """`mine` are controlled by the owner and chosen by its selector, in the order of names. `patches` have to be done
    first: those that they adopt are in `mine` only once they are."""

    mine: tuple[Object, ...]
    patches: tuple[Patch, ...]


def controlled(view: View, resource: Resource, owner: Raw) -> list[Object]:
    """What `owner` controls in its own namespace: what calls itself so elsewhere is a stranger's."""
    uid, namespace = objects.uid(owner), objects.namespace(owner)
    return [
        document
        for document in view.owned(resource, uid)
        if objects.namespace(document) == namespace
        and (ref := objects.controller(document)) is not None
        and ref["uid"] == uid
    ]


def claim(
    view: View, resource: Resource, owner: Raw, selector: Selector | None, wanted: Callable[[Raw], bool] = bool
) -> Claim:
    """`wanted` narrows what is adopted: pods that have ended are left alone. So is what has any other owner."""
    mine, patches, uid = [], [], objects.uid(owner)
    leaving = objects.deleting(owner)
    for document in controlled(view, resource, owner):
        if selector is not None and selectors.matches(selector, objects.labels(document)):
            mine.append(document)
        elif not leaving and not objects.deleting(document):
            patches.append(_release(resource, document, uid))
    if selector and not leaving:
        for document in view.orphans(resource, objects.namespace(owner), selector):
            if not objects.deleting(document) and wanted(document):
                patches.append(_adopt(resource, document, owner))
    return Claim(tuple(mine), tuple(patches))


def _adopt(resource: Resource, document: Raw, owner: Raw) -> Patch:
    kept = [ref for ref in _owners(document) if ref["uid"] != objects.uid(owner)]
    return _owned_by(resource, document, [*kept, objects.owner_reference(owner)])


def _release(resource: Resource, document: Raw, uid: str) -> Patch:
    return _owned_by(resource, document, [ref for ref in _owners(document) if ref["uid"] != uid])


def _owners(document: Raw) -> list[Object]:
    found: list[Object] = document["metadata"].get("ownerReferences", [])
    return found


def _owned_by(resource: Resource, document: Raw, owners: list[Object]) -> Patch:
    seen = {"uid": objects.uid(document), "resourceVersion": document["metadata"]["resourceVersion"]}
    body = {"metadata": {**seen, "ownerReferences": owners or None}}
    return Patch(resource, objects.name(document), body, objects.namespace(document))


def owner_or_choosers(kind: str, resource: Resource) -> KeysOf:
    """Keys of the controlling owner, before and after a change; of an orphan, of all whose selector chooses it."""

    def keys(change: Change, view: View) -> Iterable[Key]:
        found: dict[Key, None] = {}
        for document in (change.old, change.new):
            if document is None:
                continue
            ref = objects.controller(document)
            if ref is None:
                if document is change.new and _comes_free(change):
                    found.update(dict.fromkeys(_choosers(resource, document, view)))
            elif ref["kind"] == kind and ref["apiVersion"].rpartition("/")[0] == resource.group:
                found[Key(objects.namespace(document), ref["name"])] = None
        return found

    return keys


def _comes_free(change: Change) -> bool:
    """Whether an orphan is new as one, or with these labels: all else that happens to it is nobody's business."""
    if change.type == "DELETED" or objects.deleting(change.new):
        return False
    old = change.old
    return old is None or objects.controller(old) is not None or objects.labels(old) != objects.labels(change.new)


def _choosers(resource: Resource, document: Raw, view: View) -> Iterable[Key]:
    labels = objects.labels(document)
    if not labels:
        return
    for owner in view.glance(resource, objects.namespace(document)):
        selector = objects.label_selector(owner["spec"].get("selector"))
        if selector and selectors.matches(selector, labels):
            yield Key(objects.namespace(owner), objects.name(owner))
