"""Turns itself into a jailed VMM: run as `python -I -S launcher.py PLAN`, where PLAN is the JSON of a `Plan`.

It starts as root, joins the VM's cgroups, enters its network namespace, makes new mount, PID, IPC and UTS namespaces
with a root that holds nothing but what the VMM reads, gives up every privilege and executes the VMM, which becomes
PID 1 of its namespace. The launcher itself ends: no process but the VMM stays. Its output is the VMM's pid on the host.

Stands on the standard library and `cuboid.lib.linux` alone, for its start-up time is part of every pod's.
"""

from __future__ import annotations

import errno
import fcntl
import json
import os
import resource
import struct
import sys
from typing import NoReturn, TypedDict

if __name__ == "__main__":  # `-I` leaves the package out of the path
    sys.path.insert(0, os.path.abspath(__file__).rsplit("/cuboid/", 1)[0])  # noqa: PTH100

from cuboid.lib.linux import mount, prctl

TUNSETIFF, IFF_TAP, IFF_NO_PI, IFF_VNET_HDR = 0x400454CA, 0x0002, 0x1000, 0x4000
FIRST_FD = 3  # the VMM finds the plan's descriptors from here on, then the taps, in order
PARKED_FDS = 400  # above every number that is given out
EXEC_FAILED = 127


class Plan(TypedDict):
    """What the driver decided. All paths are the host's."""

    root: str  # an empty folder; the private root is mounted there, in a namespace that only the VMM sees
    root_size: int  # bytes that the private root can hold
    binds: list[tuple[str, str]]  # (host path, path in the jail), read-only
    links: list[tuple[str, str]]  # (target, path in the jail)
    netns: str  # "" for a new, empty one
    taps: list[str]  # opened inside the network namespace
    cgroups: list[str]  # cgroup.procs files
    fds: list[int]  # become FIRST_FD, FIRST_FD + 1, …
    stderr: int  # descriptor that the VMM's own messages go to
    uid: int
    max_processes: int
    max_files: int
    pid_file: str
    argv: list[str]


def main(plan: Plan) -> None:
    for procs in plan["cgroups"]:
        _write(procs, b"0")
    if plan["netns"]:
        mount.enter_namespace(plan["netns"])
    else:
        mount.unshare(mount.CLONE_NEWNET)
    taps = [_open_tap(name) for name in plan["taps"]]
    pid_file = os.open(plan["pid_file"], os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC, 0o600)
    mount.unshare(mount.CLONE_NEWNS | mount.CLONE_NEWPID | mount.CLONE_NEWIPC | mount.CLONE_NEWUTS)
    _build_root(plan)
    gate_out, gate_in = os.pipe()
    pid = os.fork()
    if pid == 0:
        os.close(gate_in)
        _become_vmm(plan, gate_out, taps)
    os.write(pid_file, str(pid).encode())
    os.write(gate_in, b"g")  # only a VMM whose pid is on record may run
    os.write(1, str(pid).encode())


def _write(path: str, data: bytes) -> None:
    descriptor = os.open(path, os.O_WRONLY | os.O_CLOEXEC)
    try:
        os.write(descriptor, data)
    finally:
        os.close(descriptor)


def _open_tap(name: str) -> int:
    descriptor = os.open("/dev/net/tun", os.O_RDWR | os.O_NONBLOCK | os.O_CLOEXEC)
    request = struct.pack("16sH22x", name.encode(), IFF_TAP | IFF_NO_PI | IFF_VNET_HDR)
    try:
        fcntl.ioctl(descriptor, TUNSETIFF, request)
    except OSError as error:
        raise OSError(error.errno, f"cannot open the tap {name}: {error.strerror}") from error
    return descriptor


def _build_root(plan: Plan) -> None:
    """A tmpfs with the bind mounts; it belongs to root, so the VMM can write nowhere in it."""
    root = plan["root"]
    mount.make_private()
    options = f"size={plan['root_size']},nr_inodes=128,mode=755"
    mount.mount("tmpfs", root, "tmpfs", mount.MS_NOSUID | mount.MS_NODEV, options)
    for source, inside in plan["binds"]:
        _bind(source, root + inside)
    for target, inside in plan["links"]:
        _parents(root + inside)
        os.symlink(target, root + inside)  # noqa: PTH211
    mount.mount("none", root, "", mount.MS_REMOUNT | mount.MS_BIND | mount.MS_RDONLY | mount.MS_NOSUID | mount.MS_NODEV)
    mount.pivot_into(root)


def _bind(source: str, target: str) -> None:
    device = source.startswith("/dev/")
    if os.path.isdir(source):  # noqa: PTH112
        os.makedirs(target, 0o755, exist_ok=True)  # noqa: PTH103
    else:
        _parents(target)
        os.close(os.open(target, os.O_CREAT | os.O_WRONLY | os.O_CLOEXEC, 0o644))
    flags = mount.MS_NOSUID | (0 if device else mount.MS_RDONLY | mount.MS_NODEV)
    mount.bind(source, target, flags)


def _parents(path: str) -> None:
    os.makedirs(path.rpartition("/")[0], 0o755, exist_ok=True)  # noqa: PTH103


def _become_vmm(plan: Plan, gate: int, taps: list[int]) -> NoReturn:
    """In the child, PID 1 of the new namespace. Ends in the VMM or with a sentence on the VMM's log."""
    if os.read(gate, 1) != b"g":
        os._exit(EXEC_FAILED)  # the launcher died before it wrote the pid down
    os.dup2(plan["stderr"], 2)
    try:
        os.setsid()
        with open("/dev/null", "r+b", buffering=0) as null:  # noqa: PTH123
            os.dup2(null.fileno(), 0)
            os.dup2(null.fileno(), 1)
        _arrange_descriptors([*plan["fds"], *taps])
        os.umask(0o077)
        prctl.lower_limit(resource.RLIMIT_CORE, 0)
        prctl.lower_limit(resource.RLIMIT_NOFILE, plan["max_files"])
        prctl.lower_limit(resource.RLIMIT_NPROC, plan["max_processes"])
        prctl.lower_limit(resource.RLIMIT_MEMLOCK, 0)
        prctl.become(plan["uid"], plan["uid"])
        os.execve(plan["argv"][0], plan["argv"], {"LC_ALL": "C.UTF-8", "PATH": "/usr/bin"})  # noqa: S606
    except OSError as error:
        os.write(2, f"cannot become the VMM: {error}\n".encode())
    os._exit(EXEC_FAILED)


def _arrange_descriptors(descriptors: list[int]) -> None:
    """Give them the numbers from FIRST_FD on and close everything else."""
    parked = [fcntl.fcntl(number, fcntl.F_DUPFD_CLOEXEC, PARKED_FDS) for number in descriptors]
    for index, number in enumerate(parked):
        os.dup2(number, FIRST_FD + index, inheritable=True)
    os.closerange(FIRST_FD + len(parked), _descriptor_end())


def _descriptor_end() -> int:
    return min(resource.getrlimit(resource.RLIMIT_NOFILE)[0], 1 << 20)


if __name__ == "__main__":
    try:
        main(json.loads(sys.argv[1]))
    except OSError as failure:
        name = errno.errorcode.get(failure.errno or 0, "?")
        sys.stderr.write(f"{failure.strerror or failure} [{name}] {failure.filename or ''}\n")
        sys.exit(1)
