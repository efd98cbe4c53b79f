"""Which pods keep which images: an empty file per pair, so that a hold is there whole or not at all.

None is synced to disk: that would stop each start for two writes of the disk. What a hold protects, a pod that runs,
ends with the host; a hold that comes back with the host and has no pod is released when the node agent starts.
"""

from __future__ import annotations

import os
import re
import shutil
from pathlib import Path

from cuboid.lib.errors import InvalidError

_POD_UID = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,252}", re.ASCII)


class Holds:
    def __init__(self, path: Path) -> None:
        self._path = path

    def add(self, image_id: str, pod_uid: str) -> None:
        folder = self._folder(pod_uid)
        folder.mkdir(mode=0o700, exist_ok=True)
        os.close(os.open(folder / image_id.partition(":")[2], os.O_WRONLY | os.O_CREAT | os.O_CLOEXEC, 0o600))

    def drop(self, pod_uid: str) -> None:
        shutil.rmtree(self._folder(pod_uid), ignore_errors=True)

    def pods(self) -> set[str]:
        return {folder.name for folder in self._path.iterdir()}

    def pods_of(self, image_id: str) -> list[str]:
        name = image_id.partition(":")[2]
        return sorted(folder.name for folder in self._path.iterdir() if (folder / name).exists())

    def _folder(self, pod_uid: str) -> Path:
        if not _POD_UID.fullmatch(pod_uid):
            raise InvalidError(f"{pod_uid[:80]!r} is not a pod's uid")
        return self._path / pod_uid
