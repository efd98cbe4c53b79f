"""What pods use: from the guests' counters to rates.

Guests are asked only when somebody asks us. A rate is made of two samples of one counter; the first question after a
pause takes both, RATE_SECONDS apart. Counters come from a guest: a value that cannot be is left out.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field

from cuboid.guest import agent_pb2 as pb
from cuboid.lib.errors import CuboidError
from cuboid.lib.log import get_log
from cuboid.node.access import PodAccess, PodView

log = get_log(__name__)
RATE_SECONDS = 0.5  # between two samples taken for one question
FRESH_SECONDS = 0.25  # a sample this young answers the next question too
OLD_SECONDS = 60.0  # an older sample is no base for a rate
STATS_SECONDS = 3.0  # a guest must answer within this time
AT_ONCE = 32  # guests asked at the same time
INTERFACE_NAME, VOLUME_NAME, MOST_ITEMS = 15, 63, 64  # Linux' limit, Kubernetes' limit, and enough of each
MOST_CORES = 4096  # a rate above it is a guest's invention


@dataclass(frozen=True)
class Usage:
    """What one pod used when it was asked. Rates are in billionths of a core."""

    view: PodView
    stats: pb.Stats
    pod_rate: int
    container_rates: dict[str, int]


@dataclass
class _Sample:
    at: float  # of a monotonic clock
    stats: pb.Stats


@dataclass
class _Rates:
    whole: int = 0
    containers: dict[str, int] = field(default_factory=dict)


class StatsBook:
    """The newest samples of all guests, and the rates between them."""

    def __init__(self, access: PodAccess, *, monotonic: Callable[[], float] = time.monotonic) -> None:
        self._access = access
        self._monotonic = monotonic
        self._samples: dict[str, _Sample] = {}
        self._rates: dict[str, _Rates] = {}
        self._asking = asyncio.Lock()

    async def usage(self, namespace: str = "") -> list[Usage]:
        """Of each pod whose guest answers, sorted by name. One question at a time asks the guests."""
        async with self._asking:
            views = [v for v in self._access.pods() if namespace in ("", v.pod.metadata.namespace)]
            now = self._monotonic()
            await self._sample([v for v in views if self._age(v, now) > FRESH_SECONDS])
            if bare := [v for v in views if v.uid in self._samples and v.uid not in self._rates]:
                await asyncio.sleep(RATE_SECONDS)
                await self._sample(bare)
            self._forget()
        found = (self._of(view) for view in views)
        return sorted((u for u in found if u), key=lambda u: (u.view.pod.metadata.namespace, u.view.pod.metadata.name))

    def _age(self, view: PodView, now: float) -> float:
        sample = self._samples.get(view.uid)
        return now - sample.at if sample else float("inf")

    async def _sample(self, views: Iterable[PodView]) -> None:
        limit = asyncio.Semaphore(AT_ONCE)

        async def one(view: PodView) -> None:
            async with limit:
                await self._ask(view)

        await asyncio.gather(*(one(view) for view in views))

    async def _ask(self, view: PodView) -> None:
        try:
            guest = view.guest()
            stats = await guest.stats(timeout=STATS_SECONDS) if guest.connected else None
        except (CuboidError, ConnectionError) as error:
            log.debug("a guest gave no stats", pod=view.pod.metadata.name, error=str(error))
            stats = None
        if stats is None:
            self._samples.pop(view.uid, None)
            self._rates.pop(view.uid, None)
            return
        new = _Sample(self._monotonic(), stats)
        old = self._samples.get(view.uid)
        if old and new.at - old.at <= OLD_SECONDS:
            self._rates[view.uid] = _rates(old, new)
        else:
            self._rates.pop(view.uid, None)
        self._samples[view.uid] = new

    def _forget(self) -> None:
        alive = {view.uid for view in self._access.pods()}
        for gone in self._samples.keys() - alive:
            del self._samples[gone]
            self._rates.pop(gone, None)

    def _of(self, view: PodView) -> Usage | None:
        sample = self._samples.get(view.uid)
        if sample is None:
            return None
        rates = self._rates.get(view.uid, _Rates())
        return Usage(view, _known(sample.stats, view.containers), rates.whole, rates.containers)


def _known(stats: pb.Stats, containers: list[str]) -> pb.Stats:
    """Each container of the pod once, and of the rest no more than a pod can have: all of it goes into answers that
    speak of other pods too."""
    kept = pb.Stats()
    kept.CopyFrom(stats)
    named = {c.name: c for c in stats.containers if c.name in containers}
    interfaces = {i.name: i for i in stats.interfaces if len(i.name) <= INTERFACE_NAME}
    volumes = {v.name: v for v in stats.volumes if len(v.name) <= VOLUME_NAME}
    for field_name, items in (("containers", named), ("interfaces", interfaces), ("volumes", volumes)):
        kept.ClearField(field_name)
        getattr(kept, field_name).extend(list(items.values())[:MOST_ITEMS])
    return kept


def _rates(old: _Sample, new: _Sample) -> _Rates:
    before = {c.name: c.cpu_ns for c in old.stats.containers}
    seconds = new.at - old.at
    containers = {c.name: _rate(before.get(c.name, c.cpu_ns), c.cpu_ns, seconds) for c in new.stats.containers}
    return _Rates(_rate(old.stats.cpu_ns, new.stats.cpu_ns, seconds), containers)


def _rate(before: int, after: int, seconds: float) -> int:
    """CPU nanoseconds per second, which are nano-cores; 0 when the counter went back (a restart) or is impossible."""
    if after < before or seconds <= 0:
        return 0
    rate = int((after - before) / seconds)
    return rate if rate <= MOST_CORES * 1_000_000_000 else 0
