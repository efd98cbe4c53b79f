"""When a CronJob is due: the last of the runs that were missed, how many there were, and when the next one comes.

Source: kubernetes/pkg/controller/cronjob/utils.go.
"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import UTC, datetime, timedelta, tzinfo

from cuboid.kube.cron import Schedule

MANY = 100
"""More missed runs than this are told: a clock is wrong, or the controller was away for long."""
_FIRST_LOOK = timedelta(minutes=1)


@dataclass(frozen=True)
class Due:
    """`last` is the latest scheduled time that is not after now, `missed` how many there were, MANY + 1 at most."""

    last: datetime | None
    missed: int


def due(schedule: Schedule, zone: tzinfo, since: datetime, now: datetime) -> Due:
    """Scheduled times after `since` and not after `now`. An `@every` counts from `since`."""
    missed, at = 0, since
    while missed <= MANY:
        following = schedule.after(at, zone)
        if following is None or following > now:
            return Due(at if missed else None, missed)
        missed, at = missed + 1, following
    if schedule.every:
        return Due(since + timedelta(seconds=(now - since).total_seconds() // schedule.every * schedule.every), missed)
    return Due(_latest(schedule, zone, at, now), missed)


def _latest(schedule: Schedule, zone: tzinfo, known: datetime, now: datetime) -> datetime:
    """The last time up to now, when `known` is one: looked for in a stretch before now that is doubled until it has
    one, so that a schedule of every minute that was away for years costs no more than any other."""
    stretch = _FIRST_LOOK
    while now - stretch > known:
        found = schedule.after(now - stretch, zone)
        if found is not None and found <= now:
            known = found
            break
        stretch *= 2
    while (following := schedule.after(known, zone)) is not None and following <= now:
        known = following
    return known


def at(seconds: float) -> datetime:
    return datetime.fromtimestamp(seconds, UTC)
