"""Jobs in the world of controllers: counting, ends, policies, and every interrupted point."""

from __future__ import annotations

from typing import Any
from unittest.mock import patch

import pytest

from cuboid.controllers.job import Jobs
from cuboid.controllers.job_orphans import JobOrphans
from cuboid.controllers.job_pods import FAILURES, INDEX, TRACKING, index_of, tracked
from cuboid.controllers.ttl import FinishedJobs
from cuboid.kube import objects
from cuboid.kube.client import JOBS, NAMESPACES, PODS
from cuboid.kube.controller.instructions import Plan
from cuboid.kube.controller.view import Key, View
from tests.harness.control import World, every_interrupted_point

Object = dict[str, Any]


def job(name: str = "sums", **spec: Any) -> Object:
    pod = {"restartPolicy": "Never", "containers": [{"name": "main", "image": "sums"}]}
    return {"metadata": {"name": name}, "spec": {"template": {"spec": pod}, **spec}}


def make() -> list[Jobs]:
    return [Jobs()]


def status(world: World, name: str = "sums") -> Object:
    found: Object = world.get(JOBS, name).get("status", {})
    return found


def said(world: World, type_: str, name: str = "sums") -> tuple[str, str, str]:
    """Status, reason and message of a condition."""
    found = objects.condition(world.get(JOBS, name), type_) or {}
    return found.get("status", ""), found.get("reason", ""), found.get("message", "")


def running(world: World) -> list[str]:
    return [objects.name(pod) for pod in world.pods()]


def of_index(world: World, index: int) -> str:
    return next(objects.name(pod) for pod in world.pods() if index_of(pod) == index)


async def end_all(world: World, phase: str = "Succeeded", **more: Any) -> None:
    for name in running(world):
        await world.kubelet.finish(name, phase=phase, **more)
    await world.settle()


async def test_a_job_runs_as_many_pods_at_once_as_it_may_until_enough_succeeded() -> None:
    async with World(make) as world:
        await world.create(JOBS, job(parallelism=2, completions=3))
        await world.live()
        assert len(running(world)) == 2
        assert status(world)["active"] == status(world)["ready"] == 2
        await world.kubelet.finish(running(world)[0])
        await world.live()
        assert len(running(world)) == 2
        assert status(world)["succeeded"] == 1
        await end_all(world)
        now = status(world)
        assert now["succeeded"] == 3
        assert "active" not in now
        assert now["completionTime"]
        assert now["uncountedTerminatedPods"] == {}
        assert said(world, "SuccessCriteriaMet")[:2] == ("True", "CompletionsReached")
        assert said(world, "Complete") == ("True", "CompletionsReached", "Reached expected number of succeeded pods")
        assert world.reasons().count("SuccessfulCreate") == 3
        assert world.reasons()[-1] == "Completed"
        assert not any(TRACKING in pod["metadata"].get("finalizers", []) for pod in world.select(PODS))


async def test_without_completions_one_success_is_enough_and_the_others_end_by_themselves() -> None:
    async with World(make) as world:
        await world.create(JOBS, job(parallelism=3))
        await world.live()
        await world.kubelet.finish(running(world)[0])
        await world.live()
        assert len(running(world)) == 2
        assert not said(world, "Complete")[0]
        await end_all(world)
        assert said(world, "Complete")[0] == "True"


async def test_failures_are_replaced_later_and_later_and_end_the_job_beyond_its_limit() -> None:
    async with World(make) as world:
        await world.create(JOBS, job(backoffLimit=2))
        await world.settle()
        for pause in (10, 20):
            await end_all(world, "Failed")
            await world.advance(pause - 1)
            assert not running(world)
            await world.advance(1)
            assert len(running(world)) == 1
        await end_all(world, "Failed")
        await world.live()
        assert status(world)["failed"] == 3
        assert said(world, "Failed") == ("True", "BackoffLimitExceeded", "Job has reached the specified backoff limit")
        assert world.told[-1].type == "Warning"
        await world.advance(600)
        assert not running(world)


async def test_a_deleted_pod_counts_as_failed_once() -> None:
    async with World(make) as world:
        await world.create(JOBS, job(parallelism=2, completions=2))
        await world.live()
        await world.delete(PODS, running(world)[0])
        await world.live()
        await world.advance(10)
        await world.live()
        assert status(world)["failed"] == 1
        assert len(running(world)) == 2


async def test_a_job_that_fails_ends_its_pods_and_says_so_when_they_have_ended() -> None:
    async with World(make) as world:
        await world.create(JOBS, job(parallelism=3, completions=3, backoffLimit=0))
        await world.live()
        await world.kubelet.finish(running(world)[0], phase="Failed")
        await world.settle()
        assert said(world, "FailureTarget")[0] == "True"
        assert not said(world, "Failed")[0]
        assert status(world)["terminating"] == 2
        await world.live()
        assert said(world, "Failed")[1] == "BackoffLimitExceeded"
        assert status(world)["failed"] == 3
        assert status(world)["terminating"] == 0


async def test_the_deadline_ends_a_job_that_is_still_at_work() -> None:
    async with World(make) as world:
        await world.create(JOBS, job(activeDeadlineSeconds=30))
        await world.live()
        await world.advance(29)
        assert len(running(world)) == 1
        await world.advance(1)
        await world.live()
        assert said(world, "Failed")[1:] == ("DeadlineExceeded", "Job was active longer than specified deadline")


async def test_suspending_ends_pods_without_a_failure_and_resuming_starts_the_clock_anew() -> None:
    async with World(make) as world:
        await world.create(JOBS, job(parallelism=2, completions=4, activeDeadlineSeconds=100))
        await world.live()
        began = status(world)["startTime"]
        await world.patch(JOBS, "sums", {"spec": {"suspend": True}})
        await world.live()
        assert not running(world)
        assert said(world, "Suspended") == ("True", "JobSuspended", "Job suspended")
        await world.advance(1000)
        assert "failed" not in status(world)
        await world.patch(JOBS, "sums", {"spec": {"suspend": False}})
        await world.live()
        assert said(world, "Suspended") == ("False", "JobResumed", "Job resumed")
        assert len(running(world)) == 2
        assert status(world)["startTime"] > began
        assert world.reasons().count("Suspended") == world.reasons().count("Resumed") == 1


async def test_a_job_born_suspended_has_no_start_time() -> None:
    async with World(make) as world:
        await world.create(JOBS, job(suspend=True))
        await world.live()
        assert "startTime" not in status(world)
        assert not running(world)


async def test_fewer_at_once_takes_pods_away_without_a_failure() -> None:
    async with World(make) as world:
        await world.create(JOBS, job(parallelism=4, completions=9))
        await world.live()
        await world.patch(JOBS, "sums", {"spec": {"parallelism": 1}})
        await world.live()
        assert len(running(world)) == 1
        assert "failed" not in status(world)


async def test_each_index_runs_once_and_knows_its_number() -> None:
    async with World(make) as world:
        await world.create(JOBS, job(parallelism=3, completions=5, completionMode="Indexed"))
        await world.live()
        pod = world.get(PODS, of_index(world, 2))
        assert pod["metadata"]["generateName"] == "sums-2-"
        assert pod["metadata"]["labels"][INDEX] == "2"
        assert pod["spec"]["hostname"] == "sums-2"
        assert pod["spec"]["containers"][0]["env"][0]["name"] == "JOB_COMPLETION_INDEX"
        await world.kubelet.finish(of_index(world, 2))
        await world.kubelet.finish(of_index(world, 0), phase="Failed")
        await world.advance(10)
        await world.live()
        assert sorted(index_of(pod) or 0 for pod in world.pods()) == [0, 1, 3]
        assert status(world)["completedIndexes"] == "2"
        await end_all(world)
        await end_all(world)
        assert status(world)["completedIndexes"] == "0-4"
        assert status(world)["succeeded"] == 5
        assert said(world, "Complete")[0] == "True"


async def test_a_second_pod_of_an_index_is_taken_away() -> None:
    async with World(make) as world:
        await world.create(JOBS, job(parallelism=1, completions=2, completionMode="Indexed"))
        await world.live()
        double = world.pods()[0]
        for key in ("uid", "resourceVersion", "name", "creationTimestamp"):
            double["metadata"].pop(key)
        await world.create(PODS, double)
        await world.live()
        assert len(running(world)) == 1


async def test_with_limits_per_index_one_bad_index_does_not_end_the_others() -> None:
    spec: Object = {"parallelism": 2, "completions": 3, "completionMode": "Indexed", "backoffLimitPerIndex": 1}
    async with World(make) as world:
        await world.create(JOBS, job(**spec))
        await world.live()
        await world.kubelet.finish(of_index(world, 0), phase="Failed")
        await world.settle()
        assert sorted(index_of(pod) or 0 for pod in world.pods()) == [1, 2]
        await world.kubelet.finish(of_index(world, 1))
        await world.advance(10)
        second = world.get(PODS, of_index(world, 0))
        assert second["metadata"]["annotations"][FAILURES] == "1"
        await world.kubelet.finish(of_index(world, 0), phase="Failed")
        await world.advance(600)
        assert status(world)["failedIndexes"] == "0"
        assert sorted(index_of(pod) or 0 for pod in world.pods()) == [2]
        await end_all(world)
        await world.live()
        assert status(world)["completedIndexes"] == "1,2"
        assert status(world)["failed"] == 2
        assert said(world, "Failed") == ("True", "FailedIndexes", "Job has failed indexes")


async def test_too_many_failed_indexes_end_the_job() -> None:
    spec: Object = {"parallelism": 4, "completions": 4, "completionMode": "Indexed", "backoffLimitPerIndex": 0}
    async with World(make) as world:
        await world.create(JOBS, job(**spec, maxFailedIndexes=1))
        await world.live()
        for index in (0, 3):
            await world.kubelet.finish(of_index(world, index), phase="Failed")
        await world.live()
        assert said(world, "Failed")[1] == "MaxFailedIndexesExceeded"
        assert status(world)["failedIndexes"] == "0,3"


def policy(action: str, **match: Any) -> Object:
    return {"rules": [{"action": action, **match}]}


async def test_a_failure_that_the_policy_ignores_does_not_count() -> None:
    disrupted = [{"type": "DisruptionTarget", "status": "True"}]
    async with World(make) as world:
        await world.create(JOBS, job(backoffLimit=0, podFailurePolicy=policy("Ignore", onPodConditions=disrupted)))
        await world.live()
        await world.kubelet.finish(running(world)[0], phase="Failed", conditions=disrupted)
        await world.advance(10)
        assert len(running(world)) == 1
        assert "failed" not in status(world)


async def test_a_failure_that_the_policy_fatal_ends_the_job_with_its_words() -> None:
    codes = {"operator": "In", "values": [42]}
    async with World(make) as world:
        await world.create(JOBS, job(podFailurePolicy=policy("FailJob", onExitCodes=codes)))
        await world.live()
        name = running(world)[0]
        await world.kubelet.finish(name, phase="Failed", code=42)
        await world.live()
        what = f"Container main for pod default/{name} failed with exit code 42 matching FailJob rule at index 0"
        assert said(world, "Failed") == ("True", "PodFailurePolicy", what)
        assert status(world)["failed"] == 1


async def test_an_index_that_the_policy_gives_up_is_not_tried_again() -> None:
    codes = {"operator": "NotIn", "values": [1]}
    spec: Object = {"completions": 2, "parallelism": 2, "completionMode": "Indexed", "backoffLimitPerIndex": 5}
    async with World(make) as world:
        await world.create(JOBS, job(**spec, podFailurePolicy=policy("FailIndex", onExitCodes=codes)))
        await world.live()
        await world.kubelet.finish(of_index(world, 0), phase="Failed", code=7)
        await world.advance(700)
        assert status(world)["failedIndexes"] == "0"
        assert [index_of(pod) for pod in world.pods()] == [1]


async def test_a_success_policy_ends_a_job_early_and_its_other_pods_do_not_fail() -> None:
    rules = {"rules": [{"succeededIndexes": "0,2-3", "succeededCount": 2}]}
    async with World(make) as world:
        await world.create(JOBS, job(parallelism=4, completions=4, completionMode="Indexed", successPolicy=rules))
        await world.live()
        await world.kubelet.finish(of_index(world, 1))
        await world.kubelet.finish(of_index(world, 2))
        await world.settle()
        assert not said(world, "SuccessCriteriaMet")[0]
        await world.kubelet.finish(of_index(world, 0))
        await world.live()
        assert said(world, "Complete") == ("True", "SuccessPolicy", "Matched rules at index 0")
        assert status(world)["completedIndexes"] == "0-2"
        assert not running(world)


async def test_a_pod_that_is_ending_is_replaced_only_when_it_has_failed_if_that_is_the_policy() -> None:
    async with World(make) as world:
        await world.create(JOBS, job(podReplacementPolicy="Failed"))
        await world.live()
        name = running(world)[0]
        await world.delete(PODS, name)
        await world.advance(60)
        assert not running(world)
        assert status(world)["terminating"] == 1
        await world.live()
        await world.advance(10)
        assert len(running(world)) == 1
        assert status(world)["failed"] == 1


async def test_restarts_inside_a_pod_count_where_it_restarts_its_containers() -> None:
    body = job(backoffLimit=3)
    body["spec"]["template"]["spec"]["restartPolicy"] = "OnFailure"
    async with World(make) as world:
        await world.create(JOBS, body)
        await world.live()
        row = world.pods()[0]["status"]["containerStatuses"][0]
        for count, ended in ((2, False), (3, True)):
            changed = {"status": {"containerStatuses": [{**row, "restartCount": count}]}}
            await world.patch(PODS, running(world)[0], changed, sub="status")
            await world.live()
            assert bool(said(world, "Failed")[0]) is ended


async def test_orphans_that_a_chosen_selector_matches_are_adopted_and_counted() -> None:
    labels = {"app": "sums"}
    body = job(completions=2, manualSelector=True, selector={"matchLabels": labels})
    body["spec"]["template"]["metadata"] = {"labels": labels}
    async with World(make) as world:
        spec = {"containers": [{"name": "main", "image": "sums"}], "restartPolicy": "Never"}
        await world.create(PODS, {"metadata": {"name": "orphan", "labels": labels}, "spec": spec})
        await world.create(JOBS, body)
        await world.live()
        assert running(world) == ["orphan"]
        pod = world.get(PODS, "orphan")
        assert objects.controller(pod)
        assert TRACKING in pod["metadata"]["finalizers"]
        await end_all(world)
        assert status(world)["succeeded"] == 1


async def test_a_pod_that_fits_a_job_is_adopted_when_it_loses_its_owner() -> None:
    async with World(make) as world:
        await world.create(JOBS, job())
        await world.live()
        name = running(world)[0]
        await world.patch(PODS, name, {"metadata": {"ownerReferences": None, "finalizers": None}})
        await world.settle()
        assert objects.controller(world.get(PODS, name))
        assert running(world) == [name]


async def test_pods_that_ended_and_are_counted_are_not_read_again() -> None:
    read: list[int] = []

    class Counting(Jobs):
        def plan(self, key: Key, view: View, now: float) -> Plan:
            owned = view.owned

            def counted(*args: Any) -> list[Object]:
                found = owned(*args)
                read.append(len(found))
                return found

            with patch.object(view, "owned", counted):
                return super().plan(key, view, now)

    async with World(lambda: [Counting()]) as world:
        await world.create(JOBS, job(completions=12, parallelism=2))
        for _ in range(6):
            await world.live()
            await end_all(world)
        assert said(world, "Complete")[0] == "True"
        assert len(world.select(PODS)) == 12
        assert max(read) <= 4


async def test_a_pod_of_another_namespace_that_calls_itself_owned_is_a_strangers() -> None:
    async with World(make) as world:
        made = await world.create(JOBS, job())
        body = {"restartPolicy": "Never", "containers": [{"name": "main", "image": "x"}]}
        metadata = {
            "name": "stranger",
            "labels": made["spec"]["template"]["metadata"]["labels"],
            "finalizers": [TRACKING],
            "ownerReferences": [objects.owner_reference(made)],
        }
        await world.create(NAMESPACES, {"metadata": {"name": "far"}})
        await world.create(PODS, {"metadata": metadata, "spec": body}, "far")
        await world.live()
        await world.kubelet.finish("stranger", "far")
        await world.live()
        assert len(world.pods("default")) == 1
        assert "succeeded" not in status(world)
        assert tracked(world.get(PODS, "stranger", "far"))


async def test_a_job_that_somebody_else_manages_is_left_alone() -> None:
    async with World(make) as world:
        await world.create(JOBS, job(managedBy="example.com/queue"))
        await world.live()
        assert not running(world)
        assert not status(world)


async def test_pods_are_let_go_of_when_their_job_is_gone() -> None:
    async with World(lambda: [Jobs(), JobOrphans()]) as world:
        await world.create(JOBS, job(parallelism=2, completions=2))
        await world.live()
        await world.delete(JOBS, "sums", propagation="Background")
        await world.settle()
        assert len(running(world)) == 2
        assert not any(tracked(pod) for pod in world.pods())


async def test_a_pod_whose_job_went_while_nobody_looked_is_let_go_of_at_the_start() -> None:
    async with World(lambda: [JobOrphans()]) as world:
        body = job()["spec"]["template"]["spec"]
        metadata = {"name": "lost", "finalizers": [TRACKING], "labels": {"batch.kubernetes.io/job-name": "sums"}}
        await world.create(PODS, {"metadata": metadata, "spec": body})
        assert JobOrphans().plan(Key("default", ""), world.view, world.clock.now()).instructions
        await world.settle()
        assert not tracked(world.get(PODS, "lost"))


async def test_a_job_that_ended_goes_when_its_time_is_over() -> None:
    async with World(lambda: [Jobs(), FinishedJobs()]) as world:
        await world.create(JOBS, job(ttlSecondsAfterFinished=60))
        await world.live()
        await world.advance(600)
        await end_all(world)
        await world.advance(59)
        assert world.get(JOBS, "sums")
        await world.advance(1)
        assert not [one for one in world.select(JOBS) if not objects.deleting(one)]


# --- interruption ----------------------------------------------------------------------------------------------------


async def _counted(world: World) -> object:
    await world.create(JOBS, job(parallelism=2, completions=3))
    await world.live()
    await world.kubelet.finish(running(world)[0], phase="Failed")
    await world.advance(10)
    for _ in range(3):
        await world.live()
        await end_all(world)
    pods = [objects.phase(pod) for pod in world.select(PODS) if objects.phase(pod) == "Succeeded"]
    return world.outline(JOBS), pods


async def _indexed(world: World) -> object:
    spec: Object = {"parallelism": 2, "completions": 3, "completionMode": "Indexed", "backoffLimitPerIndex": 1}
    await world.create(JOBS, job(**spec))
    await world.live()
    await world.kubelet.finish(of_index(world, 0), phase="Failed")
    await world.advance(10)
    await world.kubelet.finish(of_index(world, 1))
    await world.advance(10)
    await world.kubelet.finish(of_index(world, 0), phase="Failed")
    await world.advance(10)
    await world.live()
    await end_all(world)
    await world.live()
    return world.outline(JOBS)


async def _stopped(world: World) -> object:
    await world.create(JOBS, job(parallelism=3, completions=5))
    await world.live()
    await world.patch(JOBS, "sums", {"spec": {"suspend": True}})
    await world.live()
    await world.patch(JOBS, "sums", {"spec": {"suspend": False, "parallelism": 2}})
    await world.live()
    return world.outline(JOBS), len(running(world))


async def _failing(world: World) -> object:
    await world.create(JOBS, job(parallelism=3, completions=5, backoffLimit=0))
    await world.live()
    await world.kubelet.finish(running(world)[0], phase="Failed")
    await world.live()
    return world.outline(JOBS), len(running(world))


@pytest.mark.parametrize("scenario", [_counted, _indexed, _stopped, _failing])
async def test_no_pod_is_counted_twice_or_lost_from_any_interrupted_point(scenario: Any) -> None:
    await every_interrupted_point(make, scenario)
