"""What a VM has on the host: a folder, an unprivileged user, a cgroup, and the jail that the launcher builds from them.

`run/vmm/ID/` holds the sockets (root's alone), the pid and the empty folder on which the private root is mounted;
`run/vmm-users/N` is a symlink naming the VM that has user number N. Both are made before any process is, so whatever
a crash leaves can be found by id and removed.
"""

from __future__ import annotations

import hashlib
import os
import shutil
import signal
import socket
import time
from contextlib import suppress
from pathlib import Path

from cuboid.lib.errors import AlreadyExistsError, ExhaustedError, InvalidError
from cuboid.lib.linux import processes
from cuboid.lib.linux.cgroup import Hierarchy, Limits
from cuboid.lib.log import get_log
from cuboid.vmm.base import HostLimits
from cuboid.vmm.settings import VmmSettings

log = get_log(__name__)

SOCKET_PATH_BYTES = 107  # sun_path without its closing NUL
GONE_SECONDS = 5.0  # a killed process that is not gone by then hangs in the kernel


class Jails:
    """All jails of one run folder."""

    def __init__(self, run: Path, state: Path, settings: VmmSettings, hierarchy: Hierarchy) -> None:
        """Memory files are made below `state`, where snapshots are kept: handing one over is a change of name."""
        self._memory = state / "memory"
        self._folder = run / "vmm"
        self._users = run / "vmm-users"
        self._settings = settings
        self._hierarchy = hierarchy

    def jail(self, vm_id: str) -> Jail:
        return Jail(vm_id, self._folder / vm_id, self._memory / vm_id, self._users, self._settings, self._hierarchy)

    def ids(self) -> set[str]:
        """Ids of all VMs of which anything is on the host."""
        found = self._hierarchy.names() if self._hierarchy.usable else set()
        with suppress(FileNotFoundError):
            found |= {entry.name for entry in self._folder.iterdir()}
        with suppress(FileNotFoundError):
            found |= {str(link.readlink()) for link in self._users.iterdir()}
        with suppress(FileNotFoundError):
            found |= {entry.name for entry in self._memory.iterdir()}
        return found


class Jail:
    """One VM's."""

    def __init__(
        self, vm_id: str, folder: Path, memory: Path, users: Path, settings: VmmSettings, hierarchy: Hierarchy
    ) -> None:
        self.id = vm_id
        self.folder = folder
        self.memory = memory
        self.root = folder / "root"
        self.qmp_path = folder / "qmp.sock"
        self.channel_path = folder / "agent.sock"
        self.pid_file = folder / "pid"
        self.record = folder / "made.json"
        self.draft_link = folder / "draft"
        self._disks = folder / "disks"
        self.group = hierarchy.group(vm_id)
        self._users = users
        self._settings = settings

    def make(self, limits: HostLimits) -> int:
        """Folder, cgroup and user; the user's number. AlreadyExistsError, ExhaustedError, OSError."""
        try:
            self.folder.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
            self.folder.mkdir(mode=0o700)
        except FileExistsError as error:
            raise AlreadyExistsError(f"a VM {self.id} exists already") from error
        try:
            return self._fill(limits)
        except BaseException:
            self.remove()
            raise

    def _fill(self, limits: HostLimits) -> int:
        self.root.mkdir()
        self._disks.mkdir()
        self.group.create(group_limits(limits))
        return self._take_user()

    def listen(self) -> tuple[socket.socket, socket.socket]:
        """Sockets on which the VMM serves QMP and the agent's channel: bound here, so they belong to root alone."""
        qmp = _listen(self.qmp_path)
        try:
            return qmp, _listen(self.channel_path)
        except BaseException:
            qmp.close()
            raise

    def _take_user(self) -> int:
        self._users.mkdir(mode=0o700, exist_ok=True)
        count = self._settings.uid_count
        start = int.from_bytes(hashlib.sha256(self.id.encode()).digest()[:8]) % count
        for step in range(count):
            number = self._settings.uid_base + (start + step) % count
            with suppress(FileExistsError):
                (self._users / str(number)).symlink_to(self.id)
                return number
        raise ExhaustedError(f"all {count} users for VMMs are taken", hint="raise vmm.uid_count")

    def _user_links(self) -> list[Path]:
        with suppress(FileNotFoundError):
            return [link for link in self._users.iterdir() if _target(link) == self.id]
        return []

    def remove(self) -> None:
        """Kill what still runs and remove everything. Idempotent; blocks for some milliseconds."""
        links = self._user_links()
        self._kill_all([int(link.name) for link in links])
        self.group.remove()
        self.memory.unlink(missing_ok=True)
        self.drop_draft()
        shutil.rmtree(self.folder, ignore_errors=True)
        for link in links:
            link.unlink(missing_ok=True)

    def change_limits(self, pid: int, limits: HostLimits) -> None:
        """Of a VMM that runs. OSError."""
        self.group.change(group_limits(limits))
        set_oom_score(pid, limits.oom_score)

    def make_memory(self, size: int, uid: int) -> None:
        """A file of `size` bytes for the guest's memory, which the VM's user may write. OSError."""
        self.memory.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        descriptor = os.open(self.memory, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_NOFOLLOW | os.O_CLOEXEC, 0o600)
        try:
            os.ftruncate(descriptor, size)
            os.fchown(descriptor, uid, uid)
        finally:
            os.close(descriptor)

    def note_disk(self, serial: str, path: Path | None) -> None:
        """What is in a slot (None: nothing), for a snapshot to find also after a restart of this process."""
        link = self._disks / serial
        link.unlink(missing_ok=True)
        if path is not None:
            link.symlink_to(path.absolute())

    def noted_disks(self) -> dict[str, Path]:
        return {link.name: link.readlink() for link in self._disks.iterdir()}

    def note_draft(self, path: Path) -> None:
        """A snapshot is being made in `path`: whoever removes the VM, or finds it again, removes that too."""
        self.draft_link.unlink(missing_ok=True)
        self.draft_link.symlink_to(path)

    def drop_draft(self) -> None:
        """Remove what an interrupted snapshot left. Idempotent."""
        with suppress(FileNotFoundError, NotADirectoryError):
            shutil.rmtree(self.draft_link.readlink(), ignore_errors=True)
            self.draft_link.unlink()

    def _kill_all(self, users: list[int]) -> None:
        until = time.monotonic() + GONE_SECONDS
        while pids := self._pids(users):
            for pid in pids:
                with suppress(ProcessLookupError):
                    os.kill(pid, signal.SIGKILL)
            if time.monotonic() > until:
                log.warning("killed processes do not go", vm=self.id, pids=sorted(pids))
                return
            time.sleep(0.002)

    def _pids(self, users: list[int]) -> set[int]:
        """By cgroup, for what has joined it; by user, for what runs on a host without cgroups."""
        return processes.living(self.group.pids() | self._recorded()) | processes.of_users(users)

    def _recorded(self) -> set[int]:
        """The pid that the launcher wrote down, if it still is ours: on a host without cgroups, between its fork and
        its change of user nothing else leads to it."""
        with suppress(OSError, ValueError):
            pid = int(self.pid_file.read_text())
            if self.id.encode() in Path(f"/proc/{pid}/cmdline").read_bytes():
                return {pid}
        return set()


def group_limits(limits: HostLimits) -> Limits:
    return Limits(limits.cpu_millis, limits.cpu_weight, limits.memory_mib << 20, limits.pids)


def set_oom_score(pid: int, score: int) -> None:
    """Lowering it needs CAP_SYS_RESOURCE: where that is missing, the VMM keeps its place. OSError."""
    file = Path(f"/proc/{pid}/oom_score_adj")
    if int(file.read_text()) == score:
        return
    try:
        file.write_text(str(score))
    except PermissionError:
        log.warning("no permission to lower the OOM score of a VMM", pid=pid, score=score)


def _target(link: Path) -> str:
    try:
        return str(link.readlink())
    except FileNotFoundError:
        return ""


def _listen(path: Path) -> socket.socket:
    if len(os.fsencode(path)) > SOCKET_PATH_BYTES:
        raise InvalidError(f"the path of a socket is too long: {path}", hint="choose a shorter run folder")
    listener = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM | socket.SOCK_CLOEXEC)
    try:
        listener.bind(str(path))
        path.chmod(0o600)
        listener.listen(4)
    except BaseException:
        listener.close()
        raise
    return listener
