"""The end of a namespace: its pods first, then all else in it, then itself; its conditions say what it waits for.

Source: kubernetes/pkg/controller/namespace/deletion.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable, Iterator

from cuboid.controllers.common import condition, status_patch, with_condition
from cuboid.controllers.garbage_kinds import resource_of
from cuboid.kube import objects
from cuboid.kube.client import NAMESPACES, PODS, Resource
from cuboid.kube.controller.instructions import NOTHING, Delete, Draft, Instruction, Object, Plan, Together, Update
from cuboid.kube.controller.view import Change, Key, View, Watch, itself
from cuboid.kube.kinds import Kinds
from cuboid.kube.objects import Raw
from cuboid.lib.errors import CuboidError

MOST = 500
"""Objects that one plan deletes."""
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


class NamespaceEnds:
    """`kinds` may grow: what users define is deleted as well."""

    name = "namespace"

    def __init__(self, kinds: Kinds) -> None:
        self._kinds = kinds
        self.watches = (Watch(NAMESPACES, itself, initial=True), Watch(PODS, _of_pod))

    def plan(self, key: Key, view: View, now: float) -> Plan:
        namespace = view.get(NAMESPACES, "", key.name)
        if namespace is None or not objects.deleting(namespace) or "kubernetes" not in _finalizers(namespace):
            return NOTHING
        found = self._content(view, key.name)
        if not found:
            return Plan((_finalized(namespace),))
        draft = Draft()
        new = [(resource, one) for resource, one in found if not objects.deleting(one)]
        if len(new) < len(found):  # some of it takes its time: that is told
            draft.add(*status_patch(NAMESPACES, namespace, _told(namespace, found, now)))
        if new:
            draft.add(Together(tuple(_delete(*one) for one in new[:MOST])))
            draft.failed = _failed(namespace, len(found), now)
        draft.look_again(RECHECK if len(new) < len(found) else 0.0)
        return draft.plan()

    def _content(self, view: View, name: str) -> list[tuple[Resource, Object]]:
        """Pods alone while there are any, so that what they work with outlives them."""
        if pods := [(PODS, pod) for pod in view.select(PODS, name)]:
            return pods
        return [(resource, one) for resource in self._resources() for one in view.select(resource, name)]

    def _resources(self) -> Iterator[Resource]:
        for kind in self._kinds.stored():
            if kind.namespaced and "delete" in kind.verbs:
                yield resource_of(kind)


def _of_pod(change: Change, view: View) -> Iterable[Key]:
    """One less to wait for."""
    if change.type != "DELETED":
        return ()
    name = objects.namespace(change.new)
    namespace = view.get(NAMESPACES, "", name)
    return (Key("", name),) if namespace is not None and objects.deleting(namespace) else ()


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


def _told(namespace: Raw, found: list[tuple[Resource, Object]], now: float, failure: str = "") -> Object:
    said: dict[str, tuple[str, str]] = {}
    if found:
        kinds = Counter(f"{resource.plural}.{resource.group}" for resource, _ in found)
        each = ", ".join(f"{name} has {count} resource instances" for name, count in sorted(kinds.items()))
        said["NamespaceContentRemaining"] = ("SomeResourcesRemain", f"Some resources are remaining: {each}")
    held = Counter(item for _, one in found for item in one["metadata"].get("finalizers") or ())
    if held:
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


def _failed(namespace: Object, remaining: int, now: float) -> Callable[[CuboidError], tuple[Instruction, ...]]:
    def told(error: CuboidError) -> tuple[Instruction, ...]:
        message = f"Failed to delete all resource types, {remaining} remaining: {error.message}"
        return status_patch(NAMESPACES, namespace, _told(namespace, [], now, message))

    return told
