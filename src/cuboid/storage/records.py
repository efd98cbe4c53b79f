"""One small durable record per named volume, beside its device."""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass, replace
from pathlib import Path

from cuboid.lib.log import get_log
from cuboid.lib.paths import sync_folder, write_atomic

log = get_log(__name__)


@dataclass(frozen=True)
class VolumeRecord:
    namespace: str
    name: str
    size_bytes: int
    holder: str  # pod uid, "" when free
    created_at: float
    pod: str = ""  # the holder's name, for people

    @property
    def used_by(self) -> str:
        return self.pod or self.holder

    def held_by(self, pod_uid: str, pod: str = "") -> VolumeRecord:
        return replace(self, holder=pod_uid, pod=pod)


class VolumeRecords:
    """`<folder>/<namespace>/<name>.json`; the caller has checked both names."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder

    def _path(self, namespace: str, name: str) -> Path:
        return self._folder / namespace / f"{name}.json"

    def put(self, record: VolumeRecord) -> None:
        path = self._path(record.namespace, record.name)
        if not path.parent.is_dir():
            path.parent.mkdir(mode=0o700)
            sync_folder(self._folder)
        write_atomic(path, json.dumps(asdict(record)).encode())

    def get(self, namespace: str, name: str) -> VolumeRecord | None:
        return _read(self._path(namespace, name))

    def drop(self, namespace: str, name: str) -> None:
        path = self._path(namespace, name)
        path.unlink(missing_ok=True)
        sync_folder(path.parent)

    def all(self) -> list[VolumeRecord]:
        paths = sorted(path for path in self._folder.glob("*/*.json") if not path.name.startswith("."))
        return [record for record in map(_read, paths) if record is not None]


def _read(path: Path) -> VolumeRecord | None:
    try:
        return VolumeRecord(**json.loads(path.read_bytes()))
    except FileNotFoundError:
        return None
    except (ValueError, TypeError) as error:
        log.error("a volume's record is damaged", path=path, error=repr(error))
        return None
