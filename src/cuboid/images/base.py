"""What the layers above know of images: a store of devices, each with the configuration of its image."""

from __future__ import annotations

import enum
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Protocol


@dataclass(frozen=True)
class ImageConfig:
    """The part of an OCI image configuration that running it needs."""

    entrypoint: tuple[str, ...] = ()
    cmd: tuple[str, ...] = ()
    env: tuple[str, ...] = ()  # KEY=VALUE
    working_dir: str = ""
    user: str = ""
    stop_signal: str = ""
    exposed_ports: tuple[str, ...] = ()  # "80/tcp"
    volumes: tuple[str, ...] = ()
    labels: dict[str, str] = field(default_factory=dict)


@dataclass(frozen=True)
class Image:
    """An image whose device is on this host."""

    id: str  # digest of the image configuration, "sha256:…" (what Docker calls the image id)
    digest: str  # digest of the manifest, "sha256:…"
    names: tuple[str, ...]  # references, "localhost:5000/demo/nginx:1"
    device: Path  # EROFS; read only; never changes once it exists
    device_bytes: int
    config: ImageConfig
    architecture: str  # "amd64"
    created: str  # RFC 3339, "" where the image does not say
    layers: tuple[str, ...] = ()  # digests
    pulled_at: float = 0.0


@dataclass(frozen=True)
class Credentials:
    username: str = ""
    password: str = field(default="", repr=False)
    identity_token: str = field(default="", repr=False)


class Phase(enum.StrEnum):
    RESOLVE = "resolve"
    DOWNLOAD = "download"
    CONVERT = "convert"
    DONE = "done"


@dataclass(frozen=True)
class Progress:
    """`done` and `total` are bytes; total is 0 while unknown."""

    phase: Phase
    done: int = 0
    total: int = 0


ProgressHook = Callable[[Progress], None]


class ImageStore(Protocol):
    """Safe for many callers at once: two pulls of one image are one download. Nothing half-made is ever used."""

    async def resolve(self, reference: str, *, credentials: Credentials | None = None) -> Image | None:
        """The image if its device is on this host under this reference (name:tag, name@digest or id), else None."""
        ...

    async def pull(
        self, reference: str, *, credentials: Credentials | None = None, progress: ProgressHook | None = None
    ) -> Image:
        """Fetch, verify, convert. NotFoundError, UnauthorizedError, UnavailableError, HostileError, UnsupportedError
        (architecture), ExhaustedError (disk), InvalidError (reference)."""
        ...

    async def import_archive(
        self, path: Path, *, name: str | None = None, progress: ProgressHook | None = None
    ) -> list[Image]:
        """A `docker save` archive, an OCI layout folder, or one in a tar."""
        ...

    def images(self) -> list[Image]: ...

    async def remove(self, reference: str) -> list[str]:
        """Untag; delete the device when no name is left and no pod holds it (ConflictError). Returns what went."""
        ...

    def hold(self, image: Image, pod_uid: str) -> None:
        """Keep the device while this pod exists. Idempotent; outlives the node agent."""
        ...

    def release(self, pod_uid: str) -> None: ...

    def holders(self) -> set[str]: ...

    async def sweep(self) -> None:
        """Remove what an interrupted pull left. Called once at start."""
        ...


Raw = dict[str, Any]
