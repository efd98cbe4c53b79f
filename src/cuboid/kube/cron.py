"""Schedules of CronJobs: five fields or a descriptor, and the instants that they name in a time zone.

Grammar, words of errors and meaning are those of github.com/robfig/cron v3 (ParseStandard), which Kubernetes uses: an
instant matches when the wall clock of the zone does. What a change to summer time skips does not happen that day, and
what is repeated in autumn happens twice.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta, tzinfo
from zoneinfo import ZoneInfo

from cuboid.lib.errors import InvalidError

HORIZON = timedelta(days=5 * 366)
"""A schedule without an instant within this time never comes (30 February)."""
_MINUTE = timedelta(minutes=1)
_MONTHS = {name: number for number, name in enumerate("jan feb mar apr may jun jul aug sep oct nov dec".split(), 1)}
_DAYS = {name: number for number, name in enumerate("sun mon tue wed thu fri sat".split())}
_DESCRIPTORS = {
    "@yearly": "0 0 1 1 *",
    "@annually": "0 0 1 1 *",
    "@monthly": "0 0 1 * *",
    "@weekly": "0 0 * * 0",
    "@daily": "0 0 * * *",
    "@midnight": "0 0 * * *",
    "@hourly": "0 * * * *",
}
_UNITS = {"h": 3600.0, "m": 60.0, "s": 1.0, "ms": 1e-3, "us": 1e-6, "µs": 1e-6, "ns": 1e-9}
_DURATION = re.compile(r"(?:\d{1,9}(?:\.\d{0,9})?(?:h|ms|m|s|us|µs|ns))+", re.ASCII)
_PART = re.compile(r"(\d+(?:\.\d*)?)(h|ms|m|s|us|µs|ns)", re.ASCII)
_ZONE_PART = re.compile(r"[A-Za-z._0-9+][-A-Za-z._0-9+]{0,13}", re.ASCII)


@dataclass(frozen=True)
class Schedule:
    """Values that match, per field. `every` is seconds between runs of an `@every`, 0 for none.

    `either_day` is whether a day matches by month day or week day alone: both are restricted.
    """

    minutes: frozenset[int] = frozenset()
    hours: frozenset[int] = frozenset()
    days: frozenset[int] = frozenset()
    months: frozenset[int] = frozenset()
    weekdays: frozenset[int] = frozenset()
    either_day: bool = False
    every: int = 0

    def after(self, moment: datetime, zone: tzinfo) -> datetime | None:
        """The first instant after `moment` (aware), in UTC; None when there is none within HORIZON."""
        start = moment.astimezone(UTC).replace(microsecond=0)
        if self.every:
            return start + timedelta(seconds=self.every)
        instant = start.replace(second=0) + _MINUTE
        while instant - start < HORIZON:
            local = instant.astimezone(zone)
            if local.month not in self.months:
                instant = _midnight(local, zone, next_month=True)
            elif not self._day_matches(local):
                instant = _midnight(local, zone)
            elif local.hour not in self.hours:
                instant += timedelta(minutes=60 - local.minute)
            elif local.minute not in self.minutes:
                instant += _MINUTE
            else:
                return instant
        return None

    def _day_matches(self, local: datetime) -> bool:
        by_month, by_week = local.day in self.days, local.isoweekday() % 7 in self.weekdays
        return (by_month or by_week) if self.either_day else (by_month and by_week)


def _midnight(local: datetime, zone: tzinfo, *, next_month: bool = False) -> datetime:
    """Where the next day or month begins, in UTC. Where clocks skip midnight, that is the moment of the change."""
    year, month = (local.year + local.month // 12, local.month % 12 + 1) if next_month else (local.year, local.month)
    day = datetime(year, month, 1) if next_month else datetime(year, month, local.day) + timedelta(days=1)
    return day.replace(tzinfo=zone).astimezone(UTC)


def time_zone(name: str) -> tzinfo:
    """The zone of this name in the IANA data base; InvalidError for anything else."""
    if name.lower() == "local":
        raise InvalidError("timeZone must be an explicit time zone as defined in https://www.iana.org/time-zones")
    if not all(part not in (".", "..") and _ZONE_PART.fullmatch(part) for part in name.split("/")):
        raise InvalidError(f"unknown time zone {name[:100]}")
    try:
        return ZoneInfo(name)
    except (KeyError, ValueError, OSError) as error:
        raise InvalidError(f"unknown time zone {name[:100]}") from error


def parse(text: str) -> Schedule:
    """InvalidError, in the words of robfig/cron, for what is no schedule."""
    if not text:
        raise InvalidError("empty spec string")
    if text.startswith("@"):
        return _descriptor(text)
    fields = text.split()
    if len(fields) != 5:
        raise InvalidError(f"expected exactly 5 fields, found {len(fields)}: [{' '.join(fields)[:200]}]")
    minutes, _ = _field(fields[0], 0, 59, {})
    hours, _ = _field(fields[1], 0, 23, {})
    days, any_day = _field(fields[2], 1, 31, {})
    months, _ = _field(fields[3], 1, 12, _MONTHS)
    weekdays, any_weekday = _field(fields[4], 0, 6, _DAYS)
    return Schedule(minutes, hours, days, months, weekdays, either_day=not any_day and not any_weekday)


def _descriptor(text: str) -> Schedule:
    if text in _DESCRIPTORS:
        return parse(_DESCRIPTORS[text])
    if not text.startswith("@every "):
        raise InvalidError(f"unrecognized descriptor: {text[:100]}")
    asked = text.removeprefix("@every ")
    if not _DURATION.fullmatch(asked):
        raise InvalidError(f'failed to parse duration {text[:100]}: time: invalid duration "{asked[:100]}"')
    seconds = sum(float(amount) * _UNITS[unit] for amount, unit in _PART.findall(asked))
    if seconds > HORIZON.total_seconds():
        raise InvalidError(f"failed to parse duration {text[:100]}: it is longer than five years")
    return Schedule(every=max(1, int(seconds)))


def _field(text: str, low: int, high: int, names: dict[str, int]) -> tuple[frozenset[int], bool]:
    """The values of a comma-separated list, and whether it says "any"."""
    values: set[int] = set()
    is_any = False
    for part in text.split(","):
        if part:
            found, star = _range(part, low, high, names)
            values.update(found)
            is_any = is_any or star
    if not values:
        raise InvalidError(f"a field must name at least one value: {text[:100]}")
    return frozenset(values), is_any


def _range(text: str, low: int, high: int, names: dict[str, int]) -> tuple[range, bool]:
    span, slash, step_text = text.partition("/")
    if "/" in step_text:
        raise InvalidError(f"too many slashes: {text[:100]}")
    first, hyphen, last = span.partition("-")
    if "-" in last:
        raise InvalidError(f"too many hyphens: {text[:100]}")
    star = first in ("*", "?")
    start = low if star else _number(first, names)
    end = high if star else _number(last, names) if hyphen else start
    step = _number(step_text, {}) if slash else 1
    if slash and not hyphen:
        end = high
    _check_range(text, start, end, step, low, high)
    return range(start, end + 1, step), star and step == 1


def _check_range(text: str, start: int, end: int, step: int, low: int, high: int) -> None:
    text = text[:100]
    if start < low:
        raise InvalidError(f"beginning of range ({start}) below minimum ({low}): {text}")
    if end > high:
        raise InvalidError(f"end of range ({end}) above maximum ({high}): {text}")
    if start > end:
        raise InvalidError(f"beginning of range ({start}) beyond end of range ({end}): {text}")
    if step == 0:
        raise InvalidError(f"step of range should be a positive number: {text}")


def _number(text: str, names: dict[str, int]) -> int:
    if text.lower() in names:
        return names[text.lower()]
    if not re.fullmatch(r"[0-9]{1,9}", text, re.ASCII):
        shown = text[:100]
        raise InvalidError(f'failed to parse int from {shown}: strconv.Atoi: parsing "{shown}": invalid syntax')
    return int(text)
