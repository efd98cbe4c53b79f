"""One record per pod in `<state>/pods/<uid>/`, written before acting.

`record.json` is durable: what must outlive the host. `latest.json` is newer and only written, which is enough for the
end of the node agent; a host's end may take or tear it, but never the durable one. The higher sequence counts.
"""

from __future__ import annotations

import re
import shutil
from contextlib import suppress
from pathlib import Path
from typing import Any

import msgspec

from cuboid.lib.errors import InvalidError
from cuboid.lib.log import get_log
from cuboid.lib.paths import sync_folder, write_atomic
from cuboid.node.sandbox.state import Sandbox

log = get_log(__name__)
VERSION = 1
DURABLE, LATEST = "record.json", "latest.json"
_UID = re.compile(r"[a-zA-Z0-9][a-zA-Z0-9-]{0,62}")


class Record(msgspec.Struct, omit_defaults=True):
    sandbox: Sandbox
    pod: dict[str, Any]  # as last seen in the API
    handle: dict[str, Any] | None = None  # of the VM, for `Driver.recover`
    boot_id: str = ""  # of the host, when this was written
    version: int = VERSION
    sequence: int = 0  # counts the writes
    slot: str = ""  # of a prepared network that is being adopted


class Records:
    def __init__(self, state: Path) -> None:
        self._root = state / "pods"
        self._root.mkdir(mode=0o700, parents=True, exist_ok=True)
        self._durable: set[str] = set()  # uids whose folder is known to be on disk

    def folder(self, uid: str) -> Path:
        """InvalidError for what cannot be a uid: it becomes a path."""
        if not _UID.fullmatch(uid):
            raise InvalidError(f"{uid[:80]!r} is not the uid of a pod")
        return self._root / uid

    def save(self, uid: str, record: Record, *, durable: bool = True) -> None:
        """Written when this returns; with `durable`, on disk."""
        folder = self.folder(uid)
        record.sequence += 1
        if not folder.is_dir():
            folder.mkdir(mode=0o700)
        if durable and uid not in self._durable:
            sync_folder(self._root)
            self._durable.add(uid)
        write_atomic(folder / (DURABLE if durable else LATEST), msgspec.json.encode(record), durable=durable)

    def load(self) -> dict[str, Record]:
        """All records. One that cannot be read is logged and left out: what it may own is then cleaned as an orphan."""
        found = {}
        for folder in sorted(self._root.iterdir()):
            record = self._read(folder)
            if record is not None:
                found[folder.name] = record
            else:
                with suppress(OSError):  # nothing durable was begun
                    (folder / LATEST).unlink(missing_ok=True)
                    folder.rmdir()
        return found

    def _read(self, folder: Path) -> Record | None:
        found = []
        with suppress(OSError, msgspec.DecodeError):  # not there, or torn by the host's end
            found.append(_decoded(folder / LATEST))
        try:
            found.append(_decoded(folder / DURABLE))
        except FileNotFoundError:
            pass
        except (OSError, msgspec.DecodeError) as error:
            log.error("record is unreadable, the pod is given up", folder=str(folder), error=str(error))
            (folder / DURABLE).rename(folder / "record.broken")
            return None
        return max(found, key=lambda record: record.sequence, default=None)

    def remove(self, uid: str) -> None:
        """The record first, then the pod's folder with its logs."""
        self._durable.discard(uid)
        folder = self.folder(uid)
        for name in (LATEST, DURABLE):
            (folder / name).unlink(missing_ok=True)
        shutil.rmtree(folder, ignore_errors=True)


def _decoded(path: Path) -> Record:
    return msgspec.json.decode(path.read_bytes(), type=Record)
