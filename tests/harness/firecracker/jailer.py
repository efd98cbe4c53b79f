"""Stands in for Firecracker's jailer: checks its command line, does to the host what it says, then *is* the VMM.

The real one executes a static binary inside its new root. There is no Python in that root, so this one loads all it
needs beforehand and goes on as the fake VMM in the same process, with the user, root and namespaces of the jail.
"""

from __future__ import annotations

import argparse
import importlib
import json
import os
import re
import resource
import shutil
import signal
import stat
import sys
from pathlib import Path
from typing import NoReturn

from cuboid.lib.linux import libc, mount
from tests.harness.firecracker import vmm
from tests.harness.firecracker.specification import specification

DEVICES = (("/dev/net/tun", 10, 200), ("/dev/kvm", 10, 232), ("/dev/urandom", 1, 9))
FOLDERS = ("/", "/dev", "/dev/net", "/run")
LIMITS = {"fsize": resource.RLIMIT_FSIZE, "no-file": resource.RLIMIT_NOFILE}


def fail(message: str) -> NoReturn:
    print(f"Jailer error: {message}", file=sys.stderr, flush=True)
    sys.exit(1)


class Parser(argparse.ArgumentParser):
    def error(self, message: str) -> NoReturn:
        fail(f"Failed to parse arguments: {message}")


def parse(words: list[str]) -> tuple[argparse.Namespace, list[str]]:
    """The jailer's own arguments, each at most once unless it says otherwise, and those of the VMM."""
    own, extra = (words[: words.index("--")], words[words.index("--") + 1 :]) if "--" in words else (words, [])
    parser = Parser(allow_abbrev=False, add_help=False)
    for name in ("id", "exec-file", "uid", "gid"):
        parser.add_argument(f"--{name}", required=True)
    parser.add_argument("--chroot-base-dir", default="/srv/jailer")
    parser.add_argument("--netns")
    parser.add_argument("--cgroup-version", default="1", choices=["1", "2"])
    parser.add_argument("--parent-cgroup")
    parser.add_argument("--cgroup", action="append", default=[])
    parser.add_argument("--resource-limit", action="append", default=[])
    for name in ("daemonize", "new-pid-ns"):
        parser.add_argument(f"--{name}", action="store_true")
    return parser.parse_args(own), extra


def check(given: argparse.Namespace) -> None:
    if not re.fullmatch(r"[A-Za-z0-9-]{1,64}", given.id):
        fail(f"Invalid instance ID: {given.id}")
    if not Path(given.exec_file).is_file() or "firecracker" not in Path(given.exec_file).resolve().name:
        fail(f"Invalid exec file: {given.exec_file}")
    if not Path(given.chroot_base_dir).is_dir():
        fail(f"Not a directory: {given.chroot_base_dir}")
    if given.parent_cgroup and any(part in ("..", ".", "/") for part in Path(given.parent_cgroup).parts):
        fail(f"Invalid parent cgroup: {given.parent_cgroup}")
    for number in (given.uid, given.gid):
        if not number.isdecimal() or int(number) == 0:
            fail(f"Invalid user or group: {number}")


def join_groups(given: argparse.Namespace) -> None:
    mounts = [line.split() for line in Path("/proc/mounts").read_text().splitlines()]
    if given.cgroup_version == "2":
        (root,) = [Path(row[1]) for row in mounts if row[2] == "cgroup2"][:1]
        if not given.cgroup and given.parent_cgroup and (root / given.parent_cgroup).exists():
            (root / given.parent_cgroup / "cgroup.procs").write_text(str(os.getpid()))
        return
    parent = given.parent_cgroup or Path(given.exec_file).resolve().name
    joined = set()
    for row in given.cgroup:
        name, _, value = row.partition("=")
        controller = name.partition(".")[0]
        if not value or "/" in name:
            fail(f"Invalid cgroup format: {row}")
        roots = [Path(line[1]) for line in mounts if line[2] == "cgroup" and controller in line[3].split(",")]
        if not roots:
            fail(f"Cgroup controller unavailable: {controller}")
        folder = roots[0] / parent / given.id
        folder.mkdir(parents=True, exist_ok=True)
        (folder / name).write_text(value)
        joined.add(folder)
    for folder in joined:
        (folder / "tasks").write_text(str(os.getpid()))


def change_root(root: Path) -> None:
    mount.unshare(mount.CLONE_NEWNS)
    mount.mount("none", "/", "", (1 << 19) | mount.MS_REC)  # MS_SLAVE
    mount.mount(str(root), str(root), "", mount.MS_BIND | mount.MS_REC)
    os.chdir(root)
    Path("old_root").mkdir(0o600)
    libc.call("pivot_root", b".", b"old_root")
    os.chdir("/")
    mount.unmount("old_root")
    Path("old_root").rmdir()


def furnish(uid: int, gid: int) -> None:
    for folder in FOLDERS:
        Path(folder).mkdir(parents=True, exist_ok=True)
        Path(folder).chmod(0o700)
        os.chown(folder, uid, gid)
    for path, major, minor in DEVICES:
        os.mknod(path, stat.S_IFCHR | 0o600, os.makedev(major, minor))
        os.chown(path, uid, gid)


def main(words: list[str], faults_file: Path) -> None:
    given, extra = parse(words)
    faults: dict[str, str] = json.loads(faults_file.read_text())
    check(given)
    if faults.get("jailer") == "hangs":
        signal.pthread_sigmask(signal.SIG_BLOCK, [signal.SIGTERM])
        signal.pause()
    if faults.get("jailer") == "fails":
        fail("Failed to create the jail root directory: on request")
    exec_file = Path(given.exec_file).resolve()
    root = Path(given.chroot_base_dir).resolve() / exec_file.name / given.id / "root"
    root.mkdir(parents=True, exist_ok=True)
    shutil.copy(exec_file, root)
    if given.netns:
        mount.enter_namespace(given.netns)
    for row in given.resource_limit or ["no-file=2048"]:
        name, _, value = row.partition("=")
        resource.setrlimit(LIMITS[name], (int(value), int(value)))
    join_groups(given)
    specification()  # read while its file can be seen
    if faults.get("guest") == "agent":
        importlib.import_module("tests.harness.firecracker.agent")
    change_root(root)
    uid, gid = int(given.uid), int(given.gid)
    furnish(uid, gid)
    if not given.new_pid_ns:
        fail("this stand-in makes a new PID namespace only")
    mount.unshare(mount.CLONE_NEWPID)
    pid = os.fork()
    if pid:
        descriptor = os.open(f"/{exec_file.name}.pid", os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
        os.write(descriptor, str(pid).encode())
        os._exit(0)
    os.setgroups([])
    os.setresgid(gid, gid, gid)
    os.setresuid(uid, uid, uid)
    vmm.run(given.id, extra, faults)
