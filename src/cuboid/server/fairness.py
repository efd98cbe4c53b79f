"""Who is worked for next when there is more to do than can be done at once.

Requests belong to flows: a tenant, a service account, a user. A level has a number of seats, each a request that is
worked on. While all are taken, requests wait, and the next seat goes to the flow that has had least in proportion to
its weight (start-time fair queueing: Goyal, Vin, Cheng 1996), so that ten thousand requests of one do not stand before
one of another. What waits is bounded for each flow, in sum and in time; what is beyond that is refused with 429.

What keeps the platform alive (nodes, controllers, leases) has a level of its own, which the others cannot fill.
"""

from __future__ import annotations

import asyncio
import heapq
from dataclasses import dataclass, field

from cuboid.kube import status

WAITING = 256
"""Requests of one flow that may wait."""
WAITING_SUM = 4_096
"""Requests of all flows of a level that may wait."""
WAIT_SECONDS = 15.0
"""After so long a wait a request is refused: its client is to come again, not to hang."""
RETRY_SECONDS = 1
_MANY = 1_024  # flows remembered before those are dropped that have no claim


@dataclass(frozen=True)
class Flow:
    """Of whom a request is. Flows of one name share; `weight` is relative to others'."""

    name: str
    weight: float = 1.0
    system: bool = False


@dataclass(order=True)
class _Ticket:
    start: float
    number: int
    flow: str = field(compare=False)
    turn: asyncio.Future[None] = field(compare=False)


class Level:
    """A number of seats and the queue for them."""

    def __init__(self, seats: int) -> None:
        self._free = seats
        self._tickets: list[_Ticket] = []
        self._waiting: dict[str, int] = {}
        self._finish: dict[str, float] = {}  # by flow: the virtual time up to which it has asked for work
        self._now = 0.0  # virtual: the start of what was seated last
        self._number = 0

    @property
    def waiting(self) -> int:
        return sum(self._waiting.values())

    async def enter(self, flow: Flow, width: float = 1.0) -> None:
        """Take a seat, at once or when it is this flow's turn; `leave` gives it back. ExhaustedError: come again later.

        `width` is how much work it is, in ordinary requests.
        """
        start = max(self._now, self._finish.get(flow.name, 0.0))
        if self._free > 0:  # then nobody waits
            self._free -= 1
            self._now = start
            self._charge(flow, start, width)
            return
        if self._waiting.get(flow.name, 0) >= WAITING or len(self._tickets) >= WAITING_SUM:
            raise status.busy(RETRY_SECONDS)
        self._charge(flow, start, width)
        await self._wait(flow, start)

    def _charge(self, flow: Flow, start: float, width: float) -> None:
        if len(self._finish) > _MANY:
            self._finish = {name: finish for name, finish in self._finish.items() if finish > self._now}
        self._finish[flow.name] = start + width / flow.weight

    async def _wait(self, flow: Flow, start: float) -> None:
        loop = asyncio.get_running_loop()
        self._number += 1
        ticket = _Ticket(start, self._number, flow.name, loop.create_future())
        heapq.heappush(self._tickets, ticket)
        self._waiting[flow.name] = self._waiting.get(flow.name, 0) + 1
        timer = loop.call_later(WAIT_SECONDS, _refuse, ticket.turn)
        try:
            await ticket.turn
        except asyncio.CancelledError:
            if ticket.turn.done() and not ticket.turn.cancelled() and not ticket.turn.exception():
                self.leave()  # it was given a seat and does not take it
            raise
        finally:
            timer.cancel()
            left = self._waiting[flow.name] - 1
            if left:
                self._waiting[flow.name] = left
            else:
                del self._waiting[flow.name]

    def leave(self) -> None:
        """Give a seat to whose turn it is."""
        while self._tickets:
            ticket = heapq.heappop(self._tickets)
            if not ticket.turn.done():
                self._now = ticket.start
                ticket.turn.set_result(None)
                return
        self._free += 1


def _refuse(turn: asyncio.Future[None]) -> None:
    if not turn.done():
        turn.set_exception(status.busy(RETRY_SECONDS))


class Seat:
    """One request's, given back at the latest at its end."""

    def __init__(self, level: Level) -> None:
        self._level: Level | None = level

    def give_back(self) -> None:
        """Idempotent."""
        if self._level is not None:
            level, self._level = self._level, None
            level.leave()


class Fairness:
    """Seats for `requests` of users, and half as many beside them for the system."""

    def __init__(self, requests: int) -> None:
        self._users = Level(requests)
        self._system = Level(max(1, requests // 2))

    async def seat(self, flow: Flow, width: float = 1.0) -> Seat:
        """ExhaustedError (429 with Retry-After) when too much waits already."""
        level = self._system if flow.system else self._users
        await level.enter(flow, width)
        return Seat(level)


class Shares:
    """How much of something each flow has at once: streams, bytes of bodies. The system has half of the total beside
    it: four flows with a quarter each would leave nodes without a way to say that they live."""

    def __init__(self, each: int, total: int) -> None:
        self._each = each
        self._left = {False: total, True: max(1, total // 2)}  # by whether it is the system's
        self._taken: dict[str, int] = {}

    def take(self, flow: Flow, amount: int = 1) -> None:
        """ExhaustedError when that is more than this flow's share, or than is left. The system has no such share."""
        taken = self._taken.get(flow.name, 0) + amount
        if self._left[flow.system] < amount or (taken > self._each and not flow.system):
            raise status.busy(RETRY_SECONDS)
        self._taken[flow.name] = taken
        self._left[flow.system] -= amount

    def give_back(self, flow: Flow, amount: int = 1) -> None:
        self._left[flow.system] += amount
        left = self._taken.get(flow.name, 0) - amount
        if left > 0:
            self._taken[flow.name] = left
        else:
            self._taken.pop(flow.name, None)
