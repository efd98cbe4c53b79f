"""The status of ResourceQuotas: what of each limit is used. Admission counts for itself; this is for who reads it.

Source of the behaviour: kubernetes/pkg/controller/resourcequota.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

from cuboid.controllers.pace import Pace
from cuboid.kube import objects
from cuboid.kube.client import DEFINITIONS, QUOTAS, Resource
from cuboid.kube.controller.instructions import NOTHING, Plan, Update
from cuboid.kube.controller.view import Change, Key, KeysOf, View, Watch, itself
from cuboid.kube.kind import Kind
from cuboid.kube.kinds import KINDS
from cuboid.kube.quota_usage import Usage, amount, matches, text, usage

Object = dict[str, Any]
Raw = Mapping[str, Any]

RESYNC = 300.0
"""Seconds between two counts though nothing is known to have changed: pods pass the end of their grace period."""
CUSTOM_RESYNC = 30.0
"""The same for a quota that counts custom resources, whose changes are not followed."""
PAUSE_PER_OBJECT = 0.002
"""Seconds between two counts, for every object counted: a count reads them all."""
PAUSE = 0.5
_NOT_FOLLOWED = {("", "events"), ("coordination.k8s.io", "leases"), ("", "resourcequotas")}


def _resource(kind: Kind) -> Resource:
    return Resource(kind.group, kind.version, kind.plural, not kind.namespaced)


_BUILT_IN = {kind.stored_as: kind for kind in KINDS if kind.namespaced and not kind.storage[1]}
_COMPUTE = ("pods", "cpu", "memory", "ephemeral-storage")


def in_namespace(kind: Kind) -> KeysOf:
    """The quotas of the namespace of an object that came, went, or takes another amount now."""

    def keys(change: Change, view: View) -> Iterable[Key]:
        if change.type == "MODIFIED" and change.old is not None and _as_before(kind, change.old, change.new):
            return
        for quota in view.glance(QUOTAS, objects.namespace(change.new)):
            yield Key(objects.namespace(quota), objects.name(quota))

    return keys


def _as_before(kind: Kind, old: Raw, new: Raw) -> bool:
    """Most changes are of a status, and need no sums to be seen as none."""
    if old.get("spec") == new.get("spec") and objects.finished(old) == objects.finished(new):
        return kind.stored_as != ("", "persistentvolumeclaims") or old.get("status") == new.get("status")
    return usage(kind, old) == usage(kind, new)


class QuotaController:
    name = "resourcequota"
    watches = (
        Watch(QUOTAS, itself, initial=True),
        *(Watch(_resource(kind), in_namespace(kind)) for at, kind in _BUILT_IN.items() if at not in _NOT_FOLLOWED),
    )

    def __init__(self) -> None:
        self._pace = Pace(PAUSE_PER_OBJECT, least=PAUSE)

    def plan(self, key: Key, view: View, now: float) -> Plan:
        quota = view.get(QUOTAS, key.namespace, key.name)
        if quota is None or objects.deleting(quota):
            self._pace.forget(key)
            return NOTHING
        hard = quota["spec"].get("hard") or {}
        left = self._pace.wait(key, now)
        if left and quota.get("status", {}).get("hard") == hard:
            return Plan(again=left)
        kinds, custom = _kinds(hard, view)
        used, number = _used(quota, hard, kinds, view, now)
        self._pace.done(key, now, number)
        again = CUSTOM_RESYNC if custom else RESYNC
        status = {"hard": hard, "used": {name: text(name, used[name]) for name in hard}}
        if _same(quota.get("status", {}), status):
            return Plan(again=again)
        return Plan((Update(QUOTAS, {**quota, "status": status}, sub="status"),), again)


def _kinds(hard: Iterable[str], view: View) -> tuple[list[Kind], bool]:
    """The kinds that these limits are about, and whether custom ones are among them."""
    places = {_place(name) for name in hard}
    built_in = [kind for at, kind in _BUILT_IN.items() if at in places]
    custom = [
        kind
        for definition in (view.select(DEFINITIONS) if places - _BUILT_IN.keys() else [])
        if (kind := _custom(definition)) is not None and kind.stored_as in places
    ]
    return built_in + custom, bool(custom)


def _place(name: str) -> tuple[str, str]:
    """The group and plural of what a limit of this name counts."""
    if name.startswith("count/"):
        plural, _, group = name.removeprefix("count/").partition(".")
        return group, plural
    if name == "requests.storage" or ".storageclass.storage.k8s.io/" in name or name == "persistentvolumeclaims":
        return "", "persistentvolumeclaims"
    if name in ("services", "services.nodeports", "services.loadbalancers"):
        return "", "services"
    return ("", name) if ("", name) in _BUILT_IN else ("", "pods")


def _custom(definition: Raw) -> Kind | None:
    spec = definition["spec"]
    served = next((item["name"] for item in spec["versions"] if item.get("served")), "")
    if spec.get("scope") != "Namespaced" or not served:
        return None
    names = spec["names"]
    model = _BUILT_IN["", "configmaps"]
    return Kind(
        spec["group"], served, names["kind"], names["plural"], True, "", model.strategy, model.columns, model.cells
    )


def _used(quota: Raw, hard: Raw, kinds: Iterable[Kind], view: View, now: float) -> tuple[Usage, int]:
    total: Usage = dict.fromkeys(hard, 0)
    number = 0
    for kind in kinds:
        for document in view.select(_resource(kind), objects.namespace(quota)):
            number += 1
            if matches(quota, kind, document):
                for name, value in usage(kind, document, now).items():
                    if name in total:
                        total[name] += value
    return total, number


def _same(before: Raw, after: Raw) -> bool:
    """By value: somebody may have written 1000m where we write 1."""
    return all(
        before.get(part, {}).keys() == after[part].keys()
        and all(amount(name, before[part][name]) == amount(name, after[part][name]) for name in after[part])
        for part in ("hard", "used")
    )
