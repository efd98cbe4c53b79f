"""Validation of Jobs and of the jobs of CronJobs. Source: kubernetes/pkg/apis/batch/validation.

Objects have their defaults already; the job of a CronJob has fewer than a Job.
"""

from __future__ import annotations

import re
from typing import Any

from cuboid.kube import syntax
from cuboid.kube.fields import Fields
from cuboid.kube.job_indexes import parse_indexes
from cuboid.kube.validate_pod import validate_template
from cuboid.kube.validate_selectors import selects, validate_matching, validate_selector
from cuboid.lib.errors import InvalidError

Raw = dict[str, Any]
NAME_LABELS = ("batch.kubernetes.io/job-name", "job-name")
UID_LABELS = ("batch.kubernetes.io/controller-uid", "controller-uid")
MAX_INDEXED_PARALLELISM = 100_000
MAX_FAILED_INDEXES = 100_000
MANY_COMPLETIONS = 100_000
LIMIT_WITH_MANY = 10_000
MAX_RULES = 20
MAX_EXIT_CODES = 255
MAX_INDEXES_BYTES = 64 * 1024
_ACTIONS = ("Count", "FailIndex", "FailJob", "Ignore")
_COUNTS = (
    "parallelism", "completions", "activeDeadlineSeconds", "backoffLimit", "ttlSecondsAfterFinished",
    "backoffLimitPerIndex", "maxFailedIndexes",
)  # fmt: skip
_INDEXED = "requires indexed completion mode"
_PATH = re.compile(r"[A-Za-z0-9/\-._~%!$&'()*+,;=:]+", re.ASCII)


def validate_job(job: Raw, fields: Fields) -> None:
    spec, metadata = job["spec"], job["metadata"]
    _validate_generated(spec, metadata, fields)
    validate_job_spec(spec, fields)
    if spec.get("selector") is None:
        fields.required("spec.selector")
    if validate_selector(spec.get("selector"), "spec.selector", fields):
        validate_matching(spec.get("selector"), spec["template"], "spec.template", fields)
    if spec["completionMode"] == "Indexed" and spec.get("completions", 0) > 0:
        name = metadata.get("name", "")
        last = f"{name}-{spec['completions'] - 1}"
        if syntax.dns_label(last):
            fields.invalid("metadata.name", name, f"will not able to create pod with invalid DNS label: {last}")


def _validate_generated(spec: Raw, metadata: Raw, fields: Fields) -> None:
    """Labels that the server wrote must not be contradicted by those that the user gave."""
    if spec["manualSelector"] or spec.get("selector") is None:
        return
    labels = spec["template"]["metadata"].get("labels", {})
    uid, name = str(metadata.get("uid", "")), str(metadata.get("name", ""))
    expected = {**dict.fromkeys(UID_LABELS, uid), **dict.fromkeys(NAME_LABELS, name)}
    for key, value in expected.items():
        path = f"spec.template.metadata.labels[{key}]"
        if key not in labels:
            fields.required(path, f"must be '{value}'")
        elif labels[key] != value:
            fields.invalid(path, labels, f"must be '{value}'")
    if validate_selector(spec["selector"], "", Fields()) and not selects(spec["selector"], expected):
        fields.invalid("spec.selector", spec["selector"], "`selector` not auto-generated")


def validate_job_template(template: Raw, path: str, fields: Fields) -> None:
    """What a CronJob makes jobs of, at `path`."""
    part, spec = fields.under(path), template["spec"]
    validate_job_spec(spec, part)
    if spec.get("selector") is not None:
        part.invalid("spec.selector", spec["selector"], "`selector` will be auto-generated")
    if spec.get("manualSelector"):
        part.unsupported("spec.manualSelector", True, ("nil", "false"))


def validate_job_spec(spec: Raw, fields: Fields) -> None:
    for key in _COUNTS:
        fields.negative(f"spec.{key}", spec.get(key))
    if "maxFailedIndexes" in spec and "backoffLimitPerIndex" not in spec:
        fields.required("spec.backoffLimitPerIndex", "when maxFailedIndexes is specified")
    if "managedBy" in spec:
        _validate_manager(spec["managedBy"], "spec.managedBy", fields)
    _validate_mode(spec, fields)
    if "podFailurePolicy" in spec:
        _validate_failure_policy(spec, fields)
    if "successPolicy" in spec:
        _validate_success_policy(spec, fields)
    _validate_replacement(spec, fields)
    validate_template(spec["template"], "spec.template", fields)
    _validate_restart(spec, fields)


def _validate_manager(name: str, path: str, fields: Fields) -> None:
    domain, slash, rest = name.partition("/")
    if not name:
        fields.required(path)
    elif not (domain and slash and rest):
        fields.invalid(path, name, 'must be a domain-prefixed path (such as "acme.io/foo")')
    else:
        fields.all_invalid(path, domain, syntax.dns_subdomain(domain))
        if not _PATH.fullmatch(rest):
            fields.invalid(path, rest, f"Invalid path (regex used for validation is '{_PATH.pattern}')")
    if len(name.encode()) > 63:
        fields.too_long(path, 63)


def _validate_mode(spec: Raw, fields: Fields) -> None:
    mode = spec.get("completionMode", "NonIndexed")
    if mode == "Indexed":
        _validate_indexed(spec, fields)
        return
    if mode != "NonIndexed":
        fields.unsupported("spec.completionMode", mode, ("Indexed", "NonIndexed"))
        return
    for key in ("backoffLimitPerIndex", "maxFailedIndexes"):
        if key in spec:
            fields.invalid(f"spec.{key}", spec[key], _INDEXED)


def _validate_indexed(spec: Raw, fields: Fields) -> None:
    completions, parallelism = spec.get("completions"), spec.get("parallelism", 0)
    failed = spec.get("maxFailedIndexes")
    if completions is None:
        fields.required("spec.completions", "when completion mode is Indexed")
    if parallelism > MAX_INDEXED_PARALLELISM:
        _at_most("spec.parallelism", parallelism, f"{MAX_INDEXED_PARALLELISM} when completion mode is Indexed", fields)
    if failed is not None and completions is not None and failed > completions:
        _at_most("spec.maxFailedIndexes", failed, "completions", fields)
    if failed is not None and failed > MAX_FAILED_INDEXES:
        _at_most("spec.maxFailedIndexes", failed, str(MAX_FAILED_INDEXES), fields)
    if (completions or 0) > MANY_COMPLETIONS and "backoffLimitPerIndex" in spec:
        limit = f"{LIMIT_WITH_MANY} when completions are above {MANY_COMPLETIONS} and used with backoff limit per index"
        if failed is None:
            fields.required("spec.maxFailedIndexes", f"must be specified when completions is above {MANY_COMPLETIONS}")
        for key, value in (("parallelism", parallelism), ("maxFailedIndexes", failed or 0)):
            if value > LIMIT_WITH_MANY:
                _at_most(f"spec.{key}", value, limit, fields)


def _at_most(path: str, value: int, limit: str, fields: Fields) -> None:
    fields.invalid(path, value, f"must be less than or equal to {limit}")


def _validate_replacement(spec: Raw, fields: Fields) -> None:
    known = ("Failed",) if "podFailurePolicy" in spec else ("Failed", "TerminatingOrFailed")
    policy = spec.get("podReplacementPolicy", "Failed")
    if policy not in known:
        fields.unsupported("spec.podReplacementPolicy", policy, known)


def _validate_restart(spec: Raw, fields: Fields) -> None:
    path, policy = "spec.template.spec.restartPolicy", spec["template"]["spec"].get("restartPolicy", "")
    if policy in ("", "Always"):
        fields.required(path, 'valid values: "OnFailure", "Never"')
    elif policy not in ("OnFailure", "Never"):
        fields.unsupported(path, policy, ("Never", "OnFailure"))
    elif policy != "Never" and "podFailurePolicy" in spec:
        fields.invalid(path, policy, 'only "Never" is supported when podFailurePolicy is specified')


# --- policies --------------------------------------------------------------------------------------------------------


def _validate_failure_policy(spec: Raw, fields: Fields) -> None:
    path, rules = "spec.podFailurePolicy.rules", spec["podFailurePolicy"].get("rules", [])
    if len(rules) > MAX_RULES:
        fields.too_many(path, len(rules), MAX_RULES)
    pod = spec["template"]["spec"]
    names = {container.get("name") for kind in ("containers", "initContainers") for container in pod.get(kind, [])}
    for index, rule in enumerate(rules):
        _validate_rule(rule, f"{path}[{index}]", "backoffLimitPerIndex" in spec, names, fields)


def _validate_rule(rule: Raw, path: str, per_index: bool, names: set[str | None], fields: Fields) -> None:
    action = rule.get("action", "")
    if not action:
        fields.required(f"{path}.action", _valid(_ACTIONS))
    elif action not in _ACTIONS:
        fields.unsupported(f"{path}.action", action, _ACTIONS)
    elif action == "FailIndex" and not per_index:
        fields.invalid(f"{path}.action", action, "requires the backoffLimitPerIndex to be set")
    codes, conditions = rule.get("onExitCodes"), rule.get("onPodConditions", [])
    if codes is not None:
        _validate_exit_codes(codes, f"{path}.onExitCodes", names, fields)
    _validate_conditions(conditions, f"{path}.onPodConditions", fields)
    if codes is not None and conditions:
        fields.invalid_part(path, "specifying both OnExitCodes and OnPodConditions is not supported")
    if codes is None and not conditions:
        fields.invalid_part(path, "specifying one of OnExitCodes and OnPodConditions is required")


def _valid(values: tuple[str, ...]) -> str:
    return "valid values: [" + " ".join(f'"{value}"' for value in values) + "]"


def _validate_exit_codes(codes: Raw, path: str, names: set[str | None], fields: Fields) -> None:
    operator, values = codes.get("operator", ""), codes.get("values", [])
    if not operator:
        fields.required(f"{path}.operator", _valid(("In", "NotIn")))
    elif operator not in ("In", "NotIn"):
        fields.unsupported(f"{path}.operator", operator, ("In", "NotIn"))
    if "containerName" in codes and codes["containerName"] not in names:
        why = "must be one of the container or initContainer names in the pod template"
        fields.invalid(f"{path}.containerName", codes["containerName"], why)
    if not values:
        fields.invalid(f"{path}.values", values, "at least one value is required")
    if len(values) > MAX_EXIT_CODES:
        fields.too_many(f"{path}.values", len(values), MAX_EXIT_CODES)
    seen: set[int] = set()
    for index, value in enumerate(values):
        if operator == "In" and value == 0:
            fields.invalid(f"{path}.values[{index}]", value, "must not be 0 for the In operator")
        if value in seen:
            fields.duplicate(f"{path}.values[{index}]", value)
        seen.add(value)
    if values != sorted(values):
        fields.invalid(f"{path}.values", values, "must be ordered")


def _validate_conditions(patterns: list[Raw], path: str, fields: Fields) -> None:
    if len(patterns) > MAX_RULES:
        fields.too_many(path, len(patterns), MAX_RULES)
    for index, pattern in enumerate(patterns):
        name, status = pattern.get("type", ""), pattern.get("status", "")
        fields.all_invalid(f"{path}[{index}].type", name, syntax.qualified_name(name))
        if status not in ("True", "False", "Unknown"):
            fields.unsupported(f"{path}[{index}].status", status, ("False", "True", "Unknown"))


def _validate_success_policy(spec: Raw, fields: Fields) -> None:
    path, policy = "spec.successPolicy", spec["successPolicy"]
    if spec.get("completionMode") != "Indexed":
        fields.invalid(path, policy, _INDEXED)
        return
    rules = policy.get("rules", [])
    if not rules:
        fields.required(f"{path}.rules", "at least one rules must be specified when the successPolicy is specified")
    if len(rules) > MAX_RULES:
        fields.too_many(f"{path}.rules", len(rules), MAX_RULES)
    for index, rule in enumerate(rules):
        _validate_success_rule(rule, f"{path}.rules[{index}]", spec.get("completions", 0), fields)


def _validate_success_rule(rule: Raw, path: str, completions: int, fields: Fields) -> None:
    count, indexes = rule.get("succeededCount"), rule.get("succeededIndexes")
    if count is None and indexes is None:
        fields.required(path, "at least one of succeededCount or succeededIndexes must be specified")
    total = completions
    if indexes is not None:
        total = validate_indexes(indexes, f"{path}.succeededIndexes", completions, fields)
    if count is None:
        return
    where = f"{path}.succeededCount"
    fields.negative(where, count)
    if count > completions:
        _at_most(where, count, f"{completions} (the number of specified completions)", fields)
    if indexes is not None and count > total:
        words = f"{total} (the number of indexes in the specified succeededIndexes field)"
        _at_most(where, count, words, fields)


def validate_indexes(text: str, path: str, completions: int, fields: Fields) -> int:
    """How many indexes a text like `0,2-4` names; 0 after a complaint."""
    if len(text) > MAX_INDEXES_BYTES:
        fields.too_long(path, MAX_INDEXES_BYTES)
        return 0
    try:
        return sum(last - first + 1 for first, last in parse_indexes(text, completions))
    except InvalidError as error:
        fields.invalid(path, text, f"error parsing {path.rpartition('.')[2]}: {error.message}")
        return 0
