"""One of several acts: who holds a Lease. It is given up at the end and taken over when its holder falls silent.

Times are those of this process: how long the lease has not changed, never what another machine's clock wrote into it.
Source of the protocol: k8s.io/client-go/tools/leaderelection.
"""

from __future__ import annotations

import asyncio
import random
import time
from collections.abc import Callable, Coroutine
from typing import Any

from cuboid.kube.client import LEASES, Client
from cuboid.lib.aio import TaskSet
from cuboid.lib.clock import rfc3339_micro
from cuboid.lib.errors import AlreadyExistsError, ConflictError, CuboidError, NotFoundError
from cuboid.lib.log import get_log

log = get_log(__name__)

Object = dict[str, Any]
NAMESPACE = "kube-system"
LEASE_SECONDS = 10.0
"""A holder that was silent for so long has lost it."""
RENEW_SECONDS = 7.0
"""A holder that could not renew for so long stops by itself, before others may take over."""
RETRY_SECONDS = 2.0
CALL_SECONDS = 3.0


class Leader:
    """`name` is the lease's, `identity` this process'. `elapsed` gives seconds that never go back."""

    def __init__(
        self, client: Client, name: str, identity: str, *, elapsed: Callable[[], float] = time.monotonic
    ) -> None:
        self._client = client
        self._name = name
        self._identity = identity
        self._elapsed = elapsed
        self._other = False  # somebody else has it
        self._seen: tuple[str, float] = ("", 0.0)  # version of the lease, and since when it is known

    async def lead(self, work: Callable[[], Coroutine[Any, Any, None]]) -> None:
        """Do the work whenever this process holds the lease; it is cancelled when the lease is lost. Until cancelled,
        or the work ends."""
        while True:
            await self._won()
            log.info("leading", lease=self._name, identity=self._identity)
            try:
                async with TaskSet("leader") as tasks:
                    working = tasks.start(work(), name="work")
                    renewing = tasks.start(self._renew(), name="renew")
                    await asyncio.wait((working, renewing), return_when=asyncio.FIRST_COMPLETED)
                    if working.done():
                        return working.result()
            finally:
                await self._give_up()
            log.warning("the lease is lost", lease=self._name)

    async def _won(self) -> None:
        while True:
            if await self._tried():
                return
            await asyncio.sleep(RETRY_SECONDS * random.uniform(0.8, 1.2))

    async def _renew(self) -> None:
        """Returns when the lease is lost. An attempt counts from its begin, when the server may have written it, and
        none outlasts the time that is left: two calls that hang take longer than others wait."""
        last = self._elapsed()
        while (left := RENEW_SECONDS - (self._elapsed() - last)) > 0:
            try:
                async with asyncio.timeout(left):
                    await asyncio.sleep(RETRY_SECONDS)
                    began = self._elapsed()
                    won = await self._tried()
            except TimeoutError:
                return
            if won:
                last = began
            elif self._other:
                return

    async def _tried(self) -> bool:
        """Take or renew it; whether that worked."""
        self._other = False
        try:
            return await self._take()
        except (ConflictError, AlreadyExistsError):
            return False
        except CuboidError as error:
            log.info("the lease can not be written", lease=self._name, error=str(error))
            return False

    async def _take(self) -> bool:
        now = rfc3339_micro(time.time())
        mine = {"holderIdentity": self._identity, "leaseDurationSeconds": int(LEASE_SECONDS), "renewTime": now}
        try:
            found = await self._client.get(LEASES, self._name, NAMESPACE, seconds=CALL_SECONDS)
        except NotFoundError:
            body = {"metadata": {"name": self._name}, "spec": {**mine, "acquireTime": now, "leaseTransitions": 0}}
            await self._client.create(LEASES, body, NAMESPACE, seconds=CALL_SECONDS)
            return True
        spec = found.get("spec") or {}
        holder = spec.get("holderIdentity") or ""
        if holder not in ("", self._identity) and not self._silent(found):
            self._other = True
            return False
        if holder != self._identity:
            mine |= {"acquireTime": now, "leaseTransitions": int(spec.get("leaseTransitions") or 0) + 1}
        found["spec"] = {**spec, **mine}
        await self._client.update(LEASES, found, seconds=CALL_SECONDS)
        return True

    def _silent(self, found: Object) -> bool:
        version = str(found["metadata"].get("resourceVersion", ""))
        if self._seen[0] != version:
            self._seen = (version, self._elapsed())
        return self._elapsed() - self._seen[1] > LEASE_SECONDS

    async def _give_up(self) -> None:
        try:
            found = await self._client.get(LEASES, self._name, NAMESPACE, seconds=CALL_SECONDS)
            if (found.get("spec") or {}).get("holderIdentity") == self._identity:
                found["spec"] |= {"holderIdentity": "", "leaseDurationSeconds": 1}
                await self._client.update(LEASES, found, seconds=CALL_SECONDS)
        except CuboidError as error:
            log.info("the lease could not be given up", lease=self._name, error=str(error))
