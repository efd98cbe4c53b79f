"""How `kubectl get` prints Jobs and CronJobs. Source: kubernetes/pkg/printers/internalversion."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from cuboid.kube import objects
from cuboid.kube.columns import PLAIN, Column, age, duration
from cuboid.kube.printing import templates as t
from cuboid.lib.clock import parse_rfc3339

Raw = Mapping[str, Any]
_NAME, _AGE = PLAIN
_WIDE = (t.CONTAINERS, t.IMAGES, t.SELECTOR)
_STATES = ("Suspended", "FailureTarget", "SuccessCriteriaMet")

JOB = (_NAME, Column("Status"), Column("Completions"), Column("Duration"), _AGE, *_WIDE)


def job(document: Raw, now: float) -> list[Any]:
    metadata, spec, status = document["metadata"], document.get("spec", {}), document.get("status", {})
    wide = [*t.containers(spec.get("template", {})), t.selector(spec.get("selector"))]
    born = age(metadata.get("creationTimestamp"), now)
    return [metadata["name"], _state(document), _completions(spec, status), _took(status, now), born, *wide]


def _state(document: Raw) -> str:
    for kind in ("Complete", "Failed"):
        if objects.is_true(document, kind):
            return kind
    if objects.deleting(document):
        return "Terminating"
    return next((kind for kind in _STATES if objects.is_true(document, kind)), "Running")


def _completions(spec: Raw, status: Raw) -> str:
    succeeded, parallelism = status.get("succeeded", 0), spec.get("parallelism", 0)
    if "completions" in spec:
        return f"{succeeded}/{spec['completions']}"
    return f"{succeeded}/1 of {parallelism}" if parallelism > 1 else f"{succeeded}/1"


def _took(status: Raw, now: float) -> str:
    if not status.get("startTime"):
        return ""
    end = status.get("completionTime")
    return duration((parse_rfc3339(end) if end else now) - parse_rfc3339(status["startTime"]))


CRON_JOB = (
    _NAME, Column("Schedule"), Column("Timezone"), Column("Suspend", "boolean"), Column("Active", "integer"),
    Column("Last Schedule"), _AGE, *_WIDE,
)  # fmt: skip


def cron_job(document: Raw, now: float) -> list[Any]:
    metadata, spec, status = document["metadata"], document.get("spec", {}), document.get("status", {})
    last, job_spec = status.get("lastScheduleTime"), spec.get("jobTemplate", {}).get("spec", {})
    return [
        metadata["name"], spec.get("schedule", ""), spec.get("timeZone") or t.NONE, str(spec.get("suspend", False)),
        len(status.get("active", [])), age(last, now) if last else t.NONE, age(metadata.get("creationTimestamp"), now),
        *t.containers(job_spec.get("template", {})), t.selector(job_spec.get("selector")),
    ]  # fmt: skip
