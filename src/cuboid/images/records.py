"""What the store writes down per image, and the index that answers `resolve` from memory."""

from __future__ import annotations

import time
from collections.abc import Iterable
from pathlib import Path

import msgspec

from cuboid.images.base import Image, ImageConfig
from cuboid.images.reference import is_digest, parse
from cuboid.lib.errors import InvalidError
from cuboid.lib.log import get_log
from cuboid.lib.paths import sync_folder, write_atomic

log = get_log(__name__)
_SHORT_ID = 6  # fewest hexadecimal digits that may stand for an id
_CLOCK_GRAIN = 50_000_000  # ns; two changes of a folder closer than this may show one time


class Record(msgspec.Struct, frozen=True):
    """One image. `pins` are `name@digest` for every manifest and index it was fetched by."""

    id: str
    digest: str
    names: tuple[str, ...]
    pins: tuple[str, ...]
    device: str  # file name
    device_bytes: int
    config: ImageConfig
    architecture: str
    created: str
    layers: tuple[str, ...]
    pulled_at: float
    version: int = 1

    def image(self, devices: Path) -> Image:
        return Image(
            id=self.id, digest=self.digest, names=self.names, device=devices / self.device,
            device_bytes=self.device_bytes, config=self.config, architecture=self.architecture, created=self.created,
            layers=self.layers, pulled_at=self.pulled_at,
        )  # fmt: skip

    def without(self, name: str) -> Record:
        return msgspec.structs.replace(self, names=tuple(n for n in self.names if n != name))


class Index:
    """Records by everything that may name them. Immutable: a change of the folder makes a new one."""

    def __init__(self, records: Iterable[Record] = ()) -> None:
        self.by_id = {record.id: record for record in records}
        self._by_name: dict[str, Record] = {}
        for record in sorted(self.by_id.values(), key=lambda record: record.pulled_at):
            self._by_name.update(dict.fromkeys((*record.pins, *record.names), record))

    def named(self, key: str) -> Record | None:
        return self._by_name.get(key)

    def find(self, text: str) -> Record | None:
        """By id (`sha256:…`, or its first digits if they fit one image only), name:tag or name@digest.

        InvalidError for what can be neither.
        """
        if is_digest(text):
            return self.by_id.get(text)
        try:
            found = self.named(parse(text).key)
        except InvalidError:
            if not _is_hex(text):
                raise
            found = None
        if found is None and _SHORT_ID <= len(text) <= 64 and _is_hex(text):
            fits = [record for key, record in self.by_id.items() if key.startswith(f"sha256:{text}")]
            found = fits[0] if len(fits) == 1 else None
        return found


def _is_hex(text: str) -> bool:
    return bool(text) and all(digit in "0123456789abcdef" for digit in text)


class RecordFolder:
    """The records on disk, read again when somebody changed the folder."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self._index = Index()
        self._seen = -1

    def index(self) -> Index:
        changed = self.path.stat().st_mtime_ns
        if changed != self._seen:
            self._index = Index(self._read())
            settled = time.time_ns() - changed > _CLOCK_GRAIN
            self._seen = changed if settled else -1
        return self._index

    def _read(self) -> list[Record]:
        found = []
        for file in sorted(self.path.glob("*.json")):
            try:
                found.append(msgspec.json.decode(file.read_bytes(), type=Record))
            except FileNotFoundError:
                continue
            except (msgspec.DecodeError, UnicodeDecodeError) as error:
                log.warning("an image record cannot be read and is passed over", file=str(file), error=str(error))
        return found

    def write(self, record: Record) -> None:
        write_atomic(self._file(record.id), msgspec.json.encode(record))
        self._seen = -1

    def delete(self, record: Record) -> None:
        self._file(record.id).unlink(missing_ok=True)
        sync_folder(self.path)
        self._seen = -1

    def _file(self, image_id: str) -> Path:
        return self.path / f"{image_id.partition(':')[2]}.json"


def merge(new: Record, old: Record | None) -> Record:
    """What is known of one image after it was fetched again, perhaps under another name."""
    if old is None:
        return new
    return msgspec.structs.replace(
        new, names=tuple(dict.fromkeys((*old.names, *new.names))), pins=tuple(dict.fromkeys((*old.pins, *new.pins)))
    )
