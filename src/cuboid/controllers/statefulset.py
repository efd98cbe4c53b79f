"""StatefulSets: numbered pods with names and claims of their own, brought up, updated and ended in order.

Source of the behaviour: kubernetes/pkg/controller/statefulset/stateful_set_control.go.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from cuboid.controllers import common, revisions
from cuboid.controllers import statefulset_pods as pods
from cuboid.controllers.owning import claim, owner_or_choosers
from cuboid.kube import objects
from cuboid.kube.client import PODS, REVISIONS, STATEFUL_SETS
from cuboid.kube.controller.instructions import NOTHING, Create, Delete, Draft, Instruction, Plan, Tell, Together
from cuboid.kube.controller.view import Key, View, Watch, itself
from cuboid.lib.errors import CuboidError

Object = dict[str, Any]
Raw = Mapping[str, Any]
CLAIM_SECONDS = 2.0
"""Between two looks whether an old claim is gone."""


class StatefulSets:
    name = "statefulset"
    watches = (
        Watch(STATEFUL_SETS, itself, initial=True),
        Watch(PODS, owner_or_choosers("StatefulSet", STATEFUL_SETS)),
        Watch(REVISIONS, owner_or_choosers("StatefulSet", STATEFUL_SETS)),
    )

    def plan(self, key: Key, view: View, now: float) -> Plan:
        found = view.get(STATEFUL_SETS, key.namespace, key.name)
        if found is None:
            return NOTHING
        selector = objects.label_selector(found["spec"]["selector"])
        claimed = claim(view, PODS, found, selector, lambda pod: pods.ordinal(found, pod) is not None)
        if claimed.patches:
            return Plan((Together(claimed.patches),))
        mine = {number: pod for pod in claimed.mine if (number := pods.ordinal(found, pod)) is not None}
        if objects.deleting(found):
            return NOTHING
        history = revisions.history(view, STATEFUL_SETS, found)
        if history.update is None:
            return Plan(history.changes)
        current = history.named((found.get("status") or {}).get("currentRevision", "")) or history.update
        return _Step(found, mine, current, history.update, view, now).plan(history)


@dataclass(frozen=True)
class _Step:
    """What is to be done about one set now. `mine` are its pods by number."""

    found: Object
    mine: Mapping[int, Object]
    current: Object
    update: Object
    view: View
    now: float

    @property
    def wanted(self) -> range:
        first = pods.start(self.found)
        return range(first, first + pods.replicas(self.found))

    @property
    def in_order(self) -> bool:
        return bool(self.found["spec"].get("podManagementPolicy", "OrderedReady") != "Parallel")

    def available(self, pod: Raw) -> bool:
        wait = self.found["spec"].get("minReadySeconds", 0)
        return pods.running_and_ready(pod) and common.available(pod, wait, self.now)

    def plan(self, history: revisions.History) -> Plan:
        draft = Draft()
        draft.add(*common.status_patch(STATEFUL_SETS, self.found, self.status()))
        steps, blocked = self._scale(draft)
        if not steps and not blocked:
            steps = self._roll()
        draft.add(*steps)
        if steps:
            draft.failed = self._failed
        else:
            names = {objects.name(self.current), objects.name(self.update), *map(pods.revision_of, self.mine.values())}
            draft.add(*revisions.forgotten(self.found, history, names))
        wait = common.soonest(self.mine.values(), self.found["spec"].get("minReadySeconds", 0), self.now)
        if wait is not None:
            draft.look_again(wait)
        return draft.plan()

    def _failed(self, error: CuboidError) -> tuple[Instruction, ...]:
        text = f"create Pod in StatefulSet {objects.name(self.found)} failed error: {error.message}"
        return (Tell(dict(self.found), "Warning", "FailedCreate", text),)

    # --- as many as asked for ----------------------------------------------------------------------------------------

    def _scale(self, draft: Draft) -> tuple[list[Instruction], bool]:
        """What to do, and whether what comes later has to wait."""
        together: list[Create | Delete] = []
        before: list[Instruction] = []
        for number in self.wanted:
            if len(together) >= common.MANY:
                break
            pod = self.mine.get(number)
            if pod is None or objects.finished(pod):
                steps = self._fill(number, pod, draft)
                if self.in_order:
                    return [*before, *steps], True
                before += steps[:-1]
                together += [step for step in steps[-1:] if isinstance(step, Create | Delete)]
            else:
                before += pods.identified(pod, number)
                before += pods.claims_kept(self.found, pod, number, self.view, condemned=False)
                if self.in_order and (objects.deleting(pod) or not self.available(pod)):
                    return before, True
        condemned = sorted((number for number in self.mine if number not in self.wanted), reverse=True)
        for number in condemned:
            pod = self.mine[number]
            before += pods.claims_kept(self.found, pod, number, self.view, condemned=True)
            if self.in_order and objects.deleting(pod):
                return before, True
            if not objects.deleting(pod):
                together.append(pods.deletion(self.found, pod))
            if self.in_order:
                break
        steps = [*before, Together(tuple(together[: common.MANY]))] if together else before
        return steps, bool(condemned) and self.in_order

    def _fill(self, number: int, pod: Raw | None, draft: Draft) -> list[Instruction]:
        """A place without a pod that runs: one that has ended is deleted first, its name is needed."""
        if pod is not None:
            return [] if objects.deleting(pod) else [*self._told_of(pod), pods.deletion(self.found, pod)]
        claims = pods.claims_missing(self.found, number, self.view)
        if claims is None:
            draft.look_again(CLAIM_SECONDS)
            return []
        return [*claims, pods.creation(self.found, self._revision_for(number), number)]

    def _told_of(self, pod: Raw) -> list[Instruction]:
        text = f"StatefulSet {objects.namespace(pod)}/{objects.name(self.found)} is recreating failed Pod "
        return [Tell(dict(self.found), "Warning", "RecreatingFailedPod", text + objects.name(pod))]

    def _revision_for(self, number: int) -> Object:
        """A place that an update has not reached yet gets the old template again."""
        if not self._rolls:
            return self.update
        first = pods.start(self.found)
        rolling = self._strategy.get("rollingUpdate")
        if rolling is not None:
            untouched = first + int(rolling.get("partition", 0))
        else:
            untouched = first + int((self.found.get("status") or {}).get("currentReplicas", 0))
        return self.current if number < untouched else self.update

    # --- of the template asked for -----------------------------------------------------------------------------------

    @property
    def _strategy(self) -> Raw:
        found: Raw = self.found["spec"].get("updateStrategy") or {}
        return found

    @property
    def _rolls(self) -> bool:
        return bool(self._strategy.get("type", "RollingUpdate") == "RollingUpdate")

    def _roll(self) -> list[Instruction]:
        """From the highest number down to the partition, no more unavailable at once than allowed."""
        if not self._rolls:
            return []
        rolling = self._strategy.get("rollingUpdate") or {}
        asked = rolling.get("maxUnavailable", 1)
        most = max(common.amount(asked, pods.replicas(self.found), up=False), 1)
        first = pods.start(self.found) + int(rolling.get("partition", 0))
        places = [(number, self.mine[number]) for number in sorted(self.mine) if number in self.wanted]
        left = most - sum(not self._counts(pod) for _, pod in places)
        update, steps = objects.name(self.update), []
        for pod in [pod for number, pod in reversed(places) if number >= first]:
            old, down = pods.revision_of(pod) != update, not self._counts(pod)
            if old and not objects.deleting(pod) and (down or left > 0):
                steps.append(pods.deletion(self.found, pod))
                left -= not down
            elif most == 1 and down:
                break  # one after the other
            if most == 1 and steps:
                break
        return [Together(tuple(steps))] if steps else []

    def _counts(self, pod: Raw) -> bool:
        return pods.healthy(pod) and self.available(pod)

    # --- what it says of itself --------------------------------------------------------------------------------------

    def status(self) -> Object:
        status = self._counted()
        update, wanted = objects.name(self.update), pods.replicas(self.found)
        done = all(status.get(key, 0) == wanted for key in ("replicas", "readyReplicas", "updatedReplicas"))
        current = objects.name(self.current)
        if self._rolls and done:
            current = update
            status["currentReplicas"] = status["updatedReplicas"]
        old = self.found.get("status") or {}
        rest = {
            "observedGeneration": common.generation(self.found),
            "currentRevision": current,
            "updateRevision": update,
            "collisionCount": old.get("collisionCount"),
            "conditions": old.get("conditions"),
        }
        needed = {key: status.pop(key) for key in ("replicas", "availableReplicas")}
        return {**needed, **common.spread(status), **common.spread(rest)}

    def _counted(self) -> dict[str, int]:
        all_pods: Sequence[Object] = tuple(self.mine.values())
        staying = [pod for pod in all_pods if not objects.deleting(pod)]
        return {
            "replicas": len(all_pods),
            "readyReplicas": sum(map(pods.running_and_ready, all_pods)),
            "availableReplicas": sum(map(self.available, all_pods)),
            "currentReplicas": sum(pods.revision_of(pod) == objects.name(self.current) for pod in staying),
            "updatedReplicas": sum(pods.revision_of(pod) == objects.name(self.update) for pod in staying),
        }
