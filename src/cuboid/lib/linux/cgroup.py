"""Control groups: one group per VM, on hosts with the unified hierarchy (v2), with v1, and with both (hybrid).

A `Hierarchy` is found once; its groups are folders. On v1 the controllers cpu, cpuacct, memory and pids have a folder
each. Where groups cannot be made (no permission, read-only /sys), `find` says so once and limits are not enforced.
"""

from __future__ import annotations

import errno
import os
import time
from collections.abc import Iterable, Mapping
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

from cuboid.lib.log import get_log

log = get_log(__name__)

CONTROLLERS = ("cpu", "cpuacct", "memory", "pids")
PERIOD_US = 100_000  # CFS bandwidth period
REMOVE_SECONDS = 2.0  # how long a group may stay busy after its last process was killed


@dataclass(frozen=True)
class Limits:
    """Zero means no limit, except for `cpu_weight` (1 to 10000, 100 is the default of both versions)."""

    cpu_millis: int = 0
    cpu_weight: int = 100
    memory_bytes: int = 0
    pids: int = 0


@dataclass(frozen=True)
class Stats:
    cpu_seconds: float
    memory_bytes: int
    oom_kills: int  # processes of the group that the kernel ended for memory: the group's, a parent's or the host's
    limit_hits: int  # how often the group's own limit was reached


def v2_files(limits: Limits) -> dict[str, str]:
    """File name -> content, unified hierarchy. Only what is limited."""
    files = {"cpu.weight": str(limits.cpu_weight)}
    if limits.cpu_millis:
        files["cpu.max"] = f"{limits.cpu_millis * PERIOD_US // 1000} {PERIOD_US}"
    if limits.memory_bytes:
        files |= {"memory.max": str(limits.memory_bytes), "memory.swap.max": "0"}
    if limits.pids:
        files["pids.max"] = str(limits.pids)
    return files


def v1_files(limits: Limits) -> dict[str, dict[str, str]]:
    """Controller -> file name -> content, v1. A weight of 100 is 1024 shares."""
    cpu = {"cpu.shares": str(max(2, limits.cpu_weight * 1024 // 100))}
    if limits.cpu_millis:
        quota = limits.cpu_millis * PERIOD_US // 1000
        cpu |= {"cpu.cfs_period_us": str(PERIOD_US), "cpu.cfs_quota_us": str(quota)}
    memory = {"memory.limit_in_bytes": str(limits.memory_bytes)} if limits.memory_bytes else {}
    pids = {"pids.max": str(limits.pids)} if limits.pids else {}
    return {"cpu": cpu, "memory": memory, "pids": pids}


def v2_unlimited() -> dict[str, str]:
    """What lifts every limit that `v2_files` may leave out."""
    return {"cpu.max": "max", "memory.max": "max", "memory.swap.max": "max", "pids.max": "max"}


def v1_unlimited() -> dict[str, dict[str, str]]:
    return {
        "cpu": {"cpu.cfs_quota_us": "-1"}, "memory": {"memory.limit_in_bytes": "-1"}, "pids": {"pids.max": "max"},
    }  # fmt: skip


class Hierarchy:
    """Where groups are made: `parent` is a path below the root, without a leading slash."""

    def __init__(self, parent: str, *, v2: Path | None = None, v1: Mapping[str, Path] | None = None) -> None:
        self.parent = parent
        self.v2 = v2
        self.v1 = dict(v1 or {})

    @property
    def usable(self) -> bool:
        return self.v2 is not None or bool(self.v1)

    def group(self, name: str) -> Group:
        return Group(self, name)

    def folders(self, name: str) -> dict[str, Path]:
        """Controller -> folder of one group; the key is "" on v2."""
        roots = {"": self.v2} if self.v2 is not None else self.v1
        unique: dict[Path, str] = {}
        for controller, root in roots.items():  # cpu and cpuacct are often one mount
            unique.setdefault((root / self.parent / name).resolve(), controller)
        return {controller: folder for folder, controller in unique.items()}

    def names(self) -> set[str]:
        """Groups that exist below the parent."""
        found: set[str] = set()
        for folder in self.folders(".").values():
            with suppress(FileNotFoundError):
                found |= {entry.name for entry in folder.iterdir() if entry.is_dir()}
        return found

    def prepare(self) -> None:
        """Make the parent; on v2 also hand the controllers down to it. Raises OSError."""
        if self.v2 is not None:
            _hand_down(self.v2, self.parent)
            return
        for root in self.v1.values():
            (root / self.parent).mkdir(parents=True, exist_ok=True)


def _hand_down(root: Path, parent: str) -> None:
    folder = root
    for part in ("", *Path(parent).parts):
        folder = folder / part
        folder.mkdir(exist_ok=True)
        given = set((folder / "cgroup.controllers").read_text().split())
        wanted = " ".join(f"+{name}" for name in ("cpu", "memory", "pids") if name in given)
        if wanted:
            (folder / "cgroup.subtree_control").write_text(wanted)


class Group:
    """One group. Everything is idempotent; `remove` kills nobody."""

    def __init__(self, hierarchy: Hierarchy, name: str) -> None:
        self._hierarchy = hierarchy
        self._folders = hierarchy.folders(name) if hierarchy.usable else {}
        self.name = name

    @property
    def join_files(self) -> list[Path]:
        """Writing "0" to each moves the writer into the group."""
        return [folder / "cgroup.procs" for folder in self._folders.values()]

    def create(self, limits: Limits) -> None:
        """Raises OSError; then nothing of the group is left."""
        try:
            for folder in self._folders.values():
                folder.mkdir(exist_ok=True)
            self.limit(limits)
        except OSError:
            self.remove()
            raise

    def limit(self, limits: Limits) -> None:
        if "" in self._folders:
            self._write("", v2_files(limits))
        else:
            for controller, files in v1_files(limits).items():
                self._write(controller, files)

    def change(self, limits: Limits) -> None:
        """Other limits than before; zero lifts one. OSError (EBUSY on v1: the group uses more memory than that)."""
        if "" in self._folders:
            self._write("", v2_unlimited() | v2_files(limits))
        else:
            unlimited = v1_unlimited()
            for controller, files in v1_files(limits).items():
                self._write(controller, unlimited.get(controller, {}) | files)

    def _write(self, controller: str, files: Mapping[str, str]) -> None:
        folder = self._folders.get(controller)
        if folder is None:
            return
        for name, content in files.items():
            try:
                (folder / name).write_text(content)
            except (FileNotFoundError, PermissionError):  # the latter is what cgroupfs says of a file it does not have
                if (folder / name).exists():
                    raise
                log.warning("this kernel cannot enforce a limit", file=name, group=self.name)

    def add(self, pid: int) -> None:
        for file in self.join_files:
            file.write_text(str(pid))

    def pids(self) -> set[int]:
        found: set[int] = set()
        for file in self.join_files:
            with suppress(FileNotFoundError):
                found |= {int(line) for line in file.read_text().split()}
        return found

    def stats(self) -> Stats:
        return self._stats_v2(self._folders[""]) if "" in self._folders else self._stats_v1()

    def _stats_v2(self, folder: Path) -> Stats:
        cpu = _pairs(folder / "cpu.stat").get("usage_usec", 0) / 1e6
        events = _pairs(folder / "memory.events")
        limit_hits = events.get("max", 0)
        return Stats(cpu, _number(folder / "memory.current"), events.get("oom_kill", 0), limit_hits)

    def _stats_v1(self) -> Stats:
        accounting = self._folders.get("cpuacct") or self._folders.get("cpu") or Path("/nonexistent")
        memory = self._folders.get("memory", Path("/nonexistent"))
        kills = _pairs(memory / "memory.oom_control").get("oom_kill", 0)
        hits = _number(memory / "memory.failcnt")
        return Stats(
            _number(accounting / "cpuacct.usage") / 1e9, _number(memory / "memory.usage_in_bytes"), kills, hits
        )

    def remove(self) -> None:
        """Remove the group; waits for at most REMOVE_SECONDS for killed processes to leave it."""
        until = time.monotonic() + REMOVE_SECONDS
        for folder in self._folders.values():
            while not _removed(folder):
                if time.monotonic() > until:
                    log.warning("group is still busy", group=self.name, folder=folder)
                    break
                time.sleep(0.002)


def _removed(folder: Path) -> bool:
    try:
        folder.rmdir()
    except FileNotFoundError:
        return True
    except OSError as error:
        if error.errno == errno.EBUSY:
            return False
        raise
    return True


def _pairs(file: Path) -> dict[str, int]:
    """A file of `key number` lines; empty if it is missing."""
    try:
        rows = [line.split() for line in file.read_text().splitlines()]
    except OSError:
        return {}
    return {row[0]: int(row[1]) for row in rows if len(row) == 2 and row[1].isdigit()}


def _number(file: Path) -> int:
    try:
        return int(file.read_text())
    except (OSError, ValueError):
        return 0


def mounted(mounts: Iterable[str]) -> tuple[Path | None, dict[str, Path]]:
    """The cgroup mounts among lines of /proc/mounts: the v2 root, if any, and controller -> v1 root."""
    v2: Path | None = None
    v1: dict[str, Path] = {}
    for line in mounts:
        fields = line.split()
        if len(fields) < 4:
            continue
        if fields[2] == "cgroup2":
            v2 = Path(fields[1])
        elif fields[2] == "cgroup":
            v1 |= {name: Path(fields[1]) for name in fields[3].split(",") if name in CONTROLLERS}
    return v2, v1


def find(parent: str, mounts: str | None = None) -> Hierarchy:
    """The hierarchy of this host, its parent group made. Without permission: an unusable one, and one warning."""
    text = Path("/proc/mounts").read_text() if mounts is None else mounts
    v2, v1 = mounted(text.splitlines())
    hierarchy = Hierarchy(parent, v1=v1) if v1 else Hierarchy(parent, v2=v2)
    try:
        hierarchy.prepare()
    except OSError as error:
        log.warning("no control groups: limits on VMs are not enforced", reason=os.strerror(error.errno or 0))
        return Hierarchy(parent)
    if not hierarchy.usable:
        log.warning("no control groups: limits on VMs are not enforced", reason="no cgroup hierarchy is mounted")
    return hierarchy
