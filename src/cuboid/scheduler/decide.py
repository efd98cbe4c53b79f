"""One decision: the node of a pod, or why there is none. Pure."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from cuboid.scheduler import scores
from cuboid.scheduler.filters import Candidate, candidate, misfits
from cuboid.scheduler.preemption import Protected, Trial, preempt
from cuboid.scheduler.snapshot import NodeInfo, Placed, Snapshot, placed
from cuboid.scheduler.terms import ports_collide
from cuboid.scheduler.volumes import NO_CLAIMS, Claims, selected_node

Raw = Mapping[str, Any]


@dataclass(frozen=True)
class Decision:
    """`node`, or "" with a `message`. With `nominated`, the `victims` make room for the pod on that node; `waiting` are
    claims that are told the node before the pod is bound to it."""

    node: str
    message: str = ""
    nominated: str = ""
    victims: tuple[Placed, ...] = ()
    waiting: tuple[Raw, ...] = ()


def unprotected(pod: Placed) -> bool:
    return False


def decide(pod: Raw, snapshot: Snapshot, claims: Claims = NO_CLAIMS, protected: Protected = unprotected) -> Decision:
    count = len(snapshot)
    if claims.problem:
        return Decision("", f"0/{count} nodes are available: {claims.problem}." if count else claims.problem)
    wanted = candidate(pod, placed(pod), snapshot, claims)
    fitting = []
    reasons: Counter[str] = Counter()
    for node in snapshot.nodes():
        why = misfits(wanted, snapshot.with_nominees(node, wanted.placed))
        if why:
            reasons.update(item.reason for item in why)
        else:
            fitting.append(node)
    if fitting:
        chosen = _chosen(pod, claims, fitting) or scores.best(wanted, fitting, snapshot).name
        return Decision(chosen, waiting=claims.waiting)
    if not count:
        return Decision("", "no nodes available to schedule pods")
    told = ", ".join(sorted(f"{number} {reason}" for reason, number in reasons.items()))
    message = f"0/{count} nodes are available: {told}.{_holders(wanted.placed, snapshot)}"
    if pod["spec"].get("preemptionPolicy") == "Never":
        return Decision("", f"{message} preemption: not eligible due to preemptionPolicy=Never.")
    if nominated := _cleared(wanted, snapshot):
        return Decision("", f"{message} {_PATIENCE}", nominated)
    found = preempt(wanted, snapshot, protected)
    if found.node:
        return Decision("", message, found.node, found.victims)
    return Decision("", f"{message} {found.told(count)}")


_PATIENCE = "preemption: not eligible due to a terminating pod on the nominated node."


def _cleared(wanted: Candidate, snapshot: Snapshot) -> str:
    """The node on which lesser pods are about to end for this one: nobody else has to go meanwhile."""
    node = snapshot.node(wanted.pod.get("status", {}).get("nominatedNodeName", ""))
    going = [pod for pod in node.pods.values() if pod.deleting] if node is not None else []
    if node is None or not any(pod.priority < wanted.placed.priority for pod in going):
        return ""
    return node.name if Trial(wanted, snapshot.with_nominees(node, wanted.placed), going).fits() else ""


def _holders(pod: Placed, snapshot: Snapshot) -> str:
    """Who has the ports of the node that a pod wants. Pods of other namespaces are not named."""
    found = {
        f" port {number}/{protocol.lower()} is taken by the pod {other.name}"
        if other.namespace == pod.namespace
        else f" port {number}/{protocol.lower()} is taken by a pod of another namespace"
        for node in (snapshot.nodes() if pod.ports else ())
        for other in node.pods.values()
        for port in other.ports
        if ports_collide(pod.ports, {port: 1})
        for _, protocol, number in (port,)
    }
    return "".join(f"{text}." for text in sorted(found))


def _chosen(pod: Raw, claims: Claims, fitting: Sequence[NodeInfo]) -> str:
    """The node that was cleared for it, or for which its volumes are being made, if that one fits."""
    liked = [pod.get("status", {}).get("nominatedNodeName", ""), *(selected_node(claim) for claim in claims.waiting)]
    names = {node.name for node in fitting}
    return next((name for name in liked if name in names), "")


def waits_for(pod: Raw) -> str:
    """Why a pod is not looked at yet: it has scheduling gates. "" if it has none."""
    return "Scheduling is blocked due to non-empty scheduling gates" if pod["spec"].get("schedulingGates") else ""
