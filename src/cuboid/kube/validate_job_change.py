"""What may change of a Job, and what its status may say. Source: kubernetes/pkg/apis/batch/validation."""

from __future__ import annotations

import copy
from typing import Any

from cuboid.kube import objects
from cuboid.kube.fields import Fields
from cuboid.kube.job_indexes import overlap, parse_indexes
from cuboid.kube.validate_job import validate_indexes
from cuboid.lib.clock import parse_rfc3339
from cuboid.lib.errors import InvalidError

Raw = dict[str, Any]
_FIXED = ("selector", "completionMode", "podFailurePolicy", "backoffLimitPerIndex", "managedBy", "successPolicy")
_PLACEMENT = ("nodeSelector", "tolerations", "schedulingGates")
"""Where its pods run may change while a job has not begun; so may its template's labels and annotations."""


def validate_job_change(new: Raw, old: Raw, fields: Fields) -> None:
    spec, before = new["spec"], old["spec"]
    _validate_completions(spec, before, fields)
    for key in _FIXED:
        fields.immutable(f"spec.{key}", spec.get(key), before.get(key))
    template = spec["template"]
    at_rest = "startTime" not in old.get("status", {}) or objects.is_true(old, "Suspended")
    waiting = bool(before.get("suspend")) and at_rest
    allowed = _with_placement(before["template"], template) if waiting else before["template"]
    fields.immutable("spec.template", template, allowed)


def _validate_completions(spec: Raw, before: Raw, fields: Fields) -> None:
    after = spec.get("completions")
    if spec["completionMode"] != "Indexed":
        fields.immutable("spec.completions", after, before.get("completions"))
    elif after is not None and after != before.get("completions") and after != spec["parallelism"]:
        fields.invalid("spec.completions", after, "can only be modified in tandem with spec.parallelism")


def _with_placement(old: Raw, new: Raw) -> Raw:
    """The old template with what may change taken from the new one."""
    allowed = copy.deepcopy(old)
    for key in ("labels", "annotations"):
        _take(allowed["metadata"], new["metadata"], key)
    pod, wanted = allowed["spec"], new["spec"]
    for key in _PLACEMENT:
        _take(pod, wanted, key)
    affinity = pod.setdefault("affinity", {})
    _take(affinity, wanted.get("affinity", {}), "nodeAffinity")
    if not affinity and "affinity" not in wanted:
        del pod["affinity"]
    for kind in ("containers", "initContainers"):
        for mine, theirs in zip(pod.get(kind, []), wanted.get(kind, []), strict=False):
            if mine.get("name") == theirs.get("name"):
                _take(mine, theirs, "resources")
    return allowed


def _take(target: Raw, source: Raw, key: str) -> None:
    if key in source:
        target[key] = source[key]
    else:
        target.pop(key, None)


# --- status ----------------------------------------------------------------------------------------------------------


def validate_job_status(new: Raw, old: Raw, fields: Fields) -> None:
    status, before = new.get("status", {}), old.get("status", {})
    for key in ("active", "succeeded", "failed", "ready", "terminating"):
        fields.negative(f"status.{key}", status.get(key))
    for key in ("failed", "succeeded"):
        if status.get(key, 0) < before.get(key, 0):
            fields.invalid(f"status.{key}", status.get(key, 0), f"cannot decrease the {key} counter")
    if status.get("ready", 0) > status.get("active", 0):
        fields.invalid("status.ready", status.get("ready", 0), "cannot set more ready pods than active")
    _validate_uncounted(status.get("uncountedTerminatedPods", {}), fields)
    _validate_conditions(new, old, fields)
    _validate_times(new, old, fields)
    _validate_index_fields(new["spec"], status, fields)


def _validate_uncounted(uncounted: Raw, fields: Fields) -> None:
    seen = set()
    for key in ("succeeded", "failed"):
        for index, uid in enumerate(uncounted.get(key, [])):
            path = f"status.uncountedTerminatedPods.{key}[{index}]"
            if not uid:
                fields.invalid(path, uid, "must not be empty")
            elif uid in seen:
                fields.duplicate(path, uid)
            seen.add(uid)


def _validate_conditions(new: Raw, old: Raw, fields: Fields) -> None:
    path = "status.conditions"
    complete, failed = objects.is_true(new, "Complete"), objects.is_true(new, "Failed")
    met, target = objects.is_true(new, "SuccessCriteriaMet"), objects.is_true(new, "FailureTarget")
    for wrong, words in (
        (complete and failed, "cannot set Complete=True and Failed=true conditions"),
        (complete and target, "cannot set Complete=True and FailureTarget=true conditions"),
        (failed and not target, "cannot set Failed=True condition without the FailureTarget=true condition"),
        (complete and not met, "cannot set Complete=True condition without the SuccessCriteriaMet=true condition"),
        (met and failed, "cannot set SuccessCriteriaMet=True and Failed=true conditions"),
        (met and target, "cannot set SuccessCriteriaMet=True and FailureTarget=true conditions"),
    ):
        if wrong:
            fields.invalid_part(path, words)
    for kind in ("Failed", "Complete", "FailureTarget"):
        if objects.is_true(old, kind) and not objects.is_true(new, kind):
            fields.invalid_part(path, f"cannot disable the terminal {kind}=True condition")
    if objects.is_true(old, "SuccessCriteriaMet") and not met:
        fields.invalid_part(path, "cannot disable the SuccessCriteriaMet=True condition")
    if complete or failed:
        _validate_finished(new.get("status", {}), fields)


def _validate_finished(status: Raw, fields: Fields) -> None:
    for key in ("active", "terminating"):
        if status.get(key, 0) > 0:
            fields.invalid(f"status.{key}", status[key], f"{key}>0 is invalid for finished job")
    if "startTime" not in status:
        fields.required("status.startTime", "startTime is required for finished job")
    uncounted = status.get("uncountedTerminatedPods", {})
    if any(uncounted.get(key) for key in ("succeeded", "failed")):
        fields.invalid("status.uncountedTerminatedPods", uncounted, "must be empty for finished job")


def _validate_times(new: Raw, old: Raw, fields: Fields) -> None:
    status, before = new.get("status", {}), old.get("status", {})
    path, start, end = "status.completionTime", status.get("startTime"), status.get("completionTime")
    complete = objects.is_true(new, "Complete")
    if end and not complete:
        fields.invalid(path, end, "cannot set completionTime when there is no Complete=True condition")
    if complete and not end:
        fields.required(path, "completionTime is required for Complete jobs")
    if start and end and parse_rfc3339(end) < parse_rfc3339(start):
        fields.invalid(path, end, "must be equal to or after `startTime`")
    if end and before.get("completionTime") and end != before["completionTime"]:
        fields.invalid(path, end, "field is immutable")
    at_rest = new["spec"].get("suspend") or objects.is_true(old, "Suspended")  # one that is resumed starts anew
    if before.get("startTime") and start != before["startTime"] and not at_rest:
        fields.required("status.startTime", "startTime cannot be removed for unsuspended job")


def _validate_index_fields(spec: Raw, status: Raw, fields: Fields) -> None:
    done, failed, total = status.get("completedIndexes", ""), status.get("failedIndexes"), spec.get("completions", 0)
    if done and spec.get("completionMode") != "Indexed":
        why = "cannot set non-empty completedIndexes when non-indexed completion mode"
        fields.invalid("status.completedIndexes", done, why)
        return
    if failed is not None and "backoffLimitPerIndex" not in spec:
        why = "cannot set non-null failedIndexes when backoffLimitPerIndex is null"
        fields.invalid("status.failedIndexes", failed, why)
        return
    validate_indexes(done, "status.completedIndexes", total, fields)
    validate_indexes(failed or "", "status.failedIndexes", total, fields)
    try:
        both = overlap(parse_indexes(done, total), parse_indexes(failed or "", total))
    except InvalidError:
        return  # said above
    if both is not None:
        fields.invalid("status.failedIndexes", failed, f"failedIndexes and completedIndexes overlap at index: {both}")
