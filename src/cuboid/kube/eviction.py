"""`pods/eviction`: delete a pod if its disruption budget allows. Source: kubernetes/pkg/registry/core/pod/storage."""

from __future__ import annotations

import time
from typing import Any

from cuboid.kube import kinds, objects, schema, selectors, status
from cuboid.kube.admission import Request
from cuboid.kube.cache import Entry, Filter, stored
from cuboid.kube.kind import Kind
from cuboid.kube.registry import MODIFIED, DeleteOptions, Registry, WriteOptions
from cuboid.kube.store import MismatchError, Write
from cuboid.lib.clock import rfc3339
from cuboid.lib.errors import CuboidError, ExhaustedError

Object = dict[str, Any]
DEFINITION = "io.k8s.api.policy.v1.Eviction"
MAX_DISRUPTED = 2000
"""Evictions that the controller of budgets has not seen yet."""
_RETRIES = 20
_BUDGET = kinds.builtin("PodDisruptionBudget", "policy")
_REFUSED = "Cannot evict pod as it would violate the pod's disruption budget."


async def evict(registry: Registry, kind: Kind, namespace: str, name: str, body: Any, options: WriteOptions) -> None:
    """ExhaustedError (429) with the cause DisruptionBudget when the budget is used up.

    Taking from the budget and deleting the pod are one transaction.
    """
    eviction = schema.decode(schema.node(DEFINITION), body, [])
    if eviction.get("metadata", {}).get("name", name) != name:
        raise status.bad_request("name in URL does not match name in Eviction object")
    request = Request("CREATE", kind, namespace, name, eviction, None, options.user, "eviction", options.dry_run)
    registry.admit(request, whole=False)
    wanted = _delete_options(eviction.get("deleteOptions", {}), options)
    for _ in range(_RETRIES):
        entry = registry.entry(kind, namespace, name)
        beside = _budgeted(registry, entry)
        try:
            await registry.delete_entry(kind, entry, wanted, beside)
        except MismatchError as error:
            if wanted.resource_version and error.key == entry.key:
                raise status.conflict(kind.plural, kind.group, name, MODIFIED) from error
            continue
        return
    raise status.conflict(kind.plural, kind.group, name, MODIFIED)


def _delete_options(asked: Object, options: WriteOptions) -> DeleteOptions:
    propagation = asked.get("propagationPolicy", "")
    if propagation not in ("", "Background", "Foreground", "Orphan"):
        raise status.unsupported_propagation(propagation)
    return DeleteOptions(
        grace=asked.get("gracePeriodSeconds"),
        uid=asked.get("preconditions", {}).get("uid", ""),
        resource_version=asked.get("preconditions", {}).get("resourceVersion", ""),
        dry_run=bool(asked.get("dryRun")) or options.dry_run,
        propagation=propagation,
        user=options.user,
    )


def _budgeted(registry: Registry, entry: Entry) -> list[Write]:
    """What is written beside the deletion: the budget with one disruption less, if the pod counts for one."""
    pod = entry.object()
    if objects.phase(pod) in ("Succeeded", "Failed", "Pending") or objects.deleting(pod):
        return []
    budgets = _budgets(registry, pod)
    if len(budgets) > 1:
        raise CuboidError(
            "This pod has more than one PodDisruptionBudget, which the eviction subresource does not support."
        )
    if not budgets:
        return []
    budget = budgets[0].object()
    if not objects.ready(pod) and _may_go_unready(budget):
        return []
    _take_one(budget, objects.name(pod), time.time())
    return [Write(budgets[0].key, stored(budget), budgets[0].rv)]


def _budgets(registry: Registry, pod: Object) -> list[Entry]:
    found = []
    for entry in registry.of(_BUDGET).select(Filter(objects.namespace(pod))):
        selector = objects.label_selector(entry.object().get("spec", {}).get("selector"))
        if selector is not None and selectors.matches(selector, objects.labels(pod)):
            found.append(entry)
    return found


def _may_go_unready(budget: Object) -> bool:
    if budget.get("spec", {}).get("unhealthyPodEvictionPolicy") == "AlwaysAllow":
        return True
    found = budget.get("status", {})
    desired: int = found.get("desiredHealthy", 0)
    healthy: int = found.get("currentHealthy", 0)
    return 0 < desired <= healthy


def _take_one(budget: Object, pod: str, now: float) -> None:
    name, found = objects.name(budget), budget.setdefault("status", {})
    allowed, disrupted = found.get("disruptionsAllowed", 0), found.get("disruptedPods", {})
    if found.get("observedGeneration", 0) < budget["metadata"].get("generation", 0):
        raise _refused(f"The disruption budget {name} is still being processed by the server.", 10)
    if allowed < 0:
        raise status.forbidden("poddisruptionbudget", "policy", name, "pdb disruptions allowed is negative")
    if len(disrupted) > MAX_DISRUPTED:
        why = "DisruptedPods map too big - too many evictions not confirmed by PDB controller"
        raise status.forbidden("poddisruptionbudget", "policy", name, why)
    if allowed == 0:
        needs, has = found.get("desiredHealthy", 0), found.get("currentHealthy", 0)
        raise _refused(f"The disruption budget {name} needs {needs} healthy pods and has {has} currently", 0)
    found["disruptionsAllowed"] = allowed - 1
    found["disruptedPods"] = {**disrupted, pod: rfc3339(now)}
    if allowed == 1:
        _say_insufficient(budget, rfc3339(now))


def _say_insufficient(budget: Object, now: str) -> None:
    found = budget["status"]
    before = objects.condition(budget, "DisruptionAllowed")
    since = before["lastTransitionTime"] if before and before.get("status") == "False" else now
    condition = {
        "type": "DisruptionAllowed",
        "status": "False",
        "reason": "InsufficientPods",
        "message": "",
        "observedGeneration": found.get("observedGeneration", 0),
        "lastTransitionTime": since,
    }
    others = [item for item in found.get("conditions", []) if item.get("type") != "DisruptionAllowed"]
    found["conditions"] = [*others, condition]


def _refused(message: str, seconds: int) -> ExhaustedError:
    error = ExhaustedError(_REFUSED, reason="TooManyRequests")
    error.details = {"causes": [{"reason": "DisruptionBudget", "message": message}]}
    if seconds:
        error.details["retryAfterSeconds"] = seconds
    return error
