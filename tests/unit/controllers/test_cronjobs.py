"""CronJobs in the world of controllers: what is started when, and what becomes of what was missed."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Any
from zoneinfo import ZoneInfo

import pytest

from cuboid.controllers.cronjob import BY_HAND, SCHEDULED, CronJobs
from cuboid.controllers.cronjob_times import MANY, due
from cuboid.controllers.job import Jobs
from cuboid.kube import cron, objects
from cuboid.kube.client import CRON_JOBS, JOBS
from cuboid.lib.clock import parse_rfc3339
from tests.harness.control import World, every_interrupted_point

Object = dict[str, Any]
MINUTE, HOUR = 60, 3600
NOON = parse_rfc3339("2026-03-01T12:00:00Z")


def cron_job(schedule: str = "*/5 * * * *", **spec: Any) -> Object:
    pod = {"restartPolicy": "Never", "containers": [{"name": "main", "image": "sums"}]}
    template = {"metadata": {"labels": {"app": "night"}}, "spec": {"template": {"spec": pod}}}
    return {"metadata": {"name": "night"}, "spec": {"schedule": schedule, "jobTemplate": template, **spec}}


def make() -> list[Any]:
    return [CronJobs(), Jobs()]


async def at_noon(world: World) -> World:
    """Seconds behind it, so that no scheduled time is now."""
    world.clock.advance(NOON + 10 - world.clock.now())
    return world


def jobs(world: World) -> list[str]:
    return [objects.name(job) for job in world.select(JOBS)]


def status(world: World) -> Object:
    found: Object = world.get(CRON_JOBS, "night").get("status", {})
    return found


async def end(world: World, phase: str = "Succeeded") -> None:
    await world.live()
    for pod in world.pods():
        await world.kubelet.finish(objects.name(pod), phase=phase)
    await world.live()


async def test_a_job_is_started_at_each_scheduled_time_and_named_after_it() -> None:
    async with World(make) as world:
        await at_noon(world)
        await world.create(CRON_JOBS, cron_job())
        await world.advance(4 * MINUTE)
        assert not jobs(world)
        await world.advance(MINUTE)
        first = int(NOON) // 60 + 5
        assert jobs(world) == [f"night-{first}"]
        made = world.get(JOBS, f"night-{first}")
        assert made["metadata"]["annotations"][SCHEDULED] == "2026-03-01T12:05:00Z"
        assert made["metadata"]["labels"]["app"] == "night"
        assert objects.controller(made)
        assert status(world)["lastScheduleTime"] == "2026-03-01T12:05:00Z"
        assert [ref["name"] for ref in status(world)["active"]] == [f"night-{first}"]
        await end(world)
        assert "active" not in status(world)
        assert status(world)["lastSuccessfulTime"].startswith("2026-03-01T12:05")
        await world.advance(10 * MINUTE)
        assert jobs(world) == [f"night-{first + step}" for step in (0, 5, 10)]
        assert "SawCompletedJob" in world.reasons()


async def test_of_several_missed_times_only_the_last_is_made_up_for() -> None:
    async with World(make) as world:
        await at_noon(world)
        await world.create(CRON_JOBS, cron_job(suspend=True))
        await world.advance(HOUR)
        await world.patch(CRON_JOBS, "night", {"spec": {"suspend": False}})
        await world.settle()
        assert jobs(world) == [f"night-{int(NOON) // 60 + 60}"]
        assert "TooManyMissedTimes" not in world.reasons()


async def test_very_many_missed_times_are_told_and_the_last_is_made_up_for() -> None:
    async with World(make) as world:
        await at_noon(world)
        await world.create(CRON_JOBS, cron_job("* * * * *", suspend=True))
        await world.advance(30 * 24 * HOUR)
        await world.patch(CRON_JOBS, "night", {"spec": {"suspend": False}})
        await world.settle()
        assert jobs(world) == [f"night-{int(NOON) // 60 + 30 * 24 * 60}"]
        assert "TooManyMissedTimes" in world.reasons()


async def test_what_was_missed_for_longer_than_its_deadline_is_not_made_up_for() -> None:
    async with World(make) as world:
        await at_noon(world)
        await world.create(CRON_JOBS, cron_job("0 * * * *", suspend=True, startingDeadlineSeconds=120))
        await world.advance(HOUR + 5 * MINUTE)
        await world.patch(CRON_JOBS, "night", {"spec": {"suspend": False}})
        await world.settle()
        assert not jobs(world)
        await world.advance(HOUR)
        assert len(jobs(world)) == 1


@pytest.mark.parametrize(("policy", "count"), [("Allow", 3), ("Forbid", 1), ("Replace", 1)])
async def test_what_runs_at_the_next_time_goes_on_beside_alone_or_not_at_all(policy: str, count: int) -> None:
    async with World(make) as world:
        await at_noon(world)
        await world.create(CRON_JOBS, cron_job(concurrencyPolicy=policy))
        await world.advance(16 * MINUTE)
        assert len(jobs(world)) == len(status(world)["active"]) == count
        last = int(NOON) // 60 + (5 if policy == "Forbid" else 15)
        assert jobs(world)[-1] == f"night-{last}"
        assert ("JobAlreadyActive" in world.reasons()) is (policy == "Forbid")


async def test_a_forbidden_run_is_made_up_for_when_the_one_before_ends() -> None:
    async with World(make) as world:
        await at_noon(world)
        await world.create(CRON_JOBS, cron_job(concurrencyPolicy="Forbid"))
        await world.advance(11 * MINUTE)
        await end(world)
        assert jobs(world) == [f"night-{int(NOON) // 60 + step}" for step in (5, 10)]


async def test_history_is_kept_as_long_as_asked() -> None:
    async with World(make) as world:
        await at_noon(world)
        await world.create(CRON_JOBS, cron_job(successfulJobsHistoryLimit=2, failedJobsHistoryLimit=0))
        for _ in range(4):
            await world.advance(5 * MINUTE)
            await end(world)
        assert jobs(world) == [f"night-{int(NOON) // 60 + step}" for step in (15, 20)]
        assert world.reasons().count("SuccessfulDelete") == 2


async def test_the_time_zone_says_when() -> None:
    async with World(make) as world:
        await at_noon(world)
        await world.create(CRON_JOBS, cron_job("30 22 * * *", timeZone="Asia/Tokyo"))
        await world.advance(2 * HOUR)
        made = world.get(JOBS, jobs(world)[0])
        assert made["metadata"]["annotations"][SCHEDULED] == "2026-03-01T22:30:00+09:00"
        assert status(world)["lastScheduleTime"] == "2026-03-01T13:30:00Z"


async def test_a_job_made_by_hand_from_it_is_owned_and_does_not_count_as_a_run() -> None:
    async with World(make) as world:
        await at_noon(world)
        await world.create(CRON_JOBS, cron_job(concurrencyPolicy="Forbid"))
        owner = world.get(CRON_JOBS, "night")
        template = owner["spec"]["jobTemplate"]
        metadata = {
            "name": "now",
            "annotations": {BY_HAND: "manual"},
            "ownerReferences": [objects.owner_reference(owner)],
        }
        await world.create(JOBS, {"metadata": metadata, "spec": template["spec"]})
        await world.advance(5 * MINUTE)
        assert len(jobs(world)) == 2
        assert [ref["name"] for ref in status(world)["active"]] != ["now"]


async def test_a_foreign_job_with_the_name_of_a_run_is_told_and_left_alone() -> None:
    async with World(make) as world:
        await at_noon(world)
        body = {"metadata": {"name": f"night-{int(NOON) // 60 + 5}"}, "spec": cron_job()["spec"]["jobTemplate"]["spec"]}
        await world.create(JOBS, body)
        await world.create(CRON_JOBS, cron_job())
        await world.advance(5 * MINUTE)
        assert len(jobs(world)) == 1
        assert world.reasons().count("FailedCreate") == 1


@pytest.mark.parametrize("stamp", ["9999-12-31T23:59:59Z", "2026-03-01T12:30:00Z", "1970-01-01T00:00:00Z"])
async def test_a_last_time_that_is_wrong_neither_stops_it_nor_starts_a_time_twice(stamp: str) -> None:
    async with World(make) as world:
        await at_noon(world)
        await world.create(CRON_JOBS, cron_job())
        await world.advance(5 * MINUTE)
        await world.patch(CRON_JOBS, "night", {"status": {"lastScheduleTime": stamp}}, sub="status")
        await world.advance(10 * MINUTE)
        assert jobs(world) == [f"night-{int(NOON) // 60 + step}" for step in (5, 10, 15)]
        assert "FailedCreate" not in world.reasons()


async def _some_hours(world: World) -> object:
    await at_noon(world)
    await world.create(CRON_JOBS, cron_job(concurrencyPolicy="Replace", successfulJobsHistoryLimit=1))
    await world.advance(5 * MINUTE)
    await end(world)
    await world.advance(10 * MINUTE)
    await end(world)
    await world.advance(5 * MINUTE)
    await end(world)
    return jobs(world), [line for line in world.outline(CRON_JOBS) if '"active"' not in line]


async def test_no_time_gets_two_jobs_or_none_from_any_interrupted_point() -> None:
    await every_interrupted_point(make, _some_hours)


UTC_ZONE = ZoneInfo("UTC")


def moment(text: str) -> datetime:
    return datetime.fromtimestamp(parse_rfc3339(text), UTC)


@pytest.mark.parametrize(
    ("schedule", "zone", "since", "now", "last", "missed"),
    [
        ("*/5 * * * *", "UTC", "2026-03-01T12:00:10Z", "2026-03-01T12:04:59Z", None, 0),
        ("*/5 * * * *", "UTC", "2026-03-01T12:00:10Z", "2026-03-01T12:05:00Z", "2026-03-01T12:05:00Z", 1),
        ("*/5 * * * *", "UTC", "2026-03-01T12:00:00Z", "2026-03-01T12:11:00Z", "2026-03-01T12:10:00Z", 2),
        ("* 3 * * *", "UTC", "2020-03-01T12:00:00Z", "2026-03-01T12:11:00Z", "2026-03-01T03:59:00Z", MANY + 1),
        ("@every 7m", "UTC", "2026-03-01T12:00:00Z", "2026-03-01T12:30:00Z", "2026-03-01T12:28:00Z", 4),
        ("@every 1s", "UTC", "2026-03-01T12:00:00Z", "2026-03-01T12:30:00Z", "2026-03-01T12:30:00Z", MANY + 1),
        ("30 2 * * *", "Europe/Berlin", "2026-03-28T12:00:00Z", "2026-03-29T12:00:00Z", None, 0),
        ("30 2 * * *", "Europe/Berlin", "2026-10-24T12:00:00Z", "2026-10-25T12:00:00Z", "2026-10-25T01:30:00Z", 2),
    ],
)
def test_the_last_missed_time(schedule: str, zone: str, since: str, now: str, last: str | None, missed: int) -> None:
    found = due(cron.parse(schedule), ZoneInfo(zone), moment(since), moment(now))
    assert (found.last, found.missed) == (None if last is None else moment(last), missed)


def test_years_of_missed_minutes_are_not_walked_through() -> None:
    calls = 0

    class Counted(cron.Schedule):
        def after(self, at: datetime, zone: Any) -> datetime | None:
            nonlocal calls
            calls += 1
            return super().after(at, zone)

    every = cron.parse("* * * * *")
    counted = Counted(every.minutes, every.hours, every.days, every.months, every.weekdays)
    found = due(counted, UTC_ZONE, moment("2016-01-01T00:00:00Z"), moment("2026-01-01T00:00:30Z"))
    assert found.last == moment("2026-01-01T00:00:00Z")
    assert calls < MANY + 10
