"""Validation of CronJobs. Source: kubernetes/pkg/apis/batch/validation."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from cuboid.kube import cron
from cuboid.kube.fields import Fields
from cuboid.kube.validate_job import validate_job_template
from cuboid.lib.errors import InvalidError

Raw = dict[str, Any]
MAX_NAME = 52
"""Bytes: the names of its jobs get eleven more, of 63."""
_POLICIES = ("Allow", "Forbid", "Replace")


def validate_cron_job_name(metadata: Raw, fields: Fields) -> None:
    name = metadata.get("name", "")
    if len(name) > MAX_NAME:
        fields.invalid("metadata.name", name, f"must be no more than {MAX_NAME} bytes")


def validate_cron_job(spec: Raw, fields: Fields) -> None:
    schedule = spec.get("schedule", "")
    if not schedule:
        fields.required("spec.schedule")
    else:
        _complain(cron.parse, schedule, "spec.schedule", fields)
    if "TZ" in schedule:
        why = "cannot use TZ or CRON_TZ in schedule, use timeZone field instead"
        fields.invalid("spec.schedule", schedule, why)
    fields.negative("spec.startingDeadlineSeconds", spec.get("startingDeadlineSeconds"))
    if spec.get("timeZone") == "":
        fields.invalid("spec.timeZone", "", "timeZone must be nil or non-empty string")
    elif "timeZone" in spec:
        _complain(cron.time_zone, spec["timeZone"], "spec.timeZone", fields)
    if spec["concurrencyPolicy"] not in _POLICIES:
        fields.unsupported("spec.concurrencyPolicy", spec["concurrencyPolicy"], _POLICIES)
    validate_job_template(spec["jobTemplate"], "spec.jobTemplate", fields)
    for key in ("successfulJobsHistoryLimit", "failedJobsHistoryLimit"):
        fields.negative(f"spec.{key}", spec[key])


def _complain(read: Callable[[str], object], text: str, path: str, fields: Fields) -> None:
    try:
        read(text)
    except InvalidError as error:
        fields.invalid(path, text, error.message)
