"""Before every request: who calls, on whose behalf, and whether they may. Streams are asked again while they run."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Protocol

from starlette.types import Scope

from cuboid.kube.identity import ANONYMOUS, User
from cuboid.kube.rbac.attributes import Attributes
from cuboid.lib.errors import UnauthorizedError
from cuboid.server.authn.credential import Credential
from cuboid.server.authn.impersonation import impersonated
from cuboid.server.authz.authorizer import Authorizer
from cuboid.server.authz.request import attributes
from cuboid.server.paths import unknown_path

OPEN = ("/healthz", "/livez", "/readyz", "/version")
"""For everybody, also without a name."""
REVIEW_SECONDS = 2.0
"""How often open streams are asked whether they still may."""


class Authenticator(Protocol):
    async def credential(self, scope: Scope) -> Credential | None:
        """None if the request brings none; UnauthorizedError for one that is no good."""
        ...


class Ended(Exception):
    """The stream's caller may not have it any more."""


@dataclass(eq=False)
class Stream:
    """A request that stays open."""

    credential: Credential
    user: User
    wanted: Attributes
    task: asyncio.Task[object]
    behind: tuple[User, list[Attributes]] | None = None  # who acts as the user, and what it takes to do so
    ended: bool = False


class Gate:
    def __init__(self, authenticator: Authenticator, authorizer: Authorizer) -> None:
        self._authenticator = authenticator
        self._authorizer = authorizer
        self._streams: set[Stream] = set()

    async def enter(self, scope: Scope) -> None:
        """Sets `user`, `wanted` and `credential` of the scope. UnauthorizedError, ForbiddenError."""
        path: str = scope["path"]
        wanted = attributes(scope.get("method", "GET"), path, scope["query_string"])
        scope["wanted"] = wanted  # for the audit log also of what is refused
        credential = await self._authenticator.credential(scope)
        if credential is None:
            if not is_open(path):
                raise UnauthorizedError("Unauthorized")
            scope["credential"], scope["user"] = Credential(ANONYMOUS), ANONYMOUS
            return
        scope["credential"] = credential
        scope["user"] = credential.user
        scope["user"] = user = self._acting(scope, credential.user)
        if not is_open(path):
            self._authorizer.check(user, wanted)
            if "//" in path:
                raise unknown_path()

    def _acting(self, scope: Scope, user: User) -> User:
        found = impersonated(scope["headers"])
        if found is None:
            return user
        other, asked = found
        scope["caller"] = user  # for the audit log also of who tries in vain
        for wanted in asked:
            self._authorizer.check(user, wanted)
        scope["behind"] = (user, asked)
        return other

    @contextmanager
    def streaming(self, scope: Scope) -> Iterator[None]:
        """Around a request that stays open: Ended is raised in it when its caller may not have it any more."""
        task = asyncio.current_task()
        assert task is not None
        stream = Stream(scope["credential"], scope["user"], scope["wanted"], task, scope.get("behind"))
        self._streams.add(stream)
        try:
            yield
        except asyncio.CancelledError:
            if stream.ended and task.uncancel() == 0:
                raise Ended from None
            raise
        finally:
            self._streams.discard(stream)

    def review(self) -> int:
        """End the streams of those who may not any more; how many."""
        late = [stream for stream in self._streams if not stream.ended and not self._may(stream)]
        for stream in late:
            stream.ended = True
            stream.task.cancel()
        return len(late)

    def _may(self, stream: Stream) -> bool:
        if not stream.credential.valid() or not self._authorizer.allows(stream.user, stream.wanted):
            return False
        if stream.behind is None:
            return True
        caller, asked = stream.behind
        return all(self._authorizer.allows(caller, wanted) for wanted in asked)

    async def keep(self) -> None:
        """Runs for as long as the server does."""
        while True:
            await asyncio.sleep(REVIEW_SECONDS)
            self.review()


def is_open(path: str) -> bool:
    return path in OPEN or path.startswith(("/healthz/", "/livez/", "/readyz/"))
