"""How much of a zone is lost, and how many nodes may be given up at a time. Pure.

When everything is lost at once, it is the server or its network that is gone, not the nodes: nothing is evicted then.
Source of the rules: kubernetes/pkg/controller/nodelifecycle, ComputeZoneState and handleDisruption.
"""

from __future__ import annotations

import enum
from collections.abc import Iterable, Mapping
from typing import Any

from cuboid.kube import objects
from cuboid.lib.clock import parse_rfc3339

Raw = Mapping[str, Any]

UNHEALTHY_SHARE = 0.55
"""From this share of its nodes on a zone is partly disrupted, when they are more than two."""
LARGE = 50
"""Nodes of a zone from which on a partly disrupted one goes on to lose nodes, slowly."""
WINDOW = 10.0
"""Seconds in which no more than `allowed` nodes are given up."""
SLOW_WINDOW = 100.0
_REGION, _ZONE = "topology.kubernetes.io/region", "topology.kubernetes.io/zone"


class State(enum.Enum):
    NORMAL = "Normal"
    PARTIAL = "PartialDisruption"
    FULL = "FullDisruption"


def zone_of(node: Raw) -> tuple[str, str]:
    labels = objects.labels(node)
    return labels.get(_REGION, ""), labels.get(_ZONE, "")


def state(nodes: Iterable[Raw]) -> State:
    """Of one zone."""
    ready = [objects.is_true(node, "Ready") for node in nodes]
    lost = ready.count(False)
    if lost and lost == len(ready):
        return State.FULL
    if lost > 2 and lost / len(ready) >= UNHEALTHY_SHARE:
        return State.PARTIAL
    return State.NORMAL


def all_lost(nodes: Iterable[Raw]) -> bool:
    return state(nodes) is State.FULL


GivenUp = dict[str, tuple[tuple[str, str], float]]
"""By name: the zone of a node, and when it was given up."""


def wait(node: Raw, nodes: Iterable[Raw], keys: Iterable[str], now: float, known: GivenUp) -> float | None:
    """Seconds until this node may be given up, 0 for now, None for not as things are.

    `keys` are the taints that mark a node which was given up: when that was is written in them, so that the rate holds
    over restarts too. `known` are those of this process: a node that came back has no taint to count any more.
    """
    own = zone_of(node)
    zone = [other for other in nodes if zone_of(other) == own]
    allowed, window = max(2, len(zone) // 10), WINDOW
    if state(zone) is State.PARTIAL:
        if len(zone) <= LARGE:
            return None
        allowed, window = 1, SLOW_WINDOW
    wanted = set(keys)
    times = {objects.name(other): _given_up(other, wanted) for other in zone}
    for name, (where, when) in known.items():
        if where == own and name != objects.name(node):  # its own may not have been written
            times[name] = max(when, times.get(name, when))
    recent = sorted(when for when in times.values() if when > now - window)
    return 0.0 if len(recent) < allowed else recent[-allowed] + window - now


def _given_up(node: Raw, keys: set[str]) -> float:
    times = [
        parse_rfc3339(taint["timeAdded"])
        for taint in node.get("spec", {}).get("taints") or []
        if taint["key"] in keys and taint["effect"] == "NoExecute" and taint.get("timeAdded")
    ]
    return max(times, default=float("-inf"))
