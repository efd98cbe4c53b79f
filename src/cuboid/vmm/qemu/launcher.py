"""Turns itself into a jailed VMM: run as `python -I -S -c START WORD…` with the words of a `plan.Plan`.

It starts as root, joins the VM's cgroups, enters its network namespace, makes new mount, PID, IPC and UTS namespaces
with a root that holds nothing but what the VMM reads, gives up every privilege and executes the VMM, which becomes
PID 1 of its namespace. The launcher itself ends: no process but the VMM stays. Its output is the VMM's pid on the host.

Imports as little as it can (no pathlib, json, typing): its start-up time is part of every pod's.
"""

from __future__ import annotations

import errno
import fcntl
import os
import resource
import sys

from cuboid.lib.linux import mount, prctl

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import NoReturn

# `-I` leaves the package out of the path. Imported, not executed: only what is imported is kept compiled (5 ms).
START = f"""import sys
sys.path.insert(0, {os.path.abspath(__file__).rsplit("/cuboid/", 1)[0]!r})
from cuboid.vmm.qemu import launcher
launcher.run(sys.argv[1:])"""  # noqa: PTH100
TUNSETIFF, IFF_TAP, IFF_NO_PI, IFF_VNET_HDR = 0x400454CA, 0x0002, 0x1000, 0x4000
FIRST_FD = 3  # the VMM finds the plan's descriptors from here on, then the taps, in order
PARKED_FDS = 400  # above every number that is given out
EXEC_FAILED = 127

Words = dict[str, list[str]]


def parse(words: list[str]) -> Words:
    """`key value key value … -- argv`: each key's values in order; the command line is under "argv"."""
    end = words.index("--")
    found: Words = {"argv": words[end + 1 :]}
    for key, value in zip(words[0:end:2], words[1:end:2], strict=True):
        found.setdefault(key, []).append(value)
    return found


def main(plan: Words) -> None:
    for procs in plan.get("cgroup", ()):
        _write(procs, b"0")
    if plan["netns"][0]:
        mount.enter_namespace(plan["netns"][0])
    else:
        mount.unshare(mount.CLONE_NEWNET)
    taps = [_open_tap(name) for name in plan.get("tap", ())]
    pid_file = os.open(plan["pid_file"][0], os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC, 0o600)
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
    flags = IFF_TAP | IFF_NO_PI | IFF_VNET_HDR
    request = name.encode().ljust(16, b"\0") + flags.to_bytes(2, "little") + bytes(22)  # struct ifreq
    try:
        fcntl.ioctl(descriptor, TUNSETIFF, request)
    except OSError as error:
        raise OSError(error.errno, f"cannot open the tap {name}: {error.strerror}") from error
    return descriptor


def _build_root(plan: Words) -> None:
    """A tmpfs with the bind mounts; it is read-only and root's, so the VMM can write nowhere in it."""
    root = plan["root"][0]
    mount.make_private()
    options = f"size={plan['root_size'][0]},nr_inodes=128,mode=755"
    mount.mount("tmpfs", root, "tmpfs", mount.MS_NOSUID | mount.MS_NODEV, options)
    for source, inside in zip(plan["bind_from"], plan["bind_to"], strict=True):
        _bind(source, root + inside, mount.MS_RDONLY)
    for source, inside in zip(plan.get("writable_from", ()), plan.get("writable_to", ()), strict=True):
        _bind(source, root + inside, 0)
    for target, inside in zip(plan["link_from"], plan["link_to"], strict=True):
        _parents(root + inside)
        os.symlink(target, root + inside)  # noqa: PTH211
    mount.mount("none", root, "", mount.MS_REMOUNT | mount.MS_BIND | mount.MS_RDONLY | mount.MS_NOSUID | mount.MS_NODEV)
    mount.pivot_into(root)


def _bind(source: str, target: str, access: int) -> None:
    if os.path.isdir(source):  # noqa: PTH112
        os.makedirs(target, 0o755, exist_ok=True)  # noqa: PTH103
    else:
        _parents(target)
        os.close(os.open(target, os.O_CREAT | os.O_WRONLY | os.O_CLOEXEC, 0o644))
    device = source.startswith("/dev/")
    mount.bind(source, target, mount.MS_NOSUID | (0 if device else access | mount.MS_NODEV))


def _parents(path: str) -> None:
    os.makedirs(path.rpartition("/")[0], 0o755, exist_ok=True)  # noqa: PTH103


def _become_vmm(plan: Words, gate: int, taps: list[int]) -> NoReturn:
    """In the child, PID 1 of the new namespace. Ends in the VMM or with a sentence on the VMM's log."""
    if os.read(gate, 1) != b"g":
        os._exit(EXEC_FAILED)  # the launcher died before it wrote the pid down
    os.dup2(int(plan["stderr"][0]), 2)
    try:
        os.setsid()
        null = os.open("/dev/null", os.O_RDWR | os.O_CLOEXEC)
        os.dup2(null, 0)
        os.dup2(null, 1)
        _arrange_descriptors([*(int(number) for number in plan["fd"]), *taps])
        _lower_limits(plan)
        uid = int(plan["uid"][0])
        prctl.become(uid, uid)
        environment = {"LC_ALL": "C.UTF-8", "PATH": "/usr/bin"}
        if plan["preload"][0]:
            environment["LD_PRELOAD"] = plan["preload"][0]
        os.execve(plan["argv"][0], plan["argv"], environment)  # noqa: S606
    except OSError as error:
        os.write(2, f"cannot become the VMM: {error}\n".encode())
    os._exit(EXEC_FAILED)


def _arrange_descriptors(descriptors: list[int]) -> None:
    """Give them the numbers from FIRST_FD on and close everything else."""
    parked = [fcntl.fcntl(number, fcntl.F_DUPFD_CLOEXEC, PARKED_FDS) for number in descriptors]
    for index, number in enumerate(parked):
        os.dup2(number, FIRST_FD + index, inheritable=True)
    os.closerange(FIRST_FD + len(parked), 1 << 20)


def _lower_limits(plan: Words) -> None:
    os.umask(0o077)
    prctl.lower_limit(resource.RLIMIT_CORE, 0)
    prctl.lower_limit(resource.RLIMIT_NOFILE, int(plan["max_files"][0]))
    prctl.lower_limit(resource.RLIMIT_NPROC, int(plan["max_processes"][0]))
    prctl.lower_limit(resource.RLIMIT_MEMLOCK, 0)


def run(words: list[str]) -> None:
    try:
        main(parse(words))
    except OSError as failure:
        name = errno.errorcode.get(failure.errno or 0, "?")
        sys.stderr.write(f"{failure.strerror or failure} [{name}] {failure.filename or ''}\n")
        sys.exit(1)
