"""Answers to a registry's 401: basic credentials, or a bearer token fetched from where the registry says.

Source: the distribution project's "Token Authentication Specification" and its OAuth2 variant.
"""

from __future__ import annotations

import base64
import re
from dataclasses import dataclass, field

import httpx
import msgspec

from cuboid.images.base import Credentials
from cuboid.images.transport import Transport
from cuboid.lib.errors import HostileError, UnauthorizedError

_TOKEN_MAX = 1 << 20
_PARAMETER = re.compile(r'([A-Za-z0-9_-]+)\s*=\s*(?:"((?:[^"\\]|\\.)*)"|([^\s,"]+))')


@dataclass(frozen=True)
class Challenge:
    scheme: str  # "basic" or "bearer"
    parameters: dict[str, str] = field(default_factory=dict)


class _Token(msgspec.Struct):
    token: str = ""
    access_token: str = ""


def parse_challenge(header: str) -> Challenge | None:
    """The first WWW-Authenticate challenge that we can answer; a bearer one is preferred."""
    if len(header) > 8192:
        return None
    for scheme in ("bearer", "basic"):
        at = re.search(rf"(?:^|,)\s*{scheme}(?:\s+|$)", header, re.IGNORECASE)
        if at:
            found = {
                m[1].lower(): re.sub(r"\\(.)", r"\1", m[2] or m[3] or "") for m in _PARAMETER.finditer(header, at.end())
            }
            return Challenge(scheme, found)
    return None


class Authenticator:
    """Keeps the `Authorization` header per scope; `answer` turns a 401 into one."""

    def __init__(self, transport: Transport, credentials: Credentials | None) -> None:
        self._transport = transport
        self._credentials = credentials
        self._headers: dict[str, str] = {}

    def header(self, scope: str) -> str | None:
        return self._headers.get(scope)

    async def answer(self, response: httpx.Response, scope: str) -> str:
        """The header for another try; UnauthorizedError if there is nothing to answer with."""
        challenge = parse_challenge(response.headers.get("www-authenticate", ""))
        if challenge is None:
            raise self.refused()
        if challenge.scheme == "basic":
            header = self._basic()
        else:
            header = f"Bearer {await self._fetch_token(challenge.parameters, scope)}"
        if self._headers.get(scope) == header:
            raise self.refused()
        self._headers[scope] = header
        return header

    def refused(self) -> UnauthorizedError:
        endpoint = self._transport.endpoint
        if self._credentials is None:
            return UnauthorizedError(
                f"the registry {endpoint} wants a login: the image is private, or does not exist",
                hint=f"docker login {endpoint}, or an imagePullSecret", reason="ErrImagePull",
            )  # fmt: skip
        return UnauthorizedError(
            f"the registry {endpoint} refused the login", hint=f"check user and password: docker login {endpoint}",
            reason="ErrImagePull",
        )  # fmt: skip

    def _basic(self) -> str:
        if self._credentials is None or not self._credentials.username:
            raise self.refused()
        pair = f"{self._credentials.username}:{self._credentials.password}"
        return f"Basic {base64.b64encode(pair.encode()).decode()}"

    async def _fetch_token(self, parameters: dict[str, str], scope: str) -> str:
        realm = parameters.get("realm", "")
        try:
            secret_allowed = self._transport.may_send_secrets(realm)
        except httpx.InvalidURL as error:
            raise HostileError(f"the registry {self._transport.endpoint} names an invalid token server") from error
        if not secret_allowed:
            raise HostileError(f"the registry {self._transport.endpoint} names a token server without encryption")

        async def attempt() -> str:
            return await self._request_token(realm, parameters.get("service", ""), parameters.get("scope") or scope)

        return await self._transport.persist(attempt, "getting a token")

    async def _request_token(self, realm: str, service: str, scope: str) -> str:
        query = {"service": service, "scope": scope} if service else {"scope": scope}
        given = self._credentials
        if given and given.identity_token:
            form = {
                **query,
                "grant_type": "refresh_token",
                "refresh_token": given.identity_token,
                "client_id": "cuboid",
            }
            body = str(httpx.QueryParams(form)).encode()
            headers = {"Content-Type": "application/x-www-form-urlencoded"}
            request = self._transport.stream("POST", realm, headers=headers, content=body)
        else:
            headers = {"Authorization": self._basic()} if given else {}
            request = self._transport.stream("GET", str(httpx.URL(realm).copy_merge_params(query)), headers=headers)
        async with request as response:
            if response.status_code in (400, 401, 403):
                raise self.refused()
            raw = await bounded(response, _TOKEN_MAX, "the token server's answer")
        return self._parse_token(raw, response.status_code)

    def _parse_token(self, raw: bytes, status: int) -> str:
        try:
            parsed = msgspec.json.decode(raw, type=_Token)
        except (msgspec.DecodeError, RecursionError, UnicodeDecodeError) as error:
            raise HostileError(f"the token server of {self._transport.endpoint} answered garbage") from error
        token = parsed.token or parsed.access_token
        if status != 200 or not token or not token.isascii() or not token.isprintable():
            raise HostileError(f"the token server of {self._transport.endpoint} answered {status} without a token")
        return token


async def bounded(response: httpx.Response, most: int, what: str) -> bytes:
    """The whole body, cut off with HostileError past `most` bytes."""
    body = bytearray()
    async for piece in response.aiter_raw():
        body += piece
        if len(body) > most:
            raise HostileError(f"{what} has more than {most} bytes")
    return bytes(body)
