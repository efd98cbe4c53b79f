"""Strategies of `batch`. Source: kubernetes/pkg/apis/batch/v1/defaults.go and pkg/registry/batch/job/strategy.go."""

from __future__ import annotations

from cuboid.kube.pod_defaults import default_template
from cuboid.kube.strategy import Object, SpecStrategy

NAME_LABELS = ("batch.kubernetes.io/job-name", "job-name")
UID_LABELS = ("batch.kubernetes.io/controller-uid", "controller-uid")
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


def default_failure_policy(spec: Object) -> None:
    for rule in spec.get("podFailurePolicy", {}).get("rules", []):
        for pattern in rule.get("onPodConditions", []):
            if not pattern.get("status"):
                pattern["status"] = "True"
