"""The status of PodDisruptionBudgets: how many pods may be evicted now.

Source of the behaviour: kubernetes/pkg/controller/disruption.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from cuboid.controllers.disruption_scale import ScaleError, expected_pods
from cuboid.kube import objects, selectors
from cuboid.kube.client import BUDGETS, PODS
from cuboid.kube.controller.instructions import Draft, Plan, Tell, Update
from cuboid.kube.controller.view import Change, Key, View, Watch, itself
from cuboid.kube.selectors import Selector
from cuboid.lib.clock import parse_rfc3339, rfc3339

Object = dict[str, Any]
Raw = Mapping[str, Any]

PATIENCE = 120.0
"""Seconds in which a pod that may be evicted has to be deleted; then it counts again."""
_UNMANAGED = (
    "Pods selected by this PodDisruptionBudget (selector: {}) were found to be unmanaged. As a result, the status of "
    "the PDB cannot be calculated correctly, which may result in undefined behavior. To account for these pods please "
    'set ".spec.minAvailable" field of the PDB to an integer value.'
)


def selector_of(budget: Raw) -> Selector | None:
    return objects.label_selector(budget.get("spec", {}).get("selector"))


def budgets_of(change: Change, view: View) -> Iterable[Key]:
    """The budgets that a pod is or was under; none when nothing changed that they count."""
    if change.old is not None and change.type == "MODIFIED" and _counted(change.old) == _counted(change.new):
        return
    states = [objects.labels(document) for document in (change.old, change.new) if document is not None]
    for budget in view.glance(BUDGETS, objects.namespace(change.new)):
        selector = selector_of(budget)
        if selector is not None and any(selectors.matches(selector, labels) for labels in states):
            yield Key(objects.namespace(budget), objects.name(budget))


def _counted(pod: Raw) -> tuple[Any, ...]:
    return objects.labels(pod), objects.ready(pod), objects.deleting(pod), objects.controller(pod)


class DisruptionController:
    name = "disruption"
    watches = (Watch(BUDGETS, itself, initial=True), Watch(PODS, budgets_of))

    def plan(self, key: Key, view: View, now: float) -> Plan:
        budget = view.get(BUDGETS, key.namespace, key.name)
        if budget is None or objects.deleting(budget):
            return Plan()
        selector, draft = selector_of(budget), Draft()
        pods = [] if selector is None else view.select(PODS, key.namespace, selector)
        if not pods and not budget.get("status", {}).get("observedGeneration"):
            draft.add(Tell(budget, "Normal", "NoPods", "No matching pods found"))
        try:
            expected, desired = _wanted(budget, pods, view, draft)
        except ScaleError as error:
            message = str(error)
            text = f"Failed to calculate the number of expected pods: {message}"
            if _write(budget, _failed(budget, message, now), draft):
                draft.add(Tell(budget, "Warning", "CalculateExpectedPodCountFailed", text))
            return draft.plan()
        _write(budget, _status(budget, pods, expected, desired, draft, now), draft)
        return draft.plan()


def _wanted(budget: Object, pods: Sequence[Raw], view: View, draft: Draft) -> tuple[int, int]:
    """How many pods there should be, and how many of them have to be healthy."""
    spec = budget["spec"]
    if isinstance(least := spec.get("minAvailable"), int):
        return len(pods), least
    expected, unmanaged = expected_pods(pods, view)
    if unmanaged:
        shown = ",".join(f"{k}={v}" for k, v in sorted((spec["selector"].get("matchLabels") or {}).items()))
        draft.add(Tell(budget, "Warning", "UnmanagedPods", _UNMANAGED.format(shown)))
    if least is not None:
        return expected, scaled(least, expected)
    return expected, max(expected - scaled(spec.get("maxUnavailable", 0), expected), 0)


def scaled(value: int | str, total: int) -> int:
    """A number, or that share of `total`, rounded up."""
    if isinstance(value, int):
        return value
    return -(-int(value.removesuffix("%")) * total // 100)


def _status(
    budget: Object, pods: Sequence[Object], expected: int, desired: int, draft: Draft, now: float
) -> Object:  # fmt: skip
    disrupted = _disrupted(budget, pods, draft, now)
    healthy = sum(
        objects.ready(pod) and not objects.deleting(pod) and objects.name(pod) not in disrupted for pod in pods
    )
    allowed = max(healthy - desired, 0) if expected > 0 else 0
    reason = "SufficientPods" if allowed > 0 else "InsufficientPods"
    made = {
        "currentHealthy": healthy, "desiredHealthy": desired, "expectedPods": expected, "disruptionsAllowed": allowed,
        "observedGeneration": budget["metadata"].get("generation", 0),
        "conditions": _conditions(budget, "True" if allowed > 0 else "False", reason, "", now),
    }  # fmt: skip
    return {**made, "disruptedPods": disrupted} if disrupted else made


def _disrupted(budget: Raw, pods: Sequence[Object], draft: Draft, now: float) -> dict[str, str]:
    """Those whose eviction was granted and whose deletion is still to be seen."""
    by_name = {objects.name(pod): pod for pod in pods}
    kept = {}
    for name, when in (budget.get("status", {}).get("disruptedPods") or {}).items():
        pod, end = by_name.get(name), parse_rfc3339(when) + PATIENCE
        if pod is None or objects.deleting(pod):
            continue
        if end <= now:
            place = f"{objects.namespace(budget)}/{objects.name(budget)}"
            text = f"Pod was expected by PDB {place} to be deleted but it wasn't"
            draft.add(Tell(pod, "Warning", "NotDeleted", text))
            continue
        kept[name] = when
        draft.look_again(end - now)
    return kept


def _failed(budget: Raw, message: str, now: float) -> Object:
    """Nothing may be evicted while nobody knows how many there should be."""
    status = {**budget.get("status", {}), "disruptionsAllowed": 0}
    for key in ("currentHealthy", "desiredHealthy", "expectedPods"):
        status.setdefault(key, 0)
    return {**status, "conditions": _conditions(budget, "False", "SyncFailed", message, now)}


def _conditions(budget: Raw, status: str, reason: str, message: str, now: float) -> list[Object]:
    before = objects.condition(budget, "DisruptionAllowed") or {}
    others = [item for item in budget.get("status", {}).get("conditions") or [] if item["type"] != "DisruptionAllowed"]
    since = before.get("lastTransitionTime") if before.get("status") == status else None
    made = {
        "type": "DisruptionAllowed", "status": status, "reason": reason, "message": message,
        "observedGeneration": budget["metadata"].get("generation", 0), "lastTransitionTime": since or rfc3339(now),
    }  # fmt: skip
    return [*others, made]


def _write(budget: Object, status: Object, draft: Draft) -> bool:
    if status == budget.get("status"):
        return False
    draft.add(Update(BUDGETS, {**budget, "status": status}, sub="status"))
    return True
