"""Fetching from a registry: first what an image is (small), then its layers (large, in parallel)."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from pathlib import Path

from cuboid.images import bundle
from cuboid.images.bundle import Bundle
from cuboid.images.download import download
from cuboid.images.locks import locked
from cuboid.images.manifest import Descriptor, Index, Manifest, choose, parse_config, parse_manifest
from cuboid.images.reference import Reference
from cuboid.images.registry import Fetched, RegistryClient
from cuboid.lib.errors import CuboidError, HostileError, UnsupportedError


async def describe(client: RegistryClient, reference: Reference) -> Bundle:
    """Follow the reference to a manifest for this platform and its configuration; everything checked."""
    what = f"the image {reference.familiar}"
    fetched = await client.manifest(reference.digest or reference.tag)
    pins = [f"{reference.name}@{fetched.digest}"]
    manifest = parse_manifest(fetched.raw, fetched.media_type, what=f"the manifest of {what}")
    for _ in range(2):  # an index may hold an index
        if isinstance(manifest, Manifest):
            break
        fetched = await _chosen(client, manifest, what)
        pins.append(f"{reference.name}@{fetched.digest}")
        manifest = parse_manifest(fetched.raw, fetched.media_type, what=f"the manifest of {what}")
    if isinstance(manifest, Index):
        raise UnsupportedError(f"{what} nests indexes more than twice")
    raw = await client.small_blob(manifest.config, "the configuration")
    configuration = parse_config(raw, what=f"the configuration of {what}")
    bundle.check(configuration, manifest.layers, client.settings, what)
    name = reference.key
    return Bundle(manifest.config.digest, fetched.digest, (name,), tuple(pins), configuration, manifest.layers)


async def _chosen(client: RegistryClient, index: Index, what: str) -> Fetched:
    descriptor = choose(index, what)
    fetched = await client.manifest(descriptor.digest)
    if len(fetched.raw) != descriptor.size:
        raise HostileError(f"the manifest of {what} has another size than its index says")
    return fetched


class BlobFolder:
    """Layers on disk: `NAME` whole and verified, `NAME.part` on the way. Shared by all pulls of all processes."""

    def __init__(self, path: Path, locks: Path) -> None:
        self.path = path
        self._locks = locks

    async def fetch(
        self, client: RegistryClient, descriptor: Descriptor, link: Path, progress: Callable[[int], None]
    ) -> None:
        """Give the pull its own hard link to the blob, downloading what is missing of it."""
        name = descriptor.digest.replace(":", "-")
        whole = self.path / name
        async with locked(self._locks / name):
            if not whole.exists():
                await download(client, descriptor, self.path / f"{name}.part", whole, progress)
            link.hardlink_to(whole)
        progress(descriptor.size)

    def trim(self, most: int) -> None:
        """Remove whole blobs, those longest unused first, until at most `most` bytes are left."""
        blobs = sorted(
            (blob for blob in self.path.iterdir() if blob.suffix != ".part"), key=lambda b: b.stat().st_mtime
        )
        total = sum(blob.stat().st_size for blob in blobs)
        for blob in blobs:
            if total <= most:
                return
            total -= blob.stat().st_size
            blob.unlink()


async def fetch_layers(
    client: RegistryClient,
    layers: tuple[Descriptor, ...],
    blobs: BlobFolder,
    folder: Path,
    progress: Callable[[int], None],
) -> dict[str, Path]:
    """Each distinct layer as a file in `folder`, by digest; `parallel_layers` at once. The first failure ends all."""
    unique = {layer.digest: layer for layer in layers}
    done = dict.fromkeys(unique, 0)
    slots = asyncio.Semaphore(client.settings.parallel_layers)

    async def one(layer: Descriptor) -> None:
        def count(so_far: int) -> None:
            done[layer.digest] = so_far
            progress(sum(done.values()))

        async with slots:
            await blobs.fetch(client, layer, folder / layer.digest.replace(":", "-"), count)

    try:
        async with asyncio.TaskGroup() as group:
            for layer in unique.values():
                group.create_task(one(layer), name=f"layer {layer.digest[:19]}")
    except BaseExceptionGroup as failures:
        raise _first(failures) from failures
    return {digest: folder / digest.replace(":", "-") for digest in unique}


def _first(failures: BaseExceptionGroup[BaseException]) -> BaseException:
    """The failure to tell of: one of ours before anything else."""
    ours = failures.subgroup(CuboidError)
    first: BaseException = ours or failures
    while isinstance(first, BaseExceptionGroup):
        first = first.exceptions[0]
    return first
