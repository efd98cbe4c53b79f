"""Strategies of `batch`. Source: kubernetes/pkg/apis/batch/v1/defaults.go and pkg/registry/batch/job/strategy.go."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from cuboid.kube.fields import Fields
from cuboid.kube.pod_defaults import default_template
from cuboid.kube.strategy import Object, SpecStrategy
from cuboid.kube.validate_cronjob import validate_cron_job, validate_cron_job_name
from cuboid.kube.validate_job import NAME_LABELS, UID_LABELS, validate_job
from cuboid.kube.validate_job_change import validate_job_change, validate_job_status

_MAX_INT32 = 2**31 - 1


class JobStrategy(SpecStrategy):
    def default(self, new: Object) -> None:
        spec = new.setdefault("spec", {})
        default_template(spec.setdefault("template", {}))
        if "completions" not in spec and "parallelism" not in spec:
            spec["completions"] = 1
        spec.setdefault("parallelism", 1)
        spec.setdefault("backoffLimit", _MAX_INT32 if "backoffLimitPerIndex" in spec else 6)
        spec.setdefault("completionMode", "NonIndexed")
        spec.setdefault("suspend", False)
        spec.setdefault("manualSelector", False)
        spec.setdefault("podReplacementPolicy", "Failed" if "podFailurePolicy" in spec else "TerminatingOrFailed")
        default_failure_policy(spec)

    def named(self, new: Object) -> None:
        """The pods of a job are known by its uid, unless the user wants to choose the selector."""
        spec, metadata = new["spec"], new["metadata"]
        template = spec["template"]["metadata"]
        if not spec["manualSelector"]:
            labels = template["labels"] = dict(template.get("labels") or {})
            for key in NAME_LABELS:
                labels.setdefault(key, metadata.get("name", ""))
            for key in UID_LABELS:
                labels.setdefault(key, metadata["uid"])
            selected = spec.setdefault("selector", {}).setdefault("matchLabels", {})
            selected.setdefault(UID_LABELS[0], metadata["uid"])
        if template.get("labels") and not metadata.get("labels"):
            metadata["labels"] = dict(template["labels"])

    def validate_body(self, new: Object, fields: Fields) -> None:
        validate_job(new, fields)

    def validate_update(self, new: Object, old: Object, fields: Fields) -> None:
        """A spec that did not change was validated when it came."""
        if new["spec"] == old["spec"]:
            super().validate_status(new, old, fields)
        else:
            super().validate_update(new, old, fields)

    def validate_change(self, new: Object, old: Object, fields: Fields) -> None:
        validate_job_change(new, old, fields)

    def validate_status(self, new: Object, old: Object, fields: Fields) -> None:
        super().validate_status(new, old, fields)
        validate_job_status(new, old, fields)

    def selectable(self, document: Mapping[str, Any]) -> dict[str, str]:
        succeeded = document.get("status", {}).get("succeeded", 0)
        return {**super().selectable(document), "status.successful": str(succeeded)}


class CronJobStrategy(SpecStrategy):
    def default(self, new: Object) -> None:
        spec = new.setdefault("spec", {})
        job = spec.setdefault("jobTemplate", {}).setdefault("spec", {})
        default_template(job.setdefault("template", {}))
        default_failure_policy(job)
        if not spec.get("concurrencyPolicy"):
            spec["concurrencyPolicy"] = "Allow"
        spec.setdefault("suspend", False)
        spec.setdefault("successfulJobsHistoryLimit", 3)
        spec.setdefault("failedJobsHistoryLimit", 1)

    def validate(self, new: Object, fields: Fields) -> None:
        super().validate(new, fields)
        validate_cron_job_name(new["metadata"], fields)

    def validate_body(self, new: Object, fields: Fields) -> None:
        validate_cron_job(new["spec"], fields)


def default_failure_policy(spec: Object) -> None:
    for rule in spec.get("podFailurePolicy", {}).get("rules", []):
        for pattern in rule.get("onPodConditions", []):
            if not pattern.get("status"):
                pattern["status"] = "True"
