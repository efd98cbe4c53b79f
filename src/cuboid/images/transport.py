"""HTTP to one registry: scheme, TLS, redirects, retries and deadlines, and connection failures put into words."""

from __future__ import annotations

import asyncio
import os
import random
import ssl
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from http import HTTPStatus
from typing import TypeVar

import httpx

from cuboid.images.reference import host, is_loopback
from cuboid.images.settings import ImageSettings
from cuboid.lib import aio
from cuboid.lib.errors import CuboidError, DeadlineError, HostileError, UnavailableError

T = TypeVar("T")
REDIRECTS = (301, 302, 303, 307, 308)
TRY_AGAIN = (408, 429, 500, 502, 503, 504)
_MAX_REDIRECTS = 5
_PROBE_SECONDS = 5.0


class Again(Exception):
    """A failure that another try may mend: `error` is what to raise when tries are used up."""

    def __init__(self, error: CuboidError, after: float = 0.0) -> None:
        super().__init__(str(error))
        self.error = error
        self.after = after  # seconds that the registry asked us to wait


class Transport:
    """Requests to the registry at HOST[:PORT]. Credentials never leave for another host, nor over plain http."""

    def __init__(self, endpoint: str, settings: ImageSettings) -> None:
        self.endpoint = endpoint
        self._settings = settings
        self._local = is_loopback(host(endpoint))
        self._plain_allowed = self._local or endpoint in settings.insecure_registries
        self._base: str | None = None
        self._client = httpx.AsyncClient(
            verify=_tls(settings), http2=False, follow_redirects=False, trust_env=not self._local,
            headers={"User-Agent": "cuboid", "Accept-Encoding": "identity"},
            timeout=httpx.Timeout(settings.read_timeout, connect=settings.connect_timeout),
            limits=httpx.Limits(max_connections=settings.parallel_layers + 2),
        )  # fmt: skip

    async def close(self) -> None:
        await self._client.aclose()

    async def base(self) -> str:
        """`https://HOST`, or `http://HOST` where that is allowed and what the registry speaks."""
        if self._base is None:
            plain = self._plain_allowed and await self._speaks_http()
            self._base = f"{'http' if plain else 'https'}://{self.endpoint}"
        return self._base

    async def _speaks_http(self) -> bool:
        try:
            response = await self._client.get(f"http://{self.endpoint}/v2/", timeout=_PROBE_SECONDS)
        except (httpx.ConnectError, httpx.ConnectTimeout) as error:
            raise self._unreachable(error) from error
        except httpx.TransportError:
            return False
        return not (response.status_code == 400 and b"HTTPS" in response.content)

    @asynccontextmanager
    async def stream(
        self, method: str, url: str, *, headers: dict[str, str] | None = None, content: object = None
    ) -> AsyncIterator[httpx.Response]:
        """One request, redirects of GET and HEAD followed. Raises Again where another try may help."""
        try:
            response = await self._send(method, httpx.URL(url), dict(headers or {}), content)
            try:
                self._check(response)
                yield response
            finally:
                await response.aclose()
        except httpx.TransportError as error:
            raise self._explained(error) from error
        except httpx.InvalidURL as error:
            raise HostileError(f"the registry {self.endpoint} leads to an invalid address") from error

    async def _send(self, method: str, url: httpx.URL, headers: dict[str, str], content: object) -> httpx.Response:
        for _ in range(_MAX_REDIRECTS + 1):
            request = self._client.build_request(method, url, headers=headers, content=content)  # type: ignore[arg-type]
            response = await self._client.send(request, stream=True)
            location = response.headers.get("location", "")
            if response.status_code not in REDIRECTS or method not in ("GET", "HEAD") or not location:
                return response
            await response.aclose()
            target = self._redirected(url, location)
            if _origin(target) != _origin(url):
                headers.pop("Authorization", None)
            url = target
        raise HostileError(f"the registry {self.endpoint} redirects without end")

    def _redirected(self, url: httpx.URL, location: str) -> httpx.URL:
        target = url.join(location)
        same_host = target.host == url.host and url.scheme == "http"
        loopback = self._local and is_loopback(target.host)
        if target.scheme != "https" and not (target.scheme == "http" and (same_host or loopback)):
            raise HostileError(
                f"the registry {self.endpoint} redirects to {target.scheme}://{target.host}, which is not encrypted"
            )
        return target

    def may_send_secrets(self, url: str) -> bool:
        """Whether a token server may be given credentials: encrypted, or as local as the registry itself."""
        target = httpx.URL(url)
        as_local = target.host == host(self.endpoint) or (self._local and is_loopback(target.host))
        return target.scheme == "https" or (target.scheme == "http" and self._plain_allowed and as_local)

    def _check(self, response: httpx.Response) -> None:
        if response.status_code in TRY_AGAIN:
            busy = response.status_code == 429
            raise Again(
                UnavailableError(
                    f"the registry {self.endpoint} answers {response.status_code} {_phrase(response)}",
                    hint="it limits how often it is asked: log in or try later" if busy else "try again later",
                    reason="ErrImagePull",
                ),
                _retry_after(response),
            )

    def _explained(self, error: httpx.TransportError) -> Exception:
        if isinstance(error, (httpx.ConnectError, httpx.ConnectTimeout)):
            unreachable = self._unreachable(error)
            return unreachable if isinstance(_cause(error), ssl.SSLError) else Again(unreachable)
        if isinstance(error, httpx.TimeoutException):
            return Again(DeadlineError(f"the registry {self.endpoint} fell silent in the middle of an answer"))
        return Again(
            UnavailableError(
                f"the connection to the registry {self.endpoint} broke", hint="try again later", reason="ErrImagePull"
            )
        )

    def _unreachable(self, error: httpx.TransportError) -> UnavailableError:
        cause = _cause(error)
        if isinstance(cause, ssl.SSLCertVerificationError):
            return UnavailableError(
                f"the registry {self.endpoint} has a certificate that is not trusted: {cause.verify_message}",
                hint="trust its authority with [images] ca_file", reason="ErrImagePull",
            )  # fmt: skip
        if isinstance(cause, ssl.SSLError):
            return UnavailableError(
                f"the registry {self.endpoint} does not speak TLS",
                hint="if it is meant to be plain http, list it in [images] insecure_registries", reason="ErrImagePull",
            )  # fmt: skip
        slow = isinstance(error, httpx.ConnectTimeout)
        why = "it takes too long to connect" if slow else _system_reason(cause, error)
        return UnavailableError(
            f"the registry {self.endpoint} cannot be reached: {why}", hint="is its name right, and is it up?",
            reason="ErrImagePull",
        )  # fmt: skip

    async def persist(self, attempt: Callable[[], Awaitable[T]], what: str) -> T:
        """`attempt` until it succeeds, fails for good, or tries are used up; each with the request's deadline."""
        for number in range(1, self._settings.attempts + 1):
            try:
                async with aio.deadline(self._settings.request_deadline, what):
                    return await attempt()
            except Again as again:
                if number >= self._settings.attempts:
                    raise again.error from again
                await self.pause(number, again.after)
        raise AssertionError("attempts is at least 1")

    async def pause(self, number: int, after: float = 0.0) -> None:
        """Wait after the failure of try `number`: doubling, with jitter, at least what the registry asked."""
        wait = self._settings.backoff * 2 ** (number - 1) * random.uniform(0.5, 1.5)
        await asyncio.sleep(min(max(wait, after), self._settings.backoff_max))


def _tls(settings: ImageSettings) -> ssl.SSLContext:
    context = ssl.create_default_context()
    context.minimum_version = ssl.TLSVersion.TLSv1_2
    if settings.ca_file:
        context.load_verify_locations(settings.ca_file)
    return context


def _origin(url: httpx.URL) -> tuple[str, str, int | None]:
    return url.scheme, url.host, url.port


def _cause(error: BaseException) -> BaseException:
    """The first cause that is not httpx's own."""
    seen: BaseException = error
    while (deeper := seen.__cause__ or seen.__context__) is not None and not isinstance(seen, ssl.SSLError):
        seen = deeper
    return seen


def _system_reason(cause: BaseException, error: BaseException) -> str:
    while isinstance(cause, BaseExceptionGroup):
        cause = cause.exceptions[0]
    if isinstance(cause, OSError) and cause.errno:
        # asyncio's own text holds the address in place of the reason; a resolver's numbers are negative
        return (os.strerror(cause.errno) if cause.errno > 0 else str(cause.strerror)).lower()
    return str(error) or "no connection"


def _phrase(response: httpx.Response) -> str:
    """What a status means by the standard; the registry's own words could be anything."""
    return HTTPStatus(response.status_code).phrase


def _retry_after(response: httpx.Response) -> float:
    text = response.headers.get("retry-after", "")
    return float(text) if text.isdigit() and len(text) < 9 else 0.0
