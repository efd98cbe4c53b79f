"""Pods that wait for a node: by priority, then namespaces in turn, in each by age; those that fit nowhere rest until
something changes. Pure.

Thousands of pods that one namespace asks for, and that may fit nowhere, do not stand before one of another: each
namespace that waits gets the next look that it has had least of (start-time fair queueing, as for requests).
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
_MANY = 1_024  # namespaces remembered before those are dropped that have no claim


class SchedulingQueue:
    def __init__(self) -> None:
        self._pods: dict[str, Raw] = {}
        self._shares: dict[str, str] = {}  # by uid: whose turn it is
        self._active: dict[int, dict[str, list[tuple[str, int, str]]]] = {}
        """By priority and namespace: a heap of created, number, uid."""
        self._looked: dict[str, int] = {}  # by namespace: the turn up to which it has had its looks
        self._turn = 0
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

    def put(self, pod: Raw, share: str = "") -> None:
        """A pod that waits: a new one, or one whose object has changed. `share` is whose turn it is looked at in, by
        default its namespace's."""
        uid = objects.uid(pod)
        known = uid in self._pods
        self._pods[uid] = pod
        self._shares[uid] = share or objects.namespace(pod)
        if not known:
            self._activate(uid)

    def changed(self, uid: str, now: float) -> None:
        """Something about the pod itself changed that may help it."""
        if uid in self._resting:
            self._resting[uid] = (min(self._resting[uid][0], now), now)

    def remove(self, uid: str) -> None:
        self._pods.pop(uid, None)
        self._shares.pop(uid, None)
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
        spaces = self._active.setdefault(priority, {})
        heapq.heappush(spaces.setdefault(self._shares[uid], []), (created, self._number, uid))

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
            priority = max(self._active)
            spaces = self._active[priority]
            space = min(spaces, key=lambda name: (self._begins(name), spaces[name][0]))
            uid = heapq.heappop(spaces[space])[2]
            if not spaces[space]:
                del spaces[space]
            if not spaces:
                del self._active[priority]
            if uid in self._is_active:
                self._is_active.discard(uid)
                self._took_turn(space)
                return self._pods[uid]
        return None

    def _begins(self, space: str) -> int:
        """The turn at which the next look of a namespace begins: one that was away has saved nothing up."""
        return max(self._turn, self._looked.get(space, 0))

    def _took_turn(self, space: str) -> None:
        self._turn = self._begins(space)
        self._looked[space] = self._turn + 1
        if len(self._looked) > _MANY:
            self._looked = {name: turn for name, turn in self._looked.items() if turn > self._turn}

    def due(self) -> float | None:
        """When the next of those that rest is looked at again."""
        return min((latest for _, latest in self._resting.values()), default=None)
