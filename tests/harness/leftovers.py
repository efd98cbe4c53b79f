"""What a platform has on the host for pods that should be gone: nothing may name them any more.

Whatever is made for a pod carries the pod's uid or the id of its VM (files, mounts, cgroups, comments of firewall
rules, leases of addresses, claims of ports), so one pattern finds it wherever it is looked for.
"""

from __future__ import annotations

import json
import os
import re
import uuid
from collections.abc import Iterable, Iterator
from pathlib import Path

CGROUPS = Path("/sys/fs/cgroup")
CLAIMS = Path("/run/cuboid-ports")
SMALL = 64 << 10  # bytes; a lease, a claim or a record of the network
_UID = re.compile(r"(?<![0-9a-f])[0-9a-f]{8}(?:-[0-9a-f]{4}){3}-[0-9a-f]{12}(?![0-9a-f])")
_VM = re.compile(r"(?<![0-9a-f])([0-9a-f]{32})-\d+|warm-([0-9a-f]{32})")
NOT_OF_PODS = ("server", "logs", "vmm", "templates")  # the store and its keys, the daemons' logs, what VMs are made of


def pod_ids(text: str) -> set[str]:
    """Uids of pods named in a text, also as they are in the id of a VM."""
    return {*_UID.findall(text), *(str(uuid.UUID(own or slot)) for own, slot in _VM.findall(text))}


def strangers(text: str, kept: set[str]) -> bool:
    """Whether a text names something else than `kept` (uids of pods and the host's boot id)."""
    return bool(pod_ids(text) - kept)


def files(state: Path, run: Path, kept: set[str]) -> list[str]:
    """Paths below the platform's folders, and small files of the network, that name another pod."""
    paths = [*_paths(state, without=NOT_OF_PODS), *_paths(run)]
    found = [f"file {path}" for path in paths if strangers(path.name, kept)]
    notes = [path for path in _paths(state / "net") if path.is_file() and path.stat().st_size < SMALL]
    return found + [f"content of {path}" for path in notes if strangers(path.read_text(errors="replace"), kept)]


def _paths(root: Path, without: tuple[str, ...] = ()) -> Iterator[Path]:
    """Everything below a folder, links not followed; not what is in its sub-folders `without`."""
    for folder, folders, names in os.walk(root):
        if Path(folder) == root:
            folders[:] = [name for name in folders if name not in without]
        yield from (Path(folder) / name for name in (*folders, *names))


def unfinished(state: Path) -> list[str]:
    """Work that nothing does any more: half-made devices, spooled archives, half-written files.

    Not half a blob: an interrupted download is kept for the next try ([images] partial_seconds).
    """
    images = state / "images"
    places = [images / "work", images / "blobs", state / "spool"]
    found = [
        f"unfinished {path}" for place in places if place.is_dir() for path in place.iterdir() if path.suffix != ".part"
    ]
    return found + [f"unfinished {path}" for path in _paths(state) if re.fullmatch(r"\..*\.new", path.name)]


def own_groups(parent: str) -> list[Path]:
    """The platform's own control group, in each hierarchy."""
    return [path for pattern in (parent, f"*/{parent}") for path in CGROUPS.glob(pattern) if not path.is_symlink()]


def groups(parent: str, kept: set[str]) -> list[str]:
    """Control groups of other VMs below the platform's own; `kept` may name one itself, as a template's is."""
    found = [child for group in own_groups(parent) for child in group.iterdir() if child.is_dir()]
    found = [path for path in found if not any(path.name.startswith(name) for name in kept)]
    return [f"cgroup {path}" for path in found if not pod_ids(path.name) or strangers(path.name, kept)]


def claims(folder: Path, kept: set[str]) -> list[str]:
    """Published ports that the platform in this folder claims for other pods."""
    found = []
    for path in CLAIMS.rglob("*-*-*"):
        row = json.loads(path.read_text() or "{}")
        if str(row.get("record", "")).startswith(f"{folder}/") and row.get("uid") not in kept:
            found.append(f"claim {path}")
    return found


def mounts(lines: Iterable[str], below: Path, kept: set[str]) -> list[str]:
    """Mount points (of `/proc/PID/mountinfo`) below a folder that are of another pod."""
    points = [line.split()[4] for line in lines if line.split()[4].startswith(f"{below}/")]
    return [f"mount {point}" for point in points if strangers(point, kept)]
