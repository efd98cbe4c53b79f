"""Whose place a pod of higher priority may take: the node on which that costs least. Pure.

Source of the rules: kubernetes/pkg/scheduler/framework/preemption. Pods under a disruption budget that allows none are
spared where another choice exists.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass

from cuboid.scheduler.filters import Candidate, misfits
from cuboid.scheduler.snapshot import NodeInfo, Placed, Snapshot


@dataclass(frozen=True)
class Preemption:
    """`node` is "" when nobody's place helps; then the counts tell why."""

    node: str
    victims: tuple[Placed, ...] = ()
    hopeless: int = 0
    """Nodes that would not fit even if they were empty of lower priorities for other reasons than room."""
    without: int = 0
    """Nodes on which no pod of lower priority makes enough room."""

    def told(self, nodes: int) -> str:
        """The sentence that goes behind the reasons."""
        parts = []
        if self.without:
            parts.append(f"{self.without} No preemption victims found for incoming pod")
        if self.hopeless:
            parts.append(f"{self.hopeless} Preemption is not helpful for scheduling")
        return f"preemption: 0/{nodes} nodes are available: {', '.join(sorted(parts))}."


Protected = Callable[[Placed], bool]
"""Whether a disruption budget lets this pod not go now."""


def preempt(wanted: Candidate, snapshot: Snapshot, protected: Protected) -> Preemption:
    best: tuple[tuple[float | str, ...], NodeInfo, tuple[Placed, ...]] | None = None
    hopeless = without = 0
    for node in snapshot.nodes():
        if not all(item.room for item in misfits(wanted, node)):
            hopeless += 1
            continue
        victims = _victims(wanted, snapshot.with_nominees(node, wanted.placed), protected)
        if victims is None:
            without += 1
            continue
        cost = _cost(victims, protected, node.name)
        if best is None or cost < best[0]:
            best = (cost, node, victims)
    if best is None:
        return Preemption("", hopeless=hopeless, without=without)
    return Preemption(best[1].name, best[2])


def _victims(wanted: Candidate, node: NodeInfo, protected: Protected) -> tuple[Placed, ...] | None:
    """The fewest that have to go, those of lowest priority and youngest first; None when not even all would do."""
    lower = [pod for pod in node.pods.values() if pod.priority < wanted.placed.priority]
    if not lower or not (trial := Trial(wanted, node, lower)).fits():
        return None
    # Give places back, the protected and most important first, as long as the pod still fits.
    order = sorted(lower, key=lambda pod: (not protected(pod), -pod.priority, pod.created, pod.uid))
    gone = [pod for pod in order if not trial.gives_back(pod)]
    return tuple(sorted(gone, key=lambda pod: (pod.priority, pod.uid)))


class Trial:
    """A node as it would be without some of its pods. Nothing is surveyed anew for each of them: of 5,000 pods that
    would take seconds, in which the event loop stands still."""

    def __init__(self, wanted: Candidate, node: NodeInfo, gone: Collection[Placed]) -> None:
        self._wanted = wanted.copy()
        self._node = node.without({pod.uid for pod in gone})
        for pod in gone:
            self._wanted.change(pod, node, -1)

    def fits(self) -> bool:
        return not misfits(self._wanted, self._node)

    def gives_back(self, pod: Placed) -> bool:
        """Let one of the gone stay after all, if there is still room."""
        self._node.put(pod)
        self._wanted.change(pod, self._node, 1)
        if self.fits():
            return True
        self._node.take(pod.uid)
        self._wanted.change(pod, self._node, -1)
        return False


def _cost(victims: Sequence[Placed], protected: Protected, name: str) -> tuple[float | str, ...]:
    """Fewest broken budgets, lowest highest priority, lowest sum, fewest pods; of equals those started last."""
    latest = max((pod.created for pod in victims), default="")
    return (
        sum(1 for pod in victims if protected(pod)),
        max((pod.priority for pod in victims), default=-(2**31)),
        sum(pod.priority + 2**31 for pod in victims),
        len(victims),
        -float("".join(letter for letter in latest if letter.isdigit()) or 0),
        name,
    )
