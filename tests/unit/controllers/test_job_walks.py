"""Jobs on random walks: whatever happens to their pods and their controller, nothing is counted twice or lost."""

from __future__ import annotations

import asyncio
from dataclasses import dataclass, field
from typing import Any

from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from cuboid.controllers.job import Jobs, ended
from cuboid.controllers.job_indexes import Indexes
from cuboid.controllers.job_orphans import JobOrphans
from cuboid.controllers.job_pods import index_of, tracked
from cuboid.kube import objects
from cuboid.kube.client import JOBS, PODS
from tests.harness.control import World
from tests.unit.controllers.test_jobs import job

Object = dict[str, Any]
Step = tuple[str, int]
COMPLETIONS = 4
STEPS = st.lists(
    st.tuples(
        st.sampled_from(["succeed", "fail", "delete", "suspend", "resume", "parallelism", "wait"]), st.integers(0, 7)
    ),
    max_size=14,
)
SPECS: tuple[Object, ...] = (
    {"completions": COMPLETIONS},
    {"completions": COMPLETIONS, "podReplacementPolicy": "Failed"},
    {"completions": COMPLETIONS, "completionMode": "Indexed"},
    {"completions": COMPLETIONS, "completionMode": "Indexed", "backoffLimitPerIndex": 1},
    {"completions": COMPLETIONS, "completionMode": "Indexed", "backoffLimitPerIndex": 2, "maxFailedIndexes": 1},
)


@dataclass
class Walk:
    """What is known to have happened, beside what the job's status says."""

    world: World
    spec: Object
    succeeded: list[str] = field(default_factory=list)
    failed: list[str] = field(default_factory=list)
    indexes: list[int] = field(default_factory=list)

    @property
    def job(self) -> Object:
        return self.world.get(JOBS, "sums")

    async def step(self, what: str, number: int) -> None:
        pods = self.world.pods()
        if what in ("succeed", "fail", "delete") and pods and not ended(self.job):
            await self._happens(what, pods[number % len(pods)])
        elif what in ("suspend", "resume"):
            await self.world.patch(JOBS, "sums", {"spec": {"suspend": what == "suspend"}})
        elif what == "parallelism":
            await self.world.patch(JOBS, "sums", {"spec": {"parallelism": number}})
        await self.world.live()
        await self.world.advance(700 if what == "wait" else 1)
        await self.world.live()
        self.check()

    async def _happens(self, what: str, pod: Object) -> None:
        name, index = objects.name(pod), index_of(pod)
        if what == "delete":
            await self.world.delete(PODS, name)
        else:
            await self.world.kubelet.finish(name, phase="Succeeded" if what == "succeed" else "Failed")
        if what != "succeed":
            self.failed.append(name)
            return
        self.succeeded.append(name)
        if index is not None:
            assert index not in self.indexes, f"index {index} succeeded twice"
            self.indexes.append(index)

    def check(self) -> None:
        job, active = self.job, self.world.pods()
        status, spec = job.get("status", {}), job["spec"]
        assert len(active) <= spec["parallelism"]
        assert status.get("active", 0) == len(active)
        assert status.get("succeeded", 0) == len(self.succeeded)
        assert not status.get("uncountedTerminatedPods")
        if not ended(job):
            # One failed pod of each index is kept until it has a successor.
            kept = sum(tracked(pod) and objects.finished(pod) for pod in self.world.select(PODS))
            assert status.get("failed", 0) == len(self.failed) - kept
            assert kept == 0 or "backoffLimitPerIndex" in spec
        else:
            assert not active
            assert not any(tracked(pod) for pod in self.world.select(PODS))
        if spec["completionMode"] == "Indexed":
            done = Indexes.parse(status.get("completedIndexes", ""), COMPLETIONS)
            assert done == Indexes().including(self.indexes)
            busy = [index_of(pod) for pod in active]
            assert len(set(busy)) == len(busy)
            assert not any(index in done for index in busy if index is not None)


async def walk(spec: Object, steps: list[Step], killed: int) -> None:
    async with World(lambda: [Jobs(), JobOrphans()], last_write=killed) as world:
        await world.create(JOBS, job(parallelism=2, backoffLimit=3, **spec))
        one = Walk(world, spec)
        await world.live()
        for what, number in steps:
            await one.step(what, number)
        assert not world.plans(), "there is something left to do"
        assert not world.failures


@given(spec=st.sampled_from(SPECS), steps=STEPS, killed=st.integers(1, 60))
@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.too_slow])
def test_on_any_walk_every_pod_is_counted_once_and_no_more_run_than_may(
    spec: Object, steps: list[Step], killed: int
) -> None:
    asyncio.run(walk(spec, steps, killed))
