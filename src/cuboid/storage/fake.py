"""`FakeDisks`: the contract of `Disks` in memory, with failures on demand. Its paths name no files."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

from cuboid.lib.errors import ConflictError, CuboidError, NotFoundError
from cuboid.storage import ext4
from cuboid.storage.base import BlockDevice, NamedVolume
from cuboid.storage.names import check_uid, check_volume


class FakeDisks:
    """`calls` holds every call as (method, first argument). `fail(method, error)` makes its next call raise."""

    def __init__(self, root: Path = Path("/fake/disks")) -> None:
        self.calls: list[tuple[str, str]] = []
        self._root = root
        self._failures: dict[str, CuboidError] = {}
        self._writable: dict[str, Path] = {}
        self._volumes: dict[tuple[str, str], NamedVolume] = {}
        self._names: dict[str, str] = {}  # of pods, by uid
        self._ready: dict[int, int] = {}

    def fail(self, method: str, error: CuboidError) -> None:
        if not hasattr(self, method):
            raise ValueError(f"there is no method {method!r}")
        self._failures[method] = error

    def _called(self, method: str, argument: str) -> None:
        self.calls.append((method, argument))
        if error := self._failures.pop(method, None):
            raise error

    async def create_writable(self, pod_uid: str, size_bytes: int) -> Path:
        check_uid(pod_uid)
        ext4.rounded(size_bytes)
        self._called("create_writable", pod_uid)
        return self._writable.setdefault(pod_uid, self._root / "writable" / f"{pod_uid}.ext4")

    async def prepare_writables(self, size_bytes: int, count: int) -> None:
        size = ext4.rounded(size_bytes)
        self._called("prepare_writables", str(size))
        self._ready[size] = count

    def ready_writables(self, size_bytes: int) -> int:
        return self._ready.get(ext4.rounded(size_bytes), 0)

    async def close(self) -> None:
        self._called("close", "")
        self._ready.clear()

    async def remove_writable(self, pod_uid: str) -> None:
        check_uid(pod_uid)
        self._called("remove_writable", pod_uid)
        self._writable.pop(pod_uid, None)

    def writable_pods(self) -> set[str]:
        return set(self._writable)

    async def acquire_volume(self, namespace: str, name: str, pod_uid: str, size_bytes: int, *, pod: str = "") -> Path:
        check_volume(namespace, name)
        check_uid(pod_uid)
        self._called("acquire_volume", name)
        volume = self._volumes.get((namespace, name))
        if volume is None:
            device = BlockDevice(self._root / namespace / f"{name}.ext4", ext4.rounded(size_bytes), 0)
            volume = NamedVolume(namespace, name, device, "", 0.0)
        if volume.holder not in ("", pod_uid):
            raise ConflictError(
                f"the volume {namespace}/{name} is in use by the pod {self._names.get(volume.holder) or volume.holder}",
                reason="VolumeInUse",
            )
        self._volumes[namespace, name] = replace(volume, holder=pod_uid)
        self._names[pod_uid] = pod
        return volume.device.path

    async def release_volumes(self, pod_uid: str) -> None:
        self._called("release_volumes", pod_uid)
        for key, volume in self._volumes.items():
            if volume.holder == pod_uid:
                self._volumes[key] = replace(volume, holder="")

    def volumes(self) -> list[NamedVolume]:
        return [self._volumes[key] for key in sorted(self._volumes)]

    def volume(self, namespace: str, name: str) -> NamedVolume:
        check_volume(namespace, name)
        if (namespace, name) not in self._volumes:
            raise NotFoundError(f"there is no volume {namespace}/{name}")
        return self._volumes[namespace, name]

    async def remove_volume(self, namespace: str, name: str) -> None:
        self._called("remove_volume", name)
        if holder := self.volume(namespace, name).holder:
            raise ConflictError(
                f"the volume {namespace}/{name} is in use by the pod {self._names.get(holder) or holder}",
                reason="VolumeInUse",
            )
        del self._volumes[namespace, name]
