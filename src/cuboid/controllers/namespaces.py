"""The end of a namespace: its pods first, then all else in it, then itself; its conditions say what it waits for.

Source: kubernetes/pkg/controller/namespace/deletion.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable, Sequence

from cuboid.controllers.common import condition, status_patch, with_condition
from cuboid.controllers.namespace_content import MOST, Content, Part
from cuboid.kube import objects
from cuboid.kube.client import NAMESPACES, PODS, Resource
from cuboid.kube.controller.instructions import NOTHING, Delete, Draft, Instruction, Object, Plan, Together, Update
from cuboid.kube.controller.view import Change, Key, View, Watch, itself
from cuboid.kube.objects import Raw
from cuboid.lib.errors import CuboidError

RECHECK = 2.0
"""Seconds after which what is still ending is looked at again."""
_FINE = {
    "NamespaceDeletionDiscoveryFailure": ("ResourcesDiscovered", "All resources successfully discovered"),
    "NamespaceDeletionGroupVersionParsingFailure": ("ParsedGroupVersions", "All legacy kube types successfully parsed"),
    "NamespaceDeletionContentFailure": (
        "ContentDeleted",
        "All content successfully deleted, may be waiting on finalization",
    ),
    "NamespaceContentRemaining": ("ContentRemoved", "All content successfully removed"),
    "NamespaceFinalizersRemaining": ("ContentHasNoFinalizers", "All content-preserving finalizers finished"),
}


def _of_pod(change: Change, view: View) -> Iterable[Key]:
    """One less to wait for."""
    if change.type != "DELETED":
        return ()
    name = objects.namespace(change.new)
    namespace = view.get(NAMESPACES, "", name)
    return (Key("", name),) if namespace is not None and objects.deleting(namespace) else ()


class NamespaceEnds:
    name = "namespace"
    watches = (Watch(NAMESPACES, itself, initial=True), Watch(PODS, _of_pod))

    def __init__(self, content: Content) -> None:
        self._content = content

    def plan(self, key: Key, view: View, now: float) -> Plan:
        namespace = view.get(NAMESPACES, "", key.name)
        if namespace is None or not objects.deleting(namespace) or "kubernetes" not in _finalizers(namespace):
            return NOTHING
        found = list(self._content.parts(view, key.name))
        if not found:
            return Plan((_finalized(namespace),))
        # Pods alone while there are any, so that what they work with outlives them.
        found = [part for part in found if part.resource == PODS] or found
        draft = Draft()
        fresh = [(part.resource, one) for part in found for one in part.fresh]
        remaining = sum(part.total for part in found)
        waiting = len(fresh) < min(remaining, MOST)
        if waiting:  # some of it takes its time: that is told
            draft.add(*status_patch(NAMESPACES, namespace, _told(namespace, found, now)))
        if fresh:
            draft.add(Together(tuple(_delete(*one) for one in fresh[:MOST])))
            draft.failed = _failed(namespace, found, now)
        draft.look_again(RECHECK if waiting else 0.0)
        return draft.plan()


def _finalizers(namespace: Raw) -> list[str]:
    found: list[str] = namespace.get("spec", {}).get("finalizers") or []
    return found


def _finalized(namespace: Object) -> Update:
    left = [item for item in _finalizers(namespace) if item != "kubernetes"]
    return Update(NAMESPACES, {**namespace, "spec": {"finalizers": left}}, sub="finalize")


def _delete(resource: Resource, document: Raw) -> Delete:
    place = (objects.name(document), objects.namespace(document), objects.uid(document))
    return Delete(resource, *place, propagation="Background")


# --- conditions ------------------------------------------------------------------------------------------------------


def _told(namespace: Raw, found: Sequence[Part], now: float, failure: str = "") -> Object:
    said: dict[str, tuple[str, str]] = {}
    if kinds := sorted((f"{part.resource.plural}.{part.resource.group}", part.total) for part in found):
        each = ", ".join(f"{name} has {count} resource instances" for name, count in kinds)
        said["NamespaceContentRemaining"] = ("SomeResourcesRemain", f"Some resources are remaining: {each}")
    if held := sum((part.held for part in found), Counter()):
        each = ", ".join(f"{name} in {count} resource instances" for name, count in sorted(held.items()))
        message = f"Some content in the namespace has finalizers remaining: {each}"
        said["NamespaceFinalizersRemaining"] = ("SomeFinalizersRemain", message)
    if failure:
        said["NamespaceDeletionContentFailure"] = ("ContentDeletionFailed", failure)
    status: Object = dict(namespace.get("status", {}))
    conditions = list(status.get("conditions") or [])
    for type_, fine in _FINE.items():
        reason, message = said.get(type_, fine)
        new = condition(type_, "True" if type_ in said else "False", reason, message, now)
        conditions = with_condition(conditions, new)
    return {**status, "conditions": conditions}


def _failed(namespace: Object, found: Sequence[Part], now: float) -> Callable[[CuboidError], tuple[Instruction, ...]]:
    def told(error: CuboidError) -> tuple[Instruction, ...]:
        remaining = sum(part.total for part in found)
        message = f"Failed to delete all resource types, {remaining} remaining: {error.message}"
        return status_patch(NAMESPACES, namespace, _told(namespace, found, now, message))

    return told
