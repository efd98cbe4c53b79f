"""Aggregated ClusterRoles: their rules are those of the roles that their selectors choose, written where people look.

Authorization does not wait for it: it gathers by itself. Source: kubernetes/pkg/controller/clusterroleaggregation.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

from cuboid.kube import objects, selectors
from cuboid.kube.client import CLUSTER_ROLES, MERGE
from cuboid.kube.controller.instructions import NOTHING, Patch, Plan
from cuboid.kube.controller.view import Change, Key, View, Watch

Object = dict[str, Any]
Raw = Mapping[str, Any]


def _gatherers(change: Change, view: View) -> Iterable[Key]:
    """The role itself, and those that choose it now or chose it before."""
    for role in (*view.select(CLUSTER_ROLES), change.new):
        changed = [document for document in (change.old, change.new) if document]
        same = objects.name(role) == objects.name(change.new)
        if role.get("aggregationRule") and (same or any(_chooses(role, document) for document in changed)):
            yield Key("", objects.name(role))


def _chooses(role: Raw, other: Raw) -> bool:
    wanted = [objects.label_selector(item) for item in role["aggregationRule"].get("clusterRoleSelectors") or ()]
    return any(item is not None and selectors.matches(item, objects.labels(other)) for item in wanted)


class Aggregation:
    name = "clusterrole-aggregation"
    watches = (Watch(CLUSTER_ROLES, _gatherers, initial=True),)

    def plan(self, key: Key, view: View, now: float) -> Plan:
        role = view.get(CLUSTER_ROLES, "", key.name)
        if role is None or not role.get("aggregationRule") or objects.deleting(role):
            return NOTHING
        rules: list[Object] = []
        for other in view.select(CLUSTER_ROLES):
            if objects.name(other) != key.name and _chooses(role, other):
                rules += [rule for rule in other.get("rules") or () if rule not in rules]
        if rules == (role.get("rules") or []):
            return NOTHING
        body = {"metadata": {"uid": objects.uid(role)}, "rules": rules}
        return Plan((Patch(CLUSTER_ROLES, key.name, body, form=MERGE),))
