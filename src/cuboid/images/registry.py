"""An OCI distribution client: manifests and blobs of one registry, nothing believed that its digest does not prove.

Source: the OCI distribution specification 1.1.
"""

from __future__ import annotations

import hashlib
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from types import TracebackType

import httpx

from cuboid.images.base import Credentials
from cuboid.images.manifest import ACCEPT, Descriptor
from cuboid.images.reference import Reference
from cuboid.images.settings import ImageSettings
from cuboid.images.tokens import Authenticator, bounded
from cuboid.images.transport import Transport
from cuboid.lib.errors import ForbiddenError, HostileError, NotFoundError, UnavailableError


@dataclass(frozen=True)
class Fetched:
    """A manifest or index as it came, and the digest that its bytes have."""

    raw: bytes
    digest: str
    media_type: str


class RegistryClient:
    """For one registry, as an async context manager. Errors name the registry and what to do."""

    def __init__(self, reference: Reference, settings: ImageSettings, credentials: Credentials | None = None) -> None:
        self.settings = settings
        self.transport = Transport(reference.endpoint, settings)
        self._repository = reference.repository
        self._name = reference.name
        self._authenticator = Authenticator(self.transport, credentials)

    async def __aenter__(self) -> RegistryClient:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self.transport.close()

    async def manifest(self, reference: str) -> Fetched:
        """By tag or digest. NotFoundError if the registry does not have it."""

        what = f"the image {self._name}{'@' if ':' in reference else ':'}{reference}"

        async def attempt() -> Fetched:
            async with self.request("GET", f"manifests/{reference}", headers={"Accept": ACCEPT}) as response:
                self.expect(response, 200, what)
                raw = await bounded(response, self.settings.max_manifest_bytes, "the manifest")
                return self._proved(raw, reference, response)

        return await self.transport.persist(attempt, f"getting the manifest of {self._name}")

    def _proved(self, raw: bytes, reference: str, response: httpx.Response) -> Fetched:
        algorithm = reference.partition(":")[0] if ":" in reference else "sha256"
        digest = digest_of(raw, algorithm)
        stated = reference if ":" in reference else response.headers.get("docker-content-digest", digest)
        if stated.startswith("sha512:") and ":" not in reference:
            digest = digest_of(raw, "sha512")
        if digest != stated:
            raise HostileError(
                f"the registry {self.transport.endpoint} sent a manifest with another digest than {stated[:80]}",
                hint="do not use this registry until it is known why", reason="ErrImagePull",
            )  # fmt: skip
        return Fetched(raw, digest, response.headers.get("content-type", ""))

    async def small_blob(self, descriptor: Descriptor, what: str) -> bytes:
        """A blob that is held in memory: an image configuration."""
        if descriptor.size > self.settings.max_manifest_bytes:
            raise HostileError(f"{what} has {descriptor.size} bytes, more than {self.settings.max_manifest_bytes}")

        async def attempt() -> bytes:
            async with self.request("GET", f"blobs/{descriptor.digest}") as response:
                self.expect(response, 200, f"{what} of {self._name}")
                return await bounded(response, descriptor.size, what)

        raw = await self.transport.persist(attempt, f"getting {what} of {self._name}")
        if digest_of(raw, descriptor.digest.partition(":")[0]) != descriptor.digest:
            raise lying(self.transport.endpoint, descriptor.digest)
        return raw

    @asynccontextmanager
    async def request(
        self, method: str, path: str, *, headers: dict[str, str] | None = None, content: object = None,
        actions: str = "pull",
    ) -> AsyncIterator[httpx.Response]:  # fmt: skip
        """One authorised request; `path` is below the repository, or absolute. A 401 is answered once."""
        base = await self.transport.base()
        url = path if "://" in path else f"{base}/v2/{self._repository}/{path}"
        scope = f"repository:{self._repository}:{actions}"
        sent = dict(headers or {})
        if not url.startswith(f"{base}/"):  # an upload that lives on another host gets no credentials
            async with self.transport.stream(method, url, headers=sent, content=content) as response:
                yield response
            return
        if known := self._authenticator.header(scope):
            sent["Authorization"] = known
        async with self.transport.stream(method, url, headers=sent, content=content) as response:
            if response.status_code != 401:
                yield response
                return
            sent["Authorization"] = await self._authenticator.answer(response, scope)
        async with self.transport.stream(method, url, headers=sent, content=content) as response:
            if response.status_code == 401:
                raise self._authenticator.refused()
            yield response

    def expect(self, response: httpx.Response, status: int, what: str) -> None:
        """Say in the reader's words why an answer is not the one hoped for."""
        code, endpoint = response.status_code, self.transport.endpoint
        if code == status:
            return
        if code == 404:
            raise NotFoundError(
                f"{what} does not exist in the registry {endpoint}", hint="check name and tag", reason="ErrImagePull"
            )
        if code == 403:
            raise ForbiddenError(
                f"the registry {endpoint} does not let this login have {what}", hint=f"docker login {endpoint}",
                reason="ErrImagePull",
            )  # fmt: skip
        raise UnavailableError(
            f"the registry {endpoint} answers {code} for {what}", hint="is it an OCI registry?", reason="ErrImagePull"
        )


def digest_of(raw: bytes, algorithm: str = "sha256") -> str:
    return f"{algorithm}:{hashlib.new(algorithm, raw).hexdigest()}"


def lying(endpoint: str, digest: str) -> HostileError:
    return HostileError(
        f"the registry {endpoint} sent other content than the digest {digest} promises",
        hint="do not use this registry until it is known why", reason="ErrImagePull",
    )  # fmt: skip
