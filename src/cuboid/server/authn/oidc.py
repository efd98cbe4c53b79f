"""Tokens of an OpenID Connect provider that the operator trusts: its users, in groups that it names.

The provider's keys are fetched with a deadline, kept, and fetched again when a token names one that is not known, at
most every `AGAIN` seconds whatever strangers send. Nobody from outside gets a name or group of the platform's own.
Source of the rules: apiserver/plugin/pkg/authenticator/token/oidc.
"""

from __future__ import annotations

import asyncio
import json
import ssl
import time
from collections import OrderedDict
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import httpx
import jwt

from cuboid.kube import tenants
from cuboid.kube.identity import User
from cuboid.lib.aio import deadline
from cuboid.lib.errors import CuboidError, InvalidError, UnauthorizedError, UnavailableError
from cuboid.lib.log import get_log
from cuboid.server.authn.account_tokens import issuer_in
from cuboid.server.authn.credential import Credential
from cuboid.server.authn.impersonation import AUTHENTICATED
from cuboid.server.tokens import digest

log = get_log(__name__)

SECONDS = 5.0
"""Deadline of one answer of the provider."""
AGAIN = 10.0
LIFE = 3600.0
"""Seconds after which keys are fetched again: a key that the provider has withdrawn ends with it."""
MOST_BYTES = 1 << 20
REMEMBERED = 4_096
ALGORITHMS = ("RS256", "RS384", "RS512", "ES256", "ES384", "ES512", "PS256", "PS384", "PS512")


@dataclass(frozen=True)
class Provider:
    """Prefixes: "" stands for the issuer and `#` before names other than e-mail addresses, "-" for none."""

    issuer: str
    client_id: str
    username_claim: str = "sub"
    username_prefix: str = ""
    groups_claim: str = ""
    groups_prefix: str = ""
    ca_file: str = ""

    def check(self) -> None:
        """InvalidError for settings that can not work."""
        if not self.issuer.startswith("https://"):
            raise InvalidError(
                f"oidc_issuer {self.issuer!r} is no https URL", hint="keys that anybody may change are none"
            )
        if not self.client_id:
            raise InvalidError("oidc_issuer is set and oidc_client_id is not", hint="set it to the name of your client")

    def user(self, claims: Mapping[str, Any]) -> User:
        """UnauthorizedError when the claims name nobody, or somebody of the platform."""
        name = claims.get(self.username_claim)
        if self.username_claim == "email" and claims.get("email_verified", True) is not True:
            raise UnauthorizedError("Unauthorized")
        prefix = {"": "" if self.username_claim == "email" else f"{self.issuer}#", "-": ""}.get(
            self.username_prefix, self.username_prefix
        )
        if not isinstance(name, str) or not name or tenants.reserved_group(prefix + name):
            raise UnauthorizedError("Unauthorized")
        return User(prefix + name, (*self._groups(claims), AUTHENTICATED))

    def _groups(self, claims: Mapping[str, Any]) -> list[str]:
        found = claims.get(self.groups_claim, []) if self.groups_claim else []
        rows = [found] if isinstance(found, str) else found if isinstance(found, list) else []
        prefix = "" if self.groups_prefix == "-" else self.groups_prefix
        names = [prefix + row for row in rows if isinstance(row, str)]
        return [name for name in names if not tenants.reserved_group(name)]


class OidcTokens:
    def __init__(self, provider: Provider) -> None:
        provider.check()
        self._provider = provider
        self._keys: dict[str, jwt.PyJWK] = {}
        self._fetched = self._tried = 0.0  # monotonic
        self._lock = asyncio.Lock()
        self._known: OrderedDict[str, tuple[User, float]] = OrderedDict()
        self._tls: ssl.SSLContext = ssl.create_default_context(cafile=provider.ca_file or None)

    async def check(self, token: str) -> Credential | None:
        """None for what is no token of this provider. UnauthorizedError."""
        known = self._known.get(key := digest(token))
        if known is None:
            if token.count(".") != 2 or issuer_in(token) != self._provider.issuer:
                return None
            known = self._known[key] = await self._verified(token)
            if len(self._known) > REMEMBERED:
                self._known.popitem(last=False)
        user, expires = known
        if expires <= time.time():
            self._known.pop(key, None)
            raise UnauthorizedError("Unauthorized")
        return Credential(user, lambda: expires > time.time())

    async def _verified(self, token: str) -> tuple[User, float]:
        try:
            key = await self._key(str(jwt.get_unverified_header(token).get("kid", "")))
            claims = jwt.decode(
                token,
                key,
                list(ALGORITHMS),
                audience=self._provider.client_id,
                issuer=self._provider.issuer,
                options={"require": ["exp", "iss", "aud"]},
            )
            return self._provider.user(claims), float(claims["exp"])
        except (jwt.PyJWTError, ValueError, TypeError, RecursionError) as error:
            raise UnauthorizedError("Unauthorized") from error

    async def _key(self, name: str) -> jwt.PyJWK:
        if name not in self._keys or time.monotonic() - self._fetched > LIFE:
            async with self._lock:
                if name not in self._keys or time.monotonic() - self._fetched > LIFE:
                    await self._refresh()
        found = self._keys.get(name)
        if found is None:
            raise UnauthorizedError("Unauthorized")
        return found

    async def _refresh(self) -> None:
        """What was known stays when the provider does not answer."""
        if self._tried and time.monotonic() - self._tried < AGAIN:
            return
        self._tried = time.monotonic()
        try:
            async with deadline(SECONDS, "the identity provider's answer"):
                self._keys = await self._fetch()
            self._fetched = time.monotonic()
        except (CuboidError, httpx.HTTPError, jwt.PyJWTError, ValueError, KeyError, TypeError) as error:
            log.warning("the identity provider gave no keys", issuer=self._provider.issuer, error=str(error))

    async def _fetch(self) -> dict[str, jwt.PyJWK]:
        issuer = self._provider.issuer
        async with httpx.AsyncClient(verify=self._tls, timeout=SECONDS, trust_env=False) as client:
            found = await _json(client, issuer.rstrip("/") + "/.well-known/openid-configuration")
            if found["issuer"] != issuer:
                raise UnavailableError(f"the provider calls itself {str(found['issuer'])[:200]!r}")
            where = str(found["jwks_uri"])
            if not where.startswith("https://"):
                raise UnavailableError("the provider's keys are not at an https URL")
            rows = (await _json(client, where))["keys"]
        keys = {}
        for row in rows[:100]:
            if row.get("use", "sig") == "sig" and row.get("kty") in ("RSA", "EC"):
                keys[str(row.get("kid", ""))] = jwt.PyJWK(row)
        return keys


async def _json(client: httpx.AsyncClient, url: str) -> dict[str, Any]:
    data = b""
    async with client.stream("GET", url) as answer:
        answer.raise_for_status()
        async for chunk in answer.aiter_bytes():
            data += chunk
            if len(data) > MOST_BYTES:
                raise UnavailableError(f"the provider's answer is larger than {MOST_BYTES} bytes")
    found = json.loads(data)
    if not isinstance(found, dict):
        raise UnavailableError("the provider's answer is no object")
    return found
