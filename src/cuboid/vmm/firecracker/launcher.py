"""Gives the jailer a place of its own and runs it: what Firecracker's jailer takes for granted or leaves to others.

Run as `python -I -S -c START WORDS -- JAILER ARGUMENTS` by the driver, as root. Makes network (unless the jailer
joins one), mount, IPC and UTS namespaces, a small private tmpfs on which the jailer builds its root, and in it the
empty files over which the driver mounts what the VM may have. Then it runs the jailer, which leaves Firecracker behind
in a new PID namespace, and prints Firecracker's pid.

Light on purpose: every import is paid for at every start of a VM.
"""

from __future__ import annotations

import os
import resource
import signal
import sys

from cuboid.lib.linux import libc, mount, prctl

# `-I` leaves the package out of the path. Imported, not executed: only what is imported is kept compiled.
START = f"""import sys
sys.path.insert(0, {os.path.abspath(__file__).rsplit("/cuboid/", 1)[0]!r})
from cuboid.vmm.firecracker import launcher
launcher.run(sys.argv[1:])"""  # noqa: PTH100
EXEC_FAILED = 127
PR_SET_PDEATHSIG = 1
STUB_BYTES = 4096  # size of an empty disk slot
SHARED_FOLDERS = ("boot", "disks", "snapshot")  # root's: the VMM cannot move what is mounted in them

Words = dict[str, list[str]]


def parse(words: list[str]) -> Words:
    """`key value key value … -- argv`: each key's values in order; the command line is under "argv"."""
    end = words.index("--")
    found: Words = {"argv": words[end + 1 :]}
    for key, value in zip(words[0:end:2], words[1:end:2], strict=True):
        found.setdefault(key, []).append(value)
    return found


def main(plan: Words) -> int:
    flags = mount.CLONE_NEWNS | mount.CLONE_NEWIPC | mount.CLONE_NEWUTS
    mount.unshare(flags | (0 if "--netns" in plan["argv"] else mount.CLONE_NEWNET))
    mount.make_private()
    base, root, uid = plan["base"][0], plan["root"][0], int(plan["uid"][0])
    options = f"size={plan['size'][0]},nr_inodes=256,mode=711"
    mount.mount("tmpfs", base, "tmpfs", mount.MS_NOSUID, options)  # devices and programs are in it: the jailer's
    _fill(root, uid, plan.get("file", []), plan.get("slot", []))
    code = _run_jailer(plan)
    if code != 0:
        os.write(2, f"the jailer ended with code {code}\n".encode())
        return 1
    os.chown(root, 0, 0)  # the jailer gave it to the VMM, which could move the folders in it then
    os.chmod(root, 0o755)  # noqa: PTH101, S103 - the VMM has to go through it
    with open(plan["written"][0], "rb") as file:  # noqa: PTH123
        pid = file.read(16)
    _record(plan["pid_file"][0], pid)
    os.write(1, pid)
    return 0


def _fill(root: str, uid: int, files: list[str], slots: list[str]) -> None:
    """Folders and mount points. Slots hold zeros and belong to the VMM; everything else is root's."""
    os.makedirs(f"{root}/run", 0o755)  # noqa: PTH103
    for name in SHARED_FOLDERS:
        os.mkdir(f"{root}/{name}", 0o755)  # noqa: PTH102
    for inside in files:
        os.close(os.open(root + inside, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600))
    for inside in slots:
        descriptor = os.open(root + inside, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
        os.ftruncate(descriptor, STUB_BYTES)
        os.fchown(descriptor, uid, uid)
        os.close(descriptor)
    os.mknod(f"{root}/run/log", 0o100600)
    os.mkfifo(f"{root}/run/metrics", 0o600)  # what nobody reads stays bounded in a pipe
    for name in ("log", "metrics"):
        os.chown(f"{root}/run/{name}", uid, uid)


def _run_jailer(plan: Words) -> int:
    """Its exit code, after it has left Firecracker behind."""
    launcher = os.getpid()
    pid = os.fork()
    if pid == 0:
        try:
            libc.call("prctl", PR_SET_PDEATHSIG, signal.SIGKILL, 0, 0, 0)  # the VMM behind it does not inherit this
            if os.getppid() != launcher:
                os._exit(EXEC_FAILED)
            os.setsid()
            null = os.open("/dev/null", os.O_RDWR | os.O_CLOEXEC)
            for number, descriptor in ((0, null), (1, int(plan["stdout"][0])), (2, int(plan["stderr"][0]))):
                os.dup2(descriptor, number)
            os.umask(0o077)
            prctl.lower_limit(resource.RLIMIT_CORE, 0)
            prctl.lower_limit(resource.RLIMIT_NPROC, int(plan["max_processes"][0]))
            libc.call("prctl", prctl.PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0)
            os.execve(plan["argv"][0], plan["argv"], {"LC_ALL": "C.UTF-8", "PATH": "/usr/bin"})  # noqa: S606
        except OSError as error:
            os.write(2, f"cannot run the jailer: {error}\n".encode())
        os._exit(EXEC_FAILED)
    _, status = os.waitpid(pid, 0)
    return os.waitstatus_to_exitcode(status)


def _record(path: str, pid: bytes) -> None:
    descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC, 0o600)
    os.write(descriptor, pid)
    os.close(descriptor)


def run(words: list[str]) -> None:
    try:
        sys.exit(main(parse(words)))
    except OSError as failure:
        sys.stderr.write(f"{failure.strerror or failure} {failure.filename or ''}\n")
        sys.exit(1)
