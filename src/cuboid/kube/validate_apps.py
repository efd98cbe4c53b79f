"""Validation of the kinds of `apps`, with Kubernetes' field paths and words. Objects have their defaults already.

Source: kubernetes/pkg/apis/apps/validation.
"""

from __future__ import annotations

from typing import Any

from cuboid.kube import syntax
from cuboid.kube.fields import Fields
from cuboid.kube.validate_pod import validate_template
from cuboid.kube.validate_selectors import amount, is_empty, validate_amount, validate_matching, validate_selector

Raw = dict[str, Any]
_TEMPLATE = "spec.template"
_STATEFUL_CHANGE = (
    "updates to statefulset spec for fields other than 'replicas', 'ordinals', 'template', 'updateStrategy', "
    "'revisionHistoryLimit', 'persistentVolumeClaimRetentionPolicy' and 'minReadySeconds' are forbidden"
)
_STATEFUL_CHANGEABLE = (
    "replicas", "ordinals", "template", "updateStrategy", "revisionHistoryLimit",
    "persistentVolumeClaimRetentionPolicy", "minReadySeconds",
)  # fmt: skip


def validate_deployment(spec: Raw, fields: Fields) -> None:
    fields.negative("spec.replicas", spec["replicas"])
    _validate_pods(spec, "deployment", "ReplicaSet", fields)
    _validate_deployment_strategy(spec["strategy"], fields)
    ready, deadline = spec.get("minReadySeconds", 0), spec["progressDeadlineSeconds"]
    fields.negative("spec.minReadySeconds", ready)
    fields.negative("spec.revisionHistoryLimit", spec["revisionHistoryLimit"])
    fields.negative("spec.progressDeadlineSeconds", deadline)
    if deadline <= ready:
        fields.invalid("spec.progressDeadlineSeconds", deadline, "must be greater than minReadySeconds")


def validate_replica_set(spec: Raw, fields: Fields) -> None:
    fields.negative("spec.replicas", spec["replicas"])
    fields.negative("spec.minReadySeconds", spec.get("minReadySeconds"))
    _validate_pods(spec, "deployment", "ReplicaSet", fields)  # Kubernetes says deployment here too


def validate_stateful_set(spec: Raw, fields: Fields) -> None:
    policies = ("OrderedReady", "Parallel")
    if spec["podManagementPolicy"] not in policies:
        words = "must be 'OrderedReady' or 'Parallel'"
        fields.invalid("spec.podManagementPolicy", spec["podManagementPolicy"], words)
    _validate_stateful_update(spec["updateStrategy"], fields)
    for key, policy in spec["persistentVolumeClaimRetentionPolicy"].items():
        if policy not in ("Delete", "Retain"):
            fields.unsupported(f"spec.persistentVolumeClaimRetentionPolicy.{key}", policy, ("Delete", "Retain"))
    fields.negative("spec.replicas", spec["replicas"])
    fields.negative("spec.minReadySeconds", spec.get("minReadySeconds"))
    fields.negative("spec.ordinals.start", spec.get("ordinals", {}).get("start"))
    fields.negative("spec.revisionHistoryLimit", spec["revisionHistoryLimit"])
    if name := spec["serviceName"]:
        fields.all_invalid("spec.serviceName", name, syntax.dns_label(name))
    _validate_pods({**spec, "template": _with_claims(spec)}, "statefulset", "StatefulSet", fields)


def validate_stateful_change(new: Raw, old: Raw, fields: Fields) -> None:
    for key in set(new) | set(old):
        if key not in _STATEFUL_CHANGEABLE and new.get(key) != old.get(key):
            fields.forbidden("spec", _STATEFUL_CHANGE)
            return


def validate_daemon_set(spec: Raw, fields: Fields) -> None:
    _validate_pods(spec, "daemonset", "DaemonSet", fields)
    fields.negative("spec.minReadySeconds", spec.get("minReadySeconds"))
    _validate_daemon_update(spec["updateStrategy"], fields)
    fields.negative("spec.revisionHistoryLimit", spec["revisionHistoryLimit"])


# --- template and selector -------------------------------------------------------------------------------------------


def _validate_pods(spec: Raw, word: str, kind: str, fields: Fields) -> None:
    """The selector, the template that it has to select, and what pods that are kept running can not have."""
    selector, template = spec.get("selector"), spec["template"]
    if selector is None:
        fields.required("spec.selector")
    if not validate_selector(selector, "spec.selector", fields):
        fields.invalid("spec.selector", selector, "invalid label selector")
    elif selector is not None and is_empty(selector):
        fields.invalid("spec.selector", selector, f"empty selector is invalid for {word}")
    else:
        validate_matching(selector, template, _TEMPLATE, fields)
    validate_template(template, _TEMPLATE, fields)
    if template["spec"]["restartPolicy"] != "Always":
        fields.unsupported(f"{_TEMPLATE}.spec.restartPolicy", template["spec"]["restartPolicy"], ("Always",))
    if "activeDeadlineSeconds" in template["spec"]:
        why = f"activeDeadlineSeconds in {kind} is not Supported"
        fields.forbidden(f"{_TEMPLATE}.spec.activeDeadlineSeconds", why)


def _with_claims(spec: Raw) -> Raw:
    """The template as the controller will fill it in: volumes of the claims, names of its own."""
    names = [claim.get("metadata", {}).get("name", "") for claim in spec.get("volumeClaimTemplates", [])]
    pod = {key: value for key, value in spec["template"]["spec"].items() if key not in ("hostname", "subdomain")}
    claims = [{"name": name, "persistentVolumeClaim": {"claimName": name}} for name in names]
    pod["volumes"] = claims + [item for item in pod.get("volumes", []) if item.get("name") not in names]
    return {**spec["template"], "spec": pod}


# --- update strategies -----------------------------------------------------------------------------------------------


def _validate_deployment_strategy(strategy: Raw, fields: Fields) -> None:
    path, rolling = "spec.strategy.rollingUpdate", strategy.get("rollingUpdate")
    if strategy["type"] == "Recreate":
        if rolling is not None:
            fields.forbidden(path, "may not be specified when strategy `type` is 'Recreate'")
    elif strategy["type"] == "RollingUpdate":
        unavailable, surge = strategy["rollingUpdate"]["maxUnavailable"], strategy["rollingUpdate"]["maxSurge"]
        validate_amount(unavailable, f"{path}.maxUnavailable", fields)
        validate_amount(surge, f"{path}.maxSurge", fields, bounded=False)
        if amount(unavailable) == 0 and amount(surge) == 0:
            fields.invalid(f"{path}.maxUnavailable", unavailable, "may not be 0 when `maxSurge` is 0")
    else:
        fields.unsupported("spec.strategy", strategy, ("Recreate", "RollingUpdate"))


def _validate_stateful_update(update: Raw, fields: Fields) -> None:
    path, rolling = "spec.updateStrategy", update.get("rollingUpdate")
    if update["type"] == "OnDelete":
        if rolling is not None:
            fields.invalid(f"{path}.rollingUpdate", rolling, "only allowed for updateStrategy 'RollingUpdate'")
    elif update["type"] == "RollingUpdate":
        fields.negative(f"{path}.rollingUpdate.partition", (rolling or {}).get("partition"))
        unavailable = (rolling or {}).get("maxUnavailable")
        if unavailable is not None:
            validate_amount(unavailable, f"{path}.rollingUpdate.maxUnavailable", fields)
            if amount(unavailable) == 0:
                fields.invalid(f"{path}.rollingUpdate.maxUnavailable", unavailable, "cannot be 0")
    else:
        fields.invalid(path, update, "must be 'RollingUpdate' or 'OnDelete'")


def _validate_daemon_update(update: Raw, fields: Fields) -> None:
    path = "spec.updateStrategy.rollingUpdate"
    if update["type"] == "RollingUpdate":
        unavailable, surge = update["rollingUpdate"]["maxUnavailable"], update["rollingUpdate"]["maxSurge"]
        validate_amount(unavailable, f"{path}.maxUnavailable", fields)
        validate_amount(surge, f"{path}.maxSurge", fields)
        if amount(unavailable) and amount(surge):
            fields.invalid(f"{path}.maxSurge", surge, "may not be set when maxUnavailable is non-zero")
        if not amount(unavailable) and not amount(surge):
            fields.required(f"{path}.maxUnavailable", "cannot be 0 when maxSurge is 0")
    elif update["type"] != "OnDelete":
        fields.unsupported("spec.updateStrategy", update, ("OnDelete", "RollingUpdate"))


# --- status ----------------------------------------------------------------------------------------------------------


def validate_counts(status: Raw, old: Raw, fields: Fields) -> None:
    """No number in a status is negative, and a collision counter does not go back."""
    for key, value in status.items():
        if type(value) is int:
            fields.negative(f"status.{key}", value)
    if status.get("collisionCount", 0) < old.get("collisionCount", 0):
        fields.invalid("status.collisionCount", status.get("collisionCount", 0), "cannot be decremented")


def validate_replica_counts(status: Raw, fields: Fields, readiness: str = "readyReplicas") -> None:
    """Nothing of a whole is more than the whole."""
    replicas, ready = status.get("replicas", 0), status.get("readyReplicas", 0)
    for key in ("fullyLabeledReplicas", "updatedReplicas", "readyReplicas", "currentReplicas", "availableReplicas"):
        if key in status and status[key] > replicas:
            fields.invalid(f"status.{key}", status[key], "cannot be greater than status.replicas")
    if status.get("availableReplicas", 0) > ready:
        fields.invalid(
            "status.availableReplicas", status.get("availableReplicas", 0), f"cannot be greater than {readiness}"
        )
