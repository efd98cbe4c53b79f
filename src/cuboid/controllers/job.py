"""Jobs: pods are started until enough of them succeeded, or too many failed.

Source: kubernetes/pkg/controller/job, job_controller.go. Unlike there, the status says what is seen, not what a plan is
about to do: a creation that is refused leaves no wrong number behind.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

from cuboid.controllers import common, job_backoff
from cuboid.controllers import job_pods as own
from cuboid.controllers.job_policy import judge, success_met
from cuboid.controllers.job_tally import Tally
from cuboid.controllers.owning import owner_or_choosers
from cuboid.kube import objects, selectors
from cuboid.kube.client import JOBS, PODS
from cuboid.kube.controller.instructions import (
    NOTHING,
    Create,
    Draft,
    Instruction,
    Object,
    Patch,
    Plan,
    Tell,
    Together,
    Update,
)
from cuboid.kube.controller.view import Key, View, Watch, itself
from cuboid.kube.objects import Raw
from cuboid.lib.clock import rfc3339
from cuboid.lib.errors import CuboidError

MANAGER = "kubernetes.io/job-controller"
_TRACKING = own.TRACKING.encode()
_ENDED = (b'"phase":"Succeeded"', b'"phase":"Failed"')
_FINAL = {"SuccessCriteriaMet": "Complete", "FailureTarget": "Failed"}


@dataclass(frozen=True)
class Ending:
    """Why no more pods are started. `type` is SuccessCriteriaMet or FailureTarget."""

    type: str
    reason: str
    message: str


class Jobs:
    name = "job"
    watches = (Watch(JOBS, itself, initial=True), Watch(PODS, owner_or_choosers("Job", JOBS)))

    def plan(self, key: Key, view: View, now: float) -> Plan:
        job = view.get(JOBS, key.namespace, key.name)
        if job is None or ended(job) or job["spec"].get("managedBy", MANAGER) != MANAGER:
            return NOTHING
        pods, claims = _claim(job, view)
        if claims:
            return Plan(tuple(claims))
        return _plan(job, Tally(job, pods), now)


def ended(job: Raw) -> str:
    """Complete or Failed, "" while it is neither."""
    return next((type_ for type_ in _FINAL.values() if objects.is_true(job, type_)), "")


def suspended(job: Raw) -> bool:
    return bool(job["spec"].get("suspend"))


def _claim(job: Raw, view: View) -> tuple[list[Object], list[Patch]]:
    """Its pods, and what makes pods its own or no longer so."""
    uid, selector = objects.uid(job), objects.label_selector(job["spec"].get("selector")) or ()
    mine: list[Object] = []
    claims: list[Patch] = []
    for pod in view.owned(PODS, uid, None if _failures_matter(job) else _unfinished):
        ref = objects.controller(pod)
        if ref is None or ref["uid"] != uid or objects.namespace(pod) != objects.namespace(job):
            continue  # whoever calls it its own from another namespace
        if selectors.matches(selector, objects.labels(pod)) or objects.deleting(job):
            mine.append(pod)
        else:
            claims.append(own.release(pod, job))
    if selector and not objects.deleting(job):
        orphans = view.orphans(PODS, objects.namespace(job), selector)
        claims += [own.adopt(pod, job) for pod in orphans if objects.active(pod)]
    return mine, claims


def _failures_matter(job: Raw) -> bool:
    """Pods that failed and are counted: those in a row say how long the job waits."""
    status, spec = job.get("status", {}), job["spec"]
    some = status.get("failed") or (status.get("uncountedTerminatedPods") or {}).get("failed")
    return bool(some or spec.get("podFailurePolicy")) and spec.get("backoffLimitPerIndex") is None


def _unfinished(pod: bytes) -> bool:
    """Of a job with thousands of pods most have ended and are counted: no word of them is needed."""
    return _TRACKING in pod or not any(phase in pod for phase in _ENDED)


def _plan(job: Object, tally: Tally, now: float) -> Plan:
    draft = Draft()
    status = tally.status
    events = _start(job, status, now)
    ending = _ending(job, tally, now, draft)
    free = tally.settle("" if ending is None else ending.type)
    actions: list[Instruction] = []
    if ending is not None:
        actions = [Together(tuple(own.delete(pod, job) for pod in tally.active[: common.MANY]))] if tally.active else []
        events += _end(job, tally, ending, free, now)
    elif not objects.deleting(job):
        events += _say_suspended(job, status, now)
        actions = _manage(job, tally, now, draft)
    _observe(status, tally)
    if status != job.get("status", {}):
        draft.add(Update(JOBS, {**job, "status": status}, sub="status"))
    draft.add(*events)
    if free:
        draft.add(Together(tuple(own.untrack(pod) for pod in free)))
    draft.add(*actions)
    draft.failed = _failed(job, actions)
    return draft.plan()


def _observe(status: Object, tally: Tally) -> None:
    counts = {"active": len(tally.active), "succeeded": status.get("succeeded"), "failed": status.get("failed")}
    for key, count in counts.items():
        if count:
            status[key] = count
        else:
            status.pop(key, None)
    status["ready"] = sum(objects.ready(pod) for pod in tally.active)
    status["terminating"] = sum(own.terminating(pod) for pod in tally.pods)


# --- the end ---------------------------------------------------------------------------------------------------------


def _ending(job: Raw, tally: Tally, now: float, draft: Draft) -> Ending | None:
    for type_ in _FINAL:
        known = objects.condition(job, type_)
        if known is not None and known.get("status") == "True":
            return Ending(type_, known.get("reason", ""), known.get("message", ""))
    return _failure(job, tally, now, draft) or _success(job, tally)


def _failure(job: Raw, tally: Tally, now: float, draft: Draft) -> Ending | None:
    spec = job["spec"]
    for pod in tally.pods:
        if own.failed(pod, job) and (verdict := judge(spec.get("podFailurePolicy"), pod)).action == "FailJob":
            return Ending("FailureTarget", "PodFailurePolicy", verdict.message)
    if tally.failed > spec["backoffLimit"] or _restarted_too_often(job, tally.pods):
        return Ending("FailureTarget", "BackoffLimitExceeded", "Job has reached the specified backoff limit")
    deadline = spec.get("activeDeadlineSeconds")
    if deadline is not None and not suspended(job):
        left = (common.moment(tally.status["startTime"]) or now) + deadline - now
        if left <= 0:
            return Ending("FailureTarget", "DeadlineExceeded", "Job was active longer than specified deadline")
        draft.look_again(left)
    return _failed_indexes(spec, tally)


def _failed_indexes(spec: Raw, tally: Tally) -> Ending | None:
    lost, most = len(tally.lost), spec.get("maxFailedIndexes")
    if most is not None and lost > most:
        message = "Job has exceeded the specified maximal number of failed indexes"
        return Ending("FailureTarget", "MaxFailedIndexesExceeded", message)
    if lost and lost + len(tally.done) >= tally.completions:
        return Ending("FailureTarget", "FailedIndexes", "Job has failed indexes")
    return None


def _restarted_too_often(job: Raw, pods: Sequence[Raw]) -> bool:
    """Restarts inside pods count where pods restart their containers."""
    if job["spec"]["template"].get("spec", {}).get("restartPolicy") != "OnFailure":
        return False
    count = 0
    for pod in pods:
        status = pod.get("status", {})
        if status.get("phase") in ("Running", "Pending"):
            every = [*status.get("initContainerStatuses", []), *status.get("containerStatuses", [])]
            count += sum(item.get("restartCount", 0) for item in every)
    return bool(count >= max(job["spec"]["backoffLimit"], 1))


def _success(job: Raw, tally: Tally) -> Ending | None:
    spec = job["spec"]
    if tally.indexed and (message := success_met(spec.get("successPolicy"), tally.completions, tally.done)):
        return Ending("SuccessCriteriaMet", "SuccessPolicy", message)
    enough = tally.succeeded > 0 if spec.get("completions") is None else tally.succeeded >= tally.completions
    if enough and not tally.active:
        return Ending("SuccessCriteriaMet", "CompletionsReached", "Reached expected number of succeeded pods")
    return None


def _end(job: Raw, tally: Tally, ending: Ending, free: Sequence[Raw], now: float) -> list[Tell]:
    """The condition that announces the end, and the one that is it, once every pod has ended and is counted."""
    status = tally.status

    _note(status, ending.type, "True", ending.reason, ending.message, now)
    ending_pods = any(own.terminating(pod) for pod in tally.pods)
    if tally.full or tally.open or free or tally.active or ending_pods:
        return []
    final = _FINAL[ending.type]
    _note(status, final, "True", ending.reason, ending.message, now)
    if final == "Failed":
        return [Tell(dict(job), "Warning", ending.reason, ending.message)]
    status["completionTime"] = rfc3339(now)
    told = [Tell(dict(job), "Normal", "Completed", "Job completed")]
    if job["spec"].get("completions") is not None and status.get("succeeded", 0) > tally.completions:
        message = "Too many succeeded pods running after completion count reached"
        told.insert(0, Tell(dict(job), "Warning", "TooManySucceededPods", message))
    return told


# --- while it goes on ------------------------------------------------------------------------------------------------


def _start(job: Raw, status: Object, now: float) -> list[Tell]:
    """Of a job that is not suspended; the deadline counts from its start, or from where it was last resumed."""
    resumed = objects.is_true(job, "Suspended")
    if suspended(job) or (status.get("startTime") and not resumed):
        return []
    status["startTime"] = rfc3339(now)
    if not resumed:
        return []
    _note(status, "Suspended", "False", "JobResumed", "Job resumed", now)
    return [Tell(dict(job), "Normal", "Resumed", "Job resumed")]


def _say_suspended(job: Raw, status: Object, now: float) -> list[Tell]:
    if not suspended(job) or objects.is_true(job, "Suspended"):
        return []
    _note(status, "Suspended", "True", "JobSuspended", "Job suspended", now)
    return [Tell(dict(job), "Normal", "Suspended", "Job suspended")]


def _note(status: Object, type_: str, value: str, reason: str, message: str, now: float) -> None:
    """Put a condition in the status; one that says the same already stays as it is."""
    new = {"lastProbeTime": rfc3339(now), **common.condition(type_, value, reason, message, now)}
    said = [(item.get("type"), item.get("status"), item.get("reason")) for item in status.get("conditions") or ()]
    if (type_, value, reason) not in said:
        status["conditions"] = common.with_condition(status.get("conditions") or (), new)


def _manage(job: Raw, tally: Tally, now: float, draft: Draft) -> list[Instruction]:
    wanted = _wanted(job, tally)
    spare = own.surplus(job, tally.active, len(tally.active) - wanted)[: common.MANY]
    if spare:
        # They are no longer counted, and then they go: a pod that the job did not want to run did not fail.
        untrack = tuple(own.untrack(pod) for pod in spare if own.tracked(pod))
        gone = Together(tuple(own.delete(pod, job) for pod in spare))
        return [Together(untrack), gone] if untrack else [gone]
    waiting = sum(own.terminating(pod) for pod in tally.pods) if own.only_failed_replaced(job) else 0
    missing = min(wanted - len(tally.active) - waiting, common.MANY)
    if missing <= 0:
        return []
    made = _new_indexed(job, tally, missing, now, draft) if tally.indexed else _new(job, tally, missing, now, draft)
    return [Together(tuple(made))] if made else []


def _wanted(job: Raw, tally: Tally) -> int:
    if suspended(job):
        return 0
    parallelism = int(job["spec"]["parallelism"])
    if job["spec"].get("completions") is None:
        return len(tally.active) if tally.succeeded else parallelism
    return max(0, min(parallelism, tally.completions - tally.succeeded - len(tally.lost)))


def _wait(job: Raw, tally: Tally, now: float) -> float:
    # One that ends without being tracked was removed, it did not fail.
    failed = (p for p in tally.pods if own.failed(p, job) and (own.tracked(p) or not objects.deleting(p)))
    succeeded = (p for p in tally.pods if objects.phase(p) == "Succeeded")
    return job_backoff.wait_of_job(succeeded, failed, now)


def _new(job: Raw, tally: Tally, count: int, now: float, draft: Draft) -> list[Create]:
    wait = _wait(job, tally, now)
    if wait > 0:
        draft.look_again(wait)
        return []
    return [own.new_pod(job, None, None) for _ in range(count)]


def _new_indexed(job: Raw, tally: Tally, count: int, now: float, draft: Draft) -> list[Create]:
    if not tally.per_index:
        wait = _wait(job, tally, now)
        if wait > 0:
            draft.look_again(wait)
            return []
    busy = [
        pod for pod in tally.pods if objects.active(pod) or (own.only_failed_replaced(job) and own.terminating(pod))
    ]
    taken = tally.done.union(tally.lost).including(i for pod in busy if (i := own.index_of(pod)) is not None)
    made: list[Create] = []
    for index in taken.missing(tally.completions):
        if len(made) == count:
            break
        wait = _index_wait(tally, index, now)
        if wait > 0:
            draft.look_again(wait)
        else:
            made.append(own.new_pod(job, index, tally.failures_of(index)))
    return made


def _index_wait(tally: Tally, index: int, now: float) -> float:
    before = tally.kept.get(index)
    if before is None:
        return 0.0
    count = 1 + own.failure_count(before) + own.failure_count(before, ignored=True)
    return job_backoff.wait_after(count, job_backoff.finished_at(before), now)


def _failed(job: Raw, actions: Sequence[Instruction]) -> Callable[[CuboidError], tuple[Instruction, ...]] | None:
    """Tells that pods could not be made."""
    if not any(
        isinstance(item, Create) for group in actions if isinstance(group, Together) for item in group.instructions
    ):
        return None
    return lambda error: (Tell(dict(job), "Warning", "FailedCreate", f"Error creating: {error.message}"),)
