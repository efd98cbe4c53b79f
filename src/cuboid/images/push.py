"""Pushes an image layout to a registry: blobs that it lacks, each in one request, then the manifest.

Source: the OCI distribution specification 1.1, "Push", monolithic uploads.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable
from pathlib import Path

from cuboid.images.auth import config_path, find_credentials, read_docker_config
from cuboid.images.base import Credentials
from cuboid.images.manifest import OCI_MANIFEST, Descriptor, Index, Manifest, choose, parse_manifest
from cuboid.images.reference import Reference, parse
from cuboid.images.registry import RegistryClient
from cuboid.images.settings import ImageSettings
from cuboid.lib import aio
from cuboid.lib.errors import HostileError, InvalidError, NotFoundError

_PIECE = 1 << 20
_SLACK = 60.0  # seconds an upload may take beside its bytes
_ACTIONS = "pull,push"


async def push_layout(
    layout: Path,
    reference: str,
    *,
    settings: ImageSettings | None = None,
    credentials: Credentials | None = None,
    progress: Callable[[int, int], None] = lambda done, total: None,
) -> str:
    """Push the layout's linux/amd64 image as `reference` (name:tag); the manifest's digest. Errors as for a pull."""
    wanted = parse(reference)
    if wanted.digest:
        raise InvalidError(f"{reference} names a digest; a push needs a tag")
    settings = settings or ImageSettings()
    if credentials is None:
        credentials = await find_credentials(wanted.registry, read_docker_config(config_path(settings.docker_config)))
    descriptor, raw = read_layout(layout)
    async with RegistryClient(wanted, settings, credentials) as client:
        await _push_blobs(client, layout, raw, progress)
        await _push_manifest(client, wanted, descriptor, raw)
    return descriptor.digest


def read_layout(layout: Path) -> tuple[Descriptor, bytes]:
    """The descriptor and bytes of the layout's manifest for this platform."""
    try:
        index = parse_manifest((layout / "index.json").read_bytes(), what=f"the index of {layout}")
    except (FileNotFoundError, NotADirectoryError) as error:
        raise NotFoundError(f"{layout} is not an OCI layout: it has no index.json") from error
    if not isinstance(index, Index):
        raise HostileError(f"the index of {layout} is a manifest")
    descriptor = choose(index, f"the layout {layout}")
    return descriptor, _blob(layout, descriptor).read_bytes()


def _blob(layout: Path, descriptor: Descriptor) -> Path:
    algorithm, _, value = descriptor.digest.partition(":")
    path = layout / "blobs" / algorithm / value
    if not path.is_file():
        raise NotFoundError(f"the layout {layout} lacks the blob {descriptor.digest}")
    return path


async def _push_blobs(client: RegistryClient, layout: Path, raw: bytes, progress: Callable[[int, int], None]) -> None:
    manifest = parse_manifest(raw, what=f"the manifest of {layout}")
    if not isinstance(manifest, Manifest):
        raise InvalidError(f"the layout {layout} nests indexes")
    blobs = list({blob.digest: blob for blob in (*manifest.layers, manifest.config)}.values())
    total, done = sum(blob.size for blob in blobs), 0
    for blob in blobs:
        await _push_blob(client, _blob(layout, blob), blob)
        done += blob.size
        progress(done, total)


async def _push_blob(client: RegistryClient, path: Path, blob: Descriptor) -> None:
    async def present() -> bool:
        async with client.request("HEAD", f"blobs/{blob.digest}", actions=_ACTIONS) as response:
            return response.status_code == 200

    async def start() -> str:
        async with client.request("POST", "blobs/uploads/", actions=_ACTIONS, content=b"") as response:
            client.expect(response, 202, "an upload")
            return str(
                response.url.join(response.headers.get("location", "")).copy_merge_params({"digest": blob.digest})
            )

    if await client.transport.persist(present, "asking for a blob"):
        return
    location = await client.transport.persist(start, "starting an upload")
    headers = {"Content-Length": str(path.stat().st_size), "Content-Type": "application/octet-stream"}
    seconds = _SLACK + blob.size / client.settings.min_rate
    put = client.request("PUT", location, headers=headers, content=_pieces(path), actions=_ACTIONS)
    async with aio.deadline(seconds, f"uploading {blob.digest[:19]}"), put as response:
        client.expect(response, 201, f"the blob {blob.digest}")


async def _pieces(path: Path) -> AsyncIterator[bytes]:
    with path.open("rb") as file:
        while piece := file.read(_PIECE):
            yield piece


async def _push_manifest(client: RegistryClient, reference: Reference, descriptor: Descriptor, raw: bytes) -> None:
    async def put() -> None:
        headers = {"Content-Type": descriptor.media_type or OCI_MANIFEST}
        async with client.request(
            "PUT", f"manifests/{reference.tag}", headers=headers, content=raw, actions=_ACTIONS
        ) as response:
            client.expect(response, 201, f"the manifest {descriptor.digest}")

    await client.transport.persist(put, "pushing the manifest")
