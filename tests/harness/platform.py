"""A whole platform for a test: both daemons, started by `cuboid up` as a user would, in a network namespace of its own.

The namespace keeps bridges, addresses, firewall rules and ports away from the machine's network, so that every platform
can use the default ports. `Platform.close` stops everything and asserts that nothing is left.
"""

from __future__ import annotations

import asyncio
import fcntl
import json
import os
import shutil
import signal
import socket
import subprocess
import tempfile
import time
import uuid
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any, TypeVar

from cuboid.lib.linux import netns
from tests.harness import leftovers
from tests.harness.api_client import ApiClient

ROOT = Path(__file__).resolve().parents[2]
VENV = ROOT / ".venv/bin"
ARTIFACTS = ROOT / "build/artifacts"
PROBE_CACHE = ROOT / "build/probe-cache"
TEMPLATES = ROOT / "build/test/templates"
KEPT_TEMPLATES = 8
LOOKS = 3
Object = dict[str, Any]
T = TypeVar("T")
Finished = subprocess.CompletedProcess[str]


class Platform:
    """Use `platform()`; paths are short because a Unix socket's path has at most 107 bytes."""

    _mounts: subprocess.Popen[bytes] | None = None  # holds a mount namespace of the platform's own, if it needs one

    def __init__(self) -> None:
        self.id = uuid.uuid4().hex[:8]
        self.netns = f"cbt-{self.id}"
        self.folder = Path(tempfile.mkdtemp(prefix="cb-", dir="/tmp"))
        self.folder.chmod(0o711)
        self.state, self.run_folder, self.home = (self.folder / name for name in ("s", "r", "h"))
        self.home.mkdir()
        self.settings: dict[str, str] = {}
        self._registries: list[subprocess.Popen[bytes]] = []
        _run(["ip", "netns", "add", self.netns])
        _run(["ip", "netns", "exec", self.netns, "ip", "link", "set", "lo", "up"])

    @property
    def cgroup(self) -> str:
        return f"cuboid-{self.id}"

    @property
    def environment(self) -> dict[str, str]:
        return {
            "PATH": f"{VENV}:/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin",
            "HOME": str(self.home),
            "LC_ALL": "C.UTF-8",
            "CUBOID_STATE_DIR": str(self.state),
            "CUBOID_RUN_DIR": str(self.run_folder),
            "KUBECONFIG": str(self.home / ".kube/config"),
            # What a node agent finds in its cgroup or under its user ids it takes for its own.
            "CUBOID_VMM_CGROUP_PARENT": self.cgroup,
            "CUBOID_VMM_UID_BASE": str(1_000_000_000 + int(self.id[:4], 16) * 10_000),
            "CUBOID_VMM_UID_COUNT": "10000",
            **self.settings,
        }

    def inside(self, command: Sequence[str]) -> list[str]:
        """The command, in the platform's network namespace (and mount namespace, if it has its own)."""
        own = [f"--mount=/proc/{self._mounts.pid}/ns/mnt"] if self._mounts else []
        return ["nsenter", f"--net=/run/netns/{self.netns}", *own, "--", *command]

    def run(
        self, command: Sequence[str], *, timeout: float = 60.0, check: bool = True, stdin: str | None = None
    ) -> Finished:
        done = subprocess.run(
            self.inside(command), env=self.environment, input=stdin, capture_output=True, text=True, timeout=timeout,
            stdin=subprocess.DEVNULL if stdin is None else None, check=False, errors="replace",
        )  # fmt: skip
        if check and done.returncode:
            raise AssertionError(f"{' '.join(command)} ended with {done.returncode}:\n{done.stdout}\n{done.stderr}")
        return done

    def cuboid(self, *arguments: str, timeout: float = 120.0, check: bool = True, stdin: str | None = None) -> Finished:
        return self.run([str(VENV / "cuboid"), *arguments], timeout=timeout, check=check, stdin=stdin)

    def kubectl(
        self, *arguments: str, timeout: float = 120.0, check: bool = True, stdin: str | None = None
    ) -> Finished:
        return self.run([str(VENV / "kubectl"), *arguments], timeout=timeout, check=check, stdin=stdin)

    @contextmanager
    def started(self, command: Sequence[str], **options: Any) -> Iterator[subprocess.Popen[str]]:
        """A command that runs beside the test and is ended with the block."""
        process = subprocess.Popen(
            self.inside(command), env=self.environment, text=True, start_new_session=True,
            **{"stdin": subprocess.DEVNULL, "stdout": subprocess.PIPE, "stderr": subprocess.STDOUT, **options},
        )  # fmt: skip
        try:
            yield process
        finally:
            _end(process)

    def up(self) -> Finished:
        return self.cuboid("up", timeout=180)

    def pod(self, name: str) -> Object:
        found: Object = json.loads(self.cuboid("inspect", name).stdout)
        return found

    def wait(self, name: str, done: Callable[[Object], bool], *, timeout: float = 90.0) -> Object:
        """The pod once `done`; the test fails with its whole state otherwise."""
        until = time.monotonic() + timeout
        while True:
            pod = self.pod(name)
            if done(pod):
                return pod
            if time.monotonic() > until:
                events = self.cuboid("events", name, check=False).stdout
                raise AssertionError(f"{name} after {timeout} s: {json.dumps(pod['status'], indent=1)}\n{events}")
            time.sleep(0.2)

    def daemon_pid(self, name: str) -> int:
        return int(json.loads((self.run_folder / f"{name}.pid").read_text())["pid"])

    def kill_daemon(self, name: str) -> None:
        """kill -9, and gone."""
        pid = self.daemon_pid(name)
        os.kill(pid, signal.SIGKILL)
        until = time.monotonic() + 5
        while Path(f"/proc/{pid}").exists() and "Z" not in Path(f"/proc/{pid}/stat").read_text().split()[2]:
            assert time.monotonic() < until
            time.sleep(0.01)

    def processes(self, needle: str = "") -> list[int]:
        """Pids of the platform's processes: those whose command line, environment or control group is of it."""
        own = {str(self.folder), f"/{self.cgroup}/"}
        pids = [int(entry.name) for entry in Path("/proc").iterdir() if entry.name.isdigit() and _belongs(entry, own)]
        return [pid for pid in pids if needle in _command(pid)]

    def vmms(self, uid: str = "") -> list[int]:
        """Pids of the pods' virtual machines, or of that of one pod: those that its record, or their own id, names.

        Machines that wait for a pod are not among them; see `waiting`. A VMM's command line is the jail's, its group
        tells which it is.
        """
        found = [pid for pid in self.processes() if "qemu-system" in _command(pid)]
        known = self._vm_ids(uid) if uid else set()
        idle = set() if uid else {row["vm"] for row in self.waiting()}
        groups = {pid: _groups(pid) for pid in found}
        if uid:
            return [pid for pid in found if any(name in groups[pid] for name in known)]
        return [pid for pid in found if not any(name in groups[pid] for name in (*idle, "/template-"))]

    def _vm_ids(self, uid: str) -> set[str]:
        """What the VM of a pod may be called: by the pod's uid, and as its record says."""
        record = self.record(uid)
        handle = record.get("handle") or {}
        return {f"{uid.replace('-', '')}-", *([handle["id"]] if handle else [])}

    def record(self, uid: str) -> Object:
        """The newest record of a pod; empty if there is none."""
        found: list[Object] = []
        for name in ("record.json", "latest.json"):
            with suppress(FileNotFoundError, ValueError):
                found.append(json.loads((self.state / "pods" / uid / name).read_bytes()))
        return max(found, key=lambda record: record.get("sequence", 0), default={})

    def waiting(self) -> list[Object]:
        """Machines that the node agent has made ahead, or is making; none if it does not run."""
        if not any(self.run_folder.glob("vmm/warm-*")) and not any(self.run_folder.glob("netns/*")):
            return []
        try:
            rows = self.enter(lambda: self.api().get(f"/api/v1/nodes/{self.node}/proxy/cuboid/v1/machines"))
        except (AssertionError, OSError):
            return []
        found: list[Object] = rows["items"]
        return found

    @property
    def node(self) -> str:
        return self.settings.get("CUBOID_NODE_NAME", socket.gethostname().lower())

    def network_id(self, uid: str) -> str:
        """Under which the network knows a pod: its namespace, its records and its rules have this name."""
        found: str = self.record(uid).get("sandbox", {}).get("network_id") or uid
        return found

    def reboot(self) -> None:
        """All processes end at once, the run folder is empty, the boot id is another: as the host's reboot leaves it.

        Firewall rules and links of the old "boot" go with the network namespace's content.
        """
        for pid in self.processes():
            if pid not in [process.pid for process in self._registries]:
                os.kill(pid, signal.SIGKILL)
        _until(lambda: not self.vmms(), 20, "killed virtual machines are gone")
        for mount in reversed(self._mountpoints(self.run_folder)):
            self.run(["umount", "-l", mount])
        shutil.rmtree(self.run_folder)
        self._forget_network()
        self._change_boot_id()

    def _forget_network(self) -> None:
        self.run(["nft", "flush", "ruleset"])  # of the platform's namespace
        links = json.loads(self.run(["ip", "-j", "link"]).stdout)
        for row in links:
            if row["ifname"] != "lo":
                self.run(["ip", "link", "delete", row["ifname"]], check=False)
        for path in leftovers.CLAIMS.rglob("*-*-*"):
            if str(self.folder) in path.read_text():
                path.unlink()

    def _change_boot_id(self) -> None:
        """In a mount namespace of the platform's own, in which all its commands run from now on."""
        new = self.folder / "boot-id"
        new.write_text(f"{uuid.uuid4()}\n")
        if self._mounts is None:
            command = ["unshare", "--mount", "--propagation", "slave", "sleep", "infinity"]
            self._mounts = subprocess.Popen(command, stdin=subprocess.DEVNULL, start_new_session=True)
            ours, theirs = Path("/proc/self/ns/mnt").readlink(), Path(f"/proc/{self._mounts.pid}/ns/mnt")
            _until(lambda: theirs.readlink() != ours, 5, "the mount namespace is there")
        self.run(["mount", "--bind", str(new), "/proc/sys/kernel/random/boot_id"])

    def start_registry(self, port: int = 5000) -> str:
        """A real registry inside the namespace; `localhost:PORT`."""
        folder = self.folder / f"registry-{port}"
        folder.mkdir()
        configuration = folder / "config.yml"
        storage = f"storage: {{filesystem: {{rootdirectory: {folder}/data}}, delete: {{enabled: true}}}}"
        configuration.write_text(f"version: 0.1\nlog: {{level: error}}\n{storage}\nhttp: {{addr: 127.0.0.1:{port}}}\n")
        process = subprocess.Popen(
            self.inside(["docker-registry", "serve", str(configuration)]), stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, start_new_session=True,
        )  # fmt: skip
        self._registries.append(process)
        probe = f"import socket; socket.create_connection(('127.0.0.1', {port}), 1).close()"
        _until(lambda: self.run(["python3", "-c", probe], check=False).returncode == 0, 20, "the registry listens")
        return f"localhost:{port}"

    def save_logs(self, label: str) -> None:
        target = ARTIFACTS / f"{label}-{self.id}"
        shutil.rmtree(target, ignore_errors=True)
        target.mkdir(parents=True)
        for path in [
            *self.state.glob("logs/*"),
            *self.state.glob("pods/*/*.json"),
            *self.run_folder.rglob("console*"),
        ]:
            if path.is_file():
                shutil.copy(path, target / "-".join(path.relative_to(self.folder).parts))

    def mount_disk(self, mib: int) -> None:
        self.state.mkdir(mode=0o711)
        _run(["mount", "-t", "tmpfs", "-o", f"size={mib}m,mode=711", "cuboid-test", str(self.state)])

    def resize_disk(self, *, free_mib: int) -> None:
        """Leave this much room on the disk of `mount_disk`."""
        used = shutil.disk_usage(self.state).used >> 20
        _run(["mount", "-o", f"remount,size={used + free_mib}m", str(self.state)])

    def enter(self, work: Callable[[], T]) -> T:
        """Do something in a thread inside the platform's network; what it has opened can be used outside too."""
        return asyncio.run(netns.run_in(Path(f"/run/netns/{self.netns}"), work))

    def api(self) -> ApiClient:
        """A client of the platform's API; to be used inside `enter`."""
        row = json.loads((self.state / "client.json").read_text())
        token, authority = (Path(row[name]).read_text() for name in ("token_file", "ca_file"))
        return ApiClient(row["server"], token.strip(), authority)

    def leftovers(self, *kept: str) -> list[str]:
        """What there is on the host for other pods than those with the uids `kept`. Empty if nothing leaks.

        Machines come to wait, and are taken, while this looks: what is there only once is none.
        """
        found = self._leftovers(*kept)
        for _ in range(LOOKS if found else 0):
            time.sleep(0.5)
            again = self._leftovers(*kept)
            found = [line for line in found if line in again]
        return found

    def _leftovers(self, *kept: str) -> list[str]:
        names = {*kept, *map(self.network_id, kept), *leftovers.pod_ids(self._boot_ids())}
        idle = self.waiting()
        names |= {row["slot"] for row in idle}
        with suppress(FileNotFoundError):  # the node agent's own: one is being built
            names.add(f"template-{self.daemon_pid('cuboid-node')}-")
        rules = self.run(["sh", "-c", "iptables-save; nft list ruleset"], check=False).stdout.splitlines()
        return [
            *(f"VMM {pid}" for pid in self.vmms() if leftovers.strangers(_groups(pid), names)),
            *(f"rule {line.strip()}" for line in rules if leftovers.strangers(line, names)),
            *self._surplus_links(len(kept) + len(idle)),
            *leftovers.mounts(self._mountinfo(), self.folder, names),
            *leftovers.groups(self.cgroup, names),
            *leftovers.claims(self.folder, names),
            *leftovers.files(self.state, self.run_folder, names),
            *leftovers.unfinished(self.state),
        ]

    def _boot_ids(self) -> str:
        return self.run(["cat", "/proc/sys/kernel/random/boot_id"]).stdout

    def _surplus_links(self, most: int) -> list[str]:
        rows = json.loads(self.run(["ip", "-j", "link"], check=False).stdout or "[]")
        found = [row["ifname"] for row in rows if row["ifname"] not in ("lo", "cuboid0")]
        return [f"links {found} for {most} pods"] if len(found) > most else []

    def _mountinfo(self) -> list[str]:
        seen = [Path("/proc/self/mountinfo").read_text()]
        if self._mounts:
            seen.append(Path(f"/proc/{self._mounts.pid}/mountinfo").read_text())
        return "".join(seen).splitlines()

    def _mountpoints(self, below: Path) -> list[str]:
        return [line.split()[4] for line in self._mountinfo() if line.split()[4].startswith(f"{below}/")]

    def take_templates(self) -> None:
        """Those of an earlier platform: each takes a boot to build. Stale ones are swept by the node agent."""
        if TEMPLATES.is_dir():
            with _locked(TEMPLATES):
                _copy_sparse(TEMPLATES, self.state / "templates")

    def leave_templates(self) -> None:
        """For the next platform, if it has some that are new."""
        own = self.state / "templates"
        TEMPLATES.mkdir(parents=True, exist_ok=True)
        with _locked(TEMPLATES):
            for folder in own.iterdir() if own.is_dir() else ():
                if (folder / "snapshot.json").exists() and not (TEMPLATES / folder.name).exists():
                    _copy_sparse(folder, TEMPLATES / f".{folder.name}.new")
                    (TEMPLATES / f".{folder.name}.new").rename(TEMPLATES / folder.name)
            kept = sorted((p for p in TEMPLATES.iterdir() if p.is_dir()), key=lambda p: p.stat().st_mtime)
            for folder in kept[:-KEPT_TEMPLATES]:
                shutil.rmtree(folder)

    def close(self) -> None:
        """Stop everything; AssertionError naming what is left."""
        down = self.cuboid("down", timeout=120, check=False)
        for process in self._registries:
            _end(process)
        left = self._left()
        if self._mounts:
            _end(self._mounts)
            self._mounts = None
        for pid in self.processes():
            os.kill(pid, signal.SIGKILL)
        subprocess.run(["ip", "netns", "delete", self.netns], check=False, capture_output=True, timeout=20)
        for mount in reversed([line.split()[4] for line in self._mountinfo() if str(self.folder) in line]):
            subprocess.run(["umount", "-l", mount], check=False, capture_output=True, timeout=20)
        shutil.rmtree(self.folder, ignore_errors=True)
        for group in leftovers.own_groups(self.cgroup):
            with suppress(OSError):  # not empty: said below
                group.rmdir()
        assert down.returncode == 0, f"cuboid down: {down.stdout}{down.stderr}"
        assert not left, f"left behind: {left}"

    def _left(self) -> list[str]:
        """What should not be there when the platform is down."""
        left = [f"process {pid}: {_command(pid)}" for pid in self.processes()]
        left += [f"mount {mount}" for mount in self._mountpoints(self.run_folder)]
        rules = self.run(["sh", "-c", "iptables-save; nft list ruleset; ip -o link"], check=False).stdout
        left += [f"rule or link: {line}" for line in rules.splitlines() if "cuboid" in line.lower()]
        return left + self._surplus_links(0) + leftovers.groups(self.cgroup, set())


@contextmanager
def platform(label: str = "platform", *, disk_mib: int = 0, **settings: str) -> Iterator[Platform]:
    """A platform that is up, with the templates that another one has built, which it verifies.

    `settings` are environment variables (CUBOID_NODE_…). `disk_mib` gives its state folder a disk of its own, in
    memory, which `Platform.resize_disk` can make too small.
    """
    place = Platform()
    place.settings |= settings
    try:
        if disk_mib:
            place.mount_disk(disk_mib)
        if PROBE_CACHE.is_dir():
            shutil.copytree(PROBE_CACHE, place.state / "vmm", dirs_exist_ok=True)
        if not disk_mib:
            place.take_templates()
        place.up()
        yield place
        if not disk_mib:
            place.leave_templates()
    except BaseException:
        place.save_logs(label)
        raise
    finally:
        place.close()


@contextmanager
def _locked(folder: Path) -> Iterator[None]:
    """Platforms of several processes at once share the folder."""
    with (folder.parent / f"{folder.name}.lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        yield


def _copy_sparse(source: Path, target: Path) -> None:
    target.parent.mkdir(mode=0o711, parents=True, exist_ok=True)
    _run(["cp", "-a", "--sparse=always", str(source), str(target)])


def _belongs(entry: Path, needles: set[str]) -> bool:
    try:
        text = b"".join((entry / name).read_bytes() for name in ("cmdline", "environ", "cgroup"))
    except OSError:
        return False
    return any(needle.encode() in text for needle in needles)


def _command(pid: int) -> str:
    try:
        return Path(f"/proc/{pid}/cmdline").read_bytes().replace(b"\0", b" ").decode(errors="replace")[:4096]
    except OSError:
        return ""


def _groups(pid: int) -> str:
    try:
        return Path(f"/proc/{pid}/cgroup").read_text()
    except OSError:
        return ""


def _run(command: list[str]) -> None:
    subprocess.run(command, check=True, capture_output=True, timeout=20)


def _end(process: subprocess.Popen[Any]) -> None:
    if process.poll() is None:
        os.killpg(process.pid, signal.SIGTERM)
        try:
            process.wait(3)
        except subprocess.TimeoutExpired:
            os.killpg(process.pid, signal.SIGKILL)
            process.wait(5)
    for stream in (process.stdin, process.stdout, process.stderr):
        if stream:
            stream.close()


def _until(done: Callable[[], bool], seconds: float, what: str) -> None:
    until = time.monotonic() + seconds
    while not done():
        assert time.monotonic() < until, f"not within {seconds} s: {what}"
        time.sleep(0.1)
