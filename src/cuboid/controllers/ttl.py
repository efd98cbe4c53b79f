"""Jobs that ended go when `ttlSecondsAfterFinished` is over. Source: kubernetes/pkg/controller/ttlafterfinished."""

from __future__ import annotations

from cuboid.controllers.common import moment
from cuboid.controllers.job import ended
from cuboid.kube import objects
from cuboid.kube.client import JOBS
from cuboid.kube.controller.instructions import NOTHING, Delete, Plan
from cuboid.kube.controller.view import Key, View, Watch, itself


class FinishedJobs:
    name = "ttl-after-finished"
    watches = (Watch(JOBS, itself, initial=True),)

    def plan(self, key: Key, view: View, now: float) -> Plan:
        job = view.get(JOBS, key.namespace, key.name)
        if job is None or objects.deleting(job) or not (end := ended(job)):
            return NOTHING
        life = job["spec"].get("ttlSecondsAfterFinished")
        finished = moment((objects.condition(job, end) or {}).get("lastTransitionTime"))
        if life is None or finished is None:
            return NOTHING
        if (left := finished + life - now) > 0:
            return Plan(again=left)
        return Plan((Delete(JOBS, key.name, key.namespace, objects.uid(job), propagation="Foreground"),))
