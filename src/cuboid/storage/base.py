"""What the layers above know of storage on one host: sparse block devices that belong to a pod or to a name."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Protocol


@dataclass(frozen=True)
class BlockDevice:
    path: Path
    size_bytes: int
    used_bytes: int  # blocks allocated on the host


@dataclass(frozen=True)
class NamedVolume:
    """A volume that outlives pods: `-v NAME:/path`. One pod at a time writes to it."""

    namespace: str
    name: str
    device: BlockDevice
    holder: str  # pod uid, "" when free
    created_at: float


class Disks(Protocol):
    async def create_writable(self, pod_uid: str, size_bytes: int) -> Path:
        """A sparse file with an empty ext4 (made unprivileged), the pod's writable layer. Idempotent per pod uid.
        ExhaustedError when the host's disk has no room left for it to be useful."""
        ...

    async def prepare_writables(self, size_bytes: int, count: int) -> None:
        """Have this many writable devices of this size ready for `create_writable`, which takes one without waiting for
        any disk; fewer or none (0) of a size are removed. They are made again as they are taken. They are no pod's
        (`writable_pods`), and not kept over a restart. ExhaustedError as `create_writable`."""
        ...

    def ready_writables(self, size_bytes: int) -> int:
        """How many of this size are ready now."""
        ...

    async def close(self) -> None:
        """End what is made in the background."""
        ...

    async def remove_writable(self, pod_uid: str) -> None: ...

    def writable_pods(self) -> set[str]: ...

    async def acquire_volume(self, namespace: str, name: str, pod_uid: str, size_bytes: int, *, pod: str = "") -> Path:
        """Create the named volume if missing and hold it for this pod, whose name is `pod`.
        ConflictError naming the pod that holds it."""
        ...

    async def release_volumes(self, pod_uid: str) -> None: ...

    def volumes(self) -> list[NamedVolume]: ...

    async def remove_volume(self, namespace: str, name: str) -> None:
        """NotFoundError, ConflictError while held."""
        ...
