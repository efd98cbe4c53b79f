"""Pods that are held for a count which nobody makes any more: their Job is gone or has ended. They are let go of.

Source: kubernetes/pkg/controller/job, syncOrphanPod.
"""

from __future__ import annotations

from collections.abc import Iterable

from cuboid.controllers.job import ended
from cuboid.controllers.job_pods import tracked, untrack
from cuboid.kube import objects
from cuboid.kube.client import JOBS, NAMESPACES, PODS
from cuboid.kube.controller.instructions import NOTHING, Plan, Together
from cuboid.kube.controller.view import Change, Key, View, Watch
from cuboid.kube.objects import Raw
from cuboid.kube.selectors import Requirement

OF_JOBS = (Requirement("batch.kubernetes.io/job-name", "exists"),)
_MOST = 500


def _of_pod(change: Change, view: View) -> Iterable[Key]:
    if change.type != "DELETED" and tracked(change.new) and not _counted(change.new, view):
        yield Key(objects.namespace(change.new), objects.name(change.new))


def _of_job(change: Change, view: View) -> Iterable[Key]:
    if change.type == "DELETED" or ended(change.new):
        for pod in view.owned(PODS, objects.uid(change.new)):
            if tracked(pod):
                yield Key(objects.namespace(pod), objects.name(pod))


def _whole(change: Change, view: View) -> Iterable[Key]:
    """At the start, and from time to time, all pods of jobs in a namespace: the end of a job may have been missed."""
    if change.old is None and change.type != "DELETED":
        yield Key(objects.name(change.new), "")


class JobOrphans:
    """Keys are pods; the name "" stands for all pods of jobs in a namespace."""

    name = "job-orphans"
    watches = (Watch(PODS, _of_pod), Watch(JOBS, _of_job), Watch(NAMESPACES, _whole, initial=True))

    def plan(self, key: Key, view: View, now: float) -> Plan:
        if key.name:
            pod = view.get(PODS, key.namespace, key.name)
            pods = [] if pod is None else [pod]
        else:
            pods = view.select(PODS, key.namespace, OF_JOBS)
        free = [untrack(pod) for pod in pods if tracked(pod) and not _counted(pod, view)]
        if not free:
            return NOTHING
        return Plan((Together(tuple(free[:_MOST])),), again=0.0 if len(free) > _MOST else None)


def _counted(pod: Raw, view: View) -> bool:
    """A Job that is at work will count it."""
    ref = objects.controller(pod)
    if ref is None or ref["kind"] != "Job" or not ref["apiVersion"].startswith("batch/"):
        return False
    job = view.get(JOBS, objects.namespace(pod), ref["name"])
    return job is not None and objects.uid(job) == ref["uid"] and not ended(job)
