"""Cron schedules name the same instants, and are refused in the same words, as in Kubernetes."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from zoneinfo import ZoneInfo

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from cuboid.kube.cron import parse, time_zone
from cuboid.lib.errors import InvalidError


def next_times(schedule: str, start: str, zone: str, count: int = 1) -> list[str]:
    """In the zone's own time, with the offset."""
    moment: datetime | None = datetime.fromisoformat(start)
    found = []
    for _ in range(count):
        assert moment is not None
        moment = parse(schedule).after(moment, ZoneInfo(zone))
        found.append("never" if moment is None else moment.astimezone(ZoneInfo(zone)).strftime("%Y-%m-%dT%H:%M:%S%z"))
    return found


@pytest.mark.parametrize(
    ("schedule", "start", "zone", "expected"),
    [
        ("*/15 * * * *", "2026-01-01T00:00:00+00:00", "UTC", ["2026-01-01T00:15:00+0000", "2026-01-01T00:30:00+0000"]),
        ("0 0 * * *", "2026-12-31T23:59:59+00:00", "UTC", ["2027-01-01T00:00:00+0000"]),
        ("5 4 * * sun", "2026-11-26T00:00:00+00:00", "UTC", ["2026-11-29T04:05:00+0000"]),
        ("0 0 29 2 *", "2026-01-01T00:00:00+00:00", "UTC", ["2028-02-29T00:00:00+0000"]),
        ("0 0 30 2 *", "2026-01-01T00:00:00+00:00", "UTC", ["never"]),
        ("0 0 13 * 5", "2026-02-01T00:00:00+00:00", "UTC", ["2026-02-06T00:00:00+0000", "2026-02-13T00:00:00+0000"]),
        ("0 0 */10 * 5", "2026-02-01T00:00:00+00:00", "UTC", ["2026-02-06T00:00:00+0000", "2026-02-11T00:00:00+0000"]),
        ("0 12 1-7 JAN,jul ?", "2026-01-07T12:00:00+00:00", "UTC", ["2026-07-01T12:00:00+0000"]),
        ("30 8-10/2 * * *", "2026-01-01T09:00:00+00:00", "UTC", ["2026-01-01T10:30:00+0000"]),
        ("50/5 * * * *", "2026-01-01T09:00:00+00:00", "UTC", ["2026-01-01T09:50:00+0000", "2026-01-01T09:55:00+0000"]),
        ("@hourly", "2026-01-01T09:00:00+00:00", "UTC", ["2026-01-01T10:00:00+0000"]),
        ("@every 1h30m", "2026-01-01T09:00:00.5+00:00", "UTC", ["2026-01-01T10:30:00+0000"]),
        ("0 9 * * *", "2026-07-01T00:00:00+00:00", "Asia/Kolkata", ["2026-07-01T09:00:00+0530"]),
    ],
)
def test_the_next_instants(schedule: str, start: str, zone: str, expected: list[str]) -> None:
    assert next_times(schedule, start, zone, len(expected)) == expected


def test_what_summer_time_skips_does_not_happen_that_day() -> None:
    """Berlin goes from 02:00 to 03:00 on 29 March 2026."""
    assert next_times("30 2 * * *", "2026-03-28T12:00:00+00:00", "Europe/Berlin") == ["2026-03-30T02:30:00+0200"]


def test_what_is_repeated_in_autumn_happens_twice() -> None:
    """Berlin goes from 03:00 back to 02:00 on 25 October 2026."""
    assert next_times("30 2 * * *", "2026-10-24T12:00:00+00:00", "Europe/Berlin", 3) == [
        "2026-10-25T02:30:00+0200",
        "2026-10-25T02:30:00+0100",
        "2026-10-26T02:30:00+0100",
    ]


def test_hours_go_on_evenly_through_a_change_of_clocks() -> None:
    found = next_times("0 * * * *", "2026-03-28T23:30:00+00:00", "Europe/Berlin", 3)
    assert found == ["2026-03-29T01:00:00+0100", "2026-03-29T03:00:00+0200", "2026-03-29T04:00:00+0200"]


def test_a_day_that_begins_at_one_is_found() -> None:
    """Clocks of Cairo skip midnight on 24 April 2026."""
    assert next_times("0 1 * * *", "2026-04-23T20:00:00+00:00", "Africa/Cairo") == ["2026-04-24T01:00:00+0300"]


@pytest.mark.parametrize(
    ("schedule", "words"),
    [
        ("", "empty spec string"),
        ("* * * *", "expected exactly 5 fields, found 4: [* * * *]"),
        ("* * * * * *", "expected exactly 5 fields, found 6: [* * * * * *]"),
        ("60 * * * *", "end of range (60) above maximum (59): 60"),
        ("* 24 * * *", "end of range (24) above maximum (23): 24"),
        ("* * 0 * *", "beginning of range (0) below minimum (1): 0"),
        ("* * * 13 *", "end of range (13) above maximum (12): 13"),
        ("* * * * 7", "end of range (7) above maximum (6): 7"),
        ("5-3 * * * *", "beginning of range (5) beyond end of range (3): 5-3"),
        ("1-2-3 * * * *", "too many hyphens: 1-2-3"),
        ("1/2/3 * * * *", "too many slashes: 1/2/3"),
        ("*/0 * * * *", "step of range should be a positive number: */0"),
        ("x * * * *", 'failed to parse int from x: strconv.Atoi: parsing "x": invalid syntax'),
        (", * * * *", "a field must name at least one value: ,"),
        ("@often", "unrecognized descriptor: @often"),
        ("@every day", 'failed to parse duration @every day: time: invalid duration "day"'),
    ],
)
def test_what_is_no_schedule_is_refused(schedule: str, words: str) -> None:
    with pytest.raises(InvalidError) as caught:
        parse(schedule)
    assert caught.value.message == words


@pytest.mark.parametrize(
    "name", ["", "Local", "../UTC", "/etc/passwd", "Mars/Base", "America", "-x", "tzdata.zi", "a\0b"]
)
def test_what_is_no_time_zone_is_refused(name: str) -> None:
    with pytest.raises(InvalidError):
        time_zone(name)


_FIELD = st.one_of(st.just("*"), st.integers(1, 12).map(str), st.integers(1, 20).map(lambda n: f"*/{n}"))


@settings(max_examples=60, deadline=None)
@given(
    fields=st.tuples(_FIELD, _FIELD, _FIELD, _FIELD),
    start=st.datetimes(datetime(2026, 1, 1), datetime(2027, 1, 1)),
    zone=st.sampled_from(["UTC", "Europe/Berlin", "America/New_York", "Australia/Lord_Howe", "Asia/Kathmandu"]),
)
def test_nothing_matches_between_a_moment_and_the_next(fields: tuple[str, ...], start: datetime, zone: str) -> None:
    """Against a search minute by minute over two days."""
    schedule, where, begin = parse(" ".join((*fields, "*"))), ZoneInfo(zone), start.replace(tzinfo=UTC)
    found = schedule.after(begin, where)
    minute = begin.replace(second=0, microsecond=0)
    for _ in range(2 * 24 * 60):
        minute += timedelta(minutes=1)
        local = minute.astimezone(where)
        by_field = (local.minute, schedule.minutes), (local.hour, schedule.hours), (local.month, schedule.months)
        if local.day in schedule.days and all(value in values for value, values in by_field):
            assert found == minute
            return
    assert found is None or found > minute
