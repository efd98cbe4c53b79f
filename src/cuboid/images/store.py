"""The store of image devices on this host. Implements `base.ImageStore`.

    records/HEX.json   one per image, replaced whole; the only truth about names
    devices/HEX.erofs  read only, named after the layers' digests; complete from the moment it has this name
    blobs/             layers on the way (NAME.part) and, if settings keep them, layers
    holds/UID/HEX      which pod needs which image
    work/              each pull's own folder, locked by it; swept when it is not
    locks/             flock files: `active` is shared by pulls, `store` guards records, one per device and blob

Several processes may use one folder. Whatever dies at whatever moment leaves whole records, whole devices, and
things for `sweep`.
"""

from __future__ import annotations

import asyncio
import contextlib
import errno
import os
import shutil
import tempfile
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from pathlib import Path

from cuboid.images.archive import ArchivedImage, open_archive
from cuboid.images.auth import config_path, find_credentials, read_docker_config
from cuboid.images.base import Credentials, Image, Phase, Progress, ProgressHook
from cuboid.images.bundle import Bundle
from cuboid.images.convert.run import Layer, convert
from cuboid.images.holds import Holds
from cuboid.images.locks import abandoned, locked, locked_briefly, locked_if_free, try_lock
from cuboid.images.manifest import ARCHITECTURE
from cuboid.images.pull import BlobFolder, describe, fetch_layers
from cuboid.images.records import Record, RecordFolder, merge
from cuboid.images.reference import Reference, parse
from cuboid.images.registry import RegistryClient
from cuboid.images.settings import ImageSettings
from cuboid.images.shared import SharedRuns
from cuboid.lib.clock import Clock, SystemClock
from cuboid.lib.errors import ConflictError, CuboidError, ExhaustedError, InvalidError, NotFoundError
from cuboid.lib.log import get_log
from cuboid.lib.paths import sync_folder
from cuboid.lib.threads import in_thread

log = get_log(__name__)
_FOLDERS = ("records", "devices", "blobs", "holds", "work", "locks", "empty")


class LocalImageStore:
    """See `base.ImageStore`. `state` is this store's own folder; it is made if it is missing."""

    def __init__(self, state: Path, *, settings: ImageSettings | None = None, clock: Clock | None = None) -> None:
        self._state = state
        self._settings = settings or ImageSettings()
        self._clock = clock or SystemClock()
        for name in _FOLDERS:
            (state / name).mkdir(mode=0o700, parents=True, exist_ok=True)
        for folder in (state, state / "devices"):
            folder.chmod(0o700)  # private images are in it; VMMs and converters are handed open descriptors
        self._records = RecordFolder(state / "records")
        self._blobs = BlobFolder(state / "blobs", state / "locks")
        self._holds = Holds(state / "holds")
        self._pulls: SharedRuns[Image] = SharedRuns("image-pulls")
        self._conversions = asyncio.Semaphore(self._settings.parallel_conversions)

    # --- what is here ------------------------------------------------------------------------------------------------

    async def resolve(self, reference: str, *, credentials: Credentials | None = None) -> Image | None:
        """See base. Answers from memory; credentials play no part for what is here already."""
        record = self._records.index().find(reference)
        return record.image(self._devices) if record else None

    def images(self) -> list[Image]:
        """All images, the latest first."""
        records = self._records.index().by_id.values()
        return [r.image(self._devices) for r in sorted(records, key=lambda r: (-r.pulled_at, r.id))]

    @property
    def _devices(self) -> Path:
        return self._state / "devices"

    # --- pull and import ---------------------------------------------------------------------------------------------

    async def pull(
        self, reference: str, *, credentials: Credentials | None = None, progress: ProgressHook | None = None
    ) -> Image:
        """See base. Always asks the registry what a tag means now; layers come only if the device is not here."""
        wanted = parse(reference)
        return await self._pulls.join(
            (wanted.key, credentials), lambda tell: self._pull(wanted, credentials, tell), progress
        )

    async def _pull(self, reference: Reference, credentials: Credentials | None, tell: ProgressHook) -> Image:
        tell(Progress(Phase.RESOLVE))
        if credentials is None:
            config = read_docker_config(config_path(self._settings.docker_config))
            credentials = await find_credentials(reference.registry, config)
        try:
            async with RegistryClient(reference, self._settings, credentials) as client, self._work() as folder:
                return await self._pull_with(client, reference, folder, tell)
        finally:
            self._trim_blobs()

    async def _pull_with(self, client: RegistryClient, reference: Reference, folder: Path, tell: ProgressHook) -> Image:
        found = await describe(client, reference)

        async def layers() -> list[Path]:
            total = sum({layer.digest: layer.size for layer in found.layers}.values())
            self._check_space(total)
            files = await fetch_layers(
                client, found.layers, self._blobs, folder, lambda n: tell(Progress(Phase.DOWNLOAD, n, total))
            )
            return [files[layer.digest] for layer in found.layers]

        return await self._realise(found, layers, folder, tell)

    async def import_archive(
        self, path: Path, *, name: str | None = None, progress: ProgressHook | None = None
    ) -> list[Image]:
        """See base. `name` renames the one image of an archive."""
        tell = progress or (lambda _: None)
        tell(Progress(Phase.RESOLVE))
        key = _tag(name) if name else ""
        async with self._work() as folder:
            found = await in_thread(open_archive, path, folder, self._settings)
            if key and len(found) != 1:
                raise InvalidError(f"{path} holds {len(found)} images: one name does not fit them")
            return [await self._import(archived, key, folder, tell) for archived in found]

    async def _import(self, archived: ArchivedImage, name: str, folder: Path, tell: ProgressHook) -> Image:
        async def layers() -> list[Path]:
            self._check_space(sum(layer.size for layer in archived.bundle.layers))
            return list(archived.files)

        return await self._realise(archived.bundle, layers, folder, tell, name)

    @contextlib.asynccontextmanager
    async def _work(self) -> AsyncIterator[Path]:
        """A folder of one's own, safe from other processes' sweeps; a full disk is put into words."""
        async with locked(self._lock("active"), shared=True):
            folder, lock = self._own_folder()
            try:
                yield folder
            except OSError as error:
                if error.errno in (errno.ENOSPC, errno.EDQUOT):
                    raise _disk_full() from error
                raise
            finally:
                await in_thread(shutil.rmtree, folder, ignore_errors=True)
                os.close(lock)

    def _own_folder(self) -> tuple[Path, int]:
        """A new folder, and the lock on it that tells sweeps that somebody works there."""
        with locked_briefly(self._lock("store")):
            folder = Path(tempfile.mkdtemp(dir=self._state / "work"))
            lock = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
            try_lock(lock, shared=False)
        return folder, lock

    # --- devices -----------------------------------------------------------------------------------------------------

    async def _realise(
        self,
        found: Bundle,
        layers: Callable[[], Awaitable[list[Path]]],
        folder: Path,
        tell: ProgressHook,
        name: str = "",
    ) -> Image:
        """Make the device unless it is here, then write the record."""
        device = self._devices / f"{found.device_key}.erofs"
        async with locked(self._lock(found.device_key)):
            while True:
                if not device.exists():
                    await self._convert(found, await layers(), folder, device, tell)
                with contextlib.suppress(FileNotFoundError):  # removed at this moment, with its last image: once more
                    image = self._commit(found, device, name)
                    break
        tell(Progress(Phase.DONE))
        return image

    async def _convert(self, found: Bundle, files: list[Path], folder: Path, device: Path, tell: ProgressHook) -> None:
        total = sum(file.stat().st_size for file in files)

        def step(done: int) -> None:
            tell(Progress(Phase.CONVERT, done, total))
            self._check_space(0)

        tell(Progress(Phase.CONVERT, 0, total))
        layers = [Layer(file, diff_id) for file, diff_id in zip(files, found.configuration.diff_ids, strict=True)]
        new = folder / "device"
        new.unlink(missing_ok=True)
        uuid = bytes.fromhex(found.device_key)[:16]
        async with self._conversions:
            await convert(layers, new, uuid, self._settings, empty_root=self._state / "empty", progress=step)
        new.chmod(0o400)
        new.rename(device)
        sync_folder(self._devices)

    def _commit(self, found: Bundle, device: Path, name: str) -> Image:
        """Write the record; a name that meant another image until now means this one. FileNotFoundError: no device."""
        names = (name,) if name else found.names
        with locked_briefly(self._lock("store")):
            record = self._describe(found, device, names)
            index = self._records.index()
            for moved in names:
                owner = index.named(moved)
                if owner and owner.id != found.id and moved in owner.names:
                    self._records.write(owner.without(moved))
            record = merge(record, index.by_id.get(found.id))
            self._records.write(record)
        return record.image(self._devices)

    def _describe(self, found: Bundle, device: Path, names: tuple[str, ...]) -> Record:
        return Record(
            id=found.id, digest=found.digest, names=names, pins=found.pins, device=device.name,
            device_bytes=device.stat().st_size, config=found.configuration.run, architecture=ARCHITECTURE,
            created=found.configuration.created, layers=tuple(layer.digest for layer in found.layers),
            pulled_at=self._clock.now(),
        )  # fmt: skip

    # --- removal -----------------------------------------------------------------------------------------------------

    async def remove(self, reference: str) -> list[str]:
        """See base. By id: all its names go."""
        with locked_briefly(self._lock("store")):
            record = self._records.index().find(reference)
            if record is None:
                raise NotFoundError(f"there is no image {reference} on this host", hint="cuboid images")
            going = [name for name in _names_meant(record, reference) if name in record.names]
            if set(record.names) - set(going):
                for name in going:
                    record = record.without(name)
                self._records.write(record)
                return going
            self._check_unheld(record, reference)
            self._records.delete(record)
            self._delete_device(record.device)
        return [*going, record.id]

    def _check_unheld(self, record: Record, reference: str) -> None:
        pods = self._holds.pods_of(record.id)
        if pods:
            raise ConflictError(
                f"the image {reference} is used by {len(pods)} pod{'s' if len(pods) > 1 else ''}",
                hint=f"remove the pod first: {', '.join(pods[:3])}",
            )

    def _delete_device(self, name: str) -> None:
        """Only with the store's lock held, and unless another image has the same layers."""
        if all(record.device != name for record in self._records.index().by_id.values()):
            (self._devices / name).unlink(missing_ok=True)

    def hold(self, image: Image, pod_uid: str) -> None:
        """See base. NotFoundError if the image was removed meanwhile."""
        with locked_briefly(self._lock("store")):
            if image.id not in self._records.index().by_id:
                raise NotFoundError(f"the image {image.id} is not on this host any more", hint="pull it again")
            self._holds.add(image.id, pod_uid)

    def release(self, pod_uid: str) -> None:
        """See base."""
        with locked_briefly(self._lock("store")):
            self._holds.drop(pod_uid)

    def holders(self) -> set[str]:
        """See base."""
        return self._holds.pods()

    async def sweep(self) -> None:
        """See base. While somebody pulls, only what an interrupted pull left is removed."""
        await in_thread(self._sweep_work)
        with locked_if_free(self._lock("active")) as alone:
            if alone:
                await in_thread(self._sweep)

    def _sweep_work(self) -> None:
        for leftover in (self._state / "work").iterdir():
            with contextlib.ExitStack() as held:
                with locked_briefly(self._lock("store")):
                    free = held.enter_context(abandoned(leftover))
                if free:
                    shutil.rmtree(leftover, ignore_errors=True)

    def _sweep(self) -> None:
        with locked_briefly(self._lock("store")):
            for leftover in (self._state / "records").glob(".*.new"):
                leftover.unlink(missing_ok=True)
            self._sweep_records()
        for part in (self._state / "blobs").glob("*.part"):
            if time.time() - part.stat().st_mtime > self._settings.partial_seconds:
                part.unlink(missing_ok=True)
        self._blobs.trim(self._settings.blob_cache_bytes)
        for lock in (self._state / "locks").iterdir():
            if lock.name not in ("active", "store"):
                lock.unlink(missing_ok=True)

    def _sweep_records(self) -> None:
        """A device without a record is of no use, nor is a record without its device."""
        wanted = set()
        for record in list(self._records.index().by_id.values()):
            if (self._devices / record.device).exists():
                wanted.add(record.device)
            else:
                log.warning("an image's device is gone; it must be pulled again", image=record.id, names=record.names)
                self._records.delete(record)
        for device in self._devices.iterdir():
            if device.name not in wanted:
                device.unlink(missing_ok=True)

    # --- small things ------------------------------------------------------------------------------------------------

    def _trim_blobs(self) -> None:
        with locked_if_free(self._lock("active")) as alone:
            if alone:
                self._blobs.trim(self._settings.blob_cache_bytes)

    def _check_space(self, needed: int) -> None:
        """ExhaustedError before the disk is full, not when."""
        status = os.statvfs(self._state)
        free = status.f_bavail * status.f_frsize
        if free - needed < self._settings.min_free_bytes:
            raise _disk_full(f": {free >> 20} MiB are free, {needed >> 20} MiB are needed")

    def _lock(self, name: str) -> Path:
        return self._state / "locks" / name


def _disk_full(detail: str = "") -> CuboidError:
    return ExhaustedError(
        f"no space is left on the disk for the image{detail}",
        hint="cuboid image rm what is unused",
        reason="ErrImagePull",
    )


def _tag(name: str) -> str:
    reference = parse(name)
    if reference.digest:
        raise InvalidError(f"{name} names a digest, which only the image itself can have")
    return reference.key


def _names_meant(record: Record, reference: str) -> tuple[str, ...]:
    """The names of the record that a removal by `reference` takes away."""
    with contextlib.suppress(InvalidError):
        key = parse(reference).key
        if key in record.names:
            return (key,)
    return record.names
