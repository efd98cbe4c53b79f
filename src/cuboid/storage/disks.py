"""`LocalDisks`: block devices as sparse files on the host's disk. Their content is the guests' and never read here."""

from __future__ import annotations

import asyncio
import os
import shutil
import time
from pathlib import Path

from cuboid.lib.aio import in_thread
from cuboid.lib.errors import ConflictError, ExhaustedError, NotFoundError
from cuboid.lib.paths import sync_folder
from cuboid.storage import ext4
from cuboid.storage.base import BlockDevice, NamedVolume
from cuboid.storage.names import check_uid, check_volume
from cuboid.storage.ready import ReadyDevices
from cuboid.storage.records import VolumeRecord, VolumeRecords
from cuboid.storage.settings import StorageSettings

_TEMPLATE_FORMAT = 2  # raise it when ext4.ephemeral changes


class LocalDisks:
    """Implements `cuboid.storage.base.Disks`. `state` is the root of `cuboid.lib.paths.Paths`.

    A writable layer lives as long as its pod, through any number of VMs. One that was made before the host's last boot
    counts as not there: it was never synced to disk. All files are root's, mode 0600.
    """

    def __init__(self, state: Path, settings: StorageSettings) -> None:
        self._settings = settings
        root = state / "disks"
        boot = Path("/proc/sys/kernel/random/boot_id").read_text().strip()
        self._templates = root / "templates" / boot
        self._writable = root / "writable"
        self._current = self._writable / boot
        self._volumes = root / "volumes"
        for folder in (self._templates, self._current, self._volumes):
            folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        self._records = VolumeRecords(self._volumes)
        self._making = asyncio.Lock()
        self._changing = asyncio.Lock()
        self._sweep()
        self._ready = ReadyDevices(root / "ready", self._make_writable, most=settings.ready)

    def _sweep(self) -> None:
        """Remove what an interrupted creation left, and templates of earlier boots: they were not synced either."""
        for old in self._templates.parent.iterdir():
            if old.is_dir() and old != self._templates:
                shutil.rmtree(old)
            elif not old.is_dir():
                old.unlink()
        for folder in (self._templates, self._current, *self._volumes.iterdir()):
            for path in folder.glob(".*.new") if folder.is_dir() else ():
                path.unlink(missing_ok=True)

    async def create_writable(self, pod_uid: str, size_bytes: int) -> Path:
        """See `Disks.create_writable`. The size is the pod's ephemeral-storage limit, rounded up to whole MiB."""
        path = self._current / f"{check_uid(pod_uid)}.ext4"
        size = ext4.rounded(size_bytes)
        if path.exists():
            return path
        await self.remove_writable(pod_uid)
        self._require_room()
        if not self._ready.take(size, path):
            await self._make_writable(path, size)
        return path

    async def _make_writable(self, path: Path, size: int) -> None:
        self._require_room()
        template = await self._template(size)
        new = path.with_name(f".{path.name}.new")
        try:
            await in_thread(lambda: ext4.copy_sparse(template, new))
            new.replace(path)
        finally:
            new.unlink(missing_ok=True)

    async def _template(self, size: int) -> Path:
        """An empty file system of this size to copy from, made by the first who wants one."""
        path = self._templates / f"{size}.v{_TEMPLATE_FORMAT}.ext4"
        async with self._making:
            if path.exists():
                os.utime(path)
            else:
                await ext4.make(path, size, ext4.ephemeral(size), deadline=self._settings.mkfs_deadline, durable=False)
                self._drop_old_templates()
        return path

    def _drop_old_templates(self) -> None:
        newest_first = sorted(self._templates.glob("*.ext4"), key=lambda path: path.stat().st_mtime, reverse=True)
        for path in newest_first[self._settings.templates :]:
            path.unlink(missing_ok=True)

    def _require_room(self) -> None:
        status = os.statvfs(self._writable)
        free = status.f_bavail * status.f_frsize // ext4.MIB
        reserve = self._settings.reserve_mib
        if free < reserve + self._settings.minimum_mib:
            raise ExhaustedError(
                f"the disk of {self._writable} has {free} MiB free, of which {reserve} MiB are reserved",
                hint="free space, for example by `cuboid image rm`, or lower [storage] reserve_mib",
                reason="DiskPressure",
            )

    async def prepare_writables(self, size_bytes: int, count: int) -> None:
        """See `Disks.prepare_writables`. `[storage] ready` bounds the count."""
        await self._ready.want(ext4.rounded(size_bytes), count)

    def ready_writables(self, size_bytes: int) -> int:
        """See `Disks.ready_writables`."""
        return self._ready.count(ext4.rounded(size_bytes))

    async def close(self) -> None:
        """See `Disks.close`."""
        await self._ready.close()

    async def remove_writable(self, pod_uid: str) -> None:
        """See `Disks.remove_writable`. Idempotent."""
        check_uid(pod_uid)
        for boot in self._writable.iterdir():
            await _unlink(boot / f"{pod_uid}.ext4")
            if boot != self._current and not any(boot.iterdir()):
                boot.rmdir()

    def writable_pods(self) -> set[str]:
        """Uids that have a writable layer, from earlier boots too: those are to be removed."""
        names = (path.name for boot in self._writable.iterdir() for path in boot.iterdir())
        return {name.removesuffix(".ext4") for name in names if name.endswith(".ext4") and not name.startswith(".")}

    async def acquire_volume(self, namespace: str, name: str, pod_uid: str, size_bytes: int, *, pod: str = "") -> Path:
        """See `Disks.acquire_volume`. A volume that exists keeps its size. Idempotent per pod."""
        check_volume(namespace, name)
        check_uid(pod_uid)
        async with self._changing:
            record = self._records.get(namespace, name)
            if record is not None and record.holder not in ("", pod_uid):
                raise ConflictError(
                    f"the volume {namespace}/{name} is in use by the pod {record.used_by}",
                    hint="a named volume has one pod at a time; for several, use NFS",
                    reason="VolumeInUse",
                )
            if record is None:
                record = VolumeRecord(namespace, name, ext4.rounded(size_bytes), "", time.time())
            await self._write(record.held_by(pod_uid, pod))
            await self._ensure_device(record)
            return self._device(namespace, name)

    async def _write(self, record: VolumeRecord) -> None:
        """Durably, and not on the event loop: a slow disk must not hold up other pods."""
        await in_thread(lambda: self._records.put(record))

    async def _ensure_device(self, record: VolumeRecord) -> None:
        """The record is there first; if making the device fails, it is as before."""
        device = self._device(record.namespace, record.name)
        if device.exists():
            return
        try:
            self._require_room()
            await ext4.make(
                device, record.size_bytes, ext4.LASTING, deadline=self._settings.mkfs_deadline, durable=True
            )
            await in_thread(lambda: sync_folder(device.parent))
        except BaseException:
            self._records.drop(record.namespace, record.name)
            raise

    def _device(self, namespace: str, name: str) -> Path:
        return self._volumes / namespace / f"{name}.ext4"

    async def release_volumes(self, pod_uid: str) -> None:
        """See `Disks.release_volumes`. Idempotent."""
        async with self._changing:
            for record in self._records.all():
                if record.holder == pod_uid:
                    await self._write(record.held_by(""))

    def volumes(self) -> list[NamedVolume]:
        """By namespace and name."""
        return [self._described(record) for record in self._records.all()]

    def volume(self, namespace: str, name: str) -> NamedVolume:
        """NotFoundError."""
        check_volume(namespace, name)
        return self._described(self._required(namespace, name))

    def _required(self, namespace: str, name: str) -> VolumeRecord:
        record = self._records.get(namespace, name)
        if record is None:
            raise NotFoundError(f"there is no volume {namespace}/{name}")
        return record

    def _described(self, record: VolumeRecord) -> NamedVolume:
        device = self._device(record.namespace, record.name)
        used = device.stat().st_blocks * 512 if device.exists() else 0
        block = BlockDevice(device, record.size_bytes, used)
        return NamedVolume(record.namespace, record.name, block, record.holder, record.created_at)

    async def remove_volume(self, namespace: str, name: str) -> None:
        """See `Disks.remove_volume`. The data goes before the record: an interrupted removal never brings it back."""
        check_volume(namespace, name)
        async with self._changing:
            record = self._required(namespace, name)
            if record.holder:
                raise ConflictError(
                    f"the volume {namespace}/{name} is in use by the pod {record.used_by}",
                    hint="remove that pod first",
                    reason="VolumeInUse",
                )
            device = self._device(namespace, name)
            device.unlink(missing_ok=True)
            sync_folder(device.parent)
            self._records.drop(namespace, name)


async def _unlink(path: Path) -> None:
    """Not on the event loop: the blocks of a large file are freed one by one."""
    if path.exists():
        await in_thread(lambda: path.unlink(missing_ok=True))
