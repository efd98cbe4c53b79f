"""CronJobs: a Job for each scheduled time, named after it, so that no time gets two.

Source: kubernetes/pkg/controller/cronjob/cronjob_controllerv2.go. The list of active Jobs is what is seen, so that a
controller which is killed between a creation and its record finds the Job again by looking.
"""

from __future__ import annotations

import copy
from collections.abc import Sequence
from datetime import UTC, datetime, tzinfo

from cuboid.controllers.common import born, moment
from cuboid.controllers.cronjob_times import MANY, at, due
from cuboid.controllers.job import ended
from cuboid.kube import cron, objects
from cuboid.kube.client import CRON_JOBS, JOBS
from cuboid.kube.controller.instructions import NOTHING, Create, Delete, Draft, Instruction, Object, Plan, Tell, Update
from cuboid.kube.controller.view import Key, View, Watch, its_controller, itself
from cuboid.kube.objects import Raw
from cuboid.lib.clock import rfc3339
from cuboid.lib.errors import CuboidError, InvalidError

SCHEDULED = "batch.kubernetes.io/cronjob-scheduled-timestamp"
BY_HAND = "cronjob.kubernetes.io/instantiate"
"""Of Jobs that `kubectl create job --from` makes."""
_SLACK = 0.1  # seconds that the next look comes after a scheduled time, so that it is not before it


class CronJobs:
    name = "cronjob"
    watches = (Watch(CRON_JOBS, itself, initial=True), Watch(JOBS, its_controller("CronJob", "batch")))

    def plan(self, key: Key, view: View, now: float) -> Plan:
        owner = view.get(CRON_JOBS, key.namespace, key.name)
        if owner is None:
            return NOTHING
        uid = objects.uid(owner)
        mine = (job for job in view.owned(JOBS, uid) if (objects.controller(job) or {}).get("uid") == uid)
        jobs = [job for job in mine if objects.namespace(job) == key.namespace]
        draft = Draft()
        status = _observed(owner, jobs, now, draft)
        if not objects.deleting(owner):
            _run(owner, jobs, status, view, now, draft)
        if status != owner.get("status", {}):
            draft.add(Update(CRON_JOBS, {**owner, "status": status}, sub="status"))
        if not objects.deleting(owner):
            draft.add(*_old(owner, jobs))
        return draft.plan()


# --- what is seen ----------------------------------------------------------------------------------------------------


def _observed(owner: Object, jobs: Sequence[Object], now: float, draft: Draft) -> Object:
    status: Object = copy.deepcopy(owner.get("status", {}))
    before = {ref.get("uid"): ref for ref in status.get("active") or []}
    active = [job for job in jobs if not ended(job) and BY_HAND not in objects.notes(job)]
    status["active"] = [before.get(objects.uid(job)) or _reference(job) for job in active]
    if not status["active"]:
        del status["active"]
    _tell_ends(owner, before, jobs, draft)
    success = max(
        (job["status"]["completionTime"] for job in jobs if job.get("status", {}).get("completionTime")), default=""
    )
    if success > status.get("lastSuccessfulTime", ""):
        status["lastSuccessfulTime"] = success
    if (moment(status.get("lastScheduleTime")) or 0.0) > now:
        del status["lastScheduleTime"]  # a clock was wrong
    last = max((when for job in jobs if (when := _scheduled(job)) <= now), default=0.0)
    if last > (moment(status.get("lastScheduleTime")) or 0.0):
        status["lastScheduleTime"] = rfc3339(last)
    return status


def _tell_ends(owner: Object, before: Raw, jobs: Sequence[Raw], draft: Draft) -> None:
    there = {objects.uid(job): job for job in jobs}
    for uid, ref in before.items():
        job = there.get(uid)
        if job is None:
            draft.add(Tell(owner, "Normal", "MissingJob", f"Active job went missing: {ref.get('name', '')}"))
        elif end := ended(job):
            message = f"Saw completed job: {objects.name(job)}, condition: {end}"
            draft.add(Tell(owner, "Normal", "SawCompletedJob", message))


def _reference(job: Raw) -> Object:
    return {
        "kind": "Job",
        "apiVersion": "batch/v1",
        "namespace": objects.namespace(job),
        "name": objects.name(job),
        "uid": objects.uid(job),
        "resourceVersion": job["metadata"].get("resourceVersion", ""),
    }


def _scheduled(job: Raw) -> float:
    return moment(objects.notes(job).get(SCHEDULED)) or 0.0


# --- the next run ----------------------------------------------------------------------------------------------------


def _run(owner: Object, jobs: Sequence[Raw], status: Object, view: View, now: float, draft: Draft) -> None:
    spec = owner["spec"]
    try:
        zone: tzinfo = cron.time_zone(spec["timeZone"]) if spec.get("timeZone") else UTC
    except InvalidError as error:
        message = f'invalid timeZone: "{spec["timeZone"]}": {error.message}'
        draft.add(Tell(owner, "Warning", "UnknownTimeZone", message))
        return
    if spec.get("suspend"):
        return
    try:
        schedule = cron.parse(spec["schedule"])
    except InvalidError as error:
        message = f'unparseable schedule: "{spec["schedule"]}" : {error.message}'
        draft.add(Tell(owner, "Warning", "UnparseableSchedule", message))
        return
    found = due(schedule, zone, at(_since(owner, status, now)), at(now))
    following = schedule.after(found.last if schedule.every and found.last else at(now), zone)
    if following is not None:
        draft.look_again(following.timestamp() - now + _SLACK)
    if found.missed > MANY:
        message = "too many missed start times. Set or decrease .spec.startingDeadlineSeconds or check clock skew"
        draft.add(Tell(owner, "Warning", "TooManyMissedTimes", message))
    if found.last is not None:
        _start(owner, jobs, status, found.last, zone, view, now, draft)


def _since(owner: Raw, status: Raw, now: float) -> float:
    earliest = moment(status.get("lastScheduleTime")) or min(born(owner), now)
    deadline = owner["spec"].get("startingDeadlineSeconds")
    return earliest if deadline is None else max(earliest, now - deadline)


def _start(
    owner: Object, jobs: Sequence[Raw], status: Object, when: datetime, zone: tzinfo, view: View, now: float,
    draft: Draft,
) -> None:  # fmt: skip
    name, spec = job_name(owner, when), owner["spec"]
    deadline = spec.get("startingDeadlineSeconds")
    if deadline is not None and when.timestamp() + deadline < now:
        stamp = when.strftime("%a, %d %b %Y %H:%M:%S +0000")
        draft.add(Tell(owner, "Warning", "MissSchedule", f"Missed scheduled time to start a job: {stamp}"))
        return
    if any(objects.name(job) == name for job in jobs):
        return  # it ran, whatever the status says
    active = [job for job in jobs if not ended(job) and BY_HAND not in objects.notes(job)]
    if spec["concurrencyPolicy"] == "Forbid" and active:
        message = "Not starting job because prior execution is running and concurrency policy is Forbid"
        draft.add(Tell(owner, "Normal", "JobAlreadyActive", message))
        return
    if spec["concurrencyPolicy"] == "Replace":
        draft.add(*(_delete(owner, job) for job in active))
    other = view.get(JOBS, objects.namespace(owner), name)
    if other is not None:  # not one of ours: those have moved lastScheduleTime
        message = f'Error creating job: jobs.batch "{name}" already exists and is not controlled by this CronJob'
        draft.add(Tell(owner, "Warning", "FailedCreate", message))
    else:
        told = Tell(owner, "Normal", "SuccessfulCreate", "Created job {name}")
        draft.add(Create(JOBS, _job(owner, name, when, zone), objects.namespace(owner), tell=told))
        draft.failed = lambda error: _refused(owner, error)
    status["lastScheduleTime"] = rfc3339(when.timestamp())


def _refused(owner: Object, error: CuboidError) -> tuple[Instruction, ...]:
    return (Tell(owner, "Warning", "FailedCreate", f"Error creating job: {error.message}"),)


def job_name(owner: Raw, when: datetime) -> str:
    """Of the run of one scheduled time: the same whoever makes it, and however often."""
    return f"{objects.name(owner)}-{int(when.timestamp()) // 60}"


def _job(owner: Raw, name: str, when: datetime, zone: tzinfo) -> Object:
    template = owner["spec"]["jobTemplate"]
    given = template.get("metadata") or {}
    stamp = when.astimezone(zone).isoformat(timespec="seconds").replace("+00:00", "Z")
    metadata = {
        "name": name,
        "labels": dict(given.get("labels") or {}),
        "annotations": {**(given.get("annotations") or {}), SCHEDULED: stamp},
        "ownerReferences": [objects.owner_reference(owner)],
    }
    return {"apiVersion": "batch/v1", "kind": "Job", "metadata": metadata, "spec": copy.deepcopy(template["spec"])}


# --- history ---------------------------------------------------------------------------------------------------------


def _old(owner: Object, jobs: Sequence[Raw]) -> list[Delete]:
    """Of the Jobs that ended, those beyond what is to be kept; the oldest go."""
    gone: list[Delete] = []
    for end, limit in (
        ("Complete", owner["spec"].get("successfulJobsHistoryLimit")),
        ("Failed", owner["spec"].get("failedJobsHistoryLimit")),
    ):
        if limit is None:
            continue
        over = [job for job in jobs if ended(job) == end]
        over.sort(key=lambda job: (job.get("status", {}).get("startTime", ""), objects.name(job)))
        surplus = over[: max(0, len(over) - limit)]
        gone += [_delete(owner, job) for job in surplus if not objects.deleting(job)]
    return gone


def _delete(owner: Object, job: Raw) -> Delete:
    told = Tell(owner, "Normal", "SuccessfulDelete", f"Deleted job {objects.name(job)}")
    place = (objects.name(job), objects.namespace(job), objects.uid(job))
    return Delete(JOBS, *place, propagation="Background", tell=told)
