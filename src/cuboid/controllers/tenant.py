"""The tenant controller: namespaces, role bindings, quota and limits of each tenant, and their end with it.

It never takes over a namespace that it did not make: one that exists without the tenant's label is told and left alone.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from typing import Any

from cuboid.kube import objects, tenants
from cuboid.kube.client import LIMIT_RANGES, MERGE, NAMESPACES, QUOTAS, ROLE_BINDINGS, Resource
from cuboid.kube.controller.instructions import Create, Delete, Draft, Patch, Plan
from cuboid.kube.controller.view import Change, Key, View, Watch, itself
from cuboid.kube.selectors import Requirement, Selector
from cuboid.kube.tenants import FINALIZER, LABEL, MANAGED, MANAGED_LABEL, TENANTS, TOKENS

Object = dict[str, Any]
Raw = Mapping[str, Any]
NAME = "cuboid-tenant"
"""Of the ResourceQuota and the LimitRange in each of a tenant's namespaces."""
AGAIN = 2.0
"""Seconds between looks at namespaces that are being emptied."""
_RBAC = "rbac.authorization.k8s.io"


def _labelled(change: Change, view: View) -> Iterable[Key]:
    """The tenant that an object's label names, before and after the change."""
    for document in (change.old, change.new):
        if document and (name := objects.labels(document).get(LABEL)):
            yield Key("", name)


class Tenants:
    name = "tenant"
    watches = (
        Watch(TENANTS, itself, initial=True),
        Watch(NAMESPACES, _labelled),
        Watch(ROLE_BINDINGS, _labelled),
        Watch(QUOTAS, _labelled),
        Watch(LIMIT_RANGES, _labelled),
        Watch(TOKENS, _labelled),
    )

    def plan(self, key: Key, view: View, now: float) -> Plan:
        tenant = view.get(TENANTS, "", key.name)
        if tenant is None:
            return Plan()
        draft = Draft()
        if objects.deleting(tenant):
            _end(tenant, view, draft)
        else:
            _keep(tenant, view, draft)
        return draft.plan()


def _of(tenant: Raw) -> Selector:
    return (Requirement(LABEL, "=", frozenset((objects.name(tenant),))),)


# --- life ------------------------------------------------------------------------------------------------------------


def _keep(tenant: Object, view: View, draft: Draft) -> None:
    if FINALIZER not in tenant["metadata"].get("finalizers", []):
        finalizers = [*tenant["metadata"].get("finalizers", []), FINALIZER]
        draft.add(Patch(TENANTS, objects.name(tenant), {"metadata": {"finalizers": finalizers}}, form=MERGE))
    held, ending = [], []
    for name in tenants.namespaces(tenant):
        found = view.get(NAMESPACES, "", name)
        if found is not None and objects.labels(found).get(LABEL) != objects.name(tenant):
            held.append(name)
        elif found is not None and objects.deleting(found):
            ending.append(name)
        else:
            if found is None:
                draft.add(Create(NAMESPACES, _namespace(tenant, name), exists_is_fine=True))
            _furnish(tenant, name, view, draft)
    _say(tenant, _state(tenant, view, held, ending), draft)


def _furnish(tenant: Object, namespace: str, view: View, draft: Draft) -> None:
    """What belongs into each namespace, made or put right."""
    wanted = list(_contents(tenant, namespace))
    for resource, body in wanted:
        found = view.get(resource, namespace, objects.name(body))
        if found is None:
            draft.add(Create(resource, body, namespace, exists_is_fine=True))
        elif found.get("roleRef", {}) != body.get("roleRef", {}):  # it does not change: another one is made next time
            draft.add(Delete(resource, objects.name(body), namespace, uid=objects.uid(found)))
            draft.look_again(0.1)
        elif changed := _changes(found, body):
            draft.add(Patch(resource, objects.name(body), changed, namespace, form=MERGE))
    names = {(resource, objects.name(body)) for resource, body in wanted}
    for resource in (ROLE_BINDINGS, QUOTAS, LIMIT_RANGES):
        for found in view.select(resource, namespace, _of(tenant)):
            kept = objects.labels(found).get(MANAGED_LABEL) == MANAGED
            if kept and (resource, objects.name(found)) not in names:
                draft.add(Delete(resource, objects.name(found), namespace, uid=objects.uid(found)))


def _changes(found: Raw, wanted: Raw) -> Object:
    """A merge patch of what differs; {} if nothing does."""
    changed: Object = {}
    for key in ("spec", "subjects"):
        if key in wanted and found.get(key) != wanted[key]:
            changed[key] = _replacing(found.get(key), wanted[key])
    labels = objects.labels(wanted)
    if any(objects.labels(found).get(key) != value for key, value in labels.items()):
        changed["metadata"] = {"labels": dict(labels)}
    return changed


def _replacing(found: Any, wanted: Any) -> Any:
    """A merge patch that leaves nothing of what was there: absent keys are removed."""
    if not isinstance(found, dict) or not isinstance(wanted, dict):
        return wanted
    gone = dict.fromkeys(found.keys() - wanted.keys())
    return {**gone, **{key: _replacing(found.get(key), value) for key, value in wanted.items()}}


def _namespace(tenant: Object, name: str) -> Object:
    metadata = {"name": name, "labels": {LABEL: objects.name(tenant)}}
    return {"apiVersion": "v1", "kind": "Namespace", "metadata": metadata}


def _contents(tenant: Object, namespace: str) -> Iterator[tuple[Resource, Object]]:
    """Bounds first: nobody comes in before they hold."""
    spec = tenant.get("spec", {})
    if quota := spec.get("quota"):
        yield QUOTAS, {**_made(tenant, "v1", "ResourceQuota", NAME), "spec": {"hard": dict(quota)}}
    if limits := spec.get("limits"):
        yield LIMIT_RANGES, {**_made(tenant, "v1", "LimitRange", NAME), "spec": {"limits": list(limits)}}
    for role in tenants.ROLES:
        yield ROLE_BINDINGS, _binding(tenant, role)


def _made(tenant: Object, version: str, kind: str, name: str) -> Object:
    labels = {LABEL: objects.name(tenant), MANAGED_LABEL: MANAGED}
    return {"apiVersion": version, "kind": kind, "metadata": {"name": name, "labels": labels}}


def _binding(tenant: Object, role: str) -> Object:
    """Of token holders and members with this role to the cluster's role of the same name, in one namespace."""
    subjects = [("Group", tenants.group_of(objects.name(tenant), role))]
    members = tenant.get("spec", {}).get("members", [])
    subjects += [(row["kind"], row["name"]) for row in members if row.get("role", "edit") == role]
    rows = [{"kind": kind, "apiGroup": _RBAC, "name": name} for kind, name in dict.fromkeys(subjects)]
    made = _made(tenant, f"{_RBAC}/v1", "RoleBinding", f"{NAME}-{role}")
    return {**made, "roleRef": {"apiGroup": _RBAC, "kind": "ClusterRole", "name": role}, "subjects": rows}


def _state(tenant: Object, view: View, held: list[str], ending: list[str]) -> Object:
    lost = [f"namespace {name} exists and is not this tenant's" for name in held]
    lost += [f"namespace {name} is being removed" for name in ending]
    there = [objects.name(found) for found in view.select(NAMESPACES, "", _of(tenant)) if not objects.deleting(found)]
    complete = not lost and set(tenants.namespaces(tenant)) <= set(there)
    return {"phase": "Active" if complete else "Pending", "namespaces": there, "message": "; ".join(lost)}


def _say(tenant: Object, state: Object, draft: Draft) -> None:
    state = {key: value for key, value in state.items() if value}
    found = tenant.get("status", {})
    if state != {key: found[key] for key in ("phase", "namespaces", "message") if found.get(key)}:
        body = {"metadata": {"uid": objects.uid(tenant)}, "status": {"message": None, "namespaces": None, **state}}
        draft.add(Patch(TENANTS, objects.name(tenant), body, form=MERGE, sub="status"))


# --- end -------------------------------------------------------------------------------------------------------------


def _end(tenant: Object, view: View, draft: Draft) -> None:
    """Tokens first, so that nobody adds anything; then the namespaces; then the tenant."""
    if FINALIZER not in tenant["metadata"].get("finalizers", []):
        return
    for token in view.select(TOKENS, "", _of(tenant)):
        draft.add(Delete(TOKENS, objects.name(token), uid=objects.uid(token)))
    left = view.select(NAMESPACES, "", _of(tenant))
    for namespace in left:
        if not objects.deleting(namespace):
            draft.add(Delete(NAMESPACES, objects.name(namespace), uid=objects.uid(namespace)))
    if left:
        names = [objects.name(namespace) for namespace in left]
        message = f"{len(names)} namespace{'s are' if len(names) > 1 else ' is'} being removed: {', '.join(names)}"
        _say(tenant, {"phase": "Terminating", "namespaces": names, "message": message}, draft)
        draft.look_again(AGAIN)
        return
    rest = [item for item in tenant["metadata"]["finalizers"] if item != FINALIZER]
    draft.add(Patch(TENANTS, objects.name(tenant), {"metadata": {"finalizers": rest}}, form=MERGE))
