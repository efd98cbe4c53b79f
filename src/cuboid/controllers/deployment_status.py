"""What a Deployment says of itself: counts, and whether it is available and gets on.

Source: kubernetes/pkg/controller/deployment, progress.go and sync.go.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from cuboid.controllers import common
from cuboid.controllers.deployment_sets import Sets, counted, fence_of, replicas
from cuboid.kube import objects
from cuboid.lib.clock import rfc3339

Object = dict[str, Any]
Raw = Mapping[str, Any]
PROGRESSING = "Progressing"
NO_DEADLINE = 2**31 - 1
DONE = "NewReplicaSetAvailable"
TIMED_OUT = "ProgressDeadlineExceeded"
PAUSED = "DeploymentPaused"


def status_of(deployment: Raw, sets: Sets, now: float) -> Object:
    """The whole status, in a rollout or not."""
    status = _counts(deployment, sets)
    conditions = _available(deployment, status, list((deployment.get("status") or {}).get("conditions") or ()), now)
    conditions = _failure(sets, conditions, now)
    conditions = _progress(deployment, sets, status, conditions, now)
    return {**common.spread(status), **({"conditions": conditions} if conditions else {})}


def _counts(deployment: Raw, sets: Sets) -> Object:
    def total(key: str) -> int:
        return sum(counted(one, key) for one in sets.all)

    available = total("availableReplicas")
    return {
        "observedGeneration": common.generation(deployment),
        "replicas": total("replicas"),
        "updatedReplicas": counted(sets.new, "replicas") if sets.new is not None else 0,
        "readyReplicas": total("readyReplicas"),
        "availableReplicas": available,
        "unavailableReplicas": max(sum(replicas(one) for one in sets.all) - available, 0),
        "terminatingReplicas": total("terminatingReplicas"),
        "collisionCount": counted(deployment, "collisionCount"),
    }


def _available(deployment: Raw, status: Raw, conditions: list[Object], now: float) -> list[Object]:
    enough = status["availableReplicas"] >= replicas(deployment) - fence_of(deployment).unavailable
    if enough:
        found = ("True", "MinimumReplicasAvailable", "Deployment has minimum availability.")
    else:
        found = ("False", "MinimumReplicasUnavailable", "Deployment does not have minimum availability.")
    return set_condition(conditions, "Available", *found, now)


def _failure(sets: Sets, conditions: list[Object], now: float) -> list[Object]:
    newest_first = (sets.new, *sets.old) if sets.new is not None else sets.old
    for one in newest_first:
        found = objects.condition(one, "ReplicaFailure")
        if found is not None:
            told = (str(found["status"]), str(found.get("reason", "")), str(found.get("message", "")))
            return set_condition(conditions, "ReplicaFailure", *told, now)
    return common.without_condition(conditions, "ReplicaFailure")


def set_condition(
    conditions: list[Object], type_: str, status: str, reason: str, message: str, now: float, *, renew: bool = False
) -> list[Object]:
    """Unchanged when it says the same for the same reason, unless `renew` (there was progress)."""
    old = next((item for item in conditions if item["type"] == type_), None)
    if old is not None and not renew and (old["status"], old.get("reason")) == (status, reason):
        return conditions
    made = {**common.condition(type_, status, reason, message, now), "lastUpdateTime": rfc3339(now)}
    return common.with_condition(conditions, made)


def deadline(deployment: Raw) -> float | None:
    """Seconds without progress after which a rollout counts as failed; None for never."""
    seconds = deployment["spec"].get("progressDeadlineSeconds", NO_DEADLINE)
    return None if seconds == NO_DEADLINE else float(seconds)


def _progress(deployment: Raw, sets: Sets, status: Raw, conditions: list[Object], now: float) -> list[Object]:
    limit = deadline(deployment)
    if limit is None:
        return common.without_condition(conditions, PROGRESSING)
    current = next((item for item in conditions if item["type"] == PROGRESSING), None)
    reason = current.get("reason", "") if current else ""
    if (paused := _paused(deployment, reason)) is not None:
        return set_condition(conditions, PROGRESSING, *paused, now)
    if deployment["spec"].get("paused") or (status["replicas"] == status["updatedReplicas"] and reason == DONE):
        return conditions
    name = f'ReplicaSet "{objects.name(sets.new)}"' if sets.new else f'Deployment "{objects.name(deployment)}"'
    if complete(deployment, status):
        return set_condition(conditions, PROGRESSING, "True", DONE, f"{name} has successfully progressed.", now)
    if _moved(deployment, status):
        told = ("True", "ReplicaSetUpdated", f"{name} is progressing.")
        return set_condition(conditions, PROGRESSING, *told, now, renew=True)
    if current is None and sets.new is not None:
        told = ("True", "FoundNewReplicaSet", f'Found new replica set "{objects.name(sets.new)}"')
        return set_condition(conditions, PROGRESSING, *told, now)
    if current is not None and timed_out(current, limit, now):
        return set_condition(conditions, PROGRESSING, "False", TIMED_OUT, f"{name} has timed out progressing.", now)
    return conditions


def _paused(deployment: Raw, reason: str) -> tuple[str, str, str] | None:
    paused = bool(deployment["spec"].get("paused"))
    if reason == TIMED_OUT or paused == (reason == PAUSED):
        return None
    if paused:
        return ("Unknown", PAUSED, "Deployment is paused")
    return ("Unknown", "DeploymentResumed", "Deployment is resumed")


def complete(deployment: Raw, status: Raw) -> bool:
    """All pods are new ones and work."""
    wanted = replicas(deployment)
    return bool(
        status.get("updatedReplicas", 0) == wanted
        and status.get("replicas", 0) == wanted
        and status.get("availableReplicas", 0) == wanted
        and status.get("observedGeneration", 0) >= common.generation(deployment)
    )


def _moved(deployment: Raw, status: Raw) -> bool:
    old = deployment.get("status") or {}

    def before(key: str) -> int:
        return int(old.get(key, 0))

    return bool(
        status["updatedReplicas"] > before("updatedReplicas")
        or status["replicas"] - status["updatedReplicas"] < before("replicas") - before("updatedReplicas")
        or status["readyReplicas"] > before("readyReplicas")
        or status["availableReplicas"] > before("availableReplicas")
    )


def timed_out(current: Raw, limit: float, now: float) -> bool:
    if current.get("reason") == DONE:
        return False
    if current.get("reason") == TIMED_OUT:
        return True
    return (common.moment(current.get("lastUpdateTime")) or now) + limit < now


def look_again(status: Raw, limit: float | None, now: float) -> float | None:
    """Seconds until a rollout that does not get on will have failed."""
    current = next((item for item in status.get("conditions", ()) if item["type"] == PROGRESSING), None)
    if limit is None or current is None or current.get("reason") in (DONE, TIMED_OUT, PAUSED):
        return None
    return (common.moment(current.get("lastUpdateTime")) or now) + limit + 1 - now
