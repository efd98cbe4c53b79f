"""Waiting for a workload: it and its pods, looked at again at each change, until it is as asked for."""

from __future__ import annotations

import time
from collections.abc import Iterator, Mapping
from contextlib import ExitStack
from typing import Any, NamedTuple

from cuboid.cli import resources, rollouts, status
from cuboid.cli.api import Api, Changes, pods_path
from cuboid.cli.http import ready
from cuboid.cli.output import Progress
from cuboid.cli.resources import Resource
from cuboid.lib.errors import ConflictError, CuboidError, DeadlineError, GoneError, UnavailableError

Object = dict[str, Any]
LAST_LINES = 5  # of a log, that tell why a program ended
_LOOK = 5.0  # seconds after which all is read again even where no change was told
_ABSENCE = 30.0  # seconds that the API may not answer while something is waited for
_RETRY = 0.5  # seconds
_GATHER = 0.1  # seconds in which further changes are waited for before all is read again
_PASSING = 15.0  # seconds that "no room" may last: what ends makes some


class Seen(NamedTuple):
    """A workload, the ReplicaSets of it and its pods, at a version of the API."""

    workload: Object
    sets: list[Object]
    pods: list[Object]
    version: str

    @property
    def newest(self) -> list[Object]:
        return rollouts.newest_pods(self.workload, self.sets, self.pods)


def selector(workload: Object) -> str:
    """Of its pods, as a query."""
    chosen = workload["spec"].get("selector", {})
    rows = [f"{key}={value}" for key, value in chosen.get("matchLabels", {}).items()]
    for term in chosen.get("matchExpressions", []):
        rows.append(_term(term["key"], term["operator"], ",".join(term.get("values", []))))
    return ",".join(rows)


def _term(key: str, operator: str, values: str) -> str:
    words: Mapping[str, str] = {
        "In": f"{key} in ({values})", "NotIn": f"{key} notin ({values})", "Exists": key, "DoesNotExist": f"!{key}"
    }  # fmt: skip
    return words[operator]


def look(api: Api, resource: Resource, namespace: str, name: str) -> Seen:
    workload = {"kind": resource.kind, **resources.get(api, resource, namespace, name)}
    chosen = selector(workload)
    sets: list[Object] = []
    if resource.kind == "Deployment":
        sets = rollouts.owned(api.get(resources.REPLICA_SETS.path(namespace), labelSelector=chosen)["items"], workload)
    pods = api.get(pods_path(namespace), labelSelector=chosen)
    return Seen(workload, sets, pods["items"], pods["metadata"]["resourceVersion"])


def looks(api: Api, resource: Resource, namespace: str, name: str, seconds: float) -> Iterator[Seen]:
    """All of it, each time that something of it changes. Ends after so many seconds."""
    until = time.monotonic() + seconds
    seen = look(api, resource, namespace, name)
    with ExitStack() as stack:
        watches: list[Changes] = []
        while True:
            yield seen
            if time.monotonic() >= until:
                return
            try:
                if any(watch.over for watch in watches) or not watches:
                    stack.close()
                    watches = [stack.enter_context(watch) for watch in _watches(api, resource, namespace, seen)]
                _wait_for_change(watches, min(_LOOK, until - time.monotonic()))
            except (GoneError, UnavailableError):  # the server was started anew, or has forgotten this version
                watches = []
            seen = _look_again(api, resource, namespace, name)


def _look_again(api: Api, resource: Resource, namespace: str, name: str) -> Seen:
    """With patience for a server that is started anew."""
    until = time.monotonic() + _ABSENCE
    while True:
        try:
            return look(api, resource, namespace, name)
        except UnavailableError:
            if time.monotonic() > until:
                raise
            time.sleep(_RETRY)


def _watches(api: Api, resource: Resource, namespace: str, seen: Seen) -> list[Changes]:
    name = seen.workload["metadata"]["name"]
    return [
        api.changes(resource.path(namespace), name=name, version=seen.version),
        api.changes(pods_path(namespace), labels=selector(seen.workload), version=seen.version),
    ]


def _wait_for_change(watches: list[Changes], seconds: float) -> None:
    """Changes come in flocks: one look for each flock."""
    left = max(0.0, seconds)
    while found := ready(watches, left):
        for watch in found:
            if isinstance(watch, Changes):
                watch.take()
                if watch.over:
                    return
        left = _GATHER


def rolled_out(
    api: Api, resource: Resource, namespace: str, name: str, seconds: float, line: Progress, what: str = ""
) -> Seen:
    """Until the newest of it runs and nothing else does. ConflictError says why it will not; DeadlineError."""
    started: dict[str, float] = {}
    seen: Seen | None = None
    for seen in looks(api, resource, namespace, name, seconds):
        found = rollouts.state(seen.workload, seen.sets, seen.pods)
        if found.done:
            return seen
        line.update(f"{what or name}: {found.text}")
        if found.failure is None:
            started.clear()
        elif found.failure.reason not in rollouts.MAY_PASS or _lasts(started, found.failure.reason):
            raise _failed(api, namespace, seen, found.failure)
        if seen.workload["spec"].get("paused"):
            raise ConflictError(f"the rollout of {name} is paused", hint=f"cuboid rollout resume {name}")
    if seen is None:
        raise AssertionError("unreachable: one look at least")
    error = _failed(api, namespace, seen, rollouts.slow(seen.workload, seen.newest))
    raise DeadlineError(f"{error.message} (after {seconds:g} s)", hint=error.hint)


def _lasts(started: dict[str, float], reason: str) -> bool:
    return time.monotonic() - started.setdefault(reason, time.monotonic()) > _PASSING


def _failed(api: Api, namespace: str, seen: Seen, why: rollouts.Failure) -> CuboidError:
    """The sentence and the next command."""
    name = seen.workload["metadata"]["name"]
    message = f"{name} does not run: {why.message}"
    if why.crashed and (last := last_words(api, namespace, why.pod)):
        message += "; its last words:\n" + "\n".join(f"  {line}" for line in last)
    elif why.reason == "Unready" and (told := _unhealthy(api, namespace, why.pod)):
        message += f" ({told})"
    if any(rollouts.revision(row) < rollouts.revision(seen.workload) for row in seen.sets):
        return ConflictError(message, hint=f"cuboid rollout undo {name} brings back what ran before")
    return ConflictError(message, hint=_next(why, name))


def _next(why: rollouts.Failure, name: str) -> str:
    if why.reason == "Unschedulable":
        return f"cuboid node ls shows the room there is; cuboid scale {name} N asks for less"
    if why.reason == "Completed":
        return "cuboid job IMAGE -- COMMAND"
    if why.reason == "OOMKilled":
        return f"cuboid deploy IMAGE --name {name} --memory 512m"
    return f"cuboid why {why.pod}" if why.pod else f"cuboid get deployment {name} -o yaml"


def last_words(api: Api, namespace: str, pod: str) -> list[str]:
    """The last lines of the run that ended; none if they can not be had."""
    for previous in ("true", "false"):
        query = {"tailLines": str(LAST_LINES), "previous": previous}
        try:
            with api.stream("GET", pods_path(namespace, pod, "log"), query=query) as response:
                lines = response.read(65536).decode(errors="replace").splitlines()
        except CuboidError:
            continue
        if lines:
            return lines[-LAST_LINES:]
    return []


def _unhealthy(api: Api, namespace: str, pod: str) -> str:
    selected = f"involvedObject.name={pod},reason=Unhealthy"
    rows = api.get(f"/api/v1/namespaces/{namespace}/events", fieldSelector=selected)["items"]
    return str(rows[-1].get("message", "")) if rows else ""


def most_telling(seen: Seen) -> Object | None:
    """The pod that tells why not all is well: one of the newest that has a problem; else as `newest_ready`, or any."""
    troubled = [pod for pod in seen.newest if not status.is_ready(pod) and status.problem(pod)]
    rest = [pod for pod in (newest_ready(seen),) if pod] or seen.newest or seen.pods
    return next(iter([*troubled, *rest]), None)


def newest_ready(seen: Seen) -> Object | None:
    """The newest pod that is ready, of the newest template if there is one; None if none is."""
    rows = [pod for pod in seen.newest if status.is_ready(pod)] or [pod for pod in seen.pods if status.is_ready(pod)]
    return max(rows, key=lambda pod: str(pod["metadata"].get("creationTimestamp", "")), default=None)
