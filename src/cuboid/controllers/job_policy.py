"""What a Job's policies make of failed pods and succeeded indexes.

Source: kubernetes/pkg/controller/job, pod_failure_policy.go and success_policy.go.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

from cuboid.controllers.job_indexes import Indexes
from cuboid.kube import objects
from cuboid.kube.objects import Raw


@dataclass(frozen=True)
class Verdict:
    """`action` is Ignore, Count, FailIndex, FailJob, or "" when no rule matches (the failure counts)."""

    action: str = ""
    message: str = ""

    @property
    def counts(self) -> bool:
        return self.action != "Ignore"


def judge(policy: Raw | None, pod: Raw) -> Verdict:
    """The first rule of a podFailurePolicy that a failed pod matches."""
    for number, rule in enumerate((policy or {}).get("rules") or []):
        action = rule["action"]
        place = f"{objects.namespace(pod)}/{objects.name(pod)}"
        if rule.get("onExitCodes"):
            found = _exited(pod.get("status", {}), rule["onExitCodes"])
            if found is not None:
                name, code = found
                what = f"Container {name} for pod {place} failed with exit code {code}"
                return Verdict(action, f"{what} matching {action} rule at index {number}")
        elif (condition := _condition(pod.get("status", {}), rule.get("onPodConditions") or [])) is not None:
            what = f"Pod {place} has condition {condition}"
            return Verdict(action, f"{what} matching {action} rule at index {number}")
    return Verdict()


def _exited(status: Raw, wanted: Raw) -> tuple[str, int] | None:
    """Name and exit code of the first container that the requirement speaks of. Success is never a failure."""
    values = set(wanted.get("values") or [])
    for item in [*status.get("containerStatuses", []), *status.get("initContainerStatuses", [])]:
        ended = item.get("state", {}).get("terminated")
        if ended is None or wanted.get("containerName") not in (None, "", item.get("name")):
            continue
        code = ended.get("exitCode", 0)
        if code != 0 and (code in values) == (wanted.get("operator") == "In"):
            return str(item.get("name", "")), int(code)
    return None


def _condition(status: Raw, patterns: Iterable[Raw]) -> str | None:
    for condition in status.get("conditions", []):
        for pattern in patterns:
            same = condition.get("type") == pattern.get("type")
            if same and condition.get("status") == (pattern.get("status") or "True"):
                return str(condition["type"])
    return None


def success_met(policy: Raw | None, completions: int, succeeded: Indexes) -> str:
    """The message about the first rule of a successPolicy that is met, "" for none."""
    for number, rule in enumerate((policy or {}).get("rules") or []):
        wanted = Indexes.parse(rule["succeededIndexes"], completions) if rule.get("succeededIndexes") else None
        have = len(succeeded) if wanted is None else succeeded.shared(wanted)
        count = rule.get("succeededCount")
        need = count if count is not None else len(wanted) if wanted is not None else None
        if need is not None and have >= need:
            return f"Matched rules at index {number}"
    return ""
