"""The kinds of credentials in their order: a bearer token of some kind, else the connection's client certificate."""

from __future__ import annotations

from base64 import urlsafe_b64decode
from collections.abc import Awaitable, Callable, Sequence

from starlette.types import Scope

from cuboid.kube.identity import User
from cuboid.lib.errors import UnauthorizedError
from cuboid.server.authn.credential import Credential

Check = Callable[[str], Awaitable[Credential | None]]
"""Of a token: None if it is not of this kind. UnauthorizedError if it is, and no good."""
MAX_TOKEN = 16 * 1024
"""Bytes."""


class TokenAuthenticator:
    """Also what a TokenReview asks."""

    def __init__(self, audiences: Sequence[str], *checks: Check) -> None:
        self._audiences = frozenset(audiences)
        self._checks = checks

    async def token(self, token: str) -> Credential:
        """UnauthorizedError without saying why."""
        if token and len(token) <= MAX_TOKEN:
            for check in self._checks:
                found = await check(token)
                if found is not None:
                    return found
        raise UnauthorizedError("Unauthorized")

    async def credential(self, scope: Scope) -> Credential | None:
        given = _authorization(scope)
        if given:
            kind, _, token = given.partition(" ")
            found = await self.token(token.strip() if kind.lower() == "bearer" else "")
            if found.audiences and self._audiences.isdisjoint(found.audiences):
                raise UnauthorizedError("Unauthorized")
            return found
        user: User | None = scope.get("state", {}).get("certified")
        return None if user is None else Credential(user)


_BEARER = "base64url.bearer.authorization.k8s.io."


def _authorization(scope: Scope) -> str:
    """The header, or what a browser says in its place, which can set none for a WebSocket: a sub-protocol."""
    for key, value in scope["headers"]:
        if key == b"authorization":
            return str(value.decode("latin-1"))
    offered = (word for word in scope.get("subprotocols") or () if word.startswith(_BEARER))
    return next((f"Bearer {_unwrapped(word)}" for word in offered), "")


def _unwrapped(word: str) -> str:
    """UnauthorizedError for what is not base64."""
    text = word.removeprefix(_BEARER)
    try:
        return urlsafe_b64decode(text + "=" * (-len(text) % 4)).decode("ascii")
    except ValueError as error:
        raise UnauthorizedError("Unauthorized") from error
