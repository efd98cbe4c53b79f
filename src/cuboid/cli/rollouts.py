"""How far a rollout is, and why it does not get on, in one sentence. Pure: objects in, text out."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple

from cuboid.cli import status
from cuboid.cli.following import PROBLEMS_THAT_STAY

Object = dict[str, Any]
REVISION = "deployment.kubernetes.io/revision"
MAY_PASS = {"Unschedulable", "VolumeInUse"}  # while others are on their way out
_IMAGE = {"ErrImagePull", "ImagePullBackOff", "InvalidImageName", "ErrImageNeverPull"}
_CRASHES = 2  # of one container, after which it is said to crash


class Failure(NamedTuple):
    """Why pods of a rollout do not run. `pod` is one of them, "" where there is none."""

    reason: str
    message: str
    pod: str = ""
    crashed: bool = False  # its last words are in the log of the run before


class State(NamedTuple):
    done: bool
    text: str
    failure: Failure | None = None


def owned(objects: Sequence[Object], owner: Object) -> list[Object]:
    """Those that the owner controls."""
    uid = owner["metadata"]["uid"]
    return [row for row in objects if any(o.get("uid") == uid for o in row["metadata"].get("ownerReferences", []))]


def revision(thing: Object) -> int:
    """The number of a ReplicaSet, Deployment or ControllerRevision; 0 before it has one."""
    if "revision" in thing:
        return int(thing["revision"])
    text = thing["metadata"].get("annotations", {}).get(REVISION, "")
    return int(text) if text.isdecimal() else 0


def newest_pods(workload: Object, sets: Sequence[Object], pods: Sequence[Object]) -> list[Object]:
    """The pods of what was asked for last; `sets` are the ReplicaSets there are."""
    if workload["kind"] == "Deployment":
        mine = [row for row in owned(sets, workload) if revision(row) == revision(workload)]
        return owned(pods, mine[0]) if mine else []
    named = workload.get("status", {}).get("updateRevision", "")
    label = "controller-revision-hash"
    return [pod for pod in owned(pods, workload) if not named or pod["metadata"].get("labels", {}).get(label) == named]


def state(workload: Object, sets: Sequence[Object], pods: Sequence[Object]) -> State:
    """Of a Deployment, StatefulSet or DaemonSet, with the ReplicaSets and pods that there are."""
    told = workload.get("status", {})
    if int(told.get("observedGeneration", 0)) < int(workload["metadata"].get("generation", 1)):
        return State(False, "starting")
    wanted, updated, available, replicas = _counts(workload)
    new = [pod for pod in newest_pods(workload, sets, pods) if not status.going(pod)]
    old = max(0, replicas - updated)
    if updated >= wanted and available >= wanted and not old and replicas <= wanted:
        return State(True, f"{wanted} of {wanted} ready")
    up = sum(1 for pod in new if status.is_ready(pod))
    parts = [f"{min(up, wanted)} of {wanted} ready"]
    parts += [f"{len(new) - up} starting"] if len(new) > up else []
    parts += [f"{old} old {'one serves' if old == 1 else 'ones serve'} on"] if old else []
    surplus = replicas - wanted if not old else 0
    parts += [f"{surplus} ending"] if surplus > 0 and len(new) <= up else []
    if workload["spec"].get("paused"):
        parts.append("paused")
    return State(False, ", ".join(parts), failure(workload, new, pods))


def _counts(workload: Object) -> tuple[int, int, int, int]:
    """(wanted, of the newest, available, in all)."""
    told = workload.get("status", {})
    if workload["kind"] == "DaemonSet":
        wanted = int(told.get("desiredNumberScheduled", 0))
        updated = int(told.get("updatedNumberScheduled", 0))
        return wanted, updated, int(told.get("numberAvailable", 0)), wanted
    updated = int(told.get("updatedReplicas", 0))
    available = int(told.get("availableReplicas", 0))
    return int(workload["spec"].get("replicas", 1)), updated, available, int(told.get("replicas", 0))


def failure(workload: Object, new: Sequence[Object], pods: Sequence[Object]) -> Failure | None:
    """What will not mend itself: of the workload's own conditions, or of one of its newest pods."""
    leaving = any(status.going(pod) for pod in pods)
    for pod in new:
        if found := _of_pod(pod):
            if found.reason in MAY_PASS and leaving:
                continue
            return found
    for row in workload.get("status", {}).get("conditions", []):
        if row["type"] == "ReplicaFailure" and row["status"] == "True":
            return Failure("Refused", f"its pods are refused: {row.get('message', '')}")
        if row["type"] == "Progressing" and row.get("reason") == "ProgressDeadlineExceeded":
            return _unready(new) or Failure("TooSlow", "it does not get on")
    return None


def _of_pod(pod: Object) -> Failure | None:
    for row in status.containers(pod):
        if crash := _crash(pod["metadata"]["name"], row):
            return crash
    return stuck(pod)


def stuck(pod: Object) -> Failure | None:
    """What keeps a pod from starting and will not mend itself."""
    name, problem = pod["metadata"]["name"], status.problem(pod)
    if problem is None or problem[0] not in PROBLEMS_THAT_STAY:
        return None
    reason, message = problem
    if reason in _IMAGE:
        return Failure(reason, f"its image can not be had: {message}", name)
    if reason == "Unschedulable":
        return Failure(reason, f"there is no room for it: {message}", name)
    return Failure(reason, message, name)


def _crash(pod: str, row: Object) -> Failure | None:
    ended = row.get("state", {}).get("terminated") or row.get("lastState", {}).get("terminated")
    again = row.get("state", {}).get("waiting", {}).get("reason") == "CrashLoopBackOff"
    crashes = int(row.get("restartCount", 0)) + ("terminated" in row.get("state", {}))
    if not ended or not (crashes >= _CRASHES or (again and crashes)):
        return None
    if ended.get("reason") == "OOMKilled":
        return Failure("OOMKilled", "it used more memory than its limit and was killed", pod, crashed=True)
    code = ended.get("exitCode", 0)
    if code == 0:
        return Failure("Completed", "its program ends instead of going on: that is a job", pod, crashed=True)
    message = f"it ends with exit code {code}"
    if ended.get("reason") in ("ContainerCannotRun", "StartError") and ended.get("message"):
        return Failure(ended["reason"], f"its program can not be run: {ended['message']}", pod)
    return Failure("Crash", message, pod, crashed=True)


def _unready(pods: Sequence[Object]) -> Failure | None:
    for pod in pods:
        if status.started(pod) and not status.is_ready(pod):
            return Failure("Unready", "it runs and is not ready: its health check fails", pod["metadata"]["name"])
    return None


def slow(workload: Object, new: Sequence[Object]) -> Failure:
    """What to say of a rollout whose time is over."""
    return failure(workload, new, ()) or _unready(new) or Failure("TooSlow", "it takes too long")
