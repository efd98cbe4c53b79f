"""One small record per pod, written before anything is done for it and removed after all is undone.

A record is as durable as what it is of. Third-party plugins may keep anything over a reboot, so theirs are on disk. All
that the built-in network makes for a pod ends with a reboot, but for its addresses, which `net.addresses` finds by
themselves: its records are in the folder that ends too, and no start waits for a disk.
"""

from __future__ import annotations

import enum
import json
import re
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from cuboid.lib.errors import InvalidError
from cuboid.lib.log import get_log
from cuboid.lib.paths import sync_folder, write_atomic
from cuboid.net.base import NO_LIMITS, Attachment, Bandwidth, PortMapping
from cuboid.net.cni.result import parse_result, pod_addresses

log = get_log(__name__)
_UID = re.compile(r"[a-zA-Z0-9][a-zA-Z0-9_.-]{0,127}")  # it becomes a file name and CNI_CONTAINERID


class Phase(enum.StrEnum):
    ADDING = "adding"  # anything may exist
    PREPARED = "prepared"  # whole, and nobody's yet
    PUBLISHING = "publishing"  # being given to a pod: ports may be claimed, rules may exist
    ATTACHED = "attached"
    DELETING = "deleting"  # anything may exist


@dataclass(frozen=True)
class Record:
    """`network` is the configuration that ADD ran with: DEL must run with the same, whatever the folder holds then."""

    uid: str
    namespace: str
    name: str
    phase: Phase
    network: dict[str, Any]
    ports: tuple[PortMapping, ...] = ()
    tap_uid: int = 0
    result: dict[str, Any] | None = None  # of the plugins that have run so far
    attachment: Attachment | None = None
    limits: Bandwidth = NO_LIMITS
    builtin: bool = False

    @property
    def pod(self) -> str:
        """For people."""
        return f"{self.namespace}/{self.name}" if self.name else f"slot {self.uid}"

    @property
    def whole(self) -> Attachment | None:
        """The attachment, unless its making or its undoing may have been interrupted."""
        return self.attachment if self.phase in (Phase.PREPARED, Phase.ATTACHED) else None

    @property
    def addresses(self) -> tuple[str, ...]:
        """The pod's, also of one that was interrupted; () if it had none yet."""
        if self.attachment is not None:
            return self.attachment.addresses
        return pod_addresses(parse_result(json.dumps(self.result).encode())) if self.result else ()

    @property
    def bridge(self) -> str:
        """Of the built-in network when the pod was attached: the setting may have been changed since."""
        return str(self.network["plugins"][0]["bridge"])

    def to_json(self) -> dict[str, Any]:
        value = asdict(self)
        value["attachment"] = self.attachment.to_json() if self.attachment else None
        return value

    @classmethod
    def from_json(cls, value: dict[str, Any]) -> Record:
        attachment = value["attachment"]
        return cls(
            uid=value["uid"],
            namespace=value["namespace"],
            name=value["name"],
            phase=Phase(value["phase"]),
            network=value["network"],
            ports=tuple(PortMapping(**port) for port in value["ports"]),
            tap_uid=value["tap_uid"],
            result=value["result"],
            attachment=Attachment.from_json(attachment) if attachment else None,
            limits=Bandwidth(**value.get("limits", {})),  # an older node agent wrote neither
            builtin=value.get("builtin", False),
        )


def valid_uid(uid: str) -> str:
    """The uid itself; InvalidError if it cannot name a file."""
    if not _UID.fullmatch(uid):
        raise InvalidError(f"{uid!r} is not a pod uid")
    return uid


class Records:
    """`lasting`: the folder that survives a reboot; `passing`: that of the built-in network's records."""

    def __init__(self, lasting: Path, passing: Path) -> None:
        self._lasting = lasting
        self._passing = passing
        self._read: dict[Path, tuple[tuple[int, int, int] | None, Record | None]] = {}
        for folder in (lasting, passing):
            folder.mkdir(mode=0o700, parents=True, exist_ok=True)

    def path(self, record: Record) -> Path:
        return (self._passing if record.builtin else self._lasting) / f"{valid_uid(record.uid)}.json"

    def paths(self, uid: str) -> tuple[Path, Path]:
        """Where a record of this pod can be."""
        return self._passing / f"{valid_uid(uid)}.json", self._lasting / f"{uid}.json"

    def knows(self, uid: str) -> bool:
        return bool(_UID.fullmatch(uid)) and any(path.exists() for path in self.paths(uid))

    def put(self, record: Record, *, durable: bool = True) -> Record:
        """Not `durable` is enough for what a reboot undoes anyway: it survives the end of this process."""
        data = json.dumps(record.to_json()).encode()
        path = self.path(record)
        write_atomic(path, data, durable=durable and not record.builtin)
        self._read.pop(path, None)
        return record

    def get(self, uid: str) -> Record | None:
        """None also for a record that cannot be read: it is set aside as `.broken` for a person to look at."""
        return next(filter(None, map(self._at, self.paths(uid))), None)

    def _at(self, path: Path) -> Record | None:
        """Read again only if it is another file: what a node agent asks for must not grow with its pods."""
        try:
            status = path.stat()
        except FileNotFoundError:
            self._read.pop(path, None)
            return None
        stamp = (status.st_ino, status.st_mtime_ns, status.st_size)
        known, record = self._read.get(path, (None, None))
        if known != stamp:
            record = _read(path)
            self._read[path] = (stamp, record)
        return record

    def drop(self, record: Record) -> None:
        path = self.path(record)
        path.unlink(missing_ok=True)
        self._read.pop(path, None)
        if not record.builtin:
            sync_folder(self._lasting)

    def all(self) -> list[Record]:
        found = (self._at(path) for folder in (self._lasting, self._passing) for path in _records_in(folder))
        by_uid = {record.uid: record for record in found if record is not None}
        return [by_uid[uid] for uid in sorted(by_uid)]


def _records_in(folder: Path) -> list[Path]:
    return [path for path in folder.glob("*.json") if not path.name.startswith(".")]


def _read(path: Path) -> Record | None:
    try:
        return Record.from_json(json.loads(path.read_bytes()))
    except FileNotFoundError:
        return None
    except (ValueError, KeyError, TypeError) as error:
        log.error("a network record is damaged", path=path, error=repr(error))
        path.rename(path.with_suffix(".broken"))
        return None
