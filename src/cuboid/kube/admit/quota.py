"""ResourceQuota: no write takes a namespace beyond its hard limits, however many come at once.

What writes under way will take is reserved in memory until they are in the watch cache. The quota that a tenant has is
one for all of its namespaces together. Source of the rules: kubernetes/plugin/pkg/admission/resourcequota.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from cuboid.kube import kinds, objects, quota_usage, tenants
from cuboid.kube.admission import Release, Request
from cuboid.kube.admit.plug import CREATE, PODS, UPDATE, Plug, refusal
from cuboid.kube.admit.tally import Tally, usages
from cuboid.kube.cache import Filter
from cuboid.kube.kind import Kind
from cuboid.kube.quota_usage import Usage
from cuboid.kube.registry import Registry
from cuboid.kube.selectors import Requirement
from cuboid.kube.store import Event, Key

Raw = Mapping[str, Any]
_NAMESPACE = kinds.builtin("Namespace")
_DEMANDED = ("cpu", "memory", "requests.cpu", "requests.memory", "limits.cpu", "limits.memory")
"""A quota on one of these demands that every container of a pod names it."""


class ResourceQuota(Plug):
    operations = (CREATE, UPDATE)
    subs = ("", "resize")

    def __init__(self, registry: Registry) -> None:
        self._registry = registry
        self._tally = Tally(registry)
        self._pending: dict[tuple[str, str], Usage] = {}  # by namespace and quota
        self._open: dict[Key, Release] = {}  # writes under way
        registry.cache.listen(self._saw)

    def _saw(self, events: Sequence[Event]) -> None:
        """What is in the cache now is counted there: not twice until its writer goes on."""
        if self._open:
            for event in events:
                if release := self._open.get(event.key):
                    release()

    def handles(self, kind: Kind, operation: str, sub: str) -> bool:
        return kind.namespaced and super().handles(kind, operation, sub)

    def reserve(self, request: Request) -> Release | None:
        namespace, new = request.namespace, request.new
        quotas = self._tally.quotas(namespace)
        if not quotas or new is None:
            return None
        taken: dict[str, Usage] = {}
        old = dict(usages(quotas, request.kind, request.old)) if request.old else {}
        for name, whole in usages(quotas, request.kind, new):
            more = {key: value - old.get(name, {}).get(key, 0) for key, value in whole.items()}
            more = {key: value for key, value in more.items() if value > 0}
            if more or request.operation == CREATE:
                self._check(request, quotas[name], name, more)
                taken[name] = more
        if request.dry_run or not any(taken.values()):
            return None
        return self._reserved(Key(*request.kind.stored_as, namespace, objects.name(new)), taken)

    def _reserved(self, key: Key, taken: Mapping[str, Usage]) -> Release:
        for name, more in taken.items():
            _add(self._pending.setdefault((key.namespace, name), {}), more, 1)
        left = dict(taken)

        def release() -> None:
            for name, more in left.items():
                pending = self._pending[key.namespace, name]
                _add(pending, more, -1)
                if not any(pending.values()):
                    del self._pending[key.namespace, name]
            left.clear()
            if self._open.get(key) is release:
                del self._open[key]

        self._open[key] = release
        return release

    def _check(self, request: Request, quota: Raw, name: str, more: Usage) -> None:
        hard: Raw = quota.get("spec", {}).get("hard") or {}
        born = request.new if request.kind.stored_as == PODS and request.operation == CREATE else None
        if born is not None and (missing := _unnamed(hard, born["spec"])):
            raise refusal(request, f"failed quota: {name}: must specify {'; '.join(missing)}")
        used: Usage = {}
        for namespace in self._pool(request.namespace, quota):
            _add(used, self._tally.used(namespace, name), 1)
            _add(used, self._pending.get((namespace, name), {}), 1)
        over = sorted(
            key for key, value in more.items() if used.get(key, 0) + value > quota_usage.amount(key, hard[key])
        )
        if over:
            parts = (
                ("requested", {key: more[key] for key in over}),
                ("used", {key: used.get(key, 0) for key in over}),
                ("limited", {key: quota_usage.amount(key, hard[key]) for key in over}),
            )
            told = ", ".join(f"{word}: {_told(amounts)}" for word, amounts in parts)
            raise refusal(request, f"exceeded quota: {name}, {told}")

    def _pool(self, namespace: str, quota: Raw) -> list[str]:
        """The namespaces that a quota is for: its own, or all of the tenant whose it is."""
        labels = quota["metadata"].get("labels") or {}
        tenant = labels.get(tenants.LABEL)
        if not tenant or labels.get(tenants.MANAGED_LABEL) != tenants.MANAGED:
            return [namespace]
        wanted = Filter("", (Requirement(tenants.LABEL, "=", frozenset((tenant,))),))
        return [entry.key.name for entry in self._registry.of(_NAMESPACE).select(wanted)] or [namespace]


def _add(total: Usage, more: Usage, sign: int) -> None:
    for key, value in more.items():
        total[key] = total.get(key, 0) + sign * value


def _told(amounts: Usage) -> str:
    return ",".join(f"{key}={quota_usage.text(key, value)}" for key, value in amounts.items())


def _unnamed(hard: Raw, spec: Raw) -> list[str]:
    """What the quota demands and some container does not name: `limits.cpu for: main`."""
    missing = []
    for name in sorted(set(_DEMANDED) & set(hard)):
        field, _, resource = name.rpartition(".")
        field = field or "requests"
        if resource in (spec.get("resources") or {}).get(field, {}):
            continue
        lacking = [
            container["name"]
            for container in [*spec.get("containers", []), *spec.get("initContainers", [])]
            if resource not in (container.get("resources") or {}).get(field, {})
        ]
        if lacking:
            missing.append(f"{name} for: {','.join(sorted(lacking))}")
    return missing
