"""Settings of a host's disks: table `[storage]` of the settings file."""

from __future__ import annotations

from dataclasses import dataclass

from cuboid.lib.settings import setting


@dataclass(frozen=True)
class StorageSettings:
    """Read with `cuboid.lib.settings.load(StorageSettings, "storage")`."""

    reserve_mib: int = setting(
        1024, unit="MiB", why="free space of the host's disk that no new device may count on: the host must live on"
    )
    minimum_mib: int = setting(
        64,
        unit="MiB",
        why="free space beyond the reserve without which a new device is refused instead of failing later",
    )
    mkfs_deadline: float = setting(30.0, unit="s", why="one mkfs.ext4; normally 5 to 30 ms")
    templates: int = setting(16, why="empty file systems kept to copy from, one per size; each takes about 0.1 MB")
    ready: int = setting(
        64, why="devices of one size that wait for pods, at most, however many are asked for; each takes about 0.1 MB"
    )
