"""Counting the ends of a Job's pods, each exactly once.

A pod that ended is first named in `status.uncountedTerminatedPods` (an indexed success in `completedIndexes`), then
loses its finalizer, and is counted when it is seen without. Killed in between, the next look finds which of the three
is due. Source: kubernetes/pkg/controller/job, trackJobStatusAndRemoveFinalizers.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

from cuboid.controllers import job_pods as own
from cuboid.controllers.job_indexes import Indexes
from cuboid.controllers.job_policy import judge
from cuboid.kube import objects
from cuboid.kube.controller.instructions import Object
from cuboid.kube.objects import Raw

ENDINGS = ("SuccessCriteriaMet", "FailureTarget")
"""Conditions that say that no more pods are started."""
MOST = 500
"""Ends that are on their way at once: the status stays small, and a big job does not starve others."""


@dataclass
class Tally:
    """What the status and the pods say together. `job` is not changed, `status` is what it should say."""

    job: Raw
    pods: Sequence[Raw]
    status: Object = field(init=False)
    done: Indexes = field(init=False, default_factory=Indexes)
    """Indexes that succeeded, those of pods that are not counted yet included."""
    lost: Indexes = field(init=False, default_factory=Indexes)
    """Indexes that failed for good."""
    kept: dict[int, Raw] = field(init=False, default_factory=dict)
    """Per index the failed pod that stays tracked until its successor has its failure count."""
    succeeded: int = field(init=False)
    failed: int = field(init=False)
    full: bool = field(init=False, default=False)
    """There is more to count than is done at once."""

    def __post_init__(self) -> None:
        self.status = {**self.job.get("status", {})}
        uncounted = self.status.get("uncountedTerminatedPods") or {}
        self._succeeded: list[str] = list(uncounted.get("succeeded") or [])
        self._failed: list[str] = list(uncounted.get("failed") or [])
        self.active = [pod for pod in self.pods if objects.active(pod)]
        self._count_gone()
        spec = self.job["spec"]
        self.indexed, self.completions = own.indexed(self.job), int(spec.get("completions") or 0)
        self.per_index = self.indexed and spec.get("backoffLimitPerIndex") is not None
        self._read()

    def _count_gone(self) -> None:
        held = {objects.uid(pod) for pod in self.pods if own.tracked(pod)}
        for key, known in (("succeeded", self._succeeded), ("failed", self._failed)):
            left = [uid for uid in known if uid in held]
            if len(left) < len(known):
                self.status[key] = self.status.get(key, 0) + len(known) - len(left)
                known[:] = left

    def _read(self) -> None:
        fresh = [pod for pod in self.pods if own.tracked(pod) and self._valid(pod)]
        won = [p for p in fresh if objects.phase(p) == "Succeeded" and objects.uid(p) not in self._succeeded]
        lost = [p for p in fresh if self._lost(p) and objects.uid(p) not in self._failed]
        self.new_succeeded = won
        counted = [pod for pod in lost if self._counts(pod)]
        self.failed = self.status.get("failed", 0) + len(self._failed) + len(counted)
        self.succeeded = self.status.get("succeeded", 0) + len(self._succeeded) + len(won)
        if self.indexed:
            self._known = Indexes.parse(self.status.get("completedIndexes", ""), self.completions)
            ended = (p for p in fresh if objects.phase(p) == "Succeeded")
            self.done = self._known.including(i for p in ended if (i := own.index_of(p)) is not None)
            self.succeeded = len(self.done)
        if self.per_index:
            self._read_indexes(fresh)

    def _read_indexes(self, fresh: Sequence[Raw]) -> None:
        bad = [pod for pod in fresh if self._lost(pod)]
        over = [i for pod in bad if self._index_over(pod) and (i := own.index_of(pod)) is not None]
        known = Indexes.parse(self.status.get("failedIndexes") or "", self.completions)
        # Of a job that ends, pods are deleted: that is no failure of their indexes.
        self.lost = known if any(objects.is_true(self.job, type_) for type_ in ENDINGS) else known.including(over)
        busy = {own.index_of(pod) for pod in self.active}
        for pod in sorted(bad, key=_attempt):
            index = own.index_of(pod)
            if index is not None and index not in self.done and index not in self.lost and index not in busy:
                self.kept[index] = pod

    def _valid(self, pod: Raw) -> bool:
        if not self.indexed:
            return True
        index = own.index_of(pod)
        return index is not None and index < self.completions

    def _lost(self, pod: Raw) -> bool:
        return own.failed(pod, self.job)

    def _counts(self, pod: Raw) -> bool:
        return judge(self.job["spec"].get("podFailurePolicy"), pod).counts

    def _index_over(self, pod: Raw) -> bool:
        verdict = judge(self.job["spec"].get("podFailurePolicy"), pod)
        limit = self.job["spec"]["backoffLimitPerIndex"]
        return verdict.action == "FailIndex" or (verdict.counts and own.failure_count(pod) >= limit)

    def failures_of(self, index: int) -> tuple[int, int] | None:
        """(that count, ignored) which the next pod of this index is told; None where it is not."""
        if not self.per_index:
            return None
        before = self.kept.get(index)
        if before is None:
            return 0, 0
        counts = self._counts(before)
        return own.failure_count(before) + counts, own.failure_count(before, ignored=True) + (not counts)

    def settle(self, ending: str) -> list[Raw]:
        """Name in the status what ended; the answer are the pods to let go of once that is written.

        `ending` is "" while the job goes on, else SuccessCriteriaMet or FailureTarget: then pods that are being removed
        are let go of too, as failed ones in the second case.
        """
        free: list[Raw] = []
        new: set[int] = set()
        for pod in sorted(self.pods, key=lambda pod: (own.index_of(pod) or 0, objects.name(pod))):
            if not own.tracked(pod) or not self._may_go(pod, ending):
                continue
            free.append(pod)
            self._note(pod, ending, new)
            if len(new) + len(self._succeeded) + len(self._failed) >= MOST:
                self.full = True
                break
        self._write(new)
        return free

    def _may_go(self, pod: Raw, ending: str) -> bool:
        if objects.phase(pod) == "Succeeded" or objects.deleting(self.job):
            return True
        if ending:
            return not objects.active(pod)
        if not self._lost(pod):
            return False
        index = own.index_of(pod)
        held = None if index is None else self.kept.get(index)
        return held is None or objects.uid(held) != objects.uid(pod)

    def _note(self, pod: Raw, ending: str, new: set[int]) -> None:
        uid = objects.uid(pod)
        if objects.phase(pod) == "Succeeded" and uid not in self._failed:
            if not self.indexed:
                if uid not in self._succeeded:
                    self._succeeded.append(uid)
            elif self._valid(pod) and (index := own.index_of(pod)) is not None and index not in self._known:
                new.add(index)
        elif uid not in self._failed and (self._lost(pod) or ending == "FailureTarget"):
            self._failed += [uid] if self._valid(pod) and self._counts(pod) else []

    def _write(self, new: set[int]) -> None:
        status = self.status
        if self.indexed:
            known = self._known.including(new)
            status["succeeded"] = len(known)
            if known.spans or status.get("completedIndexes"):
                status["completedIndexes"] = str(known)
        if self.per_index:
            status["failedIndexes"] = str(self.lost)
        uncounted = {key: uids for key, uids in (("succeeded", self._succeeded), ("failed", self._failed)) if uids}
        status["uncountedTerminatedPods"] = uncounted

    @property
    def open(self) -> bool:
        """Some ends are named and not counted yet."""
        return bool(self._succeeded or self._failed)


def _attempt(pod: Raw) -> tuple[int, str, str]:
    count = own.failure_count(pod) + own.failure_count(pod, ignored=True)
    return count, pod["metadata"].get("creationTimestamp", ""), objects.uid(pod)
