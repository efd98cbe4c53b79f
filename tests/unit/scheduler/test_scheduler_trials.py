"""A node without some of its pods is judged as if it had been surveyed anew, and is not."""

from __future__ import annotations

import random
from typing import Any

import pytest

from cuboid.scheduler.filters import candidate, misfits
from cuboid.scheduler.preemption import Trial, preempt
from cuboid.scheduler.snapshot import placed
from cuboid.scheduler.topology import Spreading
from cuboid.scheduler.volumes import NO_CLAIMS
from tests.unit.scheduler.test_scheduler_decide import ZONE, near, node, pod, snapshot

Object = dict[str, Any]
HOST = "kubernetes.io/hostname"
APPS = ("web", "db")


def spread(key: str, app: str) -> Object:
    selector = {"matchLabels": {"app": app}}
    return {"maxSkew": 1, "topologyKey": key, "whenUnsatisfiable": "DoNotSchedule", "labelSelector": selector}


def any_pod(chance: random.Random, name: str, where: str = "") -> Object:
    labels = {"app": chance.choice(APPS)}
    rules: Object = {}
    if chance.random() < 0.4:
        key = chance.choice((HOST, ZONE))
        rules["affinity"] = near(key, {"app": chance.choice(APPS)}, away=chance.random() < 0.6)
    if chance.random() < 0.4:
        rules["topologySpreadConstraints"] = [spread(chance.choice((HOST, ZONE)), chance.choice(APPS))]
    made = pod(name, where, labels, requests={"cpu": "1"}, priority=chance.randrange(3), **rules)
    if where and chance.random() < 0.1:
        made["metadata"]["deletionTimestamp"] = "2026-01-01T00:00:00Z"
    return made


@pytest.mark.parametrize("seed", range(150))
def test_a_trial_says_what_a_new_survey_says(seed: int) -> None:
    chance = random.Random(seed)
    nodes = [node(f"n{i}", {ZONE: f"z{i % 2}"} if chance.random() < 0.9 else {}) for i in range(4)]
    there = [any_pod(chance, f"p{i}", f"n{chance.randrange(4)}") for i in range(chance.randrange(12))]
    new = any_pod(chance, "new")
    whole = snapshot(nodes, there)
    wanted = candidate(new, placed(new), whole, NO_CLAIMS)
    for found in whole.nodes():
        gone = [one for one in found.pods.values() if chance.random() < 0.7]
        trial = Trial(wanted, found, gone)
        for back in (None, *gone):
            kept = back is not None and trial.gives_back(back)
            out = {one.uid for one in gone if not kept or one is not back}
            rest = snapshot(nodes, [item for item in there if item["metadata"]["uid"] not in out])
            again = rest.node(found.name)
            assert again is not None
            fits = not misfits(candidate(new, placed(new), rest, NO_CLAIMS), again)
            assert trial.fits() == fits
            if kept:
                gone = [one for one in gone if one is not back]
    assert bool(misfits(wanted, next(whole.nodes()))) == bool(
        misfits(candidate(new, placed(new), whole, NO_CLAIMS), next(whole.nodes()))
    ), "the candidate itself is as it was"


def test_victims_are_found_without_a_survey_for_each(monkeypatch: pytest.MonkeyPatch) -> None:
    """The cost was the square of the pods: 16 s at 50 nodes of 100 pods, in the server's own event loop."""
    surveys = 0
    survey = Spreading._survey

    def counted(self: Spreading, *arguments: Any) -> None:
        nonlocal surveys
        surveys += 1
        survey(self, *arguments)

    monkeypatch.setattr(Spreading, "_survey", counted)
    nodes = [node(f"n{i}") for i in range(5)]
    there = [pod(f"p{i}-{j}", f"n{i}", {"app": "web"}, requests={"cpu": "1"}) for i in range(5) for j in range(4)]
    new = pod("new", labels={"app": "web"}, requests={"cpu": "2"}, priority=9)
    new["spec"]["topologySpreadConstraints"] = [spread(HOST, "web")]
    whole = snapshot(nodes, there)
    found = preempt(candidate(new, placed(new), whole, NO_CLAIMS), whole, lambda other: False)
    assert len(found.victims) == 2
    assert surveys == 1
