"""Whose place a pod of higher priority may take: the node on which that costs least. Pure.

Source of the rules: kubernetes/pkg/scheduler/framework/preemption. Pods under a disruption budget that allows none are
spared where another choice exists.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

from cuboid.scheduler.filters import Candidate, candidate, misfits
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
        victims = _victims(wanted, snapshot.with_nominees(node, wanted.placed), snapshot, protected)
        if victims is None:
            without += 1
            continue
        cost = _cost(victims, protected, node.name)
        if best is None or cost < best[0]:
            best = (cost, node, victims)
    if best is None:
        return Preemption("", hopeless=hopeless, without=without)
    return Preemption(best[1].name, best[2])


def _victims(wanted: Candidate, node: NodeInfo, snapshot: Snapshot, protected: Protected) -> tuple[Placed, ...] | None:
    """The fewest that have to go, those of lowest priority and youngest first; None when not even all would do."""
    lower = [pod for pod in node.pods.values() if pod.priority < wanted.placed.priority]
    gone = {pod.uid for pod in lower}
    if not lower or not fits(wanted, node, gone, snapshot):
        return None
    # Give places back, the protected and most important first, as long as the pod still fits.
    for pod in sorted(lower, key=lambda pod: (not protected(pod), -pod.priority, pod.created, pod.uid)):
        if fits(wanted, node, gone - {pod.uid}, snapshot):
            gone.discard(pod.uid)
    return tuple(sorted((pod for pod in lower if pod.uid in gone), key=lambda pod: (pod.priority, pod.uid)))


def fits(wanted: Candidate, node: NodeInfo, gone: set[str], snapshot: Snapshot) -> bool:
    """Whether the pod can be on the node once these have gone from it."""
    smaller = node.without(gone)
    with_less = _Without(snapshot, smaller, gone)
    trial = candidate(wanted.pod, wanted.placed, with_less, wanted.claims)
    return not misfits(trial, smaller)


class _Without(Snapshot):
    """The snapshot as it would be without some pods of one node."""

    def __init__(self, base: Snapshot, node: NodeInfo, gone: set[str]) -> None:
        super().__init__()
        self._nodes = {**base._nodes, node.name: node}
        self.namespaces = base.namespaces
        self.repelling = {uid: pod for uid, pod in base.repelling.items() if uid not in gone}


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
