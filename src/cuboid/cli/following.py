"""A pod as it is and as it changes, and what its states mean to somebody who waits for it."""

from __future__ import annotations

import time
from collections.abc import Iterator
from typing import Any

from cuboid.cli import status
from cuboid.cli.api import Api, Changes, pods_path
from cuboid.cli.http import ready
from cuboid.lib.errors import DeadlineError, NotFoundError

Object = dict[str, Any]
PROBLEMS_THAT_STAY = {
    "ErrImagePull", "ImagePullBackOff", "InvalidImageName", "ErrImageNeverPull", "CreateContainerConfigError",
    "CreateContainerError", "RunContainerError", "Unschedulable", "VolumeInUse", "DiskPressure",
}  # fmt: skip


class Following:
    """One pod, watched from a version of it on. `pod` is the newest that was seen."""

    def __init__(self, api: Api, pod: Object) -> None:
        self._api = api
        self.pod = pod
        self._changes: Changes | None = None

    @property
    def waiting(self) -> bool:
        return self._watch().waiting

    def fileno(self) -> int:
        return self._watch().fileno()

    def _watch(self) -> Changes:
        """Opened where there is none."""
        if self._changes is None:
            namespace, name, version = (self.pod["metadata"][key] for key in ("namespace", "name", "resourceVersion"))
            self._changes = self._api.changes(pods_path(namespace), name=name, version=version)
        return self._changes

    def take(self) -> bool:
        """What one read of the watch brings: whether `pod` is another one now. NotFoundError when it was removed."""
        before, changes = self.pod, self._watch()
        for kind, found in changes.take():
            if kind == "BOOKMARK" or found["metadata"].get("uid") != self.pod["metadata"]["uid"]:
                continue
            if kind == "DELETED":
                raise NotFoundError(f"pod {self._name} was removed")
            self.pod = found
        if changes.over:  # the server ends each after a while
            self.close()
            self.pod = self._api.get(pods_path(self.pod["metadata"]["namespace"], self._name))
        return self.pod is not before

    def versions(self, seconds: float) -> Iterator[Object]:
        """The pod as it is and each time it changes; DeadlineError after `seconds`, NotFoundError."""
        until = time.monotonic() + seconds
        yield self.pod
        while (left := until - time.monotonic()) > 0:
            if ready([self], left) and self.take():
                yield self.pod
        raise DeadlineError(f"pod {self._name} took longer than {seconds:g} s", hint=f"cuboid why {self._name}")

    @property
    def _name(self) -> str:
        return str(self.pod["metadata"]["name"])

    def close(self) -> None:
        if self._changes is not None:
            self._changes.close()
        self._changes = None


def step(pod: Object) -> str:
    """What a pod that starts waits for, in words."""
    word = status.word(pod)
    if not pod["spec"].get("nodeName"):
        return "waiting for a node"
    waiting = status.main_status(pod).get("state", {}).get("waiting", {})
    return str(waiting.get("message") or {"ContainerCreating": "starting", "Pending": "starting"}.get(word, word))


def failure(pod: Object) -> tuple[str, str] | None:
    """(reason, message) if the pod will not run: it failed before its container ran, or has a lasting problem."""
    state = status.main_status(pod).get("state", {})
    if pod.get("status", {}).get("phase") == "Failed" and not _ran(state):
        return status.problem(pod) or ("Failed", "the pod failed")
    problem = status.problem(pod)
    return problem if problem and problem[0] in PROBLEMS_THAT_STAY else None


def _ran(state: Object) -> bool:
    ended = state.get("terminated", {})
    return bool(ended.get("startedAt")) and ended.get("reason") not in ("ContainerCannotRun", "StartError")
