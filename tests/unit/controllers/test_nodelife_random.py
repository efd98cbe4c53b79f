"""Nodes that come and go at random: what must hold at every moment."""

from __future__ import annotations

from typing import Any

from hypothesis import example, given, settings
from hypothesis import strategies as st

from cuboid.controllers.nodelife import NodeLifecycleController
from cuboid.controllers.nodelife_taints import LOST, has
from cuboid.kube import objects
from cuboid.kube.client import LEASES, NODES
from cuboid.kube.controller.view import Key
from cuboid.lib.clock import rfc3339, rfc3339_micro
from tests.harness.plain_view import PlainView, settle

Object = dict[str, Any]
LEASE = 8
START = 1_000_000.0
CALM = 4 * LEASE + 40
"""Seconds after which everything that follows from the last change has followed."""


class Cluster:
    """One second per step: living nodes renew their leases, and write their Node every four seconds."""

    def __init__(self, count: int) -> None:
        self.view = PlainView()
        self.controller = NodeLifecycleController()
        self.now = START
        self.alive = {f"n{number}" for number in range(count)}
        self.names = sorted(self.alive)
        self.heard = dict.fromkeys(self.names, START)
        self.given_up: list[tuple[str, float]] = []
        for name in self.names:
            self.view.put(NODES, {"metadata": {"name": name}, "spec": {}})
            self.say(name)
            self.renew(name)

    def say(self, name: str) -> None:
        node = self.view.get(NODES, "", name)
        assert node is not None
        ready = {"type": "Ready", "status": "True", "lastHeartbeatTime": rfc3339(self.now)}
        self.view.put(NODES, {**node, "status": {"conditions": [ready]}})

    def renew(self, name: str) -> None:
        meta = {"name": name, "namespace": "kube-node-lease"}
        spec = {"leaseDurationSeconds": LEASE, "renewTime": rfc3339_micro(self.now)}
        self.view.put(LEASES, {"metadata": meta, "spec": spec})
        self.heard[name] = self.now

    def restart(self) -> None:
        """Of the controllers, which forget whom they gave up, but for what is written in taints."""
        self.controller = NodeLifecycleController()
        self.given_up = [(name, when) for name, when in self.given_up if name in self.evicting()]

    def second(self) -> None:
        self.now += 1
        for name in sorted(self.alive):
            self.renew(name)
            if int(self.now) % 4 == 0:
                self.say(name)
        before = self.evicting()
        for name in self.names:
            settle(self.controller, Key("", name), self.view, self.now)
        for name in self.evicting() - before:
            self.given_up.append((name, self.now))
            assert self.now - self.heard[name] >= LEASE, "it was heard of"
            assert self.ready(), "all are lost: nobody may be given up"

    def evicting(self) -> set[str]:
        nodes = {objects.name(node): node for node in self.view.select(NODES)}
        return {name for name, node in nodes.items() if any(has(node, key, "NoExecute") for key in LOST)}

    def ready(self) -> set[str]:
        return {objects.name(node) for node in self.view.select(NODES) if objects.is_true(node, "Ready")}

    def check_rate(self) -> None:
        for _, moment in self.given_up:
            assert sum(moment <= other < moment + 10 for _, other in self.given_up) <= 2


_STEPS = st.lists(
    st.tuples(
        st.sampled_from(["die", "return", "restart", "wait"]), st.frozensets(st.integers(0, 7)), st.integers(0, 15)
    ),
    max_size=12,
)


@example(8, [("die", frozenset({0, 1, 2}), 1)])
@example(8, [("die", frozenset({0, 1, 2, 3}), 9), ("return", frozenset({0}), 0)])
@example(3, [("die", frozenset({0, 1, 2}), 15), ("return", frozenset({1}), 5)])
@example(3, [("die", frozenset({0}), 15), ("die", frozenset({1, 2}), 0)])
@settings(max_examples=20, deadline=None)
@given(st.integers(2, 8), _STEPS)
def test_nobody_who_is_heard_of_is_given_up_and_who_is_not_is_in_the_end(
    count: int, steps: list[tuple[str, frozenset[int], int]]
) -> None:
    cluster = Cluster(count)
    for what, numbers, seconds in steps:
        names = {cluster.names[number % count] for number in numbers}
        if what == "die":
            cluster.alive -= names
        elif what == "return":
            for name in names - cluster.alive:
                cluster.alive.add(name)
                cluster.say(name)
        elif what == "restart":
            cluster.restart()
        for _ in range(seconds):
            cluster.second()
    for _ in range(CALM):
        cluster.second()
    dead = set(cluster.names) - cluster.alive
    assert cluster.ready() == cluster.alive
    mostly = len(dead) > 2 and len(dead) / count >= 0.55
    if cluster.alive and not mostly:
        assert cluster.evicting() == dead
    elif not cluster.alive:
        assert cluster.evicting() == set()
    cluster.check_rate()
