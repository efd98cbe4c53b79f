"""Pods that wait for a node: by priority, then by age; those that fit nowhere rest until something changes. Pure.

Times are seconds on any clock that does not go back, given by the caller.
"""

from __future__ import annotations

import heapq
from collections.abc import Mapping
from typing import Any

from cuboid.kube import objects

Raw = Mapping[str, Any]
FIRST_BACKOFF = 1.0
MAX_BACKOFF = 10.0
"""Seconds that a pod waits after an attempt that failed: doubled from the first up to this, as in Kubernetes."""
FORGOTTEN = 300.0
"""Seconds after which a pod that fits nowhere is looked at again even if nothing changed."""


class SchedulingQueue:
    def __init__(self) -> None:
        self._pods: dict[str, Raw] = {}
        self._active: list[tuple[int, str, int, str]] = []  # -priority, created, number, uid
        self._is_active: set[str] = set()
        self._resting: dict[str, tuple[float, float]] = {}  # uid -> earliest, latest
        self._attempts: dict[str, int] = {}
        self._number = 0

    def __len__(self) -> int:
        return len(self._pods)

    def __contains__(self, uid: str) -> bool:
        return uid in self._pods

    def pod(self, uid: str) -> Raw | None:
        return self._pods.get(uid)

    def uids(self) -> set[str]:
        return set(self._pods)

    def put(self, pod: Raw) -> None:
        """A pod that waits: a new one, or one whose object has changed."""
        uid = objects.uid(pod)
        known = uid in self._pods
        self._pods[uid] = pod
        if not known:
            self._activate(uid)

    def changed(self, uid: str, now: float) -> None:
        """Something about the pod itself changed that may help it."""
        if uid in self._resting:
            self._resting[uid] = (min(self._resting[uid][0], now), now)

    def remove(self, uid: str) -> None:
        self._pods.pop(uid, None)
        self._resting.pop(uid, None)
        self._attempts.pop(uid, None)
        self._is_active.discard(uid)

    def _activate(self, uid: str) -> None:
        pod = self._pods[uid]
        self._resting.pop(uid, None)
        self._is_active.add(uid)
        self._number += 1
        priority = int(pod["spec"].get("priority") or 0)
        created = pod["metadata"].get("creationTimestamp") or ""
        heapq.heappush(self._active, (-priority, created, self._number, uid))

    def rest(self, uid: str, now: float) -> None:
        """It fits nowhere now."""
        if uid in self._pods:
            count = self._attempts[uid] = self._attempts.get(uid, 0) + 1
            pause = min(FIRST_BACKOFF * 2 ** min(count - 1, 8), MAX_BACKOFF)
            self._resting[uid] = (now + pause, now + FORGOTTEN)

    def stir(self, now: float) -> None:
        """The cluster changed: whoever rests is looked at as soon as its pause is over."""
        for uid, (earliest, _) in self._resting.items():
            self._resting[uid] = (earliest, max(earliest, now))

    def next(self, now: float) -> Raw | None:
        """The pod to look at now, of those that wait the most important; None if there is none."""
        for uid in [uid for uid, (_, latest) in self._resting.items() if latest <= now]:
            self._activate(uid)
        while self._active:
            uid = heapq.heappop(self._active)[3]
            if uid in self._is_active:
                self._is_active.discard(uid)
                return self._pods[uid]
        return None

    def due(self) -> float | None:
        """When the next of those that rest is looked at again."""
        return min((latest for _, latest in self._resting.values()), default=None)
